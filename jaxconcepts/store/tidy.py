"""Measured arrays with named axes as rows of the metrics table, of many runs at once.

An array says what it is (`Named` has values, axes, means, names and brief; see `training.experiment`): every entry
becomes a row with its place along each axis in the axis' column, and the mean over an axis a row with nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from jaxconcepts.store.tables import METRICS, QUANTITIES

COLUMNS = ("layer", "token", "concept", "position", "label")
"""The columns that an axis may fill."""
TEXT = ("token", "label")


def rows(runs: Sequence[str], step: int, measured: Mapping[str, Any], detail: str = "full") -> pl.DataFrame:
    """All rows of a measurement, in `METRICS`' columns.

    runs: names, along the first axis of every array's values (which its `axes` do not name). measured: by metric, or
    "metric/label". detail: "full" keeps every entry; "summary", for very many runs, what `brief` says: "concepts" keeps
    of positions the last and the mean, and by concept what is at the first token; "mean" the mean over everything.
    """
    return pl.concat([pl.DataFrame(schema=METRICS), *(_of(runs, step, *item, detail) for item in measured.items())])


def scalars(runs: Sequence[str], step: int, metric: str, values) -> pl.DataFrame:
    """One row a run, with nothing in the columns of axes."""
    return _frame(runs, step, metric, np.asarray(values)[:, None], {})


def quantities(runs: Sequence[str], about: Sequence[tuple[str, str, float | None]]) -> pl.DataFrame:
    """(metric or "metric/label", unit, chance) of every run, in `QUANTITIES`' columns."""
    keys = [key.partition("/") for key, _, _ in about]
    of_one = [(metric, label or None, *of[1:]) for (metric, _, label), of in zip(keys, about, strict=True)]
    return pl.DataFrame([(run, *of) for run in runs for of in of_one], QUANTITIES, orient="row")


def entries(values, axes: Mapping[str, Sequence], **constant) -> pl.DataFrame:
    """A row for each entry of one array of numbers, which `axes` names and labels; constant: columns of one value."""
    values = np.asarray(values, np.float64)
    index = np.indices(values.shape).reshape(values.ndim, values.size)
    columns = {name: np.array(labels)[place] for (name, labels), place in zip(axes.items(), index, strict=True)}
    frame = pl.DataFrame(columns | {"value": values.reshape(-1)})
    return frame.with_columns(*(pl.lit(value).alias(name) for name, value in constant.items()))


def _of(runs, step, key, named, detail):
    metric, _, label = key.partition("/")
    values = np.asarray(named.values)
    for axis in named.means:
        # The first mean has the values' precision, what follows float64.
        place = 1 + named.axes.index(axis)
        values = np.concatenate([values, values.mean(place, keepdims=True)], axis=place).astype(np.float64)
    each = int(np.prod(values.shape[1:]))
    index = dict(zip(named.axes, np.indices(values.shape[1:]).reshape(len(named.axes), each), strict=True))
    last = {axis: values.shape[1 + place] - 1 for place, axis in enumerate(named.axes)}
    kept = np.ones(each, bool)
    if detail == "summary":
        kept = _in_summary(named, index, last, kept)
    names = dict(named.names)
    columns = {}
    for axis, at in index.items():
        texts = names.get(axis)
        entries = [None if axis in named.means and i == last[axis] else i for i in at[kept].tolist()]
        columns[axis] = entries if texts is None else [None if i is None else texts[i] for i in entries]
    if label:
        parts = columns.get("label", [None] * int(kept.sum()))
        columns["label"] = [label if part is None else f"{label} {part}" for part in parts]
    return _frame(runs, step, metric, values.reshape(len(runs), each)[:, kept], columns)


def _in_summary(named, index, last, kept):
    mean = {axis: index[axis] == last[axis] for axis in named.means}
    if named.brief == "mean":
        for axis in named.means:
            kept = kept & mean[axis]
        return kept
    if "position" in mean:
        kept = kept & (index["position"] >= last["position"] - 1)
    if "concept" in mean and "token" in index:
        kept = kept & ((index["token"] == 0) | mean["concept"])
    return kept


def _frame(runs, step, metric, values, columns) -> pl.DataFrame:
    """values: [R, entries]; columns: lists as long as one run's values."""
    values = np.asarray(values, np.float64)
    each = values.shape[1]
    one = pl.DataFrame(
        {name: columns.get(name, [None] * each) for name in COLUMNS},
        schema={name: METRICS[name] for name in COLUMNS},
    )
    repeated = pl.concat([one] * len(runs)) if len(runs) else one.clear()
    return repeated.with_columns(
        pl.Series("run", np.repeat(np.asarray(runs, object), each).tolist(), pl.String),
        pl.lit(step, pl.Int64).alias("step"),
        pl.lit(metric, pl.String).alias("metric"),
        pl.Series("value", values.ravel()),
    ).select(METRICS.names())
