"""How far a pack has come: one line now and then, with steps per second and the time left."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import numpy as np

from jaxconcepts.training.experiment import Named


class Progress:
    """Writes a line to the log at most every `every` seconds, and at the end."""

    def __init__(self, log: logging.Logger, steps: int, start: int, runs: int, every: float = 2.0):
        self._log, self._steps, self._runs, self._every = log, steps, runs, every
        self._last_line = time.monotonic()
        self._timed_from: tuple[float, int] | None = None
        self._measured = ""
        if start:
            log.info("resuming at step %d of %d", start, steps)

    def update(self, step: int, losses: np.ndarray, measured: Mapping[str, Named] | None) -> None:
        """Notes that `step` is done. The clock starts after the first chunk, whose time is mostly compilation."""
        now = time.monotonic()
        if measured is not None:
            self._measured = headline(measured, self._runs)
        if self._timed_from is None:
            if step:
                self._timed_from = (now, step)
            return
        started, first = self._timed_from
        if step == first or (now - self._last_line < self._every and step < self._steps):
            return
        self._last_line = now
        rate = (step - first) / (now - started)
        several = f" ({rate * self._runs:.3g} run-steps/s)" if self._runs > 1 else ""
        self._log.info(
            "step %d of %d (%d %%)  %.3g steps/s%s  %s left%s%s",
            step, self._steps, 100 * step // self._steps, rate, several, duration((self._steps - step) / rate),
            train_loss(step, losses), self._measured,
        )  # fmt: skip


def train_loss(step: int, losses: np.ndarray) -> str:
    """The mean training loss of the runs that have not diverged, nan where all have; nothing before the first step."""
    finite = losses[np.isfinite(losses)]
    return f"  train loss {finite.mean() if finite.size else np.nan:.4g}" if step else ""


def headline(measured: Mapping[str, Named], runs: int) -> str:
    """The held-out loss and the best layer's CD (of the first kind of concept, at the first token), means over runs."""
    text = ""
    if "loss" in measured:
        text += f"  held-out loss {measured['loss'].values[:runs].mean():.4g}"
    name = next((name for name in measured if name.partition("/")[0] == "cd"), None)
    if name is not None:
        at_first = measured[name].values[:runs, 0]
        text += f"  best-layer CD {at_first.mean(-1).max(-1).mean():.2f}"
    return text


def duration(seconds: float) -> str:
    """A time in words short enough for a progress line, e.g. 4m05s."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
