"""The paper's five seeds as one pack: steps a second, share of the peak rate, time of 80 000 steps (aim 10 minutes)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import gpu_rates
import jax
from bench_sweep import pack
from bench_training import make_point, measurement_row

from jaxconcepts.planning import program_cost
from jaxconcepts.runs import packs

SEEDS = 5
AIM_SECONDS = 600
# bfloat16: of activations and products, as the config's head advises; float32 products are rounded to TF32.
PEAK_OF = {"bfloat16": "bfloat16", "float32": "tf32"}
QUICK = {
    "model": {"layers": 1, "heads": 1, "width": 8},
    "task": {"num_pairs": 4},
    "measure": {"per_concept": 8, "cd_per_concept": 8, "neighbours": 3},
}


def measurements(quick: bool):
    seconds: dict[str, float] = {}
    # One dtype is enough to see that everything runs.
    dtypes = ("bfloat16",) if quick else PEAK_OF
    made = {f"the paper's five seeds, {dtype}": partial(steps, seconds, dtype, quick) for dtype in dtypes}
    return made | {"measuring, the paper's five seeds": partial(measuring, seconds, "bfloat16", quick)}


def steps(seconds: dict[str, float], dtype: str, quick: bool) -> Iterator[dict]:
    """A row of training in `dtype`, which goes into `seconds` a step; half the batch where it does not fit."""

    def rows(batch: int) -> list[dict]:
        point, timed = paper(dtype, quick, batch), 2 if quick else 200
        model, total = point.experiment.model, point.experiment.train.steps
        each, compiling = pack(point, SEEDS, timed, 1)
        seconds[dtype] = step = SEEDS * each
        shape = f"{SEEDS} x {model.layers} x {model.width}, batch {batch}, {model.context} tokens"
        row = {"shape": shape, "dtype": dtype, "ours_s": step, "compile_s": compiling * SEEDS * timed}
        row |= {"steps": total, "steps_per_s": 1 / step, "hours": step * total / 3600}
        row |= gpu_rates.rate(step_flops(point, SEEDS), step, PEAK_OF[dtype])
        aim = {} if quick else gpu_rates.against(f"{total} steps in {AIM_SECONDS} s", AIM_SECONDS / total, step)
        return [row | aim]

    yield from gpu_rates.at_size(rows, 4 if quick else 128)


def measuring(seconds: dict[str, float], dtype: str, quick: bool) -> Iterator[dict]:
    """A row of the run's 50 measurements against its steps."""
    point = paper(dtype, quick)
    program = packs.make_program(point.experiment, SEEDS, packs.Layout(), jax.devices()[:1])
    yield measurement_row(f"the paper's five seeds, {dtype}", program, point, seconds[dtype])


def paper(dtype: str, quick: bool, batch: int = 128):
    """The point of configs/paper.py, or a small one."""
    changes = {section: dict(fields) for section, fields in (QUICK if quick else {}).items()}
    changes["model"] = changes.get("model", {}) | {"dtype": dtype}
    return make_point("paper", changes | {"train": {"batch_size": batch}})


def step_flops(point, runs: int) -> float:
    """FLOPs of the matrix products of one step of all runs."""
    program = packs.make_program(point.experiment, runs, packs.Layout(), jax.devices()[:1])
    numbers = packs.abstract_numbers(program, point.numbers)
    state = packs.abstract_state(program, numbers, None)
    return program_cost.flops_of_products(program.chunk.trace(state, numbers, None, packs.step_count(1)).jaxpr.jaxpr)
