"""sweep: every point of a config's get_sweep(), or those that its get_search() leads to.

The processes of a job share them; so do independent jobs those of a get_sweep().
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from jaxconcepts.commands import arguments, command_line
from jaxconcepts.commands.command_line import log
from jaxconcepts.fields import field
from jaxconcepts.runs.config import config_kind

if TYPE_CHECKING:
    from jaxconcepts.sweeps import Search


@dataclass(frozen=True, kw_only=True)
class Flags(arguments.TrainingFlags):
    """Which of several jobs this is."""

    shard: str = field("0/1", "i/n: this is job i (from 0) of n independent jobs that share the workdir")
    coordinator: str | None = field(
        None, "host:port of process 0 of a distributed job; else JAX_COORDINATOR_ADDRESS", low=1
    )
    num_processes: int | None = field(None, "number of processes of the job; else JAX_NUM_PROCESSES", low=1)
    process_id: int | None = field(None, "number of this process, from 0; else JAX_PROCESS_ID", low=0)
    search: Literal["optuna"] | None = field(
        None, "search adaptively: run the config's get_search() instead of its get_sweep()"
    )
    tune: bool = field(False, "measure on the first pack how runs train fastest, and continue in this way")


def run(argv: list[str]) -> int:
    """Returns the exit code. Raises PreemptedError when stopped by a signal, with everything checkpointed."""
    flags, read = arguments.parse_with_config(argv, Flags, config_kind, "sweep_small")
    config = read.values
    index, count = _shard(flags)
    execution, num_seeds = config.pop("run"), config.pop("num_seeds")
    search, overrides = _varied(flags, read)
    made = read.file.claims()

    import jax

    command_line.make_cpu_devices(execution["cpu_devices"])
    from jaxconcepts.runs import lengths, packs, points, processes

    # Before anything starts jax's backend, which reading a point's numbers does.
    joined = processes.join(flags.coordinator, flags.num_processes, flags.process_id)
    record = points.stored(config) | {"num_seeds": num_seeds}
    known = lengths.extended(flags.workdir, record, flags.extend)
    expand = partial(points.expand_with_seeds, config, num_seeds, lengths=known)
    checked = expand(overrides)
    layout = packs.Layout(execution["how"], execution["data"], execution["unroll"])
    if joined and count > 1:
        raise ValueError("--shard is for independent jobs, and this is a process of a distributed one")
    writer = (jax.process_index(), jax.process_count()) if joined else (index, count)

    from jaxconcepts import store
    from jaxconcepts.figures import claims
    from jaxconcepts.sweeps import membership, rounds, sizing, sweep

    packs.make_mesh(len(checked) if search is None else search.round * num_seeds, layout.data)
    if search is not None:
        rounds.check(search, checked[0], flags.extend)
    sizing.try_own_evaluators(checked)
    device = command_line.device()
    started = partial(membership.started, flags.workdir, known)
    keep_steps = {step for point in checked for step in point.experiment.measuring.checkpoint_steps}
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
        settings = {name: execution[name] for name in ("at_once", "checkpoint_seconds", "trackers")}
        settings |= {"tune": flags.tune}
        if search is None:
            sweep.run_sweep(checked, run, layout, shard=(index, count), **settings)
        else:
            rounds.run_search(search, expand, run, layout, **settings)
        log.info("nothing left to run; figures: python -m jaxconcepts report --workdir=%s", run.workdir)
    return 0


def _shard(flags: Flags) -> tuple[int, int]:
    """(index, count) of this job."""
    shard = re.fullmatch(r"(\d{1,6})/(\d{1,6})", flags.shard, re.ASCII)
    if not shard or int(shard[1]) >= int(shard[2]):
        raise ValueError(f"--shard must be i/n with 0 <= i < n, got {flags.shard!r}")
    return int(shard[1]), int(shard[2])


def _varied(flags: Flags, read: arguments.Config) -> tuple[Search | None, list[Mapping[str, Any]]]:
    """The search, None for a sweep of given points; and the overrides of all points, of a search those to check."""
    function = "get_sweep" if flags.search is None else "get_search"
    search = None if flags.search is None else read.search()
    overrides = read.sweep() if flags.search is None else search and search.corners()
    if overrides is None:
        raise ValueError(f"config {read.file.name} has no {function}(); see `train` for single runs")
    if flags.search is not None and _shard(flags)[1] > 1:
        raise ValueError("--shard is for sweeps whose points are known; a search is one job")
    if twice := sorted({name for override in overrides for name in override} & set(read.changed)):
        raise ValueError(f"{twice[0]} is given twice: by --config.{twice[0]} and by {function}()")
    return search, overrides
