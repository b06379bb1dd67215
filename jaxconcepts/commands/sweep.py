"""sweep: every point of a config's get_sweep(), shared by the processes of a job or by independent jobs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from jaxconcepts.commands import arguments, command_line
from jaxconcepts.commands.command_line import log
from jaxconcepts.fields import field
from jaxconcepts.runs.config import config_kind


@dataclass(frozen=True, kw_only=True)
class Flags(arguments.TrainingFlags):
    """Which of several jobs this is."""

    shard: str = field("0/1", "i/n: the i-th (from 0) of n independent jobs that share the workdir")
    coordinator: str | None = field(
        None, "host:port of process 0 of a distributed job (or JAX_COORDINATOR_ADDRESS)", low=1
    )
    num_processes: int | None = field(None, "processes of the job (or JAX_NUM_PROCESSES)", low=1)
    process_id: int | None = field(None, "which one this is (or JAX_PROCESS_ID)", low=0)
    tune: bool = field(False, "measure how runs go fastest on the first pack, and go on so")


def run(argv: list[str]) -> int:
    """Returns the exit code. Raises PreemptedError when stopped by a signal, with everything checkpointed."""
    flags, read = arguments.parse_with_config(argv, Flags, config_kind, "sweep_small")
    config = read.values
    shard = re.fullmatch(r"(\d{1,6})/(\d{1,6})", flags.shard, re.ASCII)
    if not shard or int(shard[1]) >= int(shard[2]):
        raise ValueError(f"--shard must be i/n with 0 <= i < n, got {flags.shard!r}")
    index, count = int(shard[1]), int(shard[2])
    execution, num_seeds = config.pop("run"), config.pop("num_seeds")
    overrides = read.sweep()
    if overrides is None:
        raise ValueError(f"config {read.file.name} has no get_sweep(); see `train` for single runs")
    if twice := sorted({name for override in overrides for name in override} & set(read.changed)):
        raise ValueError(f"{twice[0]} is given twice: by --config.{twice[0]} and by get_sweep()")

    made = read.file.claims()

    import jax

    command_line.make_cpu_devices(execution["cpu_devices"])
    from jaxconcepts.runs import lengths, packs, points, processes

    # Before anything starts jax's backend, which reading a point's numbers does.
    joined = processes.join(flags.coordinator, flags.num_processes, flags.process_id)
    record = points.stored(config) | {"num_seeds": num_seeds}
    known = lengths.extended(flags.workdir, record, flags.extend)
    chosen = points.expand(config, points.with_seeds(overrides, config["seed"], num_seeds), known)
    layout = packs.Layout(execution["how"], execution["data"], execution["unroll"])
    if joined and count > 1:
        raise ValueError("--shard is for independent jobs, and this is a process of a distributed one")
    writer = (jax.process_index(), jax.process_count()) if joined else (index, count)

    from jaxconcepts import store
    from jaxconcepts.figures import claims
    from jaxconcepts.sweeps import membership
    from jaxconcepts.sweeps.sweep import run_sweep

    packs.make_mesh(len(chosen), layout.data)
    device = command_line.device()
    started = partial(membership.started, flags.workdir, known)

    keep_steps = {step for point in chosen for step in point.experiment.measuring.checkpoint_steps}
    with store.open_run(
        flags.workdir,
        record,
        device=device | execution,
        writer=writer,
        keep_steps=keep_steps,
        extend=lengths.allowing(flags.extend, flags.workdir, record, known, started),
    ) as run:
        if jax.process_index() == 0:
            command_line.log_to(run.workdir / ("log.txt" if count == 1 else f"log.{index}of{count}.txt"))
            if made:
                claims.write(run.workdir, made)
        log.info("%d %s in %d process(es), %s", device["count"], device["kind"], jax.process_count(), run.workdir)
        run_sweep(
            chosen, run, layout, at_once=execution["at_once"], shard=(index, count),
            checkpoint_seconds=execution["checkpoint_seconds"], tune=flags.tune,
            trackers=execution["trackers"],
        )  # fmt: skip
        log.info("nothing left to run; figures: python -m jaxconcepts report --workdir=%s", run.workdir)
    return 0
