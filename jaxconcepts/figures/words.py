"""Numbers as the sentences of a page say them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def over_runs(values: Iterable[float], form: str = ".2f") -> str:
    """The value of one run, or the mean over several with the least and the greatest; "" where none is finite."""
    known = np.array([value for value in values if value is not None and np.isfinite(value)], float)
    if not known.size:
        return ""
    ends = f" ({known.size} runs: {known.min():{form}} to {known.max():{form}})" if known.size > 1 else ""
    return f"{known.mean():{form}}{ends}"


def on_one_line(label: str) -> str:
    """A label of an axis, which may have line breaks, for a sentence or a legend."""
    return label.replace("\n", " ")


def step(value: float) -> str:
    """A step with its thousands apart."""
    return f"{value:,.0f}".replace(",", " ")


def mean(values: Iterable[float]) -> float:
    """The mean of what is finite, NaN where nothing is."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def after(name: str, sentence: str) -> str:
    """A sentence after what it is about and a colon."""
    return f"{name}: {sentence[:1].lower()}{sentence[1:]}"
