"""What a search looked for and proposed, as its run directory keeps it in search.json; and how its points did."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import polars as pl
from etils import epath
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxconcepts.figures import style
from jaxconcepts.figures.section import Entry
from jaxconcepts.figures.tables import MissingData, Study
from jaxconcepts.quantity import Quantity, by_run
from jaxconcepts.store import files

FILE = "search.json"


class Aim(NamedTuple):
    """quantity, maximized: what a search looked for. runs: of each proposal, in order. rounds: how many proposals each
    round had."""

    quantity: Quantity
    maximized: bool
    runs: list[list[str]]
    rounds: list[int]

    @property
    def label(self) -> str:
        """The quantity in a word or two."""
        return self.quantity.metric.replace("_", " ")

    def values(self, study: Study) -> pl.DataFrame:
        """Columns run and value, of the runs that are done."""
        done = study.runs.filter(pl.col("status") == "done").select("run")
        return by_run(self.quantity, study.metrics).join(done, on="run")


def read(root: epath.Path) -> Aim | None:
    """The search of a run directory, None where there is none."""
    if not (root / FILE).exists():
        return None
    with files.naming(root / FILE):
        content = files.read_json(root / FILE)
        rounds = [len(part) for part in content["rounds"]]
        runs = [list(map(str, part)) for part in content["runs"]]
        return Aim(Quantity(**content["quantity"]), content["goal"] == "maximize", runs, rounds)


@style.styled
def course(study: Study, aim: Aim) -> Figure:
    """What each point gave, in the order in which they were proposed, and the best so far."""
    known = dict(aim.values(study).iter_rows())
    each = [np.mean([known.get(run, math.nan) for run in runs]) for runs in aim.runs]
    places = np.flatnonzero(np.isfinite(each))
    means = np.array(each)[places]
    if not places.size:
        raise MissingData(f"no {aim.label} of a point that is done")
    figure = Figure(figsize=(style.ONE_COLUMN * 1.3, 2.4), layout="constrained")
    axis = figure.subplots()
    best = (np.maximum if aim.maximized else np.minimum).accumulate(means)
    axis.scatter(places + 1, means, s=12, linewidth=0, color=style.MODEL_COLOR, label="a point", gid="search/points")
    axis.step(places + 1, best, where="post", color=style.BEST_COLOR, label="best so far", gid="search/best")
    for end in np.cumsum(aim.rounds)[:-1]:
        axis.axvline(end + 0.5, **style.CHANCE_STYLE)
    axis.set(xlabel="point, in the order of proposal (dotted: rounds)", ylabel=aim.label)
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if means.min() > 0 and style.error_scale(means) == "log":
        style.set_error_axis(axis, means)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


ENTRY = Entry(
    "search", "Did the search find better points over time?", course,
    "A dot is a point: the mean of the optimised quantity over its seeds. The line is the best value so far. Dotted "
    "lines separate the rounds. All earlier rounds decide the points of a round. A point with a diverged run has no "
    "dot.",
)  # fmt: skip
