"""plan: what a sweep, or a language model's hidden states, would need on a TPU slice or here, without running it."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxconcepts.commands import arguments, command_line
from jaxconcepts.fields import REQUIRED, field
from jaxconcepts.runs.config import config_kind


@dataclass(frozen=True, kw_only=True)
class Target:
    """The devices that are planned for: one of the two."""

    topology: str | None = field(None, "the TPU slice to plan for, such as v5p:4x4x4; it need not exist here", low=1)
    local: bool = field(False, "plan for the devices of this machine")

    def __post_init__(self):
        if (self.topology is None) != self.local:
            raise ValueError("plan needs one of --topology=NAME, e.g. --topology=v5p:4x4x4, and --local")


@dataclass(frozen=True, kw_only=True)
class ModelFlags(Target):
    """A published model, or one in a folder, and the prompts at once."""

    model: str = field(
        REQUIRED, "a published model such as llama-3.1-70b, a checkpoint folder, a GGUF file, or smollm2-135m", low=1
    )
    batch_size: int = field(16, "prompts in a batch, over all chips", low=1, high=1_000_000)
    length: int = field(512, "tokens in a prompt", low=1, high=10_000_000)
    dtype: Literal["bfloat16", "float32"] = field("bfloat16", "number format that the model computes in")


@dataclass(frozen=True, kw_only=True)
class SweepFlags(Target):
    """The sweep of a config."""

    each_group: bool = field(False, "also compile groups that differ only in the concepts of the task")


def run(argv: list[str]) -> int:
    """Exit code 1 for a plan that does not fit."""
    if {"-h", "--help"} & set(argv) and not any(argument.startswith("--config") for argument in argv):
        with contextlib.suppress(SystemExit):
            arguments.parse([argv[0], "--help"], ModelFlags)
        print("\nor, for the sweep of a config:\n")
    of_model = any(argument.lstrip("-").split("=")[0] == "model" for argument in argv[1:])
    return _model(argv) if of_model else _sweep(argv)


def _model(argv: list[str]) -> int:
    """--model=NAME: hidden states of every layer at the last token, as `extract` computes them."""
    flags = arguments.parse(argv, ModelFlags)
    from jaxconcepts.models import presets, pretrained
    from jaxconcepts.planning import model_plan

    if Path(flags.model).exists() or flags.model.lower() in pretrained.PACKAGED:
        model = pretrained.read_config(pretrained.resolve(flags.model), flags.dtype)
    else:
        model = presets.preset(flags.model, flags.dtype)
    if flags.length > model.context:
        raise ValueError(f"--length must be at most the model's context of {model.context}, got {flags.length}")
    return 0 if model_plan.plan_and_show(model, _devices(flags), flags.batch_size, flags.length) else 1


def _sweep(argv: list[str]) -> int:
    """--config=FILE: every group of its sweep."""
    flags, read = arguments.parse_with_config(argv, SweepFlags, config_kind, "sweep_small")
    config = read.values
    execution, num_seeds = config.pop("run"), config.pop("num_seeds")
    overrides = read.sweep()
    devices = _devices(flags, execution["cpu_devices"])
    from jaxconcepts.planning import sweep_plan as plan
    from jaxconcepts.runs import packs, points

    if overrides is None:
        overrides = [{}]
    groups = points.group(points.expand(config, points.with_seeds(overrides, config["seed"], num_seeds)))
    try:
        plan.plan(
            groups,
            packs.Layout(execution["how"], execution["data"], execution["unroll"]),
            devices,
            each_group=flags.each_group,
        )
    except plan.CannotFitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _devices(flags: Target, cpu_devices: int | None = None):
    """The devices of the slice that --topology names, or of this machine."""
    import jax

    if flags.topology is None:
        if cpu_devices is not None:
            command_line.make_cpu_devices(cpu_devices)
        return jax.devices()
    jax.config.update("jax_platforms", "cpu")
    from jaxconcepts.planning import chips

    return chips.of_topology(flags.topology)
