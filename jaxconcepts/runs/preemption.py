"""Stopping when asked to. SIGTERM, Ctrl-C and a closed terminal end every command with exit code 75, and the same
command goes on. So does an output that nobody reads any longer (`| head -1`).

What is written appears whole or not at all, so a command may end anywhere: at once, while it imports, compiles or
draws. Only where there is unsaved work (`stop_requested`) are signals collected, for the work to be checkpointed first.

Imports no jax, so that the command line can handle signals before anything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

EXIT_PREEMPTED = 75
"""Exit code after a signal: start again to continue (EX_TEMPFAIL)."""

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
_collecting: list[list[int]] = []  # What each open `stop_requested` has received.
_ending = threading.Lock()


class PreemptedError(Exception):
    """The process was asked to stop, and has checkpointed."""


def end_on_signals() -> None:
    """From now on `SIGNALS` end the process with one line and 75, except inside `stop_requested`.

    To be called in the main thread of a command. A thread waits for the signals too: Python runs handlers only between
    its own instructions, and a compilation is a single one that can take minutes.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in _heard():
        signal.signal(number, _end)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True, name="signals").start()


@contextlib.contextmanager
def stop_requested() -> Iterator[list[int]]:
    """Collects `SIGNALS` instead of ending at once; the list holds those received.

    Raises PreemptedError at the end where a signal came and the body did not raise: what the body does is done, and
    what the command would do after it is not wanted. Outside the main thread no signal arrives, and the list is empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {s: signal.signal(s, lambda number, _: received.append(number)) for s in _heard()}
    _collecting.append(received)
    try:
        yield received
    finally:
        _collecting.pop()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        raise PreemptedError("stopped by a signal; start again to continue")


def nobody_reads() -> None:
    """What follows when the reader of the output has gone: the same as after a signal, which here is SIGPIPE.

    No handler of SIGPIPE, which sockets raise too.
    """
    if _collecting:
        _collecting[-1].append(signal.SIGPIPE)
    else:
        _end(signal.SIGPIPE)


def _heard() -> list[int]:
    """`SIGNALS`, but for a hang-up that is ignored: `nohup` asks for that."""
    return [n for n in SIGNALS if n.name != "SIGHUP" or signal.getsignal(n) != signal.SIG_IGN]


def _watch(reading: int) -> None:
    while numbers := os.read(reading, 1):
        if numbers[0] in SIGNALS and not _collecting:
            _end(numbers[0])


def _end(number: int, _=None) -> None:
    # Not by an exception, which might be raised inside a library's callback and be lost there.
    if not _ending.acquire(blocking=False):
        # The main thread and the one that waits both hear of a signal: the first of them says so and ends the process.
        time.sleep(1)
    else:
        line = f"stopped by {signal.Signals(number).name}; start again to continue\n"
        with contextlib.suppress(OSError):
            os.write(2, line.encode())
    os._exit(EXIT_PREEMPTED)
