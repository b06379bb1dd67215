"""A whole sweep: its points in packs, longest first, each pack to its end; finished points are never run again."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
from collections import deque
from collections.abc import Sequence

import jax

from jaxconcepts import store
from jaxconcepts.runs import loop as execution
from jaxconcepts.runs import packs, processes
from jaxconcepts.runs import points as sweep_points
from jaxconcepts.runs.points import Point
from jaxconcepts.runs.preemption import PreemptedError, stop_requested
from jaxconcepts.runs.programs import Programs
from jaxconcepts.store import files
from jaxconcepts.sweeps import membership, sizing, tuning
from jaxconcepts.sweeps.membership import Pack
from jaxconcepts.sweeps.sweep_progress import SweepProgress

log = logging.getLogger("jaxconcepts")


def run_sweep(
    points: Sequence[Point],
    run: store.Run,
    layout: packs.Layout | Programs,
    *,
    at_once: int = 0,
    checkpoint_seconds: float = 60.0,
    shard: tuple[int, int] = (0, 1),
    tune: bool = False,
    trackers: Sequence[str] = (),
) -> Programs:
    """Trains and measures every point that is not finished in the run directory; returns what has been compiled.

    layout: or the programs of an earlier call, to be shared.
    at_once: the most runs in a pack, 0 for as many as the memory allows. shard: (index, count) of this job among
    independent ones that share the sweep. tune: measure on the first pack what `layout` leaves to the backend.
    trackers: see `runs.trackers`.

    All processes of a distributed job call it together. A pack that runs out of device memory is halved, for good.
    Raises PreemptedError after SIGTERM or SIGINT, everything being checkpointed, and ValueError naming the points that
    do not fit on a device, once all others are done.
    """
    primary = jax.process_index() == 0
    todo = None
    if primary:
        going_on, left, ended = membership.unfinished(run.workdir, points, shard)
        content = {"points": [point.hash for point in points], "shards": shard[1]}
        files.write(run.workdir / "sweep.json", json.dumps(content).encode())
        todo = ([pack.name for pack in going_on], [point.hash for point in left], ended, sizing.device_memory())
    names, hashes, ended, memory = processes.tell_all(todo)
    chosen = set(hashes)
    left = [point for point in points if point.hash in chosen]
    going_on = [pack for pack in membership.recorded(run.workdir) if pack.name in set(names)] if names else []

    groups = sorted(sweep_points.group(left), key=lambda group: -group[0].experiment.work())
    programs = layout if isinstance(layout, Programs) else None
    if tune and groups and programs is None:
        layout = tuning.tune(groups[0], layout, at_once, memory)
    programs = programs or Programs(layout)
    layout, before = programs.layout, programs.compilations
    sizes = {group[0].experiment: sizing.runs_at_once(programs, group, at_once, memory) for group in groups}
    queue = deque(going_on)
    for group in groups:
        queue.extend(membership.split_evenly(group, sizes[group[0].experiment]))
    _log_plan(points, ended, left, going_on, queue, sizes, layout, shard)
    progress = SweepProgress(log, run.workdir, queue, programs, shard if jax.process_count() == 1 else None)

    too_large: list[str] = []
    # Alone, only the loop of a pack has unsaved work: a signal during a compilation ends the process at once. Several
    # processes stop together, at the end of a chunk.
    with stop_requested() if jax.process_count() > 1 else contextlib.nullcontext() as signals:
        watching = execution.Watching(progress, signals, trackers=trackers)
        while queue:
            pack = queue.popleft()
            if primary:
                membership.record(run.workdir, pack)
            room = sizes.get(pack.points[0].experiment, 0)
            programs.forget_others(pack.points[0].experiment) if jax.default_backend() == "cpu" else None
            progress.begin(pack)
            if not _fits(pack, run, layout, checkpoint_seconds, programs, watching, room):
                sizes[pack.points[0].experiment] = -(-len(pack.points) // 2)
                queue.extendleft(reversed(_halve(pack, run, too_large)))
    progress.end()
    if programs.compilations > before:
        log.info("compiled %d program(s) in %.0f s", programs.compilations, programs.seconds)
    if too_large:
        raise ValueError(f"{len(too_large)} run(s) do not fit on a device even alone: {', '.join(too_large)}")
    return programs


def _fits(pack: Pack, run, layout, checkpoint_seconds, programs, watching, room) -> bool:
    """Runs the pack to its end; False where the device had too little memory."""
    # A pack that is much smaller than its group's is not worth padding.
    size = room if len(pack.points) <= room < 2 * len(pack.points) else 0
    try:
        execution.run_pack(
            pack.name, pack.points, run, layout, checkpoint_seconds,
            programs=programs, watching=watching, size=size,
        )  # fmt: skip
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        log.warning("pack %s ran out of device memory: %s", pack.name, str(error).splitlines()[0])
        return False
    return True


def _halve(pack: Pack, run: store.Run, too_large: list[str]) -> list[Pack]:
    """Drops what the pack has written and halves it."""
    gc.collect()  # The failed pack's arrays.
    if jax.process_count() > 1:
        # The others may not have failed, and wait: all start again, with halves.
        membership.cut(run.workdir, pack)
        raise PreemptedError(f"pack {pack.name} was split in two for lack of memory; start again to continue")
    run.drop(pack.name)
    if len(pack.points) == 1:
        too_large.append(pack.points[0].run)
        return []
    halves = membership.cut(run.workdir, pack)
    log.warning("splitting it in two: %s", " and ".join(f"{half.name} ({len(half.points)} runs)" for half in halves))
    return halves


def _log_plan(points, ended, left, going_on, queue, sizes, layout, shard) -> None:
    groups = sweep_points.group([point for pack in queue for point in pack.points])
    mine = f" (shard {shard[0]} of {shard[1]})" if shard[1] > 1 else ""
    runs = sum(len(pack.points) for pack in queue)
    log.info(
        "sweep of %d points: %d finished, %d to run%s in %d group(s) and %d pack(s)",
        len(points), ended, runs, mine, len(groups), len(queue),
    )  # fmt: skip
    if going_on:
        log.info("resuming %d started pack(s), %d runs", len(going_on), runs - len(left))
    how = packs.platform_how(layout)
    for number, group in enumerate(groups):
        own = [pack for pack in queue if pack.points[0].experiment == group[0].experiment]
        largest = max(len(pack.points) for pack in own)
        devices = packs.make_mesh(largest, layout.data).shape["runs"]
        state = -(-largest // devices) * sizing.state_bytes(group[0])
        log.info(
            "group %d: %s: %d runs in %d pack(s) of at most %d (%s), state %.3g MB a device",
            number, group[0].experiment.describe(), len(group), len(own), largest, how, state / 1e6,
        )  # fmt: skip
