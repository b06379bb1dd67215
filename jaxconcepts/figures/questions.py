"""The same kinds of question to models trained on biographies and to pretrained ones (public facts), side by side.

What is a fact asked forward, backward, or with what it follows from written first, for either of them: `KINDS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconcepts.figures import knowledge, style, words
from jaxconcepts.figures.icl.tables import IclTables
from jaxconcepts.figures.section import Entry
from jaxconcepts.figures.tables import MissingData, Study
from jaxconcepts.intervals import mean_interval


class Kind(NamedTuple):
    """A kind of question. metric, label: of a training on biographies, of people that no question of training was
    about. family, concept: of the prompts on public facts. guesses: how often a guess is right of either, None where it
    hardly ever is."""

    name: str
    metric: str
    label: str
    family: str
    concept: str
    guesses: tuple[float | None, float | None] = (None, None)


# The facts that a pretrained model writes first must be right too, which a guess hardly is.
KINDS = (
    Kind("forward", "exact", "extract", "facts", "Next"),
    Kind("reversed", "exact", "reverse", "facts", "Previous"),
    Kind("parity", "exact", "classify:birth_month:2", "facts", "Parity", (0.5, 0.5)),
    Kind("parity,\nfacts first", "answer", "classify:birth_month:2 hint", "facts", "Number, parity", (0.5, None)),
    Kind("compared", "exact", "compare", "fact_pairs", "Compare", (0.5, 0.5)),
    Kind("compared,\nfacts first", "answer", "compare hint", "fact_pairs", "Numbers, compare", (0.5, None)),
)
CAPTION = (
    "Share of right answers, by kind of question. Left: models trained on biographies, asked about people that no "
    "training question was about. A dot is a run; beside the dots is the 95 % t interval of their mean. Right: "
    "pretrained models asked about public facts, by number of shots, with 95 % intervals over prompts. Forward asks "
    "for a fact about a person, or for the next item. Reversed asks for the person, or for the previous item. Parity "
    "asks whether a number is even, with and without the number written first. Compared asks which of two items is "
    "later. If facts come first, the left counts only the answer after them, and the right counts facts and answer "
    "together, so the two cannot be compared. Dotted line: a guess; on the left, the share of the most common answer."
)


class Asked(NamedTuple):
    """Trainings on biographies, and the in-context studies of pretrained models by the name of their directory."""

    trained: Study
    pretrained: Mapping[str, IclTables]


@style.styled
def questions(asked: Asked) -> Figure:
    """Right answers by kind; gids "<arm>/<kind>" and "<directory>, N shots/<kind>", "…/interval", "guess/<kind>"."""
    left, right = list(_trained(asked.trained)), list(_pretrained(asked.pretrained))
    if not left or not right:
        raise MissingData("no answers of " + ("models trained on biographies" if right else "pretrained models"))
    names = {name for _, values in (*left, *right) for name in values}
    kinds = [kind for kind in KINDS if kind.name in names]
    figure = Figure(figsize=(style.TWO_COLUMNS, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    sides = (("trained on biographies", left, 0), ("pretrained", right, len(left)))
    for side, (axis, (title, sources, first)) in enumerate(zip(axes, sides, strict=True)):
        for index, (name, values) in enumerate(sources):
            _draw(axis, kinds, name, values, first + index, (index - (len(sources) - 1) / 2) * 0.22)
        for at, kind in enumerate(kinds):
            guess = kind.guesses[side] if side else _commonest(asked.trained, kind)
            if guess is not None and any(kind.name in values for _, values in sources):
                axis.plot([at - 0.4, at + 0.4], [guess] * 2, gid=f"guess/{kind.name}", **style.CHANCE_STYLE)
        axis.set(xlim=(-0.5, len(kinds) - 0.5), ylim=(-0.03, 1.03))
        axis.set_xticks(range(len(kinds)), [kind.name for kind in kinds], fontsize="small")
        axis.set_title(title, loc="left")
        axis.legend(loc="upper left", fontsize="small")
    axes[0].set_ylabel("right answers")
    return figure


def outcome(asked: Asked) -> str:
    """The mean right answers to the first two kinds, of every arm and of every number of shots."""
    said = []
    for name, values in (*_trained(asked.trained), *_pretrained(asked.pretrained)):
        shares = (f"{kind} {words.mean(answer.values):.2f}" for kind, answer in list(values.items())[:2])
        said.append(words.on_one_line(f"{name}: {', '.join(shares)}"))
    return f"Right answers, {'; '.join(said)}." if said else ""


class _Answer(NamedTuple):
    values: np.ndarray
    interval: tuple[float, float] | None


def _trained(study: Study) -> Iterator[tuple[str, dict[str, _Answer]]]:
    """Every arm's answers by kind, a value a run."""
    rows = {metric: study.last(metric) for metric in ("exact", "answer")}
    known: dict[str, dict[str, _Answer]] = {}
    for kind in KINDS:
        asked = rows[kind.metric].filter(label=kind.label, token="held_out")
        for arm, part in knowledge.by_arm(study, asked):
            values = part["value"].to_numpy()
            if len(values):
                interval = tuple(mean_interval(values)) if len(values) > 1 else None
                known.setdefault(arm, {})[kind.name] = _Answer(values, interval)
    yield from known.items()


def _commonest(study: Study, kind: Kind) -> float | None:
    """How often a guess is right of a training's questions: the most common answer's share, where it was measured."""
    shares = study.metrics.filter(metric="majority", label=kind.label)["value"]
    return kind.guesses[0] if shares.is_empty() else float(shares.mean())


def _pretrained(studies: Mapping[str, IclTables]) -> Iterator[tuple[str, dict[str, _Answer]]]:
    """The answers of every directory at every number of shots by kind, one value each."""
    for name, tables in studies.items():
        there = [kind for kind in KINDS if kind.family in tables.families]
        for shots in sorted({count for kind in there for count in tables.shots(kind.family)}):
            values = {}
            for kind in there:
                cell = {"shots": shots, "concept": tables.labels(kind.family).index(kind.concept)}
                share, low, high = (
                    tables.value(metric, kind.family, **cell)
                    for metric in ("accuracy", "accuracy_low", "accuracy_high")
                )
                if np.isfinite(share):
                    values[kind.name] = _Answer(np.array([share]), (low, high))
            yield f"{name}, {shots} shot{'s' * (shots > 1)}", values


def _draw(axis: Axes, kinds: list[Kind], name: str, values: Mapping[str, _Answer], index: int, shift: float) -> None:
    color = style.concept_color(index)
    marker = style.CONCEPT_MARKERS[index % len(style.CONCEPT_MARKERS)]
    label = words.on_one_line(name)
    for at, kind in enumerate(kinds):
        if kind.name not in values:
            continue
        answer = values[kind.name]
        where = np.full(len(answer.values), at + shift)
        axis.plot(
            where, answer.values, linestyle="none", marker=marker, markersize=4, color=color, alpha=0.7, label=label,
            gid=f"{name}/{kind.name}",
        )  # fmt: skip
        label = None
        if answer.interval is not None:
            beside = at + shift + (0.09 if len(answer.values) > 1 else 0)
            axis.plot([beside] * 2, answer.interval, color=color, linewidth=1.4, gid=f"{name}/{kind.name}/interval")


ENTRY = Entry("questions", "The same questions of trained and pretrained models", questions, CAPTION, outcome=outcome)
