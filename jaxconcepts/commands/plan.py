"""plan: what a sweep would need on a TPU slice or on this machine, without running it."""

from __future__ import annotations

import sys

from absl import flags

from jaxconcepts.commands import command_line


def run(argv: list[str]) -> int:
    """Exit code 1 for a plan that does not fit."""
    values = command_line.text_flags(("topology", None, "a TPU slice to plan for, e.g. v5p:4x4x4; it need not exist"))
    flags.DEFINE_bool("local", False, "plan for this machine's devices", flag_values=values)
    flags.DEFINE_bool(
        "each_group", False, "compile also groups that differ in the task's concepts alone", flag_values=values
    )
    values, config = command_line.parse_with_config(argv, values)
    if (values.topology is None) == (not values.local):
        raise ValueError("plan needs one of --topology=NAME, e.g. --topology=v5p:4x4x4, and --local")
    execution, num_seeds = config.pop("run"), config.pop("num_seeds")

    import jax

    if values.topology is not None:
        jax.config.update("jax_platforms", "cpu")
    else:
        command_line.make_cpu_devices(execution["cpu_devices"])
    from jaxconcepts.sweeps import chips, packs, plan, points

    devices = chips.of_topology(values.topology) if values.topology else jax.devices()
    overrides = command_line.get_sweep(values)
    if overrides is None:
        overrides = [{}]
    groups = points.group(points.expand(config, points.with_seeds(overrides, config["seed"], num_seeds)))
    try:
        plan.plan(groups, packs.Layout(execution["how"], execution["data"]), devices, each_group=values.each_group)
    except plan.CannotFitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
