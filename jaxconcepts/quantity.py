"""A number of a run, computed from its rows of the metrics table. Claims compare it, and searches optimise it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Quantity:
    """A number of a run, from its rows of the metrics table.

    metric: the name of the metric.
    where: columns (layer, token, concept, position, label, ...) and the value, or list of values, that a row must have.
        None means an empty cell.
    at: "last" for the last measured step; "best" for the best step (the largest value, or the smallest if `reduce` is
        "min"); or a step.
    reduce: "mean", "max" or "min" over the remaining rows.

    Raises ValueError for another `at` or `reduce`.
    """

    metric: str
    where: Mapping[str, Any] = field(default_factory=dict)
    at: str | int = "last"
    reduce: str = "mean"

    def __post_init__(self):
        if self.at not in ("last", "best") and (isinstance(self.at, bool) or not isinstance(self.at, int)):
            raise ValueError(f'quantity.at must be "last", "best" or a step, got {self.at!r}')
        if self.reduce not in ("mean", "max", "min"):
            raise ValueError(f"quantity.reduce must be mean, max or min, got {self.reduce!r}")


def by_run(quantity: Quantity, metrics: pl.DataFrame) -> pl.DataFrame:
    """The quantity of every run that has it: columns run and value. metrics: as `jaxconcepts.store` reads them.

    Raises ValueError for a column of `where` that the metrics do not have.
    """
    if unknown := [name for name in quantity.where if name not in metrics.columns]:
        raise ValueError(f"quantity {quantity.metric}: the metrics have no column {unknown[0]}")
    of_metric = (matches(name, value) for name, value in quantity.where.items())
    rows = metrics.filter(pl.col("metric") == quantity.metric, *of_metric)
    if quantity.at == "last":
        rows = rows.filter(pl.col("step") == pl.col("step").max().over("run"))
    elif quantity.at != "best":
        rows = rows.filter(pl.col("step") == quantity.at)
    reduced = rows.group_by("run", "step").agg(getattr(pl.col("value"), quantity.reduce)())
    best = pl.col("value").min() if quantity.reduce == "min" else pl.col("value").max()
    return reduced.group_by("run").agg(best if quantity.at == "best" else pl.col("value").first())


def matches(name: str, value: Any) -> pl.Expr:
    """Whether a row has the value, or one of a list of values; None is an empty cell."""
    if isinstance(value, list | tuple):
        return pl.any_horizontal(*(pl.col(name).eq_missing(pl.lit(one)) for one in value))
    return pl.col(name).eq_missing(pl.lit(value))
