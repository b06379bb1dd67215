"""What the sweep figures read: which fields were swept, each run's outcome, and when each concept emerged.

Works on whole tables at once, for thousands of runs. Losses are divided by the rank r of the bases.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from jaxconcepts.figures.tables import MissingData, Study, short_names

LOSS, CD = "loss / r", "best-layer CD"
LEAST_DROP = 0.1
"""Of its start, what a loss must fall by to have a half-way mark."""
LEAST_RISE = 0.1
"""What a CD must rise by to have one."""


class Field(NamedTuple):
    """A swept field: dotted name, and its values in order. number: they are numbers, on a log scale where `log`.
    label: what it is called."""

    name: str
    values: list
    number: bool
    log: bool
    label: str = ""

    def places(self, column: pl.Series) -> np.ndarray:
        """Where a run's value lies on the axis: the number itself, or the place in `values`."""
        if self.number:
            return column.cast(pl.Float64).to_numpy()
        return np.array([self.values.index(value) for value in column.to_list()], float)


def swept(study: Study) -> list[Field]:
    """The fields in which the runs differ: hyper-parameters, then the seed. What is measured, and how, is left out."""
    names = [n for n in study.runs.columns if "." in n and not n.startswith("measure.")] + ["seed"]
    varied = [name for name in names if name in study.runs.columns and study.runs[name].n_unique() > 1]
    found, labels = [], short_names(varied)
    for name in varied:
        # A field that is None in some of the runs has a value more, and no scale.
        column = study.runs[name]
        values = column.unique().sort(nulls_last=True).to_list()
        # A seed is a name, and has no trend.
        number = name.rpartition(".")[2] != "seed" and column.dtype.is_numeric() and column.null_count() == 0
        number = number and bool(np.isfinite(values).all())
        log = number and values[0] > 0 and values[-1] >= 20 * values[0]
        found.append(Field(name, values, number, log, labels[name].replace("_", " ")))
    return found


def is_sweep(study: Study) -> bool:
    """Whether runs differ in more than their seed."""
    return any(field.name != "seed" for field in swept(study))


def outcomes(study: Study) -> pl.DataFrame:
    """The runs table with each run's last measurement: columns `LOSS` (all concepts, last position if stored) and `CD`
    (best layer, x token); null where not measured. Diverged runs have none: theirs are the frozen model's."""
    last = _last_position(study.metrics.filter(pl.col("metric") == "loss", pl.col("concept").is_null()))
    loss = last.sort("step").group_by("run").agg(pl.col("value").last().alias(LOSS))
    cd = study.metrics.filter(pl.col("metric") == "cd", pl.col("concept").is_null(), pl.col("token") == "x")
    best = cd.group_by("run", "step").agg(pl.col("value").max()).sort("step")
    table = study.runs.join(loss, "run", "left", maintain_order="left")
    table = table.join(best.group_by("run").agg(pl.col("value").last().alias(CD)), "run", "left", maintain_order="left")
    rank = pl.col("task.rank") if "task.rank" in table.columns else pl.lit(1.0)
    healthy = pl.col("status") != "diverged"
    return table.with_columns(
        pl.when(healthy & pl.col(LOSS).is_finite()).then(pl.col(LOSS) / rank).alias(LOSS),
        pl.when(healthy & pl.col(CD).is_finite()).then(pl.col(CD)).alias(CD),
    )


def emergence(study: Study) -> pl.DataFrame:
    """A row a run and concept: "loss_step" and "cd_step", where each first crosses the half-way mark between its first
    and its best measurement (linear between measurements); null where it never moved enough to have one.

    CD is that of the layer in which the concept is decoded best at the run's last measurement.
    """
    metrics = study.metrics.filter(pl.col("concept").is_not_null())
    loss = _last_position(metrics.filter(pl.col("metric") == "loss"))
    cd = metrics.filter(pl.col("metric") == "cd", pl.col("token") == "x").sort("step")
    final = cd.group_by("run", "concept", "layer", maintain_order=True).agg(pl.col("value").last().alias("final"))
    best = final.sort("layer").sort("final", descending=True, maintain_order=True)
    best = best.group_by("run", "concept", maintain_order=True).first().select("run", "concept", "layer")
    cd = cd.join(best, ["run", "concept", "layer"])
    tables = []
    for name, part, falls in (("loss_step", loss, True), ("cd_step", cd, False)):
        groups = part.sort("step").group_by("run", "concept", maintain_order=True).agg("step", "value")
        steps = [
            half_way(np.asarray(step, float), np.asarray(value, float), falls)
            for step, value in zip(groups["step"], groups["value"], strict=True)
        ]
        tables.append(groups.select("run", "concept").with_columns(pl.Series(name, steps, pl.Float64)))
    joined = tables[0].join(tables[1], ["run", "concept"], "full", coalesce=True)
    if not joined.height:
        raise MissingData("no loss or cd by concept in the metrics table")
    healthy = study.runs.filter(pl.col("status") != "diverged")["run"].implode()
    return joined.filter(pl.col("run").is_in(healthy)).sort("run", "concept")


def half_way(steps: np.ndarray, values: np.ndarray, falls: bool) -> float | None:
    """The step at which a curve first crosses the middle between its first and its best value, None if it hardly moves.

    A loss that falls must fall by `LEAST_DROP` of its first value, a CD must rise by `LEAST_RISE`.
    """
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    if values.size < 2:
        return None
    best = values.min() if falls else values.max()
    needed = LEAST_DROP * values[0] if falls else LEAST_RISE
    if abs(best - values[0]) < needed or (best >= values[0]) == falls:
        return None
    middle = (values[0] + best) / 2
    at = int(np.argmax(values <= middle if falls else values >= middle))
    share = (middle - values[at - 1]) / (values[at] - values[at - 1])
    return float(steps[at - 1] + share * (steps[at] - steps[at - 1]))


def influence(table: pl.DataFrame, field: Field, metric: str) -> float:
    """The share of a metric's variance that lies between the field's values (at most 8 bins of them)."""
    known = table.filter(pl.col(metric).is_not_null())
    if known.height < 3 or not (known[metric].var() or 0.0) > 0:
        return 0.0
    means = known.with_columns(pl.Series("bin", bins(field, known[field.name])[0])).select(
        pl.col(metric).mean().over("bin")
    )
    return float(means[metric].var() / known[metric].var())


def bins(field: Field, column: pl.Series, most: int = 8) -> tuple[np.ndarray, list[str]]:
    """The values in at most `most` classes: the class of each run, and the classes' labels."""
    places = field.places(column)
    if len(field.values) <= most or not field.number:
        index = {value: place for place, value in enumerate(field.values)}
        return np.array([index[value] for value in column.to_list()]), [short(value) for value in field.values]
    edges = np.unique(np.quantile(places, np.linspace(0, 1, most + 1)))
    of = np.clip(np.searchsorted(edges, places, side="right") - 1, 0, len(edges) - 2)
    return of, [f"{edges[i]:.2g} to {edges[i + 1]:.2g}" for i in range(len(edges) - 1)]


def short(value) -> str:
    """A field's value as a tick or legend shows it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _last_position(loss: pl.DataFrame) -> pl.DataFrame:
    """The rows at each run's last position; the mean over positions where none are stored."""
    by_position = loss.filter(pl.col("position").is_not_null())
    if not by_position.height:
        return loss
    return by_position.filter(pl.col("position") == pl.col("position").max().over("run"))
