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
from collections.abc import Sequence
from typing import Any

from jaxconcepts import store
from jaxconcepts.experiments import regression as synthetic
from jaxconcepts.runs import packs, processes
from jaxconcepts.runs.pacing import Pace
from jaxconcepts.runs.points import Point
from jaxconcepts.runs.preemption import PreemptedError, stop_requested
from jaxconcepts.runs.programs import Programs
from jaxconcepts.runs.progress import Progress
from jaxconcepts.runs.recording import Record

log = logging.getLogger("jaxconcepts")

ROW_STEPS = 500
"""The most steps that a row of the training loss covers."""


def default_config() -> dict[str, Any]:
    """Every field of a config file at its default: a run's (`synthetic.default_config`), and how runs are executed.

    num_seeds: how many runs are trained together, with seeds seed, seed + 1, ... (in a sweep: of every point).
    run: how, not what; it may change between a run and its resumption. how: runs of a pack side by side ("vmap"), one
        after another ("map") or by backend ("auto"). unroll: the model's blocks unrolled ("all"), scanned ("none") or
        by backend ("auto"). data: devices that each run's batch is sharded over. at_once: in a sweep, the most runs in
        a pack, 0 for as many as the memory allows. cpu_devices: on a CPU, how many devices to make of it.
        checkpoint_seconds: time between checkpoints.
    """
    run = {"how": "auto", "unroll": "auto", "data": 1, "at_once": 0, "cpu_devices": 1, "checkpoint_seconds": 60.0}
    return synthetic.default_config() | {"num_seeds": 1, "run": run}


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
) -> None:
    """Trains and measures the points (of one static part) from where their last checkpoint left them.

    programs: compiled programs to share with other packs. progress: has `update(step, losses, measured)`, a `Progress`
    by default. signals: those received, where the caller collects them.
    size: of the program, at least; a smaller pack is padded, so that it shares a larger one's compilation.

    Raises PreemptedError after SIGTERM or SIGINT, with everything done so far checkpointed.
    """
    static = points[0].static
    program = (programs or Programs(layout)).get(static, max(size, len(points)), points[0].hparams)
    hparams = packs.stack_hparams(program, [point.hparams for point in points])
    step, state = run.restore(name, lambda stored: packs.saved_state(program, hparams, stored["step"][0]))
    fresh = state is None
    state = program.init(hparams) if fresh else packs.fit_state(program, state, len(points))
    record = Record(name, points, run, program, state.diverged_at)
    record.write_runs(step, finished=step == static.train.steps)
    if step == static.train.steps:
        return
    held_out = program.prepare(hparams)
    measured_at = static.measure.at_steps(static.train.steps)
    keep_steps = static.measure.checkpoint_steps
    hidden_at = set(static.measure.hidden_steps(static.train.steps))
    if fresh:
        record.constants(step, program.constant(held_out))
        if 0 in measured_at:
            record.pend(0, None, program.measure(state, held_out))
        if 0 in hidden_at:
            record.hidden(0, program.hidden(state, held_out))
    progress = progress or Progress(log, static.train.steps, step, len(points))
    pace = Pace(step)
    rows_at = _row_steps(static.train.steps, [*measured_at, *keep_steps])
    last_checkpoint = time.monotonic()
    with stop_requested() if signals is None else contextlib.nullcontext(signals) as signals:
        while step < static.train.steps:
            following = bisect.bisect_right(rows_at, step)
            last_row, next_row = rows_at[following - 1 : following + 1]
            stop = min(next_row, step + pace.steps)
            state, result = program.chunk(state, hparams, packs.step_count(stop - step, since=step - last_row))
            measured = program.measure(state, held_out) if stop in measured_at else None
            record.settle(progress, pace)
            record.pend(stop, result, measured, row=stop == next_row)
            if stop in hidden_at:
                record.hidden(stop, program.hidden(state, held_out))
            step = stop
            due = time.monotonic() - last_checkpoint >= checkpoint_seconds
            stopping, due, microseconds = processes.largest(bool(signals), due, pace.microseconds)
            if stopping or due or step == static.train.steps or step in keep_steps:
                record.settle(progress, pace)
                record.flush(step)
                run.save(name, step, state)
                record.write_runs(step, finished=step == static.train.steps)
                last_checkpoint = time.monotonic()
                pace.reached(step)  # Writing is not training.
            pace.adapt(microseconds)
            if stopping and step < static.train.steps:
                raise PreemptedError(f"stopped by a signal at step {step}; start again to go on")


def _row_steps(steps: int, at: Sequence[int]) -> list[int]:
    """0 and the steps that a row of the training loss ends at: all in `at`, and every ROW_STEPS counted from step 0."""
    return sorted({stop for stop in (0, *at, *range(0, steps, ROW_STEPS), steps) if stop <= steps})
