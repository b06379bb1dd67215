"""How far a sweep has come: a line in the log now and then, and progress/<i>of<n>.json for `status`."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from etils import epath

from jaxconcepts.runs.programs import Programs
from jaxconcepts.runs.progress import duration, train_loss
from jaxconcepts.store import files
from jaxconcepts.sweeps.membership import Pack
from jaxconcepts.training.experiment import Named


class SweepProgress:
    """Notes what is done. shard: (index, count) of this job; None in a distributed one, where process 0 tells."""

    def __init__(
        self,
        log: logging.Logger,
        workdir: epath.Path,
        queue: deque[Pack],
        programs: Programs,
        shard: tuple[int, int] | None,
        every: float = 5.0,
    ):
        import jax

        self._log, self._queue, self._programs, self._every = log, queue, programs, every
        self._packs = len(queue)
        self._last = time.monotonic()
        self._done = self._stepping = 0.0  # Work, and the seconds that it took.
        self._starts, self._starting = 0, 0.0  # Packs begun, and their seconds before the first step.
        self._expected = False
        self._pack: Pack | None = None
        index, count = shard or (0, 1)
        self._file = workdir / "progress" / f"{index}of{count}.json" if jax.process_index() == 0 else None
        if self._file is not None:
            self._file.parent.mkdir(exist_ok=True)
            for path in files.listing(self._file.parent):
                if path.suffix == ".json" and not path.name.endswith(f"of{count}.json"):
                    path.unlink(missing_ok=True)

    def begin(self, pack: Pack) -> None:
        self._pack, self._step, self._since = pack, None, self._clock()
        self._packs = max(self._packs, self._number() + len(self._queue))
        self._tell(0)

    def update(self, step: int, losses: np.ndarray, measured: Mapping[str, Named] | None) -> None:
        """Notes that the pack in hand is done up to `step`."""
        steps, now = self._pack.points[0].experiment.train.steps, time.monotonic()
        clock = self._clock()
        passed, self._since = clock - self._since, clock
        if self._step is None:
            self._begun = now
            self._starts, self._starting = self._starts + 1, self._starting + passed
        else:
            share = (step - self._step) / steps
            self._done, self._stepping = self._done + share * self._work(self._pack), self._stepping + passed
        self._step = step
        left = self._left()
        # Not from the first few steps.
        if not self._expected and left is not None and (now - self._begun >= self._every or step == steps):
            self._expected = True
            self._log.info("expected time: %s", duration(left))
        if now - self._last < self._every and step < steps:
            return
        self._last = now
        self._tell(step)
        self._log.info(
            "pack %d of %d, step %d of %d, %d runs%s%s",
            self._number(), self._packs, step, steps, len(self._pack.points),
            "" if left is None else f"  {duration(left)} left", train_loss(step, losses),
        )  # fmt: skip

    def end(self) -> None:
        """Notes that nothing is left."""
        self._pack = None
        self._tell(0)

    def _number(self) -> int:
        return self._packs - len(self._queue)

    def _clock(self) -> float:
        """Seconds that stand still while something is compiled."""
        return time.monotonic() - self._programs.seconds

    @staticmethod
    def _work(pack: Pack) -> float:
        return len(pack.points) * pack.points[0].experiment.work()

    def _left(self) -> float | None:
        """Seconds, from the rate so far, and the starts and compilations to come; None before there is a rate."""
        if not self._done:
            return None
        steps = self._pack.points[0].experiment.train.steps
        work = (1 - self._step / steps) * self._work(self._pack) + sum(map(self._work, self._queue))
        starting = len(self._queue) * self._starting / self._starts
        groups = {pack.points[0].experiment for pack in self._queue} - {self._pack.points[0].experiment}
        compiling = len(groups) * self._programs.seconds / max(1, self._programs.compilations)
        return work / self._done * max(self._stepping, 1e-3) + starting + compiling

    def _tell(self, step: int) -> None:
        if self._file is None:
            return
        content = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "pack": None, "packs": self._packs}
        if self._pack is not None:
            left = None if self._step is None else self._left()
            steps = self._pack.points[0].experiment.train.steps
            content |= {"pack": self._pack.name, "number": self._number(), "step": step, "steps": steps}
            content |= {"runs": len(self._pack.points), "seconds_left": left}
        with contextlib.suppress(OSError):  # A full disk is named by what must be written.
            files.write(self._file, json.dumps(content).encode())
