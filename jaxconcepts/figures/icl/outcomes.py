"""What came out, a sentence a figure of the in-context study: its families one after another; "" without numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from jaxconcepts.figures import words
from jaxconcepts.figures.icl.tables import CONTROLS, IclTables


def by_shots(tables: IclTables) -> str:
    """Accuracy and CD at the fewest and at the most shots, means over concepts."""

    def of(family: str) -> str:
        ends = tables.shots(family)[:: max(1, len(tables.shots(family)) - 1)]
        accuracy = _from_to([tables.value("accuracy", family, shots=shots) for shots in ends])
        cd = _from_to([tables.headline("cd", family, shots=shots) for shots in ends])
        over = f"from {ends[0]} to {ends[-1]} shots" if len(ends) > 1 else f"at {_shots(ends[0])}"
        return f"{over} accuracy {accuracy} and CD {cd}" if accuracy and cd else ""

    return _by_family(tables, of)


def controls(tables: IclTables) -> str:
    """CD less the highest of its controls, with its interval, at the most shots."""

    def of(family: str) -> str:
        shots = tables.shots(family)[-1]
        value, low, high = (tables.headline(f"cd_above{end}", family, shots=shots) for end in ("", "_low", "_high"))
        if not np.isfinite(value):
            return ""
        scores = {name: tables.value(f"cd_{name}", family, shots=shots) for name in tables.controls}
        which = max(scores, key=lambda name: np.nan_to_num(scores[name], nan=-np.inf))
        interval = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
        return f"with {_shots(shots)} CD is {value:+.2f}{interval} against the highest control, {CONTROLS[which]}"

    return _by_family(tables, of)


def layers(tables: IclTables) -> str:
    """The layer with the highest CD at the most shots."""

    def of(family: str) -> str:
        shots = tables.shots(family)[-1]
        rows = tables.values("cd", family, shots=shots, concept=None).filter(pl.col("value").is_not_nan())
        if not (rows := rows.sort("layer").sort("value", descending=True, maintain_order=True)).height:
            return ""
        best, of_all, value = rows["layer"][0], rows["layer"].max(), rows["value"][0]
        return f"with {_shots(shots)} CD is highest at layer {best} of {of_all}, {value:.2f}"

    return _by_family(tables, of)


def scatter(tables: IclTables) -> str:
    """R² of accuracy on CD, with its interval and p."""

    def of(family: str) -> str:
        value, low, high, p = (tables.fit(name, family) for name in ("r2", "r2_low", "r2_high", "r2_p"))
        interval = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
        return f"R² of accuracy on CD is {value:.2f}{interval}, p {p:.2f}" if np.isfinite(value) else ""

    return _by_family(tables, of)


def series(tables: IclTables) -> str:
    """Accuracy and CD at the first checkpoint and the last, at the usual number of shots."""
    if len(tables.steps) < 2:
        return ""
    ends = [tables.steps[0], tables.steps[-1]]

    def of(family: str) -> str:
        shots = tables.usual_shots(family)
        accuracy = _from_to([tables.value("accuracy", family, shots=shots, step=step) for step in ends])
        cd = _from_to([tables.headline("cd", family, shots=shots, step=step) for step in ends])
        return f"accuracy {accuracy} and CD {cd}, with {_shots(shots)}" if accuracy and cd else ""

    said = _by_family(tables, of)
    return f"From step {words.step(ends[0])} to {words.step(ends[1])}: {said}" if said else ""


def variants(tables: IclTables) -> str:
    """Accuracy and CD with the task stated, less those of plain prompts, at the usual number of shots."""

    def of(family: str) -> str:
        stated = [variant for variant in tables.variants(family) if variant != "plain"]
        if "plain" not in tables.variants(family) or not stated:
            return ""
        shots, parts = tables.usual_shots(family), []
        for variant in stated:
            changes = [
                take(metric, family, variant=variant, shots=shots) - take(metric, family, shots=shots)
                for metric, take in (("accuracy", tables.value), ("cd", tables.headline))
            ]
            parts += (
                [f"{variant}: accuracy {changes[0]:+.2f}, CD {changes[1]:+.2f}"] if np.isfinite(changes).all() else []
            )
        return f"against plain prompts, {'; '.join(parts)}" if parts else ""

    return _by_family(tables, of)


def pairs(tables: IclTables) -> str:
    """The pair of concepts that is told apart worst, at the most shots."""

    def of(family: str) -> str:
        shots, labels = tables.shots(family)[-1], tables.labels(family)
        rows = tables.values("pairwise_cd", family, shots=shots).drop_nulls(["concept", "other", "value"])
        if not (rows := rows.sort("value", "concept", "other")).height:
            return ""
        worst = rows.row(0, named=True)
        one, other = labels[worst["concept"]], labels[worst["other"]]
        return f"{one} and {other} are told apart worst with {_shots(shots)} ({worst['value']:.2f}, chance 0.50)"

    return _by_family(tables, of)


def confusion(tables: IclTables) -> str:
    """The rule that wrong answers of another concept follow most, at the most shots."""

    def of(family: str) -> str:
        shots, labels = tables.shots(family)[-1], tables.labels(family)
        rows = tables.values("confusion", family, shots=shots).drop_nulls(["concept", "other", "value"])
        rows = rows.filter(pl.col("concept") != pl.col("other"), pl.col("value").is_not_nan())
        if not (rows := rows.sort("value", "concept", "other")).height:
            return ""
        most = rows.row(-1, named=True)
        asked, followed = labels[most["concept"]], labels[most["other"]]
        return f"{most['value']:.0%} of the wrong answers to {asked} follow {followed} with {_shots(shots)}"

    return _by_family(tables, of)


def hidden(tables: IclTables, family: str) -> str:
    """The highest CD of the layers that are drawn, at the most shots."""
    layers = [] if tables.hidden is None else tables.hidden["layer"].unique().sort().to_list()
    shots = max(tables.shots(family), default=None)
    found = {layer: tables.value("cd", family, shots=shots, layer=layer) for layer in layers}
    found = {layer: value for layer, value in found.items() if np.isfinite(value)}
    if not found:
        return ""
    best, first = max(found, key=found.get), min(found)
    at_first, highest = f"{found[first]:.2f} at layer {first}", f"highest at layer {best}, {found[best]:.2f}"
    return f"With {_shots(shots)} CD is {at_first} and {highest}."


def _shots(count: int) -> str:
    return f"{count} shot{'s' * (count != 1)}"


def _by_family(tables: IclTables, of: Callable[[str], str]) -> str:
    """The families' parts as one sentence, each after the family's name."""
    said = {family: of(family) for family in tables.families if tables.shots(family)}
    parts = "; ".join(f"{family}: {part}" for family, part in said.items() if part)
    return f"{parts}." if parts else ""


def _from_to(values: list[float]) -> str:
    if not np.isfinite(values).all():
        return ""
    return f"goes from {values[0]:.2f} to {values[-1]:.2f}" if len(values) > 1 else f"is {values[0]:.2f}"
