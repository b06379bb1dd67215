"""Run-steps per second of a sweep: packed, against the same runs one after another, in JAX and in PyTorch.

The runs are those of configs/sweep_small.py (with Adam and GPT-2's own block, so that both libraries do the same work)
at different seeds. Every side really runs all of them, for as many steps as the shape says; nothing is extrapolated.
Times are for a step of one run. "Compiling counted" adds both sides' compilation: with runs as short as these it is
most of the time, with full-length ones little.
"""

from __future__ import annotations

import time

import jax
from bench_training import make_point, torch_step

from jaxconcepts.runs import packs

# Runs: steps of each.
STEPS = {1: 800, 8: 200, 64: 50, 512: 12}
QUICK = {1: 20, 8: 4}


def rows(quick: bool = False) -> list[dict]:
    """For each number of runs: a pack on one and on two devices, against each other and against one run at a time."""
    point, result = make_point("sweep_small"), []
    threads = fewer_torch_threads(point)
    for runs, steps in (QUICK if quick else STEPS).items():
        singly, singly_compiling = one_after_another(point, runs, steps)
        torch = torch_one_after_another(point, runs, steps)
        packed = {}
        for devices in (1, 2)[: jax.device_count()]:
            seconds, compiling = pack(point, runs, steps, devices)
            packed[devices] = seconds
            name = f"sweep, {runs} runs in a pack, {devices} device{'s' * (devices > 1)}"
            experiment = point.experiment
            model, batch = experiment.model, experiment.train.batch_size
            shape = f"{model.layers} x {model.width}, batch {batch}, {steps} steps"
            for peer, peer_s, ours_s, aim in (
                ("JAX, one run after another", singly, seconds, None),
                ("the same, compiling counted", singly + singly_compiling, seconds + compiling, None),
                (f"PyTorch, one run after another, {threads} thread(s)", torch, seconds, 3.0),
                ("the pack on one device", packed[1], seconds, 1.8 if runs > 1 else None),
            ):
                if devices == 1 and peer == "the pack on one device":
                    continue
                row = {"benchmark": name, "shape": shape, "ours_s": ours_s, "peer": peer, "peer_s": peer_s}
                result.append(row | {"ratio": peer_s / ours_s, "aim": "" if aim is None else aim})
    return result


def pack(point, runs: int, steps: int, devices: int) -> tuple[float, float]:
    """Seconds a run-step of all runs as one program, the best of three; and of compiling it, shared out likewise."""
    program = packs.make_program(point.experiment, runs, packs.Layout(), jax.devices()[:devices])
    chunk, numbers, compiling = _compile(program, point, runs)
    best = float("inf")
    for _ in range(3):
        state = jax.block_until_ready(program.init(numbers, None))
        start = time.perf_counter()
        jax.block_until_ready(chunk(state, numbers, None, packs.step_count(steps)))
        best = min(best, time.perf_counter() - start)
    return best / (runs * steps), compiling / (runs * steps)


def one_after_another(point, runs: int, steps: int) -> tuple[float, float]:
    """As `pack`, of one program for one run, called for each run in turn (two rounds for the best of few runs)."""
    program = packs.make_program(point.experiment, 1, packs.Layout(), jax.devices()[:1])
    chunk, _, compiling = _compile(program, point, 1)
    numbers = [packs.stack_numbers(program, [_seeded(point, seed)]) for seed in range(runs)]
    best = float("inf")
    for _ in range(1 if runs > 64 else 3):
        seconds = 0.0
        for one in numbers:
            state = jax.block_until_ready(program.init(one, None))
            start = time.perf_counter()
            jax.block_until_ready(chunk(state, one, None, packs.step_count(steps)))
            seconds += time.perf_counter() - start
        best = min(best, seconds)
    return best / (runs * steps), compiling / (runs * steps)


def torch_one_after_another(point, runs: int, steps: int) -> float:
    """Seconds a run-step; making each model, and its first step, are left out."""
    import torch

    # A GPU works on after the call that gave it work.
    wait = torch.cuda.synchronize if torch.get_default_device().type == "cuda" else lambda: None
    seconds = 0.0
    for _ in range(runs):
        step = torch_step(point.experiment)
        step()
        wait()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        seconds += time.perf_counter() - start
    return seconds / (runs * steps)


def fewer_torch_threads(point) -> int:
    """Leaves PyTorch with one thread where that is faster than its default; how many it is left with."""
    import torch

    default = torch.get_num_threads()
    with_default = torch_one_after_another(point, 1, 30)
    torch.set_num_threads(1)
    if torch_one_after_another(point, 1, 30) > with_default:
        torch.set_num_threads(default)
    return torch.get_num_threads()


def _compile(program, point, runs):
    """The compiled chunk, the runs' numbers on their devices, and the seconds that compiling took."""
    numbers = packs.stack_numbers(program, [_seeded(point, seed) for seed in range(runs)])
    start = time.perf_counter()
    chunk = program.chunk.lower(
        packs.abstract_state(program, numbers, None), numbers, None, packs.step_count(1)
    ).compile()
    return chunk, numbers, time.perf_counter() - start


def _seeded(point, seed: int):
    return point.numbers._replace(seed=point.numbers.seed + seed)
