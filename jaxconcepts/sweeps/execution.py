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

import jax
import numpy as np
import polars as pl

from jaxconcepts import store
from jaxconcepts.studies import rows, synthetic
from jaxconcepts.sweeps import packs
from jaxconcepts.sweeps.points import Point
from jaxconcepts.sweeps.progress import Progress

log = logging.getLogger("jaxconcepts")

EXIT_PREEMPTED = 75
"""Exit code after SIGTERM or SIGINT: everything is checkpointed, start again to go on (EX_TEMPFAIL)."""

LONGEST_CHUNK = 500
"""Steps between looks at the clock and at signals."""


def default_config() -> dict[str, Any]:
    """Every field of a config file at its default: a run's (`synthetic.default_config`), and how runs are executed.

    num_seeds: how many runs are trained together, with seeds seed, seed + 1, ...
    run: how, not what; it may change between a run and its resumption. how: runs of a pack side by side ("vmap"), one
        after another ("map") or by backend ("auto"). data: devices that each run's batch is sharded over. cpu_devices:
        on a CPU, how many devices to make of it. checkpoint_seconds: time between checkpoints.
    """
    run = {"how": "auto", "data": 1, "cpu_devices": 1, "checkpoint_seconds": 60.0}
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
) -> None:
    """Trains and measures the points (of one static part) from where their last checkpoint left them.

    Raises PreemptedError after SIGTERM or SIGINT, with everything done so far checkpointed.
    """
    static = points[0].static
    program = packs.make_program(static, len(points), layout)
    hparams = packs.stack_hparams(program, [point.hparams for point in points])
    step, state = run.restore(name, packs.abstract_state(program, hparams))
    fresh = state is None
    if fresh:
        state = program.init(hparams)
    record = _Record(name, points, run, static, np.array(state.diverged_at[: len(points)]))
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
    progress = Progress(log, static.train.steps, step, len(points))
    last_checkpoint = time.monotonic()
    with stop_requested() as stopping:
        for stop in _chunk_ends(step, static.train.steps, [*measured_at, *keep_steps]):
            state, result = program.chunk(state, hparams, packs.step_count(stop - step))
            measured = program.measure(state, held_out) if stop in measured_at else None
            record.settle(progress)
            record.pend(stop, (stop - step, result), measured)
            if stop in hidden_at:
                record.hidden(stop, program.hidden(state, held_out))
            step = stop
            due = time.monotonic() - last_checkpoint >= checkpoint_seconds
            if stopping or due or step == static.train.steps or step in keep_steps:
                record.settle(progress)
                record.flush(step)
                run.save(name, step, state)
                record.write_runs(step, finished=step == static.train.steps)
                last_checkpoint = time.monotonic()
            if stopping and step < static.train.steps:
                raise PreemptedError(f"stopped by signal {stopping[0]} at step {step}; start again to go on")


def _chunk_ends(start: int, steps: int, at: Sequence[int]) -> list[int]:
    """Where chunks end: at every step in `at`, and no more than LONGEST_CHUNK apart counted from step 0."""
    return sorted({stop for stop in (*at, *range(0, steps, LONGEST_CHUNK), steps) if start < stop <= steps})


class _Record:
    """Turns measurements into rows, a chunk late, and keeps them until a checkpoint covers them."""

    def __init__(self, pack: str, points: Sequence[Point], run: store.Run, static: synthetic.Static, diverged_at):
        self._pack, self._points, self._run, self._static = pack, points, run, static
        self._pending: list[tuple] = []
        self._frames: list[pl.DataFrame] = []
        self._diverged_at = diverged_at

    def constants(self, step, values):
        """What does not change over training: the references' losses, and the number of points behind a CD."""
        points = self._static.task.num_concepts * self._static.measure.cd_per_concept
        for index, point in enumerate(self._points):
            self._frames.append(rows.scalar(point.run, step, "cd_points", points))
            for metric, array in jax.device_get(values).items():
                self._frames.append(rows.by_concept_and_position(point.run, step, metric, array[index]))

    def pend(self, step, trained, measured):
        self._pending.append((step, trained, measured))

    def hidden(self, step, hidden):
        names = [point.run for point in self._points]
        labels = synthetic.decoding_labels(self._static)
        self._run.write_hidden(self._pack, step, np.asarray(hidden)[: len(names)], labels, names)

    def settle(self, progress):
        """Fetches what is pending, which waits for the device, and turns it into rows."""
        for step, trained, measured in self._pending:
            trained, measured = jax.device_get((trained, measured))
            losses = np.full(len(self._points), np.nan)
            if trained is not None:
                _, result = trained
                losses = result["train_loss"][: len(self._points)]
                self._note_divergence(result["diverged_at"][: len(self._points)])
            for index, point in enumerate(self._points):
                if trained is not None:
                    self._frames.append(rows.scalar(point.run, step, "train_loss", losses[index]))
                if measured is not None:
                    own = {metric: values[index] for metric, values in measured.items()}
                    self._frames.append(rows.measurement(point.run, step, own, synthetic.TOKENS))
            progress.update(step, losses, measured)
        self._pending.clear()

    def flush(self, step):
        if self._frames:
            self._run.write_metrics(self._pack, step, pl.concat(self._frames))
            self._frames.clear()

    def _note_divergence(self, diverged_at):
        for index in np.flatnonzero((diverged_at >= 0) & (self._diverged_at < 0)):
            log.warning(
                "%s diverged at step %d: its loss or update was not finite. It is frozen there; the others go on.",
                self._points[index].run,
                diverged_at[index],
            )
        self._diverged_at = np.asarray(diverged_at)

    def write_runs(self, step, finished):
        """The runs table; "done" only once the last checkpoint is committed, so that a done run needs no repair."""
        table = [
            {
                "run": point.run,
                "point": point.hash,
                "status": "diverged" if diverged >= 0 else "done" if finished else "running",
                "seed": point.config["seed"],
                "step": step,
                "diverged_at": int(diverged) if diverged >= 0 else None,
            }
            | point.hyper_parameters()
            for point, diverged in zip(self._points, self._diverged_at, strict=True)
        ]
        self._run.write_runs(self._pack, pl.DataFrame(table, infer_schema_length=None))
