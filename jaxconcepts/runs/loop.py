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
from typing import Any

from jaxconcepts import experiments, fields, store
from jaxconcepts.runs import packs, processes
from jaxconcepts.runs.events import CallbackError, Event, name_of
from jaxconcepts.runs.execution import Execution
from jaxconcepts.runs.pacing import Pace
from jaxconcepts.runs.points import Point
from jaxconcepts.runs.preemption import PreemptedError, stop_requested
from jaxconcepts.runs.programs import Programs
from jaxconcepts.runs.progress import Progress
from jaxconcepts.runs.recording import Record
from jaxconcepts.runs.trackers import Feed
from jaxconcepts.training.train import TrainState

log = logging.getLogger("jaxconcepts")


def default_config(experiment: str = "regression") -> dict[str, Any]:
    """Every field of a config file at its default: a run's (`Experiment.default_config`), and how runs are executed.

    num_seeds: how many runs are trained together, with seeds seed, seed + 1, ... (in a sweep: of every point).
    run: how, not what (`execution.Execution`); it may change between a run and its resumption.
    """
    run = fields.defaults(Execution)
    return experiments.find(experiment).default_config({"experiment": experiment}) | {"num_seeds": 1, "run": run}


def run_pack(
    name: str,
    points: Sequence[Point],
    run: store.Run,
    layout: packs.Layout,
    checkpoint_seconds: float = 60.0,
    *,
    programs: Programs | None = None,
    progress: Any = None,
    signals: list[int] | None = None,
    size: int = 0,
    callbacks: Sequence[Callable[[Event], Any]] = (),
    trackers: Sequence[str] = (),
) -> TrainState:
    """Trains and measures the points (of one experiment) from where their last checkpoint left them.

    Returns the last state.

    programs: compiled programs to share with other packs. progress: has `update(step, losses, measured)`, a `Progress`
    by default. signals: those received, where the caller collects them.
    size: of the program, at least; a smaller pack is padded, so that it shares a larger one's compilation.

    callbacks: called at every measured step, before training goes on, each with an `Event`. trackers: see
    `trackers.Feed`.

    Raises PreemptedError after SIGTERM or SIGINT, and CallbackError where a callback raises, with everything done so
    far checkpointed.
    """
    experiment = points[0].experiment
    steps, settings = experiment.train.steps, experiment.measuring
    programs = programs or Programs(layout)
    program = programs.get(experiment, max(size, len(points)), points[0].numbers)
    numbers = packs.stack_numbers(program, [point.numbers for point in points])
    data = programs.data(experiment, program)
    step, state = run.restore(name, lambda stored: packs.saved_state(program, numbers, data, stored["step"][0]))
    fresh = state is None
    state = program.init(numbers, data) if fresh else packs.fit_state(program, state, len(points))
    record = Record(name, points, run, program, state.diverged_at)
    record.write_runs(step, finished=step == steps)
    if step == steps:
        return state
    held_out = program.prepare(numbers, data)
    measured_at, keep_steps = settings.at_steps(steps), settings.checkpoint_steps
    hidden_at = set(settings.hidden_steps(steps))
    if fresh:
        record.constants(step, program.constant(numbers, held_out, data))
        if 0 in measured_at:
            record.pend(0, None, program.measure(state, numbers, held_out, data))
        if 0 in hidden_at:
            record.hidden(0, program.hidden(state, numbers, held_out, data))
    progress = progress or Progress(log, steps, step, len(points))
    pace = Pace(step)
    rows_at = _row_steps(steps, [*measured_at, *keep_steps], experiment.ROW_STEPS)

    def checkpoint():
        record.settle(progress, pace)
        written = record.flush(step)
        run.save(name, step, state)
        record.write_runs(step, finished=step == steps)
        feed.write(written)

    def call_back():
        record.settle(progress, pace)
        for callback in callbacks:
            try:
                callback(record.event(step, state.params))
            except Exception as error:
                checkpoint()
                raise CallbackError(
                    f"callback {name_of(callback)} raised at step {step}: {type(error).__name__}: {error}; "
                    "everything up to that step is checkpointed"
                ) from error

    # The first comes early, so that there is something to look at.
    last_checkpoint = time.monotonic() - (0.9 * checkpoint_seconds if fresh else 0)
    feed = Feed(trackers, run.workdir, record.runs, step)
    with contextlib.closing(feed), stop_requested() if signals is None else contextlib.nullcontext(signals) as signals:
        if fresh and 0 in measured_at and callbacks:
            call_back()
        if fresh and 0 in keep_steps:
            checkpoint()
        while step < steps:
            following = bisect.bisect_right(rows_at, step)
            last_row, next_row = rows_at[following - 1 : following + 1]
            stop = min(next_row, step + pace.steps)
            state, result = program.chunk(state, numbers, data, packs.step_count(stop - step, step - last_row))
            measured = program.measure(state, numbers, held_out, data) if stop in measured_at else None
            record.settle(progress, pace)
            record.pend(stop, result, measured, row=stop == next_row)
            if stop in hidden_at:
                record.hidden(stop, program.hidden(state, numbers, held_out, data))
            step = stop
            if measured is not None and callbacks:
                call_back()
            due = time.monotonic() - last_checkpoint >= checkpoint_seconds
            stopping, due, microseconds = processes.largest(bool(signals), due, pace.microseconds)
            if stopping or due or step == steps or step in keep_steps:
                checkpoint()
                last_checkpoint = time.monotonic()
                pace.reached(step)  # Writing is not training.
            pace.adapt(microseconds)
            if stopping and step < steps:
                raise PreemptedError(f"stopped by a signal at step {step}; start again to go on")
    return state


def _row_steps(steps: int, at: Sequence[int], each: int) -> list[int]:
    """0 and the steps that a row of what is reported ends at: all in `at`, and every `each` counted from step 0."""
    return sorted({stop for stop in (0, *at, *range(0, steps, each), steps) if stop <= steps})
