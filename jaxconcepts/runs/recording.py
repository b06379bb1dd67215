"""Measurements of a pack on their way to the tables: fetched a chunk late, kept until a checkpoint covers them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import jax
import numpy as np
import polars as pl

from jaxconcepts import store
from jaxconcepts.runs import packs
from jaxconcepts.runs.events import Event
from jaxconcepts.runs.points import Point, nullable
from jaxconcepts.store import tidy

log = logging.getLogger("jaxconcepts")


class Record:
    """Rows of a pack's runs; each process of a distributed job keeps those of its own runs."""

    def __init__(self, name: str, points: Sequence[Point], run: store.Run, program: packs.Program, diverged_at):
        """diverged_at: [size] as in the training state, an array of the program's devices."""
        self._name, self._run, self._program = name, run, program
        local = [(at, place) for at, place in enumerate(packs.local_runs(program)) if place < len(points)]
        self._keep = np.asarray([at for at, _ in local], int)
        self._points = [points[place] for _, place in local]
        self._runs = [point.run for point in self._points]
        self._experiment = points[0].experiment
        self._pending: list[tuple] = []
        self._frames: list[pl.DataFrame] = []
        self._diverged_at = self._fetch(diverged_at)
        self._noted = {(name, unit, None) for name, unit in self._experiment.REPORTED.items()}
        self._written: set[tuple] = set()

    @property
    def runs(self) -> list[str]:
        """The names of this process's runs."""
        return self._runs

    @property
    def _detail(self) -> str:
        return self._experiment.measuring.detail

    def constants(self, step, values):
        """What does not change over training, such as the references' losses."""
        if self._runs:  # Else padding only: another process has the runs.
            self._frames.append(tidy.rows(self._runs, step, self._fetch(values), self._detail))
            self._note(values)

    def pend(self, step, result, measured, row=True):
        """Notes what a chunk and a measurement gave (None for either), without waiting for it.

        row: whether the chunk's means belong in the tables; if not, they cover only some of the steps up to a row.
        """
        self._pending.append((step, result, measured, row))

    def hidden(self, step, hidden_and_labels):
        hidden, labels = self._fetch(hidden_and_labels)
        if self._runs:
            self._run.write_hidden(self._name, step, hidden, labels[0], self._runs)

    def settle(self, progress, pace):
        """Fetches what is pending, which waits for the device, and turns it into rows; tells how far that has come."""
        for step, result, measured, row in self._pending:
            result, measured = self._fetch((result, measured))
            pace.reached(step)
            losses = np.full(len(self._runs), np.nan)
            if result is not None:
                reported = {name: result[name] for name in self._experiment.REPORTED}
                losses = next(iter(reported.values()))
                self._note_divergence(result["diverged_at"])
                if row and self._runs:
                    self._frames += [tidy.scalars(self._runs, step, *item) for item in reported.items()]
            if measured is not None and self._runs:
                measured = self._experiment.on_host(measured)
                self._note(measured)
                self._frames.append(tidy.rows(self._runs, step, measured, self._detail))
            progress.update(step, losses, measured)
        self._pending.clear()

    def event(self, step, params) -> Event:
        """What callbacks see of a measured step that has been settled."""
        of_step = [frame.filter(step=step) for frame in self._frames]
        metrics = pl.concat([pl.DataFrame(schema=store.METRICS), *of_step])

        def add(metric, values):
            frame = tidy.scalars(self._runs, step, metric, values)
            self._frames.append(frame.filter(pl.col("value").is_not_nan()))

        return Event(step, tuple(self._runs), metrics, lambda: self._fetch(params), add)

    def flush(self, step):
        """Writes the rows gathered so far as the part that the checkpoint at `step` will cover; returns them."""
        if self._noted - self._written and self._runs:
            self._run.write_quantities(self._name, tidy.quantities(self._runs, sorted(self._noted, key=repr)))
            self._written |= self._noted
        written = pl.concat(self._frames) if self._frames else None
        if written is not None:
            self._run.write_metrics(self._name, step, written)
        self._frames.clear()
        return written

    def write_runs(self, step, finished):
        """The runs table; "done" only once the last checkpoint is committed, so that a done run needs no repair."""
        if self._points:  # Else padding only: a part without the hyper-parameters' columns would go with no other.
            self._run.write_runs(self._name, runs_table(self._points, step, self._diverged_at, finished))

    def _note(self, measured):
        """What the arrays say of themselves, for the table of quantities."""
        self._noted |= {(name, named.unit, named.chance) for name, named in measured.items()}

    def _fetch(self, tree):
        """This process's runs of the arrays, without padding."""
        return jax.tree.map(lambda a: a[self._keep], packs.fetch(self._program, tree))

    def _note_divergence(self, diverged_at):
        for index in np.flatnonzero((diverged_at >= 0) & (self._diverged_at < 0)):
            log.warning(
                "%s diverged at step %d: its loss or update was not finite. It stops there; the others continue.",
                self._runs[index],
                diverged_at[index],
            )
        self._diverged_at = diverged_at


def runs_table(points: Sequence[Point], step: int, diverged_at: Sequence[int], finished: bool) -> pl.DataFrame:
    """A row a run, with every hyper-parameter in a column that has one type in every part of a sweep.

    diverged_at: the step at which each run diverged, below 0 for one that did not.
    """
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
        for point, diverged in zip(points, diverged_at, strict=True)
    ]
    types = dict(store.RUNS) | dict.fromkeys(nullable(points[0].config), pl.String)
    return pl.DataFrame(table, schema_overrides=types, infer_schema_length=None)
