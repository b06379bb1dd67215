"""Figures of trainings on grammars and on problems: what was learned, by arm, every seed a dot.

An arm is the runs that differ in their seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconcepts.figures import style
from jaxconcepts.figures.section import Entry, Section, drawn
from jaxconcepts.figures.tables import MissingData, Study
from jaxconcepts.intervals import mean_interval

DOTS = "A dot is a seed, and the bar is the mean over seeds with a 95 % t interval. Runs that diverged are left out."
GRAMMAR_CAPTION = (
    "Left: divergence of the next-token distribution from the exact one. Middle: share of the strings generated "
    "from the begin token that are in the language. Right: how much of the possible information about the ancestors "
    "a linear probe reads from the best layer (1: the ceiling, 0: the most common answer); hollow: before training. "
    f"{DOTS}"
)
LOSSES_CAPTION = (
    "Held-out cross-entropy, with one line for each run and one colour for each arm. A dotted line is the loss of the "
    "exact solution, if there is one. No model can be better. Runs that diverged are left out."
)
SOLVING_CAPTION = (
    "Share of problems in which every step and the answer are right (full dots), and in which the answer is right, "
    f"whatever the steps are (hollow), by number of operations. {DOTS} Answers to compare with: the commonest one "
    "(dotted), and that of the most similar training problem (broken). Behind the vertical line are more operations "
    "than were trained."
)
PROBES_CAPTION = (
    "Matthews' correlation of a linear probe on the best layer with what holds of each parameter of a problem; 0 is a "
    f"guess. Hollow: the same before training, and at a spot before the information exists (crosses). {DOTS}"
)


def arms(study: Study) -> dict[str, list[str]]:
    """The runs that did not diverge by what tells them from others but for the seed, in the order of the runs; ""
    where nothing does. Raises MissingData where all diverged."""
    by_arm: dict[str, list[str]] = {}
    for run in study.names:
        if not study.diverged(run):
            fields = study.fields(run)
            # Of one field the value alone says enough.
            name = ", ".join(fields) if len(fields) != 1 else fields[0].split(" ", 1)[-1]
            by_arm.setdefault(name, []).append(run)
    if not by_arm:
        raise MissingData("every run diverged")
    return by_arm


@style.styled
def grammar(study: Study) -> Figure:
    """Divergence, share that parses and headroom; gids "<panel>/<arm>[/<level>][/untrained]" and ".../interval"."""
    panels = [
        ("kl", "nats a token", study.last("kl")),
        ("parses", "share that parses", study.last("parses").filter(pl.col("label") == "begin")),
        ("headroom", "share of headroom", study.last("headroom")),
    ]
    panels = [panel for panel in panels if panel[-1].height]
    if not panels:
        raise MissingData("no kl, no parses and no headroom")
    by_arm = arms(study)
    figure = Figure(figsize=(style.TWO_COLUMNS, 2.4), layout="constrained")
    for axis, (name, unit, part) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if name == "headroom":
            _by_label(axis, name, part, study.last("headroom_untrained"), by_arm)
            axis.axhline(1, **style.CHANCE_STYLE)
        else:
            for place, (arm, runs) in enumerate(by_arm.items()):
                _seeds(axis, place, _by_run(part, runs), f"{name}/{arm}", style.concept_color(place))
            slanted = {"rotation": 30, "ha": "right"} if sum(map(len, by_arm)) > 20 else {}
            axis.set_xticks(range(len(by_arm)), [arm or "all runs" for arm in by_arm], **slanted)
            axis.set_xlim(-0.5, len(by_arm) - 0.5)
        # Of the headroom a probe may have less than none.
        axis.set(ylabel=unit, ylim=(min(0, axis.get_ylim()[0]) if name == "headroom" else 0, None))
    _legend(figure, by_arm)
    return figure


@style.styled
def losses(study: Study) -> Figure:
    """Held-out cross-entropy over training; gids "<run>/loss" and "exact"."""
    rows = study.metrics.filter(pl.col("metric") == "loss", pl.col("label").is_null(), pl.col("position").is_null())
    if not rows.height:
        raise MissingData("no loss")
    figure = Figure(figsize=(style.TWO_COLUMNS * 0.7, 2.4), layout="constrained")
    axis, by_arm = figure.subplots(), arms(study)
    for index, runs in enumerate(by_arm.values()):
        for run in runs:
            part = rows.filter(pl.col("run") == run).sort("step")
            axis.plot(
                part["step"], part["value"], color=style.concept_color(index), marker="o", markersize=2, linewidth=0.8,
                gid=f"{run}/loss",
            )  # fmt: skip
    exact = study.metrics.filter(pl.col("metric") == "loss_exact")["value"]
    if exact.len():
        axis.axhline(exact.mean(), gid="exact", **style.CHANCE_STYLE)
    axis.set(xlabel="training step", ylabel="nats a token", ylim=(0, None))
    _legend(figure, by_arm)
    return figure


@style.styled
def solving(study: Study) -> Figure:
    """Solved problems by operations; gids "<arm>[/answered]/<operations>", "<arm>/mean", "guessed" and "copied"."""
    part, answered = study.last("solved"), study.last("answered")
    part = part.filter(pl.col("label").str.contains(r"^\d+$"))
    if not part.height:
        raise MissingData("no solved problems by number of operations")
    counts = sorted({int(label) for label in part["label"]})
    by_arm = arms(study)
    figure = Figure(figsize=(style.ONE_COLUMN * 1.3, 2.6), layout="constrained")
    axis = figure.subplots()
    for index, (arm, runs) in enumerate(by_arm.items()):
        color, shift, means = style.concept_color(index), 0.12 * (index - (len(by_arm) - 1) / 2), []
        for count in counts:
            values = _by_run(part.filter(pl.col("label") == str(count)), runs)
            _seeds(axis, count + shift, values, f"{arm}/{count}", color)
            means.append(values.mean() if values.size else np.nan)
            right = _by_run(answered.filter(pl.col("label") == str(count)), runs)
            _dots(axis, count + shift - 0.05, right, f"{arm}/answered/{count}", color, markerfacecolor="none")
        axis.plot(np.array(counts) + shift, means, color=color, linewidth=0.8, gid=f"{arm}/mean")
    for metric, dashes in (("guessed", (0, (1, 1.6))), ("copied", (0, (4, 2)))):
        baseline = study.last(metric)
        values = [baseline.filter(pl.col("label") == str(count))["value"].mean() for count in counts]
        if any(value is not None for value in values):
            axis.plot(counts, np.array(values, float), gid=metric, **style.CHANCE_STYLE | {"linestyle": dashes})
    trained = study.setting("", "task.operations")
    if trained:
        axis.axvline(trained[1] + 0.5, color=style.MODEL_COLOR, linewidth=0.6)
    axis.set(xlabel="operations", ylabel="share solved", ylim=(-0.03, 1.03), xticks=counts)
    _legend(figure, by_arm)
    return figure


@style.styled
def probes(study: Study) -> Figure:
    """Probes of a problem's parameters; gids "probe/<arm>/<concept>" with "/untrained" and "/before"."""
    part = study.last("probe_mcc")
    if not part.height:
        raise MissingData("no probes of parameters")
    figure = Figure(figsize=(style.TWO_COLUMNS * 0.8, 2.6), layout="constrained")
    axis, by_arm = figure.subplots(), arms(study)
    untrained, before = study.last("probe_untrained_mcc"), study.last("probe_before_mcc")
    _by_label(axis, "probe", part, untrained, by_arm, before)
    axis.axhline(0, **style.CHANCE_STYLE)
    axis.set(ylabel="Matthews' correlation")
    _legend(figure, by_arm)
    return figure


