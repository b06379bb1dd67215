"""plan: what a sweep, or a language model's hidden states, would need on a TPU slice or here, without running it."""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from jaxconcepts.commands import command_line


def run(argv: list[str]) -> int:
    """Exit code 1 for a plan that does not fit."""
    of_model = any(argument.lstrip("-").split("=")[0] == "model" for argument in argv[1:])
    return _model(argv) if of_model else _sweep(argv)


def _model(argv: list[str]) -> int:
    """--model=NAME: hidden states of every layer at the last token, as `extract` computes them."""
    values = _flags()
    flags.DEFINE_string("model", None, "a published model, e.g. llama-3.1-70b, or a folder", flag_values=values)
    flags.DEFINE_integer("batch_size", 16, "prompts at once, over all chips", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("length", 512, "tokens a prompt", lower_bound=1, flag_values=values)
    flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "what the model computes in", flag_values=values)
    command_line.parse(argv, values)
    _check_target(values)
    from jaxconcepts.models import presets, pretrained
    from jaxconcepts.planning import model_plan

    folder = Path(values.model)
    is_folder = folder.is_dir()
    model = pretrained.read_config(folder, values.dtype) if is_folder else presets.preset(values.model, values.dtype)
    if values.length > model.context:
        raise ValueError(f"--length must be at most the model's context of {model.context}, got {values.length}")
    return 0 if model_plan.plan_and_show(model, _devices(values), values.batch_size, values.length) else 1


def _sweep(argv: list[str]) -> int:
    """--config=FILE: every group of its sweep."""
    values = _flags()
    flags.DEFINE_bool(
        "each_group", False, "compile also groups that differ in the task's concepts alone", flag_values=values
    )
    values, config = command_line.parse_with_config(argv, values)
    _check_target(values)
    execution, num_seeds = config.pop("run"), config.pop("num_seeds")
    devices = _devices(values, execution["cpu_devices"])
    from jaxconcepts.planning import sweep_plan as plan
    from jaxconcepts.runs import packs, points

    overrides = command_line.get_sweep(values)
    if overrides is None:
        overrides = [{}]
    groups = points.group(points.expand(config, points.with_seeds(overrides, config["seed"], num_seeds)))
    try:
        plan.plan(
            groups,
            packs.Layout(execution["how"], execution["data"], execution["unroll"]),
            devices,
            each_group=values.each_group,
        )
    except plan.CannotFitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _flags() -> flags.FlagValues:
    values = command_line.text_flags(("topology", None, "a TPU slice to plan for, e.g. v5p:4x4x4; it need not exist"))
    flags.DEFINE_bool("local", False, "plan for this machine's devices", flag_values=values)
    return values


def _check_target(values: flags.FlagValues) -> None:
    if (values.topology is None) == (not values.local):
        raise ValueError("plan needs one of --topology=NAME, e.g. --topology=v5p:4x4x4, and --local")


def _devices(values: flags.FlagValues, cpu_devices: int | None = None):
    """The devices of the slice that --topology names, or of this machine."""
    import jax

    if values.topology is None:
        if cpu_devices is not None:
            command_line.make_cpu_devices(cpu_devices)
        return jax.devices()
    jax.config.update("jax_platforms", "cpu")
    from jaxconcepts.planning import chips

    return chips.of_topology(values.topology)
