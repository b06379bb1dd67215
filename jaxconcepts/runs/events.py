"""The argument of a training's callbacks: a step at which the runs have just been measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import polars as pl
from jaxtyping import PyTree


class CallbackError(RuntimeError):
    """A callback raised; everything up to that step has been checkpointed."""


@dataclass(frozen=True)
class Event:
    """A measured step. step: the number of updates so far. runs: the names of the runs of this process. metrics: the
    rows of this step, with the columns of the metrics table."""

    step: int
    runs: tuple[str, ...]
    metrics: pl.DataFrame
    _params: Callable[[], PyTree]
    _log: Callable[[str, Sequence[float]], None]

    def params(self, run: str | None = None) -> PyTree:
        """The parameters of a run, as NumPy arrays. run: its name or the beginning; None for the first run.

        Raises ValueError for a run that is not among `runs`.
        """
        place = self._place(run)
        return jax.tree.map(lambda a: np.asarray(a)[place], self._params())

    def log(self, name: str, value: float | Sequence[float], run: str | None = None) -> None:
        """Adds rows to the metrics table at this step. run: one run, with one value; None for all runs, with one value
        for all or one for each.

        Raises ValueError for another number of values.
        """
        values = np.full(len(self.runs), np.nan) if run is not None else np.empty(len(self.runs))
        if run is not None:
            values[self._place(run)] = value
        elif np.ndim(value) and np.shape(value) != values.shape:
            raise ValueError(f"log({name!r}) needs one value, or {len(self.runs)}, one a run; got {np.shape(value)}")
        else:
            values[:] = value
        self._log(name, values)

    def _place(self, run):
        places = [i for i, name in enumerate(self.runs) if run is None or name == run or name.startswith(f"{run}-")]
        if not places:
            raise ValueError(f"run must be one of {', '.join(self.runs)}, or the beginning of one, got {run!r}")
        return places[0]


def name_of(callback: Any) -> str:
    """What a callback is called in messages."""
    return getattr(callback, "__qualname__", None) or type(callback).__name__
