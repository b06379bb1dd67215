"""sweep: every point of a config's get_sweep(), shared by the processes of a job or by independent jobs."""

from __future__ import annotations

import re

from absl import flags

from jaxconcepts.commands import command_line
from jaxconcepts.commands.command_line import log


def run(argv: list[str]) -> int:
    """Returns the exit code. Raises PreemptedError when stopped by a signal, with everything checkpointed."""
    values = command_line.text_flags(
        ("workdir", None, "the run directory, local or gs://"),
        ("shard", "0/1", "i/n: the i-th (from 0) of n independent jobs that share the workdir"),
        ("coordinator", None, "host:port of process 0 of a distributed job (or JAX_COORDINATOR_ADDRESS)"),
        required=["workdir"],
    )
    flags.DEFINE_integer("num_processes", None, "processes of the job (or JAX_NUM_PROCESSES)", flag_values=values)
    flags.DEFINE_integer("process_id", None, "which one this is (or JAX_PROCESS_ID)", flag_values=values)
    flags.DEFINE_bool("tune", False, "measure how runs go fastest on the first pack, and go on so", flag_values=values)
    values, config = command_line.parse_with_config(argv, values)
    shard = re.fullmatch(r"(\d+)/(\d+)", values.shard)
    if not shard or int(shard[1]) >= int(shard[2]):
        raise ValueError(f"--shard must be i/n with 0 <= i < n, got {values.shard!r}")
    index, count = int(shard[1]), int(shard[2])
    execution, num_seeds = config.pop("run"), config.pop("num_seeds")
    overrides = command_line.get_sweep(values)
    if overrides is None:
        raise ValueError(f"config {command_line.config_file(values)} has no get_sweep(); see `train` for single runs")
    overrides = list(overrides)
    given = [arg.split("=")[0].removeprefix("--config.") for arg in argv if arg.startswith("--config.")]
    if twice := sorted({name for override in overrides for name in override} & set(given)):
        raise ValueError(f"{twice[0]} is given twice: by --config.{twice[0]} and by get_sweep()")

    import jax

    command_line.make_cpu_devices(execution["cpu_devices"])
    from jaxconcepts.runs import packs, points, processes

    # Before anything starts jax's backend, which reading a point's numbers does.
    joined = processes.join(values.coordinator, values.num_processes, values.process_id)
    chosen = points.expand(config, points.with_seeds(overrides, config["seed"], num_seeds))
    layout = packs.Layout(execution["how"], execution["data"], execution["unroll"])
    if joined and count > 1:
        raise ValueError("--shard is for independent jobs, and this is a process of a distributed one")
    writer = (jax.process_index(), jax.process_count()) if joined else (index, count)

    from jaxconcepts import store
    from jaxconcepts.sweeps.sweep import run_sweep

    packs.make_mesh(len(chosen), layout.data)
    device = command_line.device()
    keep_steps = {step for point in chosen for step in point.static.measure.checkpoint_steps}
    with store.open_run(
        values.workdir,
        config | {"num_seeds": num_seeds},
        device=device | execution,
        writer=writer,
        keep_steps=keep_steps,
    ) as run:
        if jax.process_index() == 0:
            command_line.log_to(run.workdir / ("log.txt" if count == 1 else f"log.{index}of{count}.txt"))
        log.info("%d %s in %d process(es), %s", device["count"], device["kind"], jax.process_count(), run.workdir)
        run_sweep(
            chosen, run, layout, at_once=execution["at_once"], shard=(index, count),
            checkpoint_seconds=execution["checkpoint_seconds"], tune=values.tune,
        )  # fmt: skip
        log.info("nothing left to run; figures: python -m jaxconcepts report --workdir=%s", run.workdir)
    return 0
