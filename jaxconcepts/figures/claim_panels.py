"""Claims as a figure and a table: every seed, the paired mean with its interval, the verdict, what was published."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconcepts.figures import style
from jaxconcepts.figures.claims import CONTRADICTED, FEWEST_SEEDS, HOLDS, NOT_SHOWN, Claim, Verdict
from jaxconcepts.figures.tables import MissingData

COLORS = {HOLDS: "#009E73", NOT_SHOWN: "#808080", CONTRADICTED: "#D55E00"}
PANEL = style.TWO_COLUMNS / 2 - 0.6
"""Inches that a panel's title has."""
CAPTION = (
    "Left: the quantity of each arm, a line a seed. Hollow diamonds are published numbers, of larger models. Right: "
    "the difference of the arms, a dot a seed, and its mean with a 95 % t interval over seeds. The broken line is what "
    "the claim must exceed. A claim holds where the whole interval does. It is contradicted where the interval lies "
    "wholly on the other side. Otherwise it is not shown at this size, which does not make it false."
)


@style.styled
def draw(claims: Sequence[Claim], verdicts: Sequence[Verdict]) -> Figure:
    """Two panels a claim. Lines have gids "<claim>/seed<n>", "<claim>/interval", "<claim>/published/<arm>".

    Raises MissingData where no claim could be decided.
    """
    decided = [(claim, verdict) for claim, verdict in zip(claims, verdicts, strict=True) if not verdict.reason]
    if not decided:
        raise MissingData(f"no claim could be decided: {verdicts[0].reason if verdicts else 'there are none'}")
    figure = Figure(figsize=(style.TWO_COLUMNS, 1.7 * len(decided)), layout="constrained")
    for (arms, difference), (claim, verdict) in zip(
        figure.subplots(len(decided), 2, squeeze=False), decided, strict=True
    ):
        _arms(arms, claim, verdict)
        _difference(difference, claim, verdict)
    return figure


def _arms(axis: Axes, claim: Claim, verdict: Verdict) -> None:
    places = np.arange(len(claim.arms))
    for seed, values in zip(verdict.seeds, verdict.values.T, strict=True):
        axis.plot(
            places, values, color=style.MODEL_COLOR, alpha=0.6, linewidth=0.8, marker="o", markersize=3,
            gid=f"{claim.name}/seed{seed}",
        )  # fmt: skip
    for place, arm in zip(places, claim.arms, strict=True):
        if arm.published is not None:
            axis.plot(
                [place], [arm.published], marker="D", markerfacecolor="none", markersize=5, linestyle="none",
                color=style.BEST_COLOR, gid=f"{claim.name}/published/{arm.name}",
            )  # fmt: skip
    if len(claim.arms) == 1:
        axis.axhline(claim.reference, **style.CHANCE_STYLE)
    axis.set_xlim(-0.5, len(places) - 0.5)
    axis.set_xticks(places, [style.wrapped(arm.name, PANEL / len(places)) for arm in claim.arms])
    axis.set_ylabel(claim.unit or claim.quantity.metric)
    axis.set_title(style.wrapped(claim.name, PANEL), loc="left")


def _difference(axis: Axes, claim: Claim, verdict: Verdict) -> None:
    color = COLORS[verdict.answer]
    spread = np.linspace(-0.25, 0.25, len(verdict.seeds))
    axis.plot(
        verdict.differences, spread, linestyle="none", marker="o", markersize=3, color=style.MODEL_COLOR, alpha=0.6,
        gid=f"{claim.name}/differences",
    )  # fmt: skip
    axis.plot([verdict.low, verdict.high], [0, 0], color=color, linewidth=2, gid=f"{claim.name}/interval")
    axis.plot([verdict.mean], [0], color=color, marker="|", markersize=12, gid=f"{claim.name}/mean")
    bounds = {"more": (claim.bound,), "less": (-claim.bound,), "within": (-claim.bound, claim.bound)}[claim.expected]
    for bound in bounds:
        axis.axvline(bound, color=style.MODEL_COLOR, linewidth=0.8, linestyle=(0, (3, 2)))
    axis.set_ylim(-0.6, 0.6)
    axis.set_yticks([])
    axis.set_xlabel(f"difference, expected {claim.expectation}")
    axis.set_title(verdict.answer, loc="left", color=color)


def sentence(claim: Claim, verdict: Verdict) -> str:
    """What a claim says, its verdict, and the difference that it rests on."""
    if verdict.reason:
        return f"{claim.statement}: {verdict.answer} ({verdict.reason})"
    alike = f"{verdict.alike} of {_count(verdict)} seeds as expected"
    return f"{claim.statement}: {verdict.answer} ({_difference_of(verdict)}; {alike})"


def table(claims: Sequence[Claim], verdicts: Sequence[Verdict]) -> pl.DataFrame:
    """A row a claim: what it says and expects, how many seeds, the difference with its interval, and the verdict."""
    return pl.DataFrame([_row(claim, verdict) for claim, verdict in zip(claims, verdicts, strict=True)])


def _count(verdict: Verdict) -> int:
    return int(np.isfinite(verdict.differences).sum())


def _difference_of(verdict: Verdict) -> str:
    return f"{verdict.mean:.3g} [{verdict.low:.3g}, {verdict.high:.3g}]"


def _row(claim: Claim, verdict: Verdict) -> dict:
    decided, count = not verdict.reason, _count(verdict)
    notes = [verdict.reason] if verdict.reason else []
    notes += [f"{count} seeds; five show more"] if decided and count < FEWEST_SEEDS else []
    notes += [f"diverged: {', '.join(verdict.diverged)}"] if verdict.diverged else []
    notes += [claim.hazards] if claim.hazards else []
    return {
        "claim": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "expected": claim.expectation,
        "seeds": count,
        "difference": _difference_of(verdict) if decided else "–",
        "alike": f"{verdict.alike} of {count}" if decided else "–",
        "verdict": verdict.answer,
        "note": "; ".join(notes),
    }
