"""Small runs in packs of 1 to 1 024, a step of one run, against one run after another in JAX and in PyTorch.

The runs are those of bench_sweep.py. PyTorch works on the GPU where it sees one; where it is not installed it is left
out. Aims, of the largest pack: 50 x JAX, 500 x PyTorch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial

import gpu_rates
from bench_sweep import one_after_another, pack, torch_one_after_another
from bench_training import make_point

# Runs: steps of each.
STEPS = {1: 500, 8: 200, 64: 100, 256: 50, 1024: 20}
QUICK = {2: 2}
SMALL = {"model": {"layers": 1}, "task": {"num_pairs": 3}, "train": {"batch_size": 4}}
JAX, PYTORCH = "JAX, one run after another", "PyTorch, one run after another"
AIMS = {JAX: 50, PYTORCH: 500}


def measurements(quick: bool):
    point = make_point("sweep_small", SMALL if quick else None)
    alone: dict[str, float] = {}
    sizes = QUICK if quick else STEPS
    made = {f"small runs, {JAX}": partial(jax_alone, point, alone, *((2, 2) if quick else (8, 200)))}
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        made[f"small runs, {PYTORCH}"] = partial(torch_alone, point, alone, *((1, 2) if quick else (3, 50)))
    aims = AIMS if not quick else {}
    packed = {f"small runs, a pack of {n}": partial(packed_runs, point, alone, aims, n, sizes[n]) for n in sizes}
    return made | packed


def jax_alone(point, alone: dict[str, float], runs: int, steps: int) -> Iterator[dict]:
    alone[JAX], _ = one_after_another(point, runs, steps)
    yield _shape(point, steps) | {"runs": runs, "ours_s": alone[JAX]}


def torch_alone(point, alone: dict[str, float], runs: int, steps: int) -> Iterator[dict]:
    import torch

    before, device = torch.get_default_device(), "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_device(device)
    try:
        alone[PYTORCH] = torch_one_after_another(point, runs, steps)
    finally:
        torch.set_default_device(before)
    yield _shape(point, steps) | {"runs": runs, "ours_s": alone[PYTORCH], "note": f"PyTorch on {device}"}


def packed_runs(point, alone: dict[str, float], aims, runs: int, steps: int) -> Iterator[dict]:
    """A row a peer; of half the runs where they do not fit."""

    def rows(runs: int) -> list[dict]:
        seconds, compiling = pack(point, runs, steps, 1)
        row = _shape(point, steps) | {"runs": runs, "ours_s": seconds, "microseconds": seconds * 1e6}
        row["compile_s"] = compiling * runs * steps
        aim = {peer: aims.get(peer) if runs == max(STEPS) else None for peer in alone}
        return [row | gpu_rates.against(peer, alone[peer], seconds, aim[peer]) for peer in alone] or [row]

    yield from gpu_rates.at_size(rows, runs)


def _shape(point, steps: int) -> dict:
    model = point.experiment.model
    batch = point.experiment.train.batch_size
    return {"shape": f"{model.layers} x {model.width}, batch {batch}, {steps} steps"}
