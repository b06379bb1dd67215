"""What came out of trainings, before any figure: sentences computed from the tables, and the table of final numbers."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from jaxconcepts.figures import style, words
from jaxconcepts.figures.section import Table, known, number
from jaxconcepts.figures.sweeps import verdict
from jaxconcepts.figures.sweeps.search import Aim
from jaxconcepts.figures.sweeps.tables import emergence, is_sweep
from jaxconcepts.figures.tables import MissingData, Study

RUNS_IN_WORDS = 5
"""The most runs that are described in sentences; the table has them all."""

LEAST_BAYES = 1e-6
"""The least loss of the Bayes mixture, of the variance of y, that a model's is compared with."""

TABLE_NOTE = (
    "Last measurement of every run. CD is that of the best layer, at the last x token and y token, with the 95 % "
    "interval if the run measured it (`cd_interval`). The choice of the best layer makes it slightly too high if there "
    "are many layers and few points. Losses are held-out squared errors divided by r, the rank of the bases, of the "
    "model and of the references on the same sequences. “model / Bayes” is 1 for a model that is as good as the "
    "Bayes-optimal mixture. A dash: not measured. Concepts and layers count from 0 as in the tables. Layer 0 is the "
    "embeddings."
)


def sentences(study: Study, aim: Aim | None = None) -> list[str]:
    """A sentence or three a run: CD, which predictor the model follows and since when, which concept split off first.

    Of a sweep what its runs say together (aim: of a search); empty where there are more runs than `RUNS_IN_WORDS` of
    one setting.
    """
    if is_sweep(study):
        return verdict.sentences(study, aim)
    if len(study.names) > RUNS_IN_WORDS:
        return []
    try:
        splits = emergence(study)
    except MissingData:
        splits = None
    lines, last = [], {row["run"]: row for row in study.summary().iter_rows(named=True)}
    for run in study.names:
        parts = [part for part in (_cd(study, last[run]), _follows(study, run), _first(study, run, splits)) if part]
        if parts:
            lines.append(f"{study.label(run)}: {'; '.join(parts)}.")
    return lines


def _cd(study: Study, row: dict) -> str:
    if not known(row["cd"]):
        return ""
    interval = f" [{row['cd_low']:.2f}, {row['cd_high']:.2f}]" if known(row["cd_low"]) else ""
    return f"CD {row['cd']:.2f}{interval} at layer {row['cd_layer']}, chance {1 / study.num_concepts(row['run']):.2f}"


def follows(study: Study, run: str) -> tuple[str, int] | None:
    """The reference whose predictions the model's are nearest to at the end, and the step since which it is."""
    curves = {name: study.curve(run, f"distance_{name}") for name in study.references(run, "distance")}
    if not curves:
        return None
    names, steps = list(curves), next(iter(curves.values())).steps
    if not steps.size or any(curve.values.size != steps.size for curve in curves.values()):
        return None
    values = np.stack([curve.values for curve in curves.values()])
    if not np.isfinite(values).all():
        return None
    nearest = values.argmin(0)
    others = np.flatnonzero(nearest != nearest[-1])
    return names[nearest[-1]], int(steps[others[-1] + 1] if others.size else steps[0])


def _follows(study: Study, run: str) -> str:
    if (nearest := follows(study, run)) is None:
        return ""
    name, since = nearest
    return f"predictions are nearest to {style.REFERENCE_LABELS.get(name, name)} from step {words.step(since)} on"


def _first(study: Study, run: str, splits: pl.DataFrame | None) -> str:
    """The concepts in the order in which their losses fell."""
    if splits is None:
        return ""
    fallen = splits.filter(pl.col("run") == run, pl.col("loss_step").is_not_null()).sort("loss_step")
    if fallen.height < 2:
        return ""
    first, last = fallen.row(0, named=True), fallen.row(-1, named=True)
    name = study.concept_label
    return (
        f"the loss of {name(first['concept'])} fell first (half-way at step {first['loss_step']:.0f}), that of "
        f"{name(last['concept'])} last (step {last['loss_step']:.0f})"
    )


def table(study: Study) -> Table:
    """The last measurement of every run."""
    groups = (
        ("", 3),
        ("CD at x", 2),
        ("CD at y", 2),
        ("loss / r, last position", 4),
        ("loss / r, mean over positions", 4),
    )
    losses = ("model", "Bayes", "ridge", "model / Bayes")
    header = ("run", "status", "step", "best", "layer", "best", "layer", *losses, *losses)
    rows, ids = [], []
    for row in study.summary().iter_rows(named=True):
        interval = f" [{row['cd_low']:.2f}, {row['cd_high']:.2f}]" if known(row["cd_low"]) else ""
        cells = [row["label"], row["status"] or "–", number(row["step"], "d")]
        cells += [number(row["cd"], ".3f") + interval, number(row["cd_layer"], "d")]
        cells += [number(row["cd_y"], ".3f"), number(row["cd_y_layer"], "d")]
        for where in ("last", "mean"):
            cells += [number(row[f"{name}_{where}"], ".3g") for name in ("loss", "bayes", "ridge")]
            bayes = row[f"bayes_{where}"]
            # Without noise the mixture's loss is rounding, and a ratio to it says nothing.
            cells.append(number(row[f"loss_{where}"] / bayes if (bayes or 0) > LEAST_BAYES else math.nan, ".2f"))
        rows.append(cells)
        ids.append(f"run-{row['run']}")
    points = sorted({study.cd_points(run) for run in study.names} - {None})
    counted = f" CD was computed on {' or '.join(map(str, points))} sequences." if points else ""
    return Table("summary", header, rows, ids, groups, TABLE_NOTE + counted)
