"""A pack on its way: signals are honoured within a few chunks, and where chunks end changes no bit of the tables."""

import os
import random
import signal
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from jaxconcepts import store
from jaxconcepts.experiments.regression import Regression
from jaxconcepts.runs import loop as execution
from jaxconcepts.runs import pacing, packs, points
from jaxconcepts.runs.preemption import PreemptedError
from jaxconcepts.runs.programs import Programs

pytestmark = pytest.mark.usefixtures("compiles_fast")

STEPS = 600
"""More than a row of the training loss covers, so that there is one between the measurements, at the first and the
last step."""


def config(seed):
    made = Regression.default_config()
    made["seed"] = seed
    made["task"].update(num_concepts=2, dim=4, rank=1, num_pairs=2)
    made["model"].update(layers=1, heads=1, width=4)
    made["train"].update(steps=STEPS, batch_size=4)
    made["measure"].update(count=2, spacing="linear", per_concept=6, cd_per_concept=4, neighbours=3, hidden_count=0)
    return made


POINTS = [points.make_point(config(seed)) for seed in range(2)]


class Clock:
    """The time of a device whose chunks take as long as `begin` says; it passes as they are waited for."""

    def __init__(self):
        self.now, self._done, self._last = 0.0, {}, 0.0

    def begin(self, last_step, seconds):
        self._done[last_step] = self._last = max(self.now, self._last) + seconds

    def wait_for(self, step):
        self.now = max(self.now, self._done.get(step, 0.0))


@pytest.fixture
def clock(monkeypatch):
    """The clock that packs go by."""
    clock, reached = Clock(), pacing.Pace.reached

    def wait(pace, step):
        clock.wait_for(step)
        reached(pace, step)

    monkeypatch.setattr(pacing.Pace, "reached", wait)
    for module in (pacing, execution):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class Slow:
    """Programs whose steps take so many seconds; `at_step` is called as the chunk that passes that step begins."""

    def __init__(self, programs, clock, seconds, at=STEPS, at_step=None):
        self._programs, self._clock, self._seconds, self._at, self._at_step = programs, clock, seconds, at, at_step
        self.longest = 0

    def data(self, *arguments):
        return self._programs.data(*arguments)

    def get(self, *arguments):
        program = self._programs.get(*arguments)

        def chunk(state, numbers, data, count):
            steps, first = int(count[0]), int(state.step[0])
            self.longest = max(self.longest, steps)
            if first < self._at <= first + steps and self._at_step:
                self._at_step()
            self._clock.begin(first + steps, steps * self._seconds)
            return program.chunk(state, numbers, data, count)

        return program._replace(chunk=chunk)


@pytest.fixture(scope="module", params=["map", "vmap"])
def layout(request):
    return packs.Layout(request.param)


@pytest.fixture(scope="module")
def programs(layout):
    return Programs(layout)


@pytest.fixture(scope="module")
def train(layout, programs):
    """train(workdir, ...) runs the pack as far as it gets."""

    def run(workdir, programs=programs, checkpoint_seconds=1e9, **settings):
        with store.open_run(workdir, {}) as opened:
            execution.run_pack("a", POINTS, opened, layout, checkpoint_seconds, programs=programs, **settings)

    return run


@pytest.fixture(scope="module")
def expected(train, tmp_path_factory):
    """The tables of a run with chunks as long as can be."""
    workdir = tmp_path_factory.mktemp("expected")
    train(workdir)
    found = tables(workdir)
    losses = store.metrics(workdir).filter(metric="train_loss")
    assert sorted(losses["step"]) == [500, 500, 600, 600] and losses["value"].n_unique() == 4
    return found


def tables(workdir):
    metrics = store.metrics(workdir)
    metrics = metrics.sort(metrics.columns[:-1])
    return metrics.drop("value"), metrics["value"].to_numpy().view(np.int64).tolist(), store.runs(workdir)


def assert_same(workdir, expected):
    (keys, bits, runs), (wanted_keys, wanted_bits, wanted_runs) = tables(workdir), expected
    assert keys.equals(wanted_keys) and bits == wanted_bits and runs.equals(wanted_runs)


def test_a_signal_stops_a_slow_training_within_seconds_and_it_goes_on_to_the_same_tables(
    train, programs, expected, tmp_path, clock
):
    """At half a second a step, and chunks of five."""
    slow = Slow(programs, clock, 0.5, at=100, at_step=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(PreemptedError, match="stopped by a signal at step"):
        train(tmp_path, slow)
    (step,) = store.checkpoints(tmp_path, "a")
    assert 100 <= step <= 120 and slow.longest == 10
    assert store.metrics(tmp_path)["step"].max() == 0  # No row is due before step 500.
    assert store.runs(tmp_path)["step"].to_list() == [step] * 2
    train(tmp_path)
    assert_same(tmp_path, expected)


def test_checkpoints_come_when_they_are_due(train, programs, expected, tmp_path, monkeypatch, clock):
    saved, honest = [0], store.Run.save

    def save(self, pack, step, state):
        saved.append(step)
        honest(self, pack, step, state)

    monkeypatch.setattr(store.Run, "save", save)
    train(tmp_path, Slow(programs, clock, 0.2), checkpoint_seconds=25.0)
    assert saved[-1] == STEPS and len(saved) > 3 and max(np.diff(saved)) <= 175  # 125 steps, and two chunks of 25.
    assert_same(tmp_path, expected)


def test_tables_have_the_same_bits_however_chunks_are_cut_and_wherever_it_is_killed(
    train, expected, tmp_path, monkeypatch
):
    rng = random.Random(0)

    def adapt(pace, microseconds):
        pace.steps = rng.choice([1, 7, 60, 200])
        if rng.random() < 0.15:
            raise KeyboardInterrupt  # Stands in for a kill: no more is written.

    monkeypatch.setattr(pacing.Pace, "adapt", adapt)
    kills = 0
    for _ in range(100):
        try:
            train(tmp_path, checkpoint_seconds=rng.choice([0, 1e9]))
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 3
    assert_same(tmp_path, expected)


def test_chunks_grow_to_what_takes_a_few_seconds(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(pacing.time, "monotonic", lambda: clock[0])
    for seconds, lengths in {
        1.0: [1, 4, 5, 5, 5],
        20.0: [1, 1, 1, 1, 1],
        0.036: [1, 4, 16, 64, 138],
        1e-9: [1, 4, 16, 64, 256],
    }.items():
        pace, step, found = pacing.Pace(0), 0, []
        for _ in lengths:
            found.append(pace.steps)
            step += pace.steps
            clock[0] += pace.steps * seconds
            pace.reached(step)
            clock[0] += 100.0  # Writing.
            pace.reached(step)
            pace.adapt(pace.microseconds)
        assert found == lengths, seconds


def test_a_checkpoint_of_another_version_is_refused_by_name(train, tmp_path, monkeypatch):
    """One whose state carries no sum of losses."""
    honest = store.Run.save

    def without_the_sum(self, pack, step, state):
        honest(self, pack, step, {name: part for name, part in state._asdict().items() if name != "loss_sum"})

    monkeypatch.setattr(store.Run, "save", without_the_sum)
    train(tmp_path)
    metrics = pl.read_parquet(tmp_path / "metrics" / "*.parquet")
    with pytest.raises(ValueError, match="this program's: loss_sum: stored nothing, expected float32"):
        train(tmp_path)
    assert metrics.equals(pl.read_parquet(tmp_path / "metrics" / "*.parquet"))
