"""Signs of life: where a command has said nothing for some seconds, a line says what goes on and for how long."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator

EVERY = 3.0
"""Seconds of silence after which a line comes."""


@contextlib.contextmanager
def beating(every: float = EVERY) -> Iterator[None]:
    """Lines in every silence of the body."""
    pulse, log = Pulse(every), logging.getLogger("jaxconcepts")
    log.addHandler(pulse)
    try:
        yield
    finally:
        log.removeHandler(pulse)
        pulse.stop()


class Pulse(logging.Handler):
    """Repeats the beginning of the last message of the log on stderr, with the seconds since, until `stop`."""

    def __init__(self, every: float):
        super().__init__()
        self._every, self._message = every, "starting"
        self._since = self._last_line = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        # Progress lines hold their numbers after two blanks.
        self._message = record.getMessage().partition("  ")[0]
        self._since = self._last_line = time.monotonic()

    def stop(self) -> None:
        """Ends the lines."""
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(0.2):
            now = time.monotonic()
            if now - self._last_line >= self._every:
                self._last_line = now
                with contextlib.suppress(OSError):  # Nobody reads it.
                    print(f"  … {self._message}: {now - self._since:.0f} s", file=sys.stderr, flush=True)
