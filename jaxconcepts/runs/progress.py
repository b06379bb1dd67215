"""How far a pack has come: one line now and then, with steps per second and the time left."""

from __future__ import annotations

import logging
import time

import numpy as np


class Progress:
    """Writes a line to the log at most every `every` seconds, and at the end."""

    def __init__(self, log: logging.Logger, steps: int, start: int, runs: int, every: float = 5.0):
        self._log, self._steps, self._runs, self._every = log, steps, runs, every
        self._last_line = time.monotonic()
        self._timed_from: tuple[float, int] | None = None
        self._cd = self._loss = np.nan
        if start:
            log.info("going on from step %d of %d", start, steps)

    def update(self, step: int, losses: np.ndarray, measured: dict[str, np.ndarray] | None) -> None:
        """Notes that `step` is done. The clock starts after the first chunk, whose time is mostly compilation."""
        now = time.monotonic()
        if measured is not None:
            runs = slice(0, self._runs)
            self._cd = measured["cd"][runs, 0].mean(-1).max(-1).mean()
            self._loss = measured["loss"][runs].mean()
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
        measured = "" if np.isnan(self._loss) else f"  held-out loss {self._loss:.4g}  best-layer CD {self._cd:.2f}"
        self._log.info(
            "step %d of %d (%d %%)  %.3g steps/s%s  %s left  train loss %.4g%s",
            step, self._steps, 100 * step // self._steps, rate, several, duration((self._steps - step) / rate),
            np.nanmean(losses) if np.isfinite(losses).any() else np.nan, measured,
        )  # fmt: skip


def duration(seconds: float) -> str:
    """A time in words short enough for a progress line, e.g. 4m05s."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
