"""The page of a run directory while its runs are trained: drawn again by a thread as rows are written.

Only its light part, the curves that say whether it works, and never for more than a small share of the time.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from etils import epath

from jaxconcepts.figures.report import write_report
from jaxconcepts.store import files

log = logging.getLogger("jaxconcepts")

EVERY = 10.0
"""Seconds between drawings, at least."""
SHARE = 0.05
"""Of the time, at most, that is spent on drawing."""


@contextlib.contextmanager
def page(workdir: epath.PathLike, every: float = EVERY) -> Iterator[None]:
    """Keeps report.html up to date with the tables of a run directory while the body runs; none is drawn after it.

    The first is drawn as soon as there are rows. What goes wrong with a drawing is logged, and ends none of the work.
    """
    root, ended = epath.Path(workdir), threading.Event()

    def draw():
        parts: list[str] = []
        wait, first = 0.5, True
        while not ended.wait(wait):
            written = sorted(path.name for path in files.listing(root / "metrics"))
            if written == parts:
                continue
            parts, started = written, time.monotonic()
            try:
                path = write_report(root, light=True)
            except Exception as error:
                log.warning("the page could not be drawn: %s: %s", type(error).__name__, error)
                return
            if first:
                log.info("page: %s (updated during training; it reloads itself)", path)
            first, wait = False, max(every, (time.monotonic() - started) / SHARE)

    thread = threading.Thread(target=draw, name="live page", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
