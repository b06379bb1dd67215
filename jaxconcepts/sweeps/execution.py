"""Runs a pack to its end: chunks of training, measurements between them, tables and checkpoints, resume.

Measurements are fetched one chunk late, so the device never waits for the host. Rows are written, then the checkpoint
that covers them: whenever the process dies, starting again continues from the last checkpoint and ends with the same
tables.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

from jaxconcepts import store
from jaxconcepts.studies import synthetic
from jaxconcepts.sweeps import packs, processes
from jaxconcepts.sweeps.points import Point
from jaxconcepts.sweeps.programs import Programs
from jaxconcepts.sweeps.progress import Progress
from jaxconcepts.sweeps.recording import Record

log = logging.getLogger("jaxconcepts")

EXIT_PREEMPTED = 75
"""Exit code after SIGTERM or SIGINT: everything is checkpointed, start again to go on (EX_TEMPFAIL)."""

LONGEST_CHUNK = 500
"""Steps between looks at the clock and at signals."""


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
    last_checkpoint = time.monotonic()
    with stop_requested() if signals is None else contextlib.nullcontext(signals) as signals:
        for stop in _chunk_ends(step, static.train.steps, [*measured_at, *keep_steps]):
            state, result = program.chunk(state, hparams, packs.step_count(stop - step))
            measured = program.measure(state, held_out) if stop in measured_at else None
            record.settle(progress)
            record.pend(stop, result, measured)
            if stop in hidden_at:
                record.hidden(stop, program.hidden(state, held_out))
            step = stop
            due = time.monotonic() - last_checkpoint >= checkpoint_seconds
            stopping, due = processes.any_process(bool(signals), due)
            if stopping or due or step == static.train.steps or step in keep_steps:
                record.settle(progress)
                record.flush(step)
                run.save(name, step, state)
                record.write_runs(step, finished=step == static.train.steps)
                last_checkpoint = time.monotonic()
            if stopping and step < static.train.steps:
                raise PreemptedError(f"stopped by a signal at step {step}; start again to go on")


def _chunk_ends(start: int, steps: int, at: Sequence[int]) -> list[int]:
    """Where chunks end: at every step in `at`, and no more than LONGEST_CHUNK apart counted from step 0."""
    return sorted({stop for stop in (*at, *range(0, steps, LONGEST_CHUNK), steps) if start < stop <= steps})
