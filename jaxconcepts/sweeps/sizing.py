"""How many runs go at once: what the compiled program needs, against what the devices have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np

from jaxconcepts.runs import packs
from jaxconcepts.runs.points import Point
from jaxconcepts.runs.programs import Programs
from jaxconcepts.training import train

SHARE = 0.9
"""Of a device's memory that a pack may take."""
CPU_RUNS = 64
"""The most runs a CPU device: they go one after another, so more only take memory and come less often to the disk."""


def device_memory() -> int:
    """Bytes of one device; on a CPU its share of the machine's memory."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()


def check_fits(points: Sequence[Point], layout: packs.Layout) -> None:
    """Raises ValueError where not even the state of the runs, all at once, fits the devices: before any compilation."""
    devices, memory = packs.make_mesh(len(points), layout.data).shape["runs"], device_memory()
    state = -(-len(points) // devices) * state_bytes(points[0])
    if state > SHARE * memory:
        raise ValueError(_too_large(points[0], state, memory, len(points)))


def try_own_evaluators(points: Sequence[Point]) -> None:
    """Traces each evaluator of a user's own once, without compiling: raises ValueError where one fails, or gives what
    is no named array, before anything is written."""
    tried: set[str] = set()
    for point in points:
        measuring = point.experiment.measuring
        own = tuple(name for name in measuring.metrics if ":" in name and name not in tried)
        if not own:
            continue
        tried |= set(own)
        asked = replace(point.experiment, measuring=replace(measuring, metrics=own))

        def measured(numbers, data, asked=asked):
            params = asked.model_params(asked.init(numbers, data), numbers, data, None)
            return asked.measure(params, asked.held_out(numbers, data))

        jax.eval_shape(measured, point.numbers, asked.data())


def runs_at_once(programs: Programs, points: Sequence[Point], most: int, memory: int) -> int:
    """How many of a group's points make a pack. most: a setting, 0 for none. memory: bytes of a device.

    On a CPU ("map"), from the size of the state: only one run at a time needs more. Elsewhere from the compiler's
    memory analysis of the packed program, compiled again where the first guess, from the state, was far off.
    Raises ValueError, naming a point, where a single run does not fit.
    """
    experiment, one = points[0].experiment, points[0].numbers
    devices = packs.make_mesh(len(points), programs.layout.data).shape["runs"]
    room = int(SHARE * memory)
    state = state_bytes(points[0])
    if state > room:
        raise ValueError(_too_large(points[0], state, memory))
    if most:
        return min(most, len(points))
    if packs.platform_how(programs.layout) == "map":
        return min(len(points), devices * max(1, min(CPU_RUNS, room // (4 * state))))
    each = max(1, min(-(-len(points) // devices), room // (8 * state)))
    for _ in range(4):
        needed = programs.memory(experiment, each * devices, one) / each
        fitting = min(-(-len(points) // devices), int(room / needed))
        if fitting < 1 and each == 1:
            raise ValueError(_too_large(points[0], int(needed), memory))
        if each <= fitting < 2 * each:
            break
        each = max(1, fitting)
    # As even packs as possible, so that none is mostly padding.
    number = -(-len(points) // (each * devices))
    return -(-len(points) // number)


def state_bytes(point: Point) -> int:
    """Bytes of one run's training state: parameters and optimiser."""
    shapes = jax.eval_shape(train.make_train(point.experiment).init, point.numbers, point.experiment.data())
    return sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(shapes))


def _too_large(point: Point, needed: int, memory: int, runs: int = 1) -> str:
    beside = "" if runs == 1 else f" with the {runs - 1} beside it"
    return (
        f"run {point.run} ({point.experiment.describe()}) does not fit on one device{beside}: {needed:_} bytes are "
        f"needed ({needed / 1e9:.3g} GB) of {memory:_} ({memory / 1e9:.3g} GB); lower the model's sizes"
    )
