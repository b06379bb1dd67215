"""What long passes over prompts share: the next batch computed ahead, progress, and what was read kept on disk."""

from __future__ import annotations

import io
import logging
import time
import zipfile
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
from etils import epath
from jaxtyping import Shaped

from jaxconcepts.store import files

SAID_EVERY = 5.0
KEPT_EVERY = 10.0
"""Seconds between two lines, and between two parts."""
PART = "part"
Item = TypeVar("Item")
log = logging.getLogger("jaxconcepts")


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Each item once the one after it is made: where making one starts a computation, it runs while the one before is
    read."""
    made = []
    for item in items:
        made.append(item)
        if len(made) > 1:
            yield made.pop(0)
    yield from made


class Progress:
    """Says what begins, then every five seconds how many prompts are through and how long the others will take."""

    def __init__(self, what: str, count: int):
        self._what, self._count, self._done = what, count, 0
        self._start = self._said = time.monotonic()
        # The first batch of a width is compiled before it is read, which takes a while.
        log.info("%s: %d prompts", what, count)

    def add(self, prompts: int) -> None:
        """So many more are through."""
        self._done += prompts
        now = time.monotonic()
        if now - self._said < SAID_EVERY:
            return
        self._said = now
        rate = self._done / (now - self._start)
        left = (self._count - self._done) / rate
        log.info("%s: %d of %d prompts  %.1f prompts/s  %.0f s left", self._what, self._done, self._count, rate, left)


class Parts:
    """What a pass has read so far, in files of some seconds' work each, until `remove`: one that was stopped goes on.

    folder: of this pass alone, made when it is needed; None keeps nothing.
    """

    def __init__(self, folder: epath.Path | None):
        self._folder, self._waiting, self._kept = folder, [], time.monotonic()

    def stored(self) -> Iterator[dict[str, Shaped[np.ndarray, "n ..."]]]:
        """The arrays of each part that an earlier process has kept. A damaged part is left out, and read again."""
        for _, path in [] if self._folder is None else files.list_parts(self._folder, PART):
            try:
                with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as part:
                    yield dict(part)
            except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                log.warning("%s is damaged (%s); its prompts are read again", path, error)

    def keep(self, **arrays: Shaped[np.ndarray, "n ..."]) -> None:
        """Rows of arrays that have all been read, the same arrays each time."""
        if self._folder is None:
            return
        self._waiting.append(arrays)
        if time.monotonic() - self._kept < KEPT_EVERY:
            return
        joined = {name: np.concatenate([rows[name] for rows in self._waiting]) for name in arrays}
        buffer = io.BytesIO()
        np.savez(buffer, **joined)
        self._folder.mkdir(parents=True, exist_ok=True)
        number = len(files.list_parts(self._folder, PART))
        files.write(self._folder / f"{PART}.{number:09d}.npz", buffer.getvalue())
        self._waiting, self._kept = [], time.monotonic()

    def remove(self) -> None:
        """Forgets everything, once it is stored elsewhere."""
        if self._folder is not None:
            self._folder.rmtree(missing_ok=True)
