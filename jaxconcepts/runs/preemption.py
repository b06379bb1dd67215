"""Stopping when asked to: SIGTERM and SIGINT are collected, work is checkpointed, and the process exits with 75.

Imports no jax, so that the command line can name the error before a command is chosen.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

EXIT_PREEMPTED = 75
"""Exit code after SIGTERM or SIGINT: everything is checkpointed, start again to go on (EX_TEMPFAIL)."""


class PreemptedError(Exception):
    """The process was asked to stop, and has checkpointed."""


@contextlib.contextmanager
def stop_requested() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT instead of dying of them; the list holds the signals received."""
    received: list[int] = []
    previous = {s: signal.signal(s, lambda number, _: received.append(number)) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
