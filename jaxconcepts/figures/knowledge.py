"""Figures of trainings on biographies: what is extracted by arm, and how many bits a parameter stores."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from jaxconcepts.figures import style, words
from jaxconcepts.figures.section import Entry, Section, drawn
from jaxconcepts.figures.tables import MissingData, Study
from jaxconcepts.intervals import mean_interval

ARMS = ("task.regime", "task.tuning", "task.variant", "model.causal")
EXTRACTION_CAPTION = (
    "Share of answers that are right as a whole, at the last measurement, by arm. A dot is a seed. Hollow dots: "
    "people of training questions. Full dots: people that no training question was about; the bar is their mean with "
    "a 95 % t interval over seeds. Runs that diverged are left out. Dotted line: how often the most common answer is "
    "right."
)
CAPACITY_CAPTION = (
    "Bits about people that a parameter stores, computed from the losses on names and values, against the number of "
    "times that each biography was read. A line is a run. The dotted line is at 2 bits, which larger models reach "
    "after 1 000 readings. Crosses at the right are ceilings: all bits about the people, divided by the number of "
    "parameters. A run whose line ends at its cross knows everything. Runs with questions between the "
    "biographies are left out."
)


@style.styled
def extraction(study: Study) -> Figure:
    """Exact answers by arm, a dot a seed; gids "<arm>/asked", "<arm>/held_out", "<arm>/interval", "majority"."""
    rows = study.last("exact").filter(pl.col("label") == "extract")
    if not rows.height:
        raise MissingData("no exact answers to the questions extract")
    arms = dict(by_arm(study, rows))
    majority = study.metrics.filter(pl.col("metric") == "majority", pl.col("label") == "extract")["value"]
    figure = Figure(figsize=(max(style.ONE_COLUMN, 1.3 * len(arms) + 0.8), 2.8), layout="constrained")
    axis = figure.subplots()
    for place, (name, part) in enumerate(arms.items()):
        for side, at, filled in (("asked", place - 0.15, "none"), ("held_out", place + 0.15, style.MODEL_COLOR)):
            values = part.filter(pl.col("token") == side, pl.col("value").is_finite())["value"].to_numpy()
            axis.plot(
                np.full(len(values), at), values, linestyle="none", marker="o", markersize=4, alpha=0.7,
                markerfacecolor=filled, color=style.MODEL_COLOR, gid=f"{name}/{side}",
            )  # fmt: skip
        if len(values) > 1:
            axis.plot([at + 0.12] * 2, mean_interval(values), color=style.BEST_COLOR, gid=f"{name}/interval")
            axis.plot([at + 0.12], [values.mean()], color=style.BEST_COLOR, marker="_", markersize=8)
    if majority.len():
        axis.axhline(majority.mean(), gid="majority", **style.CHANCE_STYLE)
    axis.set(xlim=(-0.5, len(arms) - 0.5), ylim=(-0.03, 1.03), ylabel="whole answers right")
    axis.set_xticks(range(len(arms)), list(arms))
    return figure


def extraction_outcome(study: Study) -> str:
    """Exact answers of people that no question was about, by arm."""
    rows = study.last("exact").filter(label="extract", token="held_out")
    arms = [(words.on_one_line(name), words.over_runs(part["value"])) for name, part in by_arm(study, rows)]
    said = "; ".join(f"{name}: {value}" for name, value in arms if value)
    return f"Right answers about people that no question was about: {said}." if said else ""


def capacity_outcome(study: Study) -> str:
    """The most bits a parameter at the end of a run."""
    rows = study.last("bits_a_parameter").sort("value")
    if not rows.height:
        return ""
    most, row = rows["value"][-1], study.row(rows["run"][-1])
    return (
        f"At most {most:.2f} bits a parameter are stored, {row['model.width']} wide with {row['task.people']} people."
    )


@style.styled
def capacity(study: Study) -> Figure:
    """Bits a parameter against exposures; gids "<run>" of lines and "<run>/ceiling"."""
    rows = study.metrics.filter(pl.col("metric") == "bits_a_parameter")
    runs = [run for run in study.names if run in set(rows["run"]) and not _asked_between(study.row(run))]
    if not runs:
        raise MissingData("no bits a parameter" + " of a run without questions in between" * bool(rows.height))
    widths = sorted(set(study.runs["model.width"]))
    counts = sorted(set(study.runs["task.people"]))
    figure = Figure(figsize=(style.TWO_COLUMNS, 2.2), layout="constrained")
    axes = figure.subplots(1, len(widths), sharey=True, squeeze=False)[0]
    for run in runs:
        row = study.row(run)
        part = rows.filter(pl.col("run") == run).sort("step")
        axis, color = axes[widths.index(row["model.width"])], style.concept_color(counts.index(row["task.people"]))
        read = exposures(study, run, part["step"].to_numpy())
        axis.plot(read, part["value"], color=color, marker="o", markersize=2, gid=run, label=str(row["task.people"]))
        ceiling = _once(study, run, "bits_ceiling")
        axis.plot(read[-1:] * 1.06, [ceiling], color=color, marker="x", linestyle="none", gid=f"{run}/ceiling")
    for axis, width in zip(axes, widths, strict=True):
        axis.axhline(2.0, **style.CHANCE_STYLE)
        axis.set_xlabel("readings of each biography")
        axis.set_title(f"{width} wide", loc="left")
    axes[0].set_ylabel("bits a parameter")
    handles, labels = axes[0].get_legend_handles_labels()
    first = {label: handle for handle, label in zip(handles, labels, strict=True)}
    names = sorted(first, key=int)
    figure.legend([first[name] for name in names], names, loc="outside right center", title="people")
    return figure


def exposures(study: Study, run: str, steps: np.ndarray) -> np.ndarray:
    """How often each person has been read about, in the mean, in a run without questions in between."""
    row, texts = study.row(run), _once(study, run, "texts_a_window")
    if row.get("task.regime") == "staged":
        steps = np.minimum(steps, row["train.steps"] - round(row["task.tuning_share"] * row["train.steps"]))
    # Earlier tables do not say how many texts a window had: one in the study that this is drawn for.
    return steps * row["train.batch_size"] * (texts if np.isfinite(texts) else 1) / row["task.people"]


def _asked_between(row: dict) -> bool:
    return row.get("task.regime", "mixed") == "mixed" and row.get("task.qa_share", 0.0) > 0


def _once(study: Study, run: str, metric: str) -> float:
    """What was measured once, NaN where it was not."""
    values = study.part(run, metric)["value"]
    return float(values[-1]) if len(values) else float("nan")


def sections(study: Study) -> Iterator[Section]:
    """What a run directory of this experiment has."""
    for entry in ENTRIES:
        yield drawn(entry, study)


def by_arm(study: Study, rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """The rows of the runs that agree in `ARMS` and did not diverge, in the order of the runs."""
    known: dict[str, list[str]] = {}
    for run in (run for run in study.names if not study.diverged(run)):
        row = study.row(run)
        tuning = f",\n{row['task.tuning'].replace('_', ' ')}" if row["task.regime"] == "staged" else ""
        encoder = "" if row.get("model.causal", True) else ",\nencoder"
        variant = "" if row["task.variant"] == "single" else f"\n{row['task.variant']}"
        known.setdefault(f"{row['task.regime']}{tuning}{encoder}{variant}", []).append(run)
    for name, runs in known.items():
        yield name, rows.filter(pl.col("run").is_in(runs))


ENTRIES = (
    Entry("extraction", "What is extracted, by arm", extraction, EXTRACTION_CAPTION, outcome=extraction_outcome),
    Entry("capacity", "Bits a parameter stores", capacity, CAPACITY_CAPTION, outcome=capacity_outcome),
)
