"""Training steps per second against PyTorch: Hugging Face's GPT2Model with read-in and read-out, as Garg et al. train.

Same model, batch, optimiser (Adam) and data distribution, eager PyTorch on all cores; ours on the same cores. A step
includes drawing the batch on both sides. Compilation is left out on ours, three warm-up steps on theirs. Beside it:
what the measurements of a run cost, against its steps.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import jax

from jaxconcepts.experiments.regression import Regression
from jaxconcepts.runs import packs, points

# config: our timed steps in a chunk, the peer's, the aim.
CONFIGS = {"quickstart": (50, 20, 3.0), "paper": (4, 4, 1.5)}


def rows(quick: bool = False) -> list[dict]:
    """A row for each config: seconds a step, ours and PyTorch's."""
    result = []
    for name, (steps, peer_steps, aim) in CONFIGS.items():
        if quick and name == "paper":
            continue
        point = make_point(name)
        experiment = point.experiment
        program = packs.make_program(experiment, 1, packs.Layout(data=jax.device_count()))
        ours, peer = seconds_a_step(program, point, steps), torch_seconds_a_step(experiment, peer_steps)
        row = {
            "benchmark": f"training step, {name}",
            "shape": f"{experiment.model.layers} x {experiment.model.width}, batch {experiment.train.batch_size}, "
            f"{experiment.model.context} tokens",
            "ours_s": ours,
            "peer": "PyTorch + Hugging Face GPT2Model",
            "peer_s": peer,
            "ratio": peer / ours,
            "aim": aim,
        }
        result += [row, measurement_row(name, program, point, ours)]
    return result


def measurement_row(name: str, program: packs.Program, point: points.Point, step_seconds: float) -> dict:
    """What 50 measurements of a run take, as the steps' time over theirs: at the aim they take 5 %."""
    numbers = packs.stack_numbers(program, [point.numbers])
    state, held_out = program.init(numbers, None), program.prepare(numbers, None)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        jax.block_until_ready(program.measure(state, numbers, held_out, None))
        times.append(time.perf_counter() - start)
    steps = point.experiment.train.steps
    ours, peer = 50 * median(times[1:]), steps * step_seconds
    return {
        "benchmark": f"measuring in training, {name}",
        "shape": f"50 in {steps} steps",
        "ours_s": ours,
        "peer": "the steps",
        "peer_s": peer,
        "ratio": peer / ours,
        "aim": 20.0,
    }


def make_point(config_name: str, changes: Mapping[str, Mapping] | None = None) -> points.Point:
    """The config's run with Adam, the paper's loss and GPT-2's own block, so that both sides do the same work.

    changes: fields that differ from the config's, by its section.
    """
    path = Path(__file__).parents[2] / "configs" / f"{config_name}.py"
    spec = importlib.util.spec_from_file_location(config_name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config().to_dict()
    del config["run"], config["num_seeds"]
    config["train"] |= {"optimizer": "adam", "loss": "mse"}
    config["model"] |= {"qk_norm": False}
    for section, values in (changes or {}).items():
        config[section] |= values
    return points.make_point(config)


def seconds_a_step(program: packs.Program, point: points.Point, steps: int) -> float:
    """Median over five chunks of our compiled training, the batch sharded over all host devices."""
    numbers = packs.stack_numbers(program, [point.numbers])
    state = program.init(numbers, None)
    count = packs.step_count(steps)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        state, result = program.chunk(state, numbers, None, count)
        jax.block_until_ready(result)
        times.append((time.perf_counter() - start) / steps)
    return median(times[1:])


def torch_seconds_a_step(experiment: Regression, steps: int) -> float:
    """Median over five chunks of the PyTorch loop."""
    step = torch_step(experiment)
    for _ in range(3):
        step()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(steps):
            step()
        times.append((time.perf_counter() - start) / steps)
    return median(times)


def torch_step(experiment: Regression):
    """A new PyTorch model and optimiser as Garg et al. train it. Each call is a step, which draws its batch."""
    import torch
    from transformers import GPT2Config, GPT2Model

    task, model = experiment.task, experiment.model
    config = GPT2Config(
        n_positions=model.context, n_embd=model.width, n_layer=model.layers, n_head=model.heads,
        n_inner=model.mlp_width or None, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    backbone = GPT2Model(config)
    read_in, read_out = torch.nn.Linear(task.dim, model.width), torch.nn.Linear(model.width, 1)
    parameters = [*backbone.parameters(), *read_in.parameters(), *read_out.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    masks = torch.zeros(task.num_concepts, task.dim)
    for k in range(task.num_concepts):
        masks[k, k * task.rank : (k + 1) * task.rank] = 1

    def step():
        size, n = experiment.train.batch_size, task.num_pairs
        weights = torch.randn(size, task.dim) * masks[torch.randint(task.num_concepts, (size,))]
        inputs = torch.randn(size, n, task.dim)
        targets = torch.einsum("bnd,bd->bn", inputs, weights) + 0.1 * torch.randn(size, n)
        wide = torch.zeros_like(inputs)
        wide[:, :, 0] = targets
        tokens = torch.stack([inputs, wide], dim=2).view(size, 2 * n, task.dim)
        hidden = backbone(inputs_embeds=read_in(tokens)).last_hidden_state
        loss = (read_out(hidden)[:, ::2, 0] - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
