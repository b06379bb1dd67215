"""What came out of a sweep in words, and its best points, each a setting with its seeds together."""

from __future__ import annotations

import numpy as np
import polars as pl

from jaxconcepts.figures.section import Table
from jaxconcepts.figures.sweeps.tables import CD, LOSS, Field, influence, outcomes, short, swept
from jaxconcepts.figures.tables import Study
from jaxconcepts.intervals import mean_interval

MOST_POINTS = 10
NOTE = (
    "The settings with the least loss at the last position, means over seeds with the 95 % t interval of the mean "
    "where there are at least two. The best of many is better than it would be again: train it with other seeds."
)


def best_points(study: Study) -> pl.DataFrame:
    """A row a setting of the swept fields but the seed, the least mean loss first: the fields, "seeds", and under
    `LOSS` and `CD` lists of the seeds' losses and CDs. Diverged runs are left out."""
    names = [field.name for field in swept(study) if field.name != "seed"]
    known = outcomes(study).filter(pl.col(LOSS).is_not_null())
    points = known.group_by(names, maintain_order=True).agg(pl.len().alias("seeds"), LOSS, CD)
    return points.sort(pl.col(LOSS).list.mean(), maintain_order=True)


def best_table(study: Study) -> Table:
    """The first of `best_points`."""
    points = best_points(study)
    names = [name for name in points.columns if name not in ("seeds", LOSS, CD)]
    rows = [
        [short(row[name]) for name in names] + [str(row["seeds"]), _mean(row[LOSS]), _mean(row[CD])]
        for row in points.head(MOST_POINTS).iter_rows(named=True)
    ]
    return Table("best-points", [*(Field(n, [], True, False).label for n in names), "seeds", LOSS, CD], rows, note=NOTE)


def sentences(study: Study) -> list[str]:
    """The range of the outcomes, what they depend on most, and the best point."""
    table, points = outcomes(study), best_points(study)
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
        names = [name for name in points.columns if name not in ("seeds", LOSS, CD)]
        setting = ", ".join(f"{Field(name, [], True, False).label} {short(best[name])}" for name in names)
        lines.append(f"Least loss: {setting}: {_mean(best[LOSS])}, CD {_mean(best[CD])}, {best['seeds']} seed(s).")
    return lines


def _mean(values: list[float | None]) -> str:
    known = np.array([value for value in values if value is not None], float)
    if not known.size:
        return "–"
    low_high = " [{:.3g}, {:.3g}]".format(*mean_interval(known)) if known.size > 1 else ""
    return f"{known.mean():.3g}{low_high}"
