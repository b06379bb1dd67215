"""How long chunks of training are: short enough that the host looks at signals and at the clock every few seconds."""

from __future__ import annotations

import time

CHUNK_SECONDS = 5.0
"""About how long a chunk may take. Two are under way when a signal comes, at most, so it is honoured within twice as
long (three times in a job of several processes, which agree a chunk late)."""
GROWTH = 4
"""How many times as long as the chunk before a chunk may be, so that no single measurement is trusted too far."""


class Pace:
    """Chooses how many steps the next chunk has from the time that steps have taken; the first has one.

    steps: of the next chunk, at most. microseconds: that a step took last, 0 while that is not known.
    """

    def __init__(self, step: int):
        self.steps = 1
        self.microseconds = 0
        self._last = time.monotonic(), step

    def reached(self, step: int) -> None:
        """Notes that the device has just come to `step`, or is still there."""
        (before, first), now = self._last, time.monotonic()
        if step > first:
            # Between bounds that a vote of processes can carry.
            self.microseconds = int(min(max(1e6 * (now - before) / (step - first), 1), 2**31 - 1))
        self._last = now, step

    def adapt(self, microseconds: int) -> None:
        """Sets `steps` by the time of a step: its own, or one that processes have agreed on."""
        if microseconds:
            self.steps = max(1, min(GROWTH * self.steps, int(1e6 * CHUNK_SECONDS / microseconds)))
