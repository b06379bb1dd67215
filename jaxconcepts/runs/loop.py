"""Runs a pack to its end: chunks of training, measurements between them, tables and checkpoints, resume.

The host looks at signals and at the clock between chunks, which are a few seconds long whatever a step takes. Where
they end changes no bit of the tables: rows are written at fixed steps, and the training state carries the sum of the
losses since the last one. Measurements are fetched one chunk late, so the device never waits for the host. Rows are
written, then the checkpoint that covers them: whenever the process dies, starting again continues from the last
checkpoint and ends with the same tables.
"""

from __future__ import annotations

import bisect
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxconcepts import experiments, fields, store
from jaxconcepts.runs import lengths, packs, processes, trackers
from jaxconcepts.runs.events import CallbackError, Event, name_of
from jaxconcepts.runs.execution import Execution
from jaxconcepts.runs.pacing import Pace
from jaxconcepts.runs.points import Point
from jaxconcepts.runs.preemption import PreemptedError, stop_requested
from jaxconcepts.runs.programs import Programs
from jaxconcepts.runs.progress import Progress
from jaxconcepts.runs.recording import Record
from jaxconcepts.training.experiment import Experiment
from jaxconcepts.training.train import TrainState

log = logging.getLogger("jaxconcepts")


def default_config(experiment: str = "regression") -> dict[str, Any]:
    """Every field of a config file at its default: a run's (`Experiment.default_config`), and how runs are executed.

    num_seeds: how many runs are trained together, with seeds seed, seed + 1, ... (in a sweep: of every point).
    run: how, not what (`execution.Execution`); it may change between a run and its resumption.
    """
    run = fields.defaults(Execution)
    return experiments.find(experiment).default_config({"experiment": experiment}) | {"num_seeds": 1, "run": run}


@dataclass(frozen=True)
class Watching:
    """Who sees a pack's training while it goes on.

    progress: has `update(step, losses, measured)`, a `Progress` by default. signals: those received, where the caller
    collects them. callbacks: called at every measured step, before training goes on, each with an `Event`. trackers:
    see `trackers.Feed`.
    """

    progress: Any = None
    signals: list[int] | None = None
    callbacks: Sequence[Callable[[Event], Any]] = ()
    trackers: Sequence[str] = ()


def run_pack(
    name: str,
    points: Sequence[Point],
    run: store.Run,
    layout: packs.Layout,
    checkpoint_seconds: float = 60.0,
    *,
    programs: Programs | None = None,
    watching: Watching = Watching(),
    size: int = 0,
) -> TrainState:
    """Trains and measures the points (of one experiment) from where their last checkpoint left them.

    Returns the last state.

    programs: compiled programs to share with other packs. size: of the program, at least; a smaller pack is padded, so
    that it shares a larger one's compilation.

    Raises ValueError for trackers that cannot be, before anything is compiled. Raises PreemptedError after SIGTERM or
    SIGINT, and CallbackError where a callback raises, with everything done so far checkpointed.
    """
    trackers.check(watching.trackers, run.workdir)
    programs = programs or Programs(layout)
    pack = _Pack(name, points, run, programs, max(size, len(points)))
    if not pack.done:
        pack.train(watching, checkpoint_seconds)
    return pack.state


