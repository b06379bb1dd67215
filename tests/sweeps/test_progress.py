"""The time that a sweep says is left, beside what is known of it."""

import logging
from collections import deque
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from jaxconcepts.sweeps import sweep_progress


@dataclass(frozen=True)
class Experiment:
    name: str
    train: ClassVar = SimpleNamespace(steps=100)

    def work(self):
        return 1.0


def _pack(name):
    return SimpleNamespace(name=name, points=[SimpleNamespace(experiment=Experiment(name))])


def test_the_time_left_is_that_of_steps_starts_and_compilations_to_come(tmp_path, monkeypatch):
    """A compilation and a long first measurement happen once a pack: they are no part of a step's time."""
    time, programs = SimpleNamespace(now=0.0), SimpleNamespace(seconds=0.0, compilations=0)
    monkeypatch.setattr(sweep_progress, "time", SimpleNamespace(monotonic=lambda: time.now))
    queue = deque([_pack("a"), _pack("b")])
    progress = sweep_progress.SweepProgress(logging.getLogger("test"), tmp_path, queue, programs, None)
    progress.begin(queue.popleft())
    time.now, programs.seconds, programs.compilations = 30.0, 30.0, 1
    time.now += 80  # The measurement at step 0.
    progress.update(0, np.array([np.nan]), None)
    time.now += 20
    progress.update(10, np.array([1.0]), None)
    # 90 steps of 2 s, and the other pack: 30 s of compiling, 80 s to its first step, 100 steps.
    assert progress._left() == pytest.approx(180 + 30 + 80 + 200)
    time.now += 180
    progress.update(100, np.array([1.0]), None)
    assert progress._left() == pytest.approx(30 + 80 + 200)
    progress.begin(queue.popleft())
    progress.update(0, np.array([np.nan]), None)
    assert progress._left() == pytest.approx(200)
