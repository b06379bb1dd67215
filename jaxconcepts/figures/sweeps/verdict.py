"""What came out of a sweep in words, and its best points, each a setting with its seeds together."""

from __future__ import annotations

import numpy as np
import polars as pl

from jaxconcepts.figures.section import Table
from jaxconcepts.figures.sweeps.search import Aim
from jaxconcepts.figures.sweeps.tables import CD, LOSS, influence, outcomes, short, swept
from jaxconcepts.figures.tables import Study
from jaxconcepts.intervals import mean_interval

MOST_POINTS = 10
NOTE = (
    "The settings with the {best}, means over seeds with the 95 % t interval of the mean where there are at least two. "
    "The best of many is better than it would be again: train it with other seeds. Runs that diverged are left out; "
    "seeds counts the others."
)


def best_points(study: Study, aim: Aim | None = None) -> pl.DataFrame:
    """A row a setting of the swept fields but the seed, the best mean first: the fields, "seeds", and lists of the
    seeds' values under the name of what a search looked for (`aim`), `LOSS` and `CD`. Diverged runs are left out.

    The best is the least loss, or what the search calls so.
    """
    names = [field.name for field in swept(study) if field.name != "seed"]
    by = LOSS if aim is None else f"{aim.label} (searched)"
    known = outcomes(study)
    if aim is not None:
        known = known.join(aim.values(study).rename({"value": by}), on="run")
    metrics = dict.fromkeys((by, LOSS, CD))
    points = (
        known.filter(pl.col(by).is_finite()).group_by(names, maintain_order=True).agg(pl.len().alias("seeds"), *metrics)
    )
    maximized = aim is not None and aim.maximized
    return points.sort(pl.col(by).list.mean(), maintain_order=True, descending=maximized)


def best_table(study: Study, aim: Aim | None = None) -> Table:
    """The first of `best_points`."""
    points = best_points(study, aim)
    names, metrics = _columns(points)
    labels = {field.name: field.label for field in swept(study)}
    rows = [
        [short(row[name]) for name in names] + [str(row["seeds"])] + [_mean(row[metric]) for metric in metrics]
        for row in points.head(MOST_POINTS).iter_rows(named=True)
    ]
    header = [*(labels[name] for name in names), "seeds", *metrics]
    return Table("best-points", header, rows, note=NOTE.format(best=_best(aim)))


def sentences(study: Study, aim: Aim | None = None) -> list[str]:
    """The range of the outcomes, what they depend on most, and the best point. aim: of a search."""
    table, points = outcomes(study), best_points(study, aim)
    lines = []
    for metric in (CD, LOSS):
        values = table[metric].drop_nulls()
        if len(values):
            low, middle, high = (f"{value:.2g}" for value in (values.min(), values.median(), values.max()))
            share, label = max((influence(table, field, metric), field.label) for field in swept(study))
            depends = f"; most of it by {label} ({share:.0%} of the variance)" if share > 0.05 else ""
            lines.append(f"{metric} of {len(values)} runs: from {low} to {high}, median {middle}{depends}.")
    if points.height:
        best = points.row(0, named=True)
        names, metrics = _columns(points)
        labels = {field.name: field.label for field in swept(study)}
        setting = ", ".join(f"{labels[name]} {short(best[name])}" for name in names)
        values = ", ".join(f"{metric} {_mean(best[metric])}" for metric in metrics)
        lines.append(f"{_best(aim).capitalize()}: {setting}: {values}, {best['seeds']} seed(s).")
    return lines


def _columns(points: pl.DataFrame) -> tuple[list[str], list[str]]:
    """The fields' names, and those of the outcomes."""
    seeds = points.columns.index("seeds")
    return points.columns[:seeds], points.columns[seeds + 1 :]


def _best(aim: Aim | None) -> str:
    return "least loss at the last position" if aim is None else f"{'most' if aim.maximized else 'least'} {aim.label}"


def _mean(values: list[float | None]) -> str:
    known = np.array([value for value in values if value is not None], float)
    if not known.size:
        return "–"
    low_high = " [{:.3g}, {:.3g}]".format(*mean_interval(known)) if known.size > 1 else ""
    return f"{known.mean():.3g}{low_high}"