def sentences(study: Study, experiment: str) -> list[str]:
    """What came out, a sentence an arm: means over seeds at the last measurement, without runs that diverged."""
    said, gone = [], sum(map(study.diverged, study.names))
    for arm, runs in arms(study).items() if gone < len(study.names) else ():
        means = ((text, *_mean(study, runs, *of)) for text, *of in SAID[experiment])
        numbers = [text.format(mean) + _of(count, runs) for text, mean, count in means if count]
        if numbers:
            said.append(f"{arm or 'All runs'} ({len(runs)} seed{'s' if len(runs) > 1 else ''}): {'; '.join(numbers)}.")
    return said + [f"{gone} run{'s' * (gone > 1)} diverged, and {'is' if gone == 1 else 'are'} left out."] * bool(gone)


def _of(count: int, runs: Sequence[str]) -> str:
    """How many of the runs a mean is of, where these are not all."""
    return "" if count == len(runs) else f" (of {count} seed{'s' * (count > 1)})"


def _mean(study: Study, runs: Sequence[str], metric: str, label: str | None = None) -> tuple[float, int]:
    """The mean over the runs that have the metric, and how many these are."""
    rows = study.last(metric)
    label = rows["label"].max() if label == LOWEST else label
    values = _by_run(rows.filter(pl.col("label").eq_missing(pl.lit(label))), runs)
    return float(values.mean()) if values.size else np.nan, values.size


