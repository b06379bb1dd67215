"""Measured arrays of the synthetic study as rows of the metrics table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from jaxtyping import Float

from jaxconcepts.store import METRICS


def by_concept_and_position(run: str, step: int, metric: str, values: Float[np.ndarray, "K n"]) -> pl.DataFrame:
    """A row for each concept and for all (null), at each position and for their mean (null)."""
    concepts, positions = values.shape
    full = np.full((concepts + 1, positions + 1), np.nan)
    full[:-1, :-1] = values
    full[-1, :-1] = values.mean(0)
    full[:, -1] = full[:, :-1].mean(1)
    return _frame(
        run,
        step,
        metric,
        full.ravel(),
        concept=[k if k < concepts else None for k in range(concepts + 1) for _ in range(positions + 1)],
        position=[i if i < positions else None for _ in range(concepts + 1) for i in range(positions + 1)],
    )


def decodability(run: str, step: int, values: Float[np.ndarray, "tokens layers K"], tokens) -> pl.DataFrame:
    """Metric "cd": a row for each token, layer and concept, and for all concepts (null)."""
    count, layers, concepts = values.shape
    full = np.concatenate([values, values.mean(-1, keepdims=True)], axis=-1)
    index = [(t, layer, k) for t in range(count) for layer in range(layers) for k in range(concepts + 1)]
    return _frame(
        run,
        step,
        "cd",
        full.ravel(),
        token=[tokens[t] for t, _, _ in index],
        layer=[layer for _, layer, _ in index],
        concept=[k if k < concepts else None for _, _, k in index],
    )


def scalar(run: str, step: int, metric: str, value: float) -> pl.DataFrame:
    """One row without layer, token, concept or position."""
    return _frame(run, step, metric, [value])


def measurement(run: str, step: int, measured: Mapping[str, np.ndarray], tokens) -> pl.DataFrame:
    """All rows of one run's measurement: "cd" as [tokens, layers, K], everything else as [K, n]."""
    return pl.concat(
        decodability(run, step, values, tokens)
        if metric == "cd"
        else by_concept_and_position(run, step, metric, values)
        for metric, values in measured.items()
    )


def _frame(run, step, metric, values, **columns) -> pl.DataFrame:
    values = np.asarray(values, np.float64)
    given = {"run": run, "step": step, "metric": metric, "value": values} | columns
    full = {name: given.get(name) for name in METRICS}
    return pl.DataFrame(
        {
            name: column if isinstance(column, list | np.ndarray) else [column] * len(values)
            for name, column in full.items()
        },
        schema=METRICS,
    )
