"""What a sweep's run directory says of its progress. Reads only tables and small files; works while it runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import polars as pl
from etils import epath

from jaxconcepts import store
from jaxconcepts.runs import lengths
from jaxconcepts.store import files

STALE = 600.0
"""Seconds after which a job that has told nothing is taken for stopped."""


class Job(NamedTuple):
    """A process that works at the sweep, as it last told `seconds_ago`. pack: None once it has nothing left to do."""

    name: str
    pack: str | None
    number: int
    packs: int
    step: int
    steps: int
    runs: int
    seconds_left: float | None
    seconds_ago: float


class Status(NamedTuple):
    """Counts of the sweep's points. others: runs in the tables that the sweep no longer asks for."""

    points: int
    done: int
    diverged: int
    running: int
    waiting: int
    others: int
    jobs: tuple[Job, ...]

    @property
    def seconds_left(self) -> float | None:
        """Until the last of the live jobs ends; None where none has told."""
        left = [job.seconds_left for job in self.jobs if job.seconds_ago < STALE and job.seconds_left is not None]
        return max(left, default=None)


def status(workdir: epath.PathLike) -> Status:
    """Counts points by status. Raises ValueError where there is no run, DamagedFileError naming a damaged table."""
    root = files.existing_run(workdir)
    table, (*earlier, now) = store.runs(root), lengths.there(root)
    if earlier:  # Those that no pack has gone on with yet are as long as before.
        table = table.filter((pl.col("status") != "done") | (pl.col("step") >= now["train"]["steps"]))
    wanted = set(table["point"])
    if (root / "sweep.json").exists():
        with files.naming(root / "sweep.json", "; delete it, and sweep again to have it written"):
            wanted = set(map(str, files.read_json(root / "sweep.json")["points"]))
    counts = dict(table.filter(pl.col("point").is_in(list(wanted))).group_by("status").len().iter_rows())
    known = sum(counts.values())
    return Status(
        points=len(wanted),
        done=counts.get("done", 0),
        diverged=counts.get("diverged", 0),
        running=counts.get("running", 0),
        waiting=len(wanted) - known,
        others=table.height - known,
        jobs=tuple(_jobs(root)),
    )


def text(found: Status) -> str:
    """The status in a few lines."""
    lines = [
        f"{found.points} points: {found.done} done, {found.running} running, {found.waiting} waiting, "
        f"{found.diverged} diverged"
    ]
    if found.others:
        lines.append(f"{found.others} more runs in the tables, which are no longer part of the sweep")
    for job in found.jobs:
        what = "has nothing left to do"
        if job.pack:
            what = f"pack {job.number} of {job.packs} ({job.runs} runs), step {job.step} of {job.steps}"
        quiet = ", and silent since then: has it stopped?" if job.pack and job.seconds_ago >= STALE else ""
        lines.append(f"job {job.name.replace('of', ' of ')}: {what}; {_duration(job.seconds_ago)} ago{quiet}")
    if found.running or found.waiting:
        left = found.seconds_left
        lines.append(f"time left: {'not known yet' if left is None else _duration(left)}")
    return "\n".join(lines)


def _jobs(root):
    for path in files.listing(root / "progress"):
        if path.suffix != ".json":
            continue
        with files.naming(path, "; delete it, its job writes it again"):
            told = files.read_json(path)
            ago = (datetime.now(UTC) - datetime.fromisoformat(told["at"])).total_seconds()
            numbers = [int(told.get(name, 0)) for name in ("number", "packs", "step", "steps", "runs")]
            left = told.get("seconds_left")
            left = None if left is None else max(0.0, left - ago)
            job = Job(path.stem, told["pack"], *numbers, left, ago)
        yield job


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
