"""How far a pass over prompts is."""

from __future__ import annotations

import logging
import time

EVERY = 5.0
"""Seconds between two lines."""
log = logging.getLogger("jaxconcepts")


class Progress:
    """Says how many prompts are through and how long the others will take, every five seconds."""

    def __init__(self, what: str, count: int):
        self._what, self._count, self._done = what, count, 0
        self._start = self._said = time.monotonic()

    def add(self, prompts: int) -> None:
        """So many more are through."""
        self._done += prompts
        now = time.monotonic()
        if now - self._said < EVERY:
            return
        self._said = now
        rate = self._done / (now - self._start)
        left = (self._count - self._done) / rate
        log.info("%s: %d of %d prompts  %.1f prompts/s  %.0f s left", self._what, self._done, self._count, rate, left)