def sections(study: Study, experiment: str) -> Iterator[Section]:
    """The figures of one experiment that its tables allow."""
    for entry in ENTRIES[experiment]:
        made = drawn(entry, study)
        if made.figure is not None:
            yield made


def _by_run(part: pl.DataFrame, runs: Sequence[str]) -> np.ndarray:
    """The value of each of the runs that has one, of its best layer where there are layers."""
    best = part.filter(pl.col("run").is_in(list(runs)), pl.col("value").is_finite()).group_by("run")
    return best.agg(pl.col("value").max()).sort("run")["value"].to_numpy()


def _by_label(axis: Axes, name, part, untrained, by_arm, before=None) -> None:
    """Labels from left to right, the arms side by side in each; hollow what an untrained net has."""
    labels = part["label"].unique().sort().to_list()
    for number, label in enumerate(labels):
        for index, (arm, runs) in enumerate(by_arm.items()):
            place, color = number + (index - (len(by_arm) - 1) / 2) * 0.7 / len(by_arm), style.concept_color(index)
            gid = f"{name}/{arm}/{label}"
            _seeds(axis, place, _by_run(part.filter(pl.col("label") == label), runs), gid, color)
            for what, rows, marker in (("untrained", untrained, "o"), ("before", before, "x")):
                values = np.zeros(0) if rows is None else _by_run(rows.filter(pl.col("label") == label), runs)
                if values.size:
                    _dots(axis, place - 0.05, values, f"{gid}/{what}", color, marker=marker, markerfacecolor="none")
    axis.set_xticks(range(len(labels)), [label.replace("_", " ") for label in labels])
    axis.set_xlim(-0.5, len(labels) - 0.5)


def _seeds(axis: Axes, place: float, values: np.ndarray, gid: str, color: str) -> None:
    _dots(axis, place, values, gid, color)
    if values.size > 1:
        axis.plot([place + 0.05] * 2, mean_interval(values), color=color, linewidth=1.5, gid=f"{gid}/interval")
        axis.plot([place + 0.05], [values.mean()], color=color, marker="_", markersize=7)


def _dots(axis: Axes, place: float, values: np.ndarray, gid: str, color: str, marker: str = "o", **settings) -> None:
    axis.plot(
        np.full(values.size, place), values, linestyle="none", marker=marker, markersize=3.5, alpha=0.7, color=color,
        gid=gid, **settings,
    )  # fmt: skip


def _legend(figure: Figure, by_arm: dict[str, list[str]]) -> None:
    if len(by_arm) < 2:
        return
    lines = [
        figure.axes[0].plot([], [], color=style.concept_color(index), marker="o", linestyle="none", label=arm)[0]
        for index, arm in enumerate(by_arm)
    ]
    figure.legend(handles=lines, loc="outside right center")


LOSSES = Entry("held_out_loss", "How did the loss fall?", losses, LOSSES_CAPTION)
LOWEST = "the lowest level"
"""Stands for the last of a metric's labels."""
ENTRIES = {
    "grammar": (Entry("grammar_learned", "How much of the grammar is learned?", grammar, GRAMMAR_CAPTION), LOSSES),
    "reasoning": (
        Entry("solving", "Which problems are solved?", solving, SOLVING_CAPTION),
        Entry("problem_probes", "What does the model know of a problem?", probes, PROBES_CAPTION),
        LOSSES,
    ),
}
"""The figures of an experiment, by its name."""
TITLES = {"grammar": "Grammar", "reasoning": "Reasoning"}
SAID = {
    "grammar": (
        ("{:.2f} of the generated strings parse", "parses", "begin"),
        ("the next-token distribution is {:.3g} nats from the exact one", "kl"),
        (
            "a linear probe on the best layer reaches {:.2f} of the headroom for the lowest ancestors",
            "headroom",
            LOWEST,
        ),
    ),
    "reasoning": (
        ("{:.2f} of the problems of trained lengths are solved", "solved", "trained"),
        ("{:.2f} of the problems with the most operations are solved", "solved", "hardest"),
        ("the most common answer is right for {:.2f} of these", "guessed", "hardest"),
        ("a probe foresees wrong steps with an AUC of {:.2f}", "foresee", "can_next"),
    ),
}
"""Sentences of an experiment: text, metric and label."""
