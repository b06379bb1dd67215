"""Measured arrays of the synthetic study as rows of the metrics table, of many runs at once.

Every function takes the runs' names and arrays with a leading axis of runs. detail: "full" gives every concept,
position, layer and token; "summary", for sweeps of very many runs, keeps per concept the mean over positions and the
last position (the references: the same), the distances as one number, and CD by concept at the first token only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float

from jaxconcepts.store import METRICS


def by_concept_and_position(
    runs: Sequence[str], step: int, metric: str, values: Float[np.ndarray, "R K n"], detail: str = "full"
) -> pl.DataFrame:
    """A row for each concept and for all (null), at each position and for their mean (null)."""
    _, concepts, positions = values.shape
    full = np.full((len(runs), concepts + 1, positions + 1), np.nan)
    full[:, :-1, :-1] = values
    full[:, -1, :-1] = values.mean(1)
    full[:, :, -1] = full[:, :, :-1].mean(2)
    concept, position = np.arange(concepts + 1), np.arange(positions + 1)
    if detail == "summary":
        position = position[-2:]
        if metric.startswith("distance_"):
            concept, position = concept[-1:], position[-1:]
    chosen = full[:, concept[:, None], position]
    columns = {
        "concept": _null_last(np.repeat(concept, len(position)), concepts),
        "position": _null_last(np.tile(position, len(concept)), positions),
    }
    return _frame(runs, step, metric, chosen, columns)


def decodability(
    runs: Sequence[str], step: int, values: Float[np.ndarray, "R tokens layers K"], tokens, detail: str = "full"
) -> pl.DataFrame:
    """Metric "cd": a row for each token, layer and concept, and for all concepts (null)."""
    _, count, layers, concepts = values.shape
    full = np.concatenate([values, values.mean(-1, keepdims=True)], axis=-1)
    token, layer, concept = np.indices(full.shape[1:]).reshape(3, -1)
    kept = np.flatnonzero((detail == "full") | (token == 0) | (concept == concepts))
    columns = {
        "token": [tokens[t] for t in token[kept]],
        "layer": layer[kept].tolist(),
        "concept": _null_last(concept[kept], concepts),
    }
    return _frame(runs, step, "cd", full.reshape(len(runs), -1)[:, kept], columns)


def scalars(runs: Sequence[str], step: int, metric: str, values: Float[np.ndarray, " R"]) -> pl.DataFrame:
    """One row a run without layer, token, concept or position."""
    return _frame(runs, step, metric, np.asarray(values)[:, None], {})


def measurement(
    runs: Sequence[str], step: int, measured: Mapping[str, np.ndarray], tokens, detail: str = "full"
) -> pl.DataFrame:
    """All rows of a measurement: "cd" as [R, tokens, layers, K], everything else as [R, K, n]."""
    return pl.concat(
        decodability(runs, step, values, tokens, detail)
        if metric == "cd"
        else by_concept_and_position(runs, step, metric, values, detail)
        for metric, values in measured.items()
    )


def _null_last(index: np.ndarray, last: int) -> list[int | None]:
    return [None if i == last else i for i in index.tolist()]


def _frame(runs, step, metric, values, columns) -> pl.DataFrame:
    """values: [R, ...]; columns: lists as long as one run's values."""
    values = np.asarray(values, np.float64).reshape(len(runs), -1)
    each = values.shape[1]
    one = pl.DataFrame(
        {name: columns.get(name, [None] * each) for name in ("layer", "token", "concept", "position")},
        schema={name: METRICS[name] for name in ("layer", "token", "concept", "position")},
    )
    repeated = pl.concat([one] * len(runs)) if len(runs) else one.clear()
    return repeated.with_columns(
        pl.Series("run", np.repeat(np.asarray(runs, object), each).tolist(), pl.String),
        pl.lit(step, pl.Int64).alias("step"),
        pl.lit(metric, pl.String).alias("metric"),
        pl.Series("value", values.ravel()),
    ).select(METRICS.names())