class _Pack:
    """A pack on its way: its state on the devices, and what is to be written."""

    def __init__(self, name: str, points: Sequence[Point], run: store.Run, programs: Programs, size: int):
        self.name, self.run, self.size = name, run, len(points)
        self.experiment = experiment = points[0].experiment
        self.steps, self.earlier = experiment.train.steps, points[0].earlier
        self.program = program = programs.get(experiment, size, points[0].numbers)
        self.numbers = packs.stack_numbers(program, [point.numbers for point in points])
        self.data = programs.data(experiment, program)
        self.step, state = run.restore(
            name, lambda stored: packs.saved_state(program, self.numbers, self.data, stored["step"][0])
        )
        self.fresh = state is None
        started = program.init(self.numbers, self.data) if self.fresh else packs.fit_state(program, state, len(points))
        self.state: TrainState = started
        self.record = Record(name, points, run, program, started.diverged_at)
        self.record.write_runs(self.step, finished=self.done)

    @property
    def done(self) -> bool:
        return self.step == self.steps

    def train(self, watching: Watching, checkpoint_seconds: float) -> None:
        """Trains to the end. Errors as of `run_pack`."""
        self.measured_at = set(self.steps_of(lengths.measured_steps))
        self.hidden_at = set(self.steps_of(lambda of: of.measuring.hidden_steps(of.train.steps)))
        keep_steps = set(self.steps_of(lengths.kept_steps))
        rows_at = self.steps_of(_row_steps)
        self.callbacks = watching.callbacks
        self.held_out = self.program.prepare(self.numbers, self.data)
        if self.fresh:
            self.record.constants(0, self.program.constant(self.numbers, self.held_out, self.data))
            self.pend(0, None)
        self.progress = watching.progress or Progress(log, self.steps, self.step, self.size)
        self.pace = pace = Pace(self.step)
        # The first comes early, so that there is something to look at.
        last_checkpoint = time.monotonic() - (0.9 * checkpoint_seconds if self.fresh else 0)
        self.feed = trackers.Feed(watching.trackers, self.run.workdir, self.record.runs, self.step)
        collected = watching.signals
        stopped = stop_requested() if collected is None else contextlib.nullcontext(collected)
        with contextlib.closing(self.feed), stopped as signals:
            if self.fresh:
                self.call_back()
                if 0 in keep_steps:
                    self.checkpoint()
            while not self.done:
                self.advance(rows_at)
                self.call_back()
                due = time.monotonic() - last_checkpoint >= checkpoint_seconds
                stopping, due, microseconds = processes.largest(bool(signals), due, pace.microseconds)
                if stopping or due or self.done or self.step in keep_steps:
                    self.checkpoint()
                    last_checkpoint = time.monotonic()
                    pace.reached(self.step)  # Writing is not training.
                pace.adapt(microseconds)
                if stopping and not self.done:
                    raise PreemptedError(f"stopped by a signal at step {self.step}; start again to continue")

    def steps_of(self, of: Callable[[Experiment], Sequence[int]]) -> list[int]:
        return lengths.steps(self.experiment, self.earlier, of)

    def advance(self, rows_at: list[int]) -> None:
        """Trains a chunk, and measures where it ends."""
        following = bisect.bisect_right(rows_at, self.step)
        last_row, next_row = rows_at[following - 1 : following + 1]
        stop = min(next_row, self.step + self.pace.steps)
        count = packs.step_count(stop - self.step, self.step - last_row)
        self.state, result = self.program.chunk(self.state, self.numbers, self.data, count)
        self.pend(stop, result, row=stop == next_row)
        self.step = stop

    def pend(self, step: int, result: Any, row: bool = True) -> None:
        """Notes what a chunk gave and starts the measurements of its last step; the ones before are fetched."""
        arguments = (self.state, self.numbers, self.held_out, self.data)
        measured = self.program.measure(*arguments) if step in self.measured_at else None
        if result is not None:
            self.record.settle(self.progress, self.pace)
        if result is not None or measured is not None:
            self.record.pend(step, result, measured, row=row)
        if step in self.hidden_at:
            self.record.hidden(step, self.program.hidden(*arguments))

    def checkpoint(self) -> None:
        """Writes the rows so far, and the checkpoint that covers them."""
        self.record.settle(self.progress, self.pace)
        written = self.record.flush(self.step)
        self.run.save(self.name, self.step, self.state)
        self.record.write_runs(self.step, finished=self.done)
        self.feed.write(written)

    def call_back(self) -> None:
        """Calls the callbacks, if the step is a measured one."""
        if not self.callbacks or self.step not in self.measured_at:
            return
        self.record.settle(self.progress, self.pace)
        for callback in self.callbacks:
            try:
                callback(self.record.event(self.step, self.state.params))
            except Exception as error:
                self.checkpoint()
                raise CallbackError(
                    f"callback {name_of(callback)} raised at step {self.step}: {type(error).__name__}: {error}; "
                    "everything up to that step is checkpointed"
                ) from error


def _row_steps(of: Experiment) -> list[int]:
    """0 and the steps that a row of what is reported ends at: where a run is measured or its checkpoint kept, and every
    `ROW_STEPS` counted from step 0."""
    steps, settings = of.train.steps, of.measuring
    at = (0, *settings.at_steps(steps), *settings.checkpoint_steps, *range(0, steps, of.ROW_STEPS), steps)
    return sorted({stop for stop in at if stop <= steps})
