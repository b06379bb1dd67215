"""How a pack's runs go fastest here: measured on the first pack, for `sweep --tune`.

Side by side (`vmap`) or one after another (`map`), with the blocks unrolled or scanned: which is faster depends on the
device and on the size of the model, by up to several times. What is measured is discarded; only the choice is kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import jax

from jaxconcepts.runs import packs, processes
from jaxconcepts.runs.packs import Layout
from jaxconcepts.runs.points import Point
from jaxconcepts.runs.programs import Programs
from jaxconcepts.sweeps import sizing

log = logging.getLogger("jaxconcepts")

TIMED_SECONDS = 1.0
"""About how long each candidate is timed, after a first chunk of one step."""


def candidates(layout: Layout, point: Point) -> list[Layout]:
    """The layouts to choose from: `layout` with every part that it leaves to the backend settled in each way."""
    hows = ["map", "vmap"] if layout.how == "auto" else [layout.how]
    free = layout.unroll == "auto" and point.experiment.unrolled(True) != point.experiment.unrolled(False)
    unrolls = ["all", "none"] if free else [layout.unroll]
    return [replace(layout, how=how, unroll=unroll) for how in hows for unroll in unrolls]


def tune(points: Sequence[Point], layout: Layout, at_once: int, memory: int) -> Layout:
    """The fastest of `candidates` for the first pack of `points`, a group; says what each gave and what is chosen.

    at_once, memory: as in `sizing.runs_at_once`. A candidate that needs more memory than there is is passed over; where
    none is left, `layout` comes back as it is. All processes of a job call it together and get the same answer.
    """
    rates: dict[Layout, float] = {}
    for candidate in candidates(layout, points[0]):
        try:
            size = _pack_size(points, candidate, at_once, memory)
            rate, compiling = run_steps_per_second(points[:size], candidate)
        except (ValueError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            log.info("tuning: %s: does not fit (%s)", describe(candidate), str(error).splitlines()[0])
            continue
        rates[candidate] = rate
        log.info(
            "tuning: %s: %.3g run-steps/s with %d runs, compiled in %.0f s", describe(candidate), rate, size, compiling
        )
    best = max(rates, key=rates.get) if rates else layout
    how, unroll = processes.tell_all([best.how, best.unroll])
    chosen = replace(layout, how=how, unroll=unroll)
    log.info(
        "tuning: chose %s; to use it without measuring: --config.run.how=%s --config.run.unroll=%s",
        describe(chosen), how, unroll,
    )  # fmt: skip
    return chosen


def run_steps_per_second(points: Sequence[Point], layout: Layout) -> tuple[float, float]:
    """Steps a second times runs of a pack of `points`, and the seconds that its first step took, compiling included."""
    program = packs.make_program(points[0].experiment, len(points), layout)
    numbers = packs.stack_numbers(program, [point.numbers for point in points])
    data = packs.place_data(program, points[0].experiment.data())
    state = program.init(numbers, data)

    def seconds(state, steps):
        start = time.perf_counter()
        state, result = program.chunk(state, numbers, data, packs.step_count(steps))
        jax.block_until_ready(result)
        return state, time.perf_counter() - start

    state, first = seconds(state, 1)
    state, one = seconds(state, 1)
    # The same number in all processes, which run the chunk together.
    steps = processes.tell_all(max(1, min(points[0].experiment.train.steps, int(TIMED_SECONDS / one))))
    state, taken = seconds(state, steps)
    return len(points) * steps / taken, first - one


def describe(layout: Layout) -> str:
    """A layout in words."""
    how = {"map": "one after another (map)", "vmap": "side by side (vmap)", "auto": "by backend"}[layout.how]
    unroll = {"all": ", blocks unrolled", "none": ", blocks scanned", "auto": ""}[layout.unroll]
    return how + unroll


def _pack_size(points, layout, at_once, memory) -> int:
    # A CPU does runs one after another either way, so the size that bounds those is enough to tell.
    by = replace(layout, how="map") if jax.default_backend() == "cpu" else layout
    return sizing.runs_at_once(Programs(by), points, at_once, memory)
