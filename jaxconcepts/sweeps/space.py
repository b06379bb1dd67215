"""The points of a sweep: a config's `get_sweep()` returns a `Space`, a sequence of dicts of fields and values.

    rates = product(**{"train.learning_rate": [1e-4, 1e-3], "task.noise": [0.1, 0.3]})  # 4 points, all pairs
    sizes = zip_(**{"task.num_concepts": [2, 4], "task.dim": [8, 16]})  # 2 points, in pairs
    drawn = sample(100, 0, **{"train.learning_rate": log_uniform(1e-4, 1e-2)})  # 100 points, seed 0
    sweep = (rates + drawn) * product(seed=range(5))  # + joins spaces, * combines them

This module does not know which fields exist. `points.expand` checks the fields and every point before anything runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Draw = Callable[[np.random.Generator], Any]
"""Draws one value of a sampled field."""


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, uniform on a linear scale, or with `log` on a logarithmic one. whole: integers, with
    `high` included."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __call__(self, generator: np.random.Generator) -> float | int:
        low, high = (self.low, self.high) if not self.whole else (self.low - 0.5, self.high + 0.5)
        if self.log:
            drawn = float(np.exp(generator.uniform(math.log(low), math.log(high))))
        else:
            drawn = float(generator.uniform(low, high))
        return min(max(round(drawn), self.low), self.high) if self.whole else drawn

    @property
    def ends(self) -> tuple[float | int, ...]:
        """The values at its bounds."""
        return self.low, self.high


@dataclass(frozen=True)
class Choice:
    """One of the values, each as likely."""

    values: tuple[Any, ...]

    def __call__(self, generator: np.random.Generator) -> Any:
        return self.values[int(generator.integers(len(self.values)))]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values."""
        return self.values


class Space(Sequence[Mapping[str, Any]]):
    """A sequence of overrides, each a dict {dotted field: value}. `a + b` has those of a, then those of b. `a * b` has
    every pair of one of a and one of b; they must not share a field."""

    def __init__(self, overrides: Iterable[Mapping[str, Any]]):
        self._overrides = tuple(dict(override) for override in overrides)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(override) for override in self._overrides)

    def __getitem__(self, index):
        return Space(self._overrides[index]) if isinstance(index, slice) else dict(self._overrides[index])

    def __len__(self) -> int:
        return len(self._overrides)

    def __add__(self, other: Iterable[Mapping[str, Any]]) -> Space:
        return Space([*self, *other])

    def __mul__(self, other: Iterable[Mapping[str, Any]]) -> Space:
        pairs = list(itertools.product(self, other))
        for left, right in pairs:
            if shared := sorted(left.keys() & right.keys()):
                raise ValueError(f"a field must be swept once, but {shared[0]} is given by both sides of *")
        return Space(left | right for left, right in pairs)

    def __repr__(self) -> str:
        return f"Space({list(self._overrides)!r})"


def product(**fields: Iterable[Any]) -> Space:
    """Every combination of the fields' values, the last field varying fastest.

    Raises ValueError for no fields, for a field without values, and for a value given twice.
    """
    values = _lists(fields, "product")
    return Space(dict(zip(fields, combination, strict=True)) for combination in itertools.product(*values))


def zip_(**fields: Iterable[Any]) -> Space:
    """Pairs the fields: the first values of all fields, then the second values, and so on.

    Raises ValueError for no fields, for a field without values, and for fields of different lengths.
    """
    values = _lists(fields, "zip_", repeats=True)
    lengths = {name: len(value) for name, value in zip(fields, values, strict=True)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"zip_ needs as many values of every field, got {lengths}")
    return Space(dict(zip(fields, row, strict=True)) for row in zip(*values, strict=True))


def sample(count: int, seed: int, **fields: Draw) -> Space:
    """`count` independent draws of all fields, each `uniform`, `log_uniform`, `integers` or `choice`.

    A longer sample with the same seed begins with the shorter one, so a larger `count` only adds points. The values of
    a field do not depend on the other fields. To sweep the seeds of runs, use `sample(...) * product(seed=range(3))`.
    Raises ValueError for a count below 1, for no fields, and for a field that is not one of these ranges.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"sample's count must be a positive integer, got {count!r}")
    if not fields:
        raise ValueError("sample needs at least one field")
    for name, draw in fields.items():
        if not callable(draw):
            raise ValueError(f"sample's {name} must be uniform(...), log_uniform(...) or choice(...), got {draw!r}")
    # A stream a field, keyed by its name.
    streams = {name: np.random.default_rng([seed, *name.encode()]) for name in fields}
    return Space({name: draw(streams[name]) for name, draw in fields.items()} for _ in range(count))


def uniform(low: float, high: float) -> Range:
    """A number, uniform in [low, high). Raises ValueError unless low < high, both finite."""
    _check_range("uniform", low, high, -math.inf)
    return Range(float(low), float(high))


def log_uniform(low: float, high: float) -> Range:
    """A number, uniform on a logarithmic scale in [low, high). Raises ValueError unless 0 < low < high, both finite."""
    _check_range("log_uniform", low, high, 0.0)
    return Range(float(low), float(high), log=True)


def integers(low: int, high: int, log: bool = False) -> Range:
    """An integer from low to high, both included: uniform, or with `log` on a logarithmic scale. Raises ValueError for
    bounds that are not integers, and unless low < high (with `log`, 0 < low)."""
    if any(isinstance(bound, bool) or not isinstance(bound, int) for bound in (low, high)):
        raise ValueError(f"integers needs whole numbers, got {low!r} and {high!r}")
    _check_range("integers", low, high, 0.0 if log else -math.inf)
    return Range(low, high, log, whole=True)


def choice(values: Iterable[Any]) -> Choice:
    """One of the values, with equal probability. Raises ValueError for no values."""
    if not (values := tuple(values)):
        raise ValueError("choice needs at least one value, got none")
    return Choice(values)


def _lists(fields: Mapping[str, Iterable[Any]], function: str, repeats: bool = False) -> list[list[Any]]:
    if not fields:
        raise ValueError(f"{function} needs at least one field")
    lists = []
    for name, values in fields.items():
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise ValueError(f"{function}'s {name} must be a list of values, got {values!r}")
        values = list(values)
        if not values:
            raise ValueError(f"{function}'s {name} must have at least one value, got none")
        twice = [value for index, value in enumerate(values) if not repeats and _contains(values[:index], value)]
        if twice:
            raise ValueError(f"{function}'s {name} must have each value once, got {twice[0]!r} twice")
        lists.append(values)
    return lists


def _contains(values: list[Any], value: Any) -> bool:
    return any(np.array_equal(other, value) for other in values)


def _check_range(function: str, low: float, high: float, above: float) -> None:
    if not (above < low < high < math.inf):
        bound = "0 < low < high" if above == 0 else "low < high"
        raise ValueError(f"{function} needs {bound}, both finite, got {low!r} and {high!r}")
