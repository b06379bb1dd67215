"""Rows of the metrics table as they are written, shown by other programs: TensorBoard, Weights & Biases, Trackio.

A tracker gets what a checkpoint covers, once: when a training goes on, it gets the rows of the table up to the
checkpoint first, where it does not keep them itself, so that no point is missing and none is there twice.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import polars as pl
from etils import epath

from jaxconcepts import extras, store
from jaxconcepts.store import files

PROJECT = "jaxconcepts"
LIBRARIES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}


def check(names: Sequence[str], workdir: epath.Path) -> None:
    """Raises ValueError for a library that is not installed, and for a workdir that a tracker cannot write to."""
    for name in names:
        _library(name)
    if "tensorboard" in names and "://" in str(workdir):
        raise ValueError(f"run.trackers: tensorboard needs a local workdir, got {workdir}")


class Feed:
    """The trackers of a pack's runs.

    names: out of `execution.TRACKERS`, as `check` lets pass. step: that the training starts from.
    """

    def __init__(self, names: Sequence[str], workdir: epath.Path, runs: Sequence[str], step: int):
        self._trackers = [KINDS[name](name, workdir, runs) for name in names]
        if self._trackers and step:
            table = store.metrics(workdir)
            self.write(table.filter(pl.col("run").is_in(list(runs)), pl.col("step") <= step))

    def write(self, frame: pl.DataFrame | None) -> None:
        """Hands on rows that a checkpoint covers."""
        if not self._trackers or frame is None or not frame.height:
            return
        for run, step, values in _points(frame):
            for tracker in self._trackers:
                tracker.write(run, step, values)

    def close(self) -> None:
        """Ends the trackers, whatever is left to send being sent."""
        for tracker in self._trackers:
            tracker.close()


class _TensorBoard:
    """Event files in WORKDIR/tensorboard/<run>/, which are written anew whenever a training goes on."""

    def __init__(self, name, workdir, runs):
        library = _library(name)
        self._writers = {}
        for run in runs:
            folder = workdir / "tensorboard" / run
            shutil.rmtree(folder, ignore_errors=True)
            self._writers[run] = library.SummaryWriter(str(folder), write_to_disk=True)

    def write(self, run, step, values):
        for name, value in values.items():
            self._writers[run].add_scalar(name, value, step)
        self._writers[run].flush()

    def close(self):
        for writer in self._writers.values():
            writer.close()


class _Online:
    """Weights & Biases, or Trackio, which has its interface: a run there for each run, found again by its id or name.

    Both keep what they got; WORKDIR/trackers/ says up to which step that is.
    """

    def __init__(self, name, workdir, runs):
        self._library = _library(name)
        self._runs, self._last, self._shown = {}, {}, {}
        (workdir / "trackers").mkdir(exist_ok=True)
        for run in runs:
            # Runs of two directories may have one name.
            key = hashlib.sha256(f"{workdir}/{run}".encode()).hexdigest()[:16]
            options = {"project": PROJECT, "name": run, "resume": "allow"}
            if name == "wandb":
                options |= {"id": key, "dir": str(workdir), "reinit": "create_new"}
            self._runs[run] = self._library.init(**options)
            self._shown[run] = workdir / "trackers" / f"{name}.{run}.txt"
            self._last[run] = int(self._shown[run].read_text()) if self._shown[run].exists() else -1

    def write(self, run, step, values):
        if step > self._last[run]:
            self._runs[run].log(values, step=step)
            self._last[run] = step
            files.write(self._shown[run], str(step).encode())

    def close(self):
        for run in self._runs.values():
            run.finish()


KINDS = {"tensorboard": _TensorBoard, "wandb": _Online, "trackio": _Online}


def _library(name: str) -> ModuleType:
    return extras.load(LIBRARIES[name], name, f"run.trackers = {name}")


def _points(frame: pl.DataFrame):
    """(run, step, {name: value}) of the rows that are means over concepts and positions."""
    rows = frame.filter(pl.col("concept").is_null(), pl.col("position").is_null()).sort("step", maintain_order=True)
    points: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows.iter_rows(named=True):
        points.setdefault((row["run"], row["step"]), {})[_name(row)] = row["value"]
    for (run, step), values in points.items():
        yield run, step, values


def _name(row: dict[str, Any]) -> str:
    """Such as cd/number/last/layer_3."""
    parts = [row["metric"], row["label"], row["token"], None if row["layer"] is None else f"layer_{row['layer']}"]
    return "/".join(part for part in parts if part is not None)
