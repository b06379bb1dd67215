"""Which points run together, remembered in the workdir, so that an interrupted pack goes on with the same runs.

A pack is named by a hash of its points. packs/<name>.json is written when it starts: the configurations, and how the
pack has been cut since, for want of memory. A point is finished when the runs table says so; an unfinished pack that
holds a wanted point goes on, with all its runs, also those that the sweep no longer asks for.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl
from etils import epath

from jaxconcepts import store
from jaxconcepts.runs import points as sweep_points
from jaxconcepts.runs.lengths import Lengths
from jaxconcepts.runs.lengths import there as lengths_there
from jaxconcepts.runs.points import Point
from jaxconcepts.store import files, manifest

log = logging.getLogger("jaxconcepts")


@dataclass(frozen=True)
class Pack:
    """Runs trained together. origin: the name of the recorded pack that it is, or has been cut from."""

    points: tuple[Point, ...]
    origin: str

    @property
    def name(self) -> str:
        return name_of(self.points)


def name_of(points: Sequence[Point]) -> str:
    """p and 16 hexadecimal digits that depend on the points and their order."""
    return "p" + hashlib.sha256("".join(point.hash for point in points).encode()).hexdigest()[:16]


def record(workdir: epath.Path, pack: Pack) -> None:
    """Remembers a pack that is about to start."""
    path = _path(workdir, pack.origin)
    if path.exists():
        return
    first = pack.points[0].config
    overrides = [sweep_points.differences(first, point.config) for point in pack.points]
    path.parent.mkdir(exist_ok=True)
    content = {"config": first, "overrides": overrides, "sizes": [len(overrides)]}
    files.write(path, json.dumps(content).encode())


def recorded(workdir: epath.Path, lengths: Lengths | None = None) -> list[Pack]:
    """All packs that have been started, as they have been cut since. Raises DamagedFileError naming a bad record.

    lengths: where they are not those that the workdir has (`runs.lengths`).
    """
    lengths, packs = lengths_there(workdir) if lengths is None else lengths, []
    for path in files.listing(workdir / "packs"):
        if path.suffix == ".json":
            packs += _read(path, lengths)
    return packs


def started(workdir: epath.PathLike, lengths: Lengths) -> list[tuple[str, Point]]:
    """The name and the first point of every recorded pack, as `runs.lengths.check` takes them."""
    return [(pack.name, pack.points[0]) for pack in recorded(files.resolve(workdir), lengths)]


def cut(workdir: epath.Path, pack: Pack) -> list[Pack]:
    """Halves a pack of at least two runs, for good; the caller drops what the whole one has written."""
    path = _path(workdir, pack.origin)
    content = files.read_json(path)
    lengths = lengths_there(workdir)
    place = [part.name for part in _read(path, lengths)].index(pack.name)
    half = -(-len(pack.points) // 2)
    content["sizes"][place : place + 1] = [half, len(pack.points) - half]
    files.write(path, json.dumps(content).encode())
    return _read(path, lengths)[place : place + 2]


def damaged(workdir: epath.Path) -> set[str]:
    """Names of packs of which a table part is missing or cannot be read (truncated, say). Damaged rows of the runs
    table are deleted: their pack, which is then unfinished, writes them anew."""
    packs = set()
    for pack, lost in manifest.incomplete(workdir).items():
        log.warning("pack %s lacks %s; it will write this again", pack, ", ".join(lost))
        packs.add(pack)
        manifest.forget_runs(workdir, pack)
    for kind in ("metrics", *manifest.TABLES):
        for path in files.listing(workdir / kind):
            if path.suffix == ".parquet" and not _looks_whole(path):
                log.warning("damaged part of a table: %s; its pack will write it again", path)
                packs.add(path.name.split(".")[0])
                if kind == "runs":
                    manifest.forget_runs(workdir, path.name.split(".")[0])
                    path.unlink(missing_ok=True)
    return packs


def finished(workdir: epath.Path) -> dict[str, set[str]]:
    """The hashes of the finished points by status, "done" or "diverged"; those of an unfinished pack do not count."""
    table = store.runs(workdir)
    if "train.steps" not in table.columns:
        return {"done": set(), "diverged": set()}
    *earlier, now = lengths_there(workdir)
    steps = pl.lit(now["train"]["steps"]) if earlier else pl.col("train.steps")
    ended = table.filter((pl.col("status") != "running") & (pl.col("step") >= steps))
    return {status: set(ended.filter(pl.col("status") == status)["point"]) for status in ("done", "diverged")}


def shard_of(point: Point, count: int) -> int:
    """Which of `count` independent jobs runs the point: by its hash, so that it never depends on the other points."""
    return int(point.hash[:16], 16) % count


def unfinished(
    workdir: epath.Path, wanted: Sequence[Point], shard: tuple[int, int]
) -> tuple[list[Pack], list[Point], int]:
    """What this shard has to do: started packs to go on with, points to make new packs of, and how many are finished.

    A pack that was started under another number of shards belongs to the shard of its first point.
    """
    index, count = shard
    broken = damaged(workdir)
    ended = set.union(*finished(workdir).values())
    hashes = {point.hash for point in wanted}
    going_on, taken = [], set()
    for pack in recorded(workdir):
        rest = [point for point in pack.points if point.hash not in ended or pack.name in broken]
        if rest and any(point.hash in hashes for point in rest):
            taken |= {point.hash for point in pack.points}
            if shard_of(pack.points[0], count) == index:
                going_on.append(pack)
    left = [point for point in wanted if point.hash not in ended | taken and shard_of(point, count) == index]
    return going_on, left, len(hashes & ended)


def split_evenly(points: Sequence[Point], at_once: int) -> Iterable[Pack]:
    """Packs of at most `at_once` of a group's points, as equal in size as can be."""
    number = -(-len(points) // at_once)
    size = -(-len(points) // number)
    for start in range(0, len(points), size):
        chosen = tuple(points[start : start + size])
        yield Pack(chosen, name_of(chosen))


def _path(workdir: epath.Path, name: str) -> epath.Path:
    return workdir / "packs" / f"{files.valid_pack(name)}.json"


def _read(path: epath.Path, lengths: Lengths) -> list[Pack]:
    with files.naming(path, "; delete it to run its points again"):
        content = files.read_json(path)
        configs = [sweep_points.apply(content["config"], override) for override in content["overrides"]]
        made = [sweep_points.make_point(config, lengths) for config in configs]
        sizes = list(map(int, content["sizes"]))
        if name_of(made) != path.stem or min(sizes) < 1 or sum(sizes) != len(made):
            raise ValueError("its points are not those that it is named by")
        ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
        return [Pack(tuple(made[end - size : end]), path.stem) for size, end in zip(sizes, ends, strict=True)]


def _looks_whole(path: epath.Path) -> bool:
    """Whether the file ends as a parquet file does: one that was truncated does not. Reads four bytes."""
    try:
        with path.open("rb") as file:
            file.seek(-4, 2)
            return file.read() == b"PAR1"
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
