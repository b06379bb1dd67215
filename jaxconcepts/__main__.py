"""The command line: python -m jaxconcepts COMMAND --flag=value. `python -m jaxconcepts` lists the commands."""

from __future__ import annotations

import copy
import logging
import os
import re
import runpy
import sys
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from jaxconcepts.store import WorkdirInUseError

COMMANDS = {
    "train": "train the runs of a config and measure them: --config=configs/X.py --workdir=DIR [--config.field=value]",
    "sweep": "run every point of a config's get_sweep(): --config=configs/X.py --workdir=DIR [--shard=i/n]",
    "status": "how far a sweep is, also while it runs: --workdir=DIR",
    "plan": "what a sweep would need, without running it: --config=configs/X.py --topology=v5p:4x4x4 | --local",
    "extract": "store a language model's hidden states: --model=FOLDER|ID --prompts=FILE.jsonl --[no]bos --workdir=DIR",
    "decodability": "CD of a label of an extraction, at every layer: --workdir=DIR --label=NAME [--k=10]",
    "report": "draw the figures and report.html of a run directory: --workdir=DIR",
}

log = logging.getLogger("jaxconcepts")


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for bad input, 75 when stopped by a signal and checkpointed, 1
    for a plan that does not fit."""
    argv = list(sys.argv if argv is None else argv)
    command = argv[1] if len(argv) > 1 else ""
    if command not in COMMANDS:
        lines = "\n".join(f"  {name:<12} {text}" for name, text in COMMANDS.items())
        print(f"usage: python -m jaxconcepts COMMAND [--flag=value ...]\n\n{lines}", file=sys.stderr)
        return 0 if command in ("", "help", "--help", "-h") else 2
    run = {
        "train": _train, "sweep": _run_sweep, "status": _status, "plan": _plan, "extract": _extract,
        "decodability": _decodability, "report": _report,
    }[command]  # fmt: skip
    try:
        return run(argv[1:])
    except (ValueError, flags.Error, FileNotFoundError, WorkdirInUseError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parse(argv: list[str], with_config: bool, values: flags.FlagValues | None = None) -> flags.FlagValues:
    """The command's flags: those defined in `values`, or --workdir; and --config where it takes one."""
    if values is None:
        values = flags.FlagValues()
        flags.DEFINE_string("workdir", None, "the run directory, local or gs://", required=True, flag_values=values)
    if with_config:
        config_flags.DEFINE_config_file("config", None, "a config file", flag_values=values)
    try:
        left = values(argv)
    except (AttributeError, KeyError) as error:
        # ml_collections raises these for a field that the config does not have.
        raise ValueError(f"unknown config field: {error.args[0]}") from error
    if len(left) > 1:
        raise ValueError(f"arguments must be flags of the form --name=value, got {left[1]!r}")
    if not with_config:
        return values
    if values.config is None:
        raise ValueError("--config=FILE is needed, e.g. --config=configs/quickstart.py")
    try:
        absent = [name for name in ("run", "num_seeds") if getattr(values.config, name, None) is None]
    except OSError as error:  # ml_collections gives an object that raises this for a file that it could not load.
        raise ValueError(f"--config cannot be loaded: {error}") from error
    if absent:
        raise ValueError(f"config field {absent[0]} is missing; start from sweeps.execution.default_config()")
    return values


def _train(argv: list[str]) -> int:
    values = _parse(argv, with_config=True)
    config = _plain(values.config.to_dict() if isinstance(values.config, config_dict.ConfigDict) else values.config)
    execution = config.pop("run")
    num_seeds = config.pop("num_seeds")
    if not isinstance(num_seeds, int) or num_seeds < 1:
        raise ValueError(f"num_seeds must be a positive integer, got {num_seeds!r}")

    import jax

    _make_cpu_devices(execution["cpu_devices"])
    from jaxconcepts import store
    from jaxconcepts.figures.report import write_report
    from jaxconcepts.sweeps import execution as running
    from jaxconcepts.sweeps import packs, points

    seeds = range(config["seed"], config["seed"] + num_seeds)
    pack = [points.make_point(copy.deepcopy(config) | {"seed": seed}) for seed in seeds]
    layout = packs.Layout(execution["how"], execution["data"])
    packs.make_mesh(len(pack), layout.data)
    device = {"platform": jax.default_backend(), "kind": jax.devices()[0].device_kind, "count": jax.device_count()}
    keep_steps = pack[0].static.measure.checkpoint_steps
    with store.open_run(
        values.workdir, config | {"num_seeds": num_seeds}, device=device | execution, keep_steps=keep_steps
    ) as run:
        _log_to(run.workdir / "log.txt")
        log.info("training %d run(s) on %d %s in %s", len(pack), device["count"], device["kind"], run.workdir)
        try:
            running.run_pack("train", pack, run, layout, execution["checkpoint_seconds"])
        except running.PreemptedError as stopped:
            log.warning("%s", stopped)
            return running.EXIT_PREEMPTED
        log.info("drawing the report")
        log.info("report: %s", write_report(run.workdir))
    return 0


def _make_cpu_devices(count: int) -> None:
    """Before jax starts its backend: how many devices a CPU is to be."""
    import jax

    if not isinstance(count, int) or count < 1:
        raise ValueError(f"run.cpu_devices must be a positive integer, got {count!r}")
    if jax.config.jax_platforms in (None, "", "cpu") and jax.config.jax_num_cpu_devices != count:
        jax.config.update("jax_num_cpu_devices", count)


def _run_sweep(argv: list[str]) -> int:
    values = flags.FlagValues()
    for name, default, text in (
        ("workdir", None, "the run directory, local or gs://"),
        ("shard", "0/1", "i/n: the i-th (from 0) of n independent jobs that share the workdir"),
        ("coordinator", None, "host:port of process 0 of a distributed job (or JAX_COORDINATOR_ADDRESS)"),
    ):
        flags.DEFINE_string(name, default, text, required=name == "workdir", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "processes of the job (or JAX_NUM_PROCESSES)", flag_values=values)
    flags.DEFINE_integer("process_id", None, "which one this is (or JAX_PROCESS_ID)", flag_values=values)
    _parse(argv, with_config=True, values=values)
    shard = re.fullmatch(r"(\d+)/(\d+)", values.shard)
    if not shard or int(shard[1]) >= int(shard[2]):
        raise ValueError(f"--shard must be i/n with 0 <= i < n, got {values.shard!r}")
    index, count = int(shard[1]), int(shard[2])
    config = _plain(values.config.to_dict() if isinstance(values.config, config_dict.ConfigDict) else values.config)
    execution, num_seeds = config.pop("run"), config.pop("num_seeds")
    overrides = _sweep(values["config"].config_filename)
    if overrides is None:
        raise ValueError(f"config {values['config'].config_filename} has no get_sweep(); see `train` for single runs")
    overrides = list(overrides)
    given = [arg.split("=")[0].removeprefix("--config.") for arg in argv if arg.startswith("--config.")]
    if twice := sorted({name for override in overrides for name in override} & set(given)):
        raise ValueError(f"{twice[0]} is given twice: by --config.{twice[0]} and by get_sweep()")

    import jax

    _make_cpu_devices(execution["cpu_devices"])
    from jaxconcepts.sweeps import packs, points, processes

    # Before anything starts jax's backend, which reading a point's numbers does.
    joined = processes.join(values.coordinator, values.num_processes, values.process_id)
    chosen = points.expand(config, points.with_seeds(overrides, config["seed"], num_seeds))
    layout = packs.Layout(execution["how"], execution["data"])
    if joined and count > 1:
        raise ValueError("--shard is for independent jobs, and this is a process of a distributed one")
    writer = (jax.process_index(), jax.process_count()) if joined else (index, count)

    from jaxconcepts import store
    from jaxconcepts.sweeps import execution as running
    from jaxconcepts.sweeps.sweep import run_sweep

    packs.make_mesh(len(chosen), layout.data)
    device = {"platform": jax.default_backend(), "kind": jax.devices()[0].device_kind, "count": jax.device_count()}
    keep_steps = {step for point in chosen for step in point.static.measure.checkpoint_steps}
    with store.open_run(
        values.workdir,
        config | {"num_seeds": num_seeds},
        device=device | execution,
        writer=writer,
        keep_steps=keep_steps,
    ) as run:
        if jax.process_index() == 0:
            _log_to(run.workdir / ("log.txt" if count == 1 else f"log.{index}of{count}.txt"))
        log.info("%d %s in %d process(es), %s", device["count"], device["kind"], jax.process_count(), run.workdir)
        try:
            run_sweep(
                chosen, run, layout, at_once=execution["at_once"], shard=(index, count),
                checkpoint_seconds=execution["checkpoint_seconds"],
            )  # fmt: skip
        except running.PreemptedError as stopped:
            log.warning("%s", stopped)
            return running.EXIT_PREEMPTED
        log.info("nothing left to run; figures: python -m jaxconcepts report --workdir=%s", run.workdir)
    return 0


def _status(argv: list[str]) -> int:
    values = _parse(argv, with_config=False)
    from jaxconcepts.sweeps import status

    print(status.text(status.status(values.workdir)))
    return 0


def _plan(argv: list[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "topology", None, "a TPU slice to plan for, e.g. v5p:4x4x4; it need not exist", flag_values=values
    )
    flags.DEFINE_bool("local", False, "plan for this machine's devices", flag_values=values)
    flags.DEFINE_bool(
        "each_group", False, "compile also groups that differ in the task's concepts alone", flag_values=values
    )
    _parse(argv, with_config=True, values=values)
    if (values.topology is None) == (not values.local):
        raise ValueError("plan needs one of --topology=NAME, e.g. --topology=v5p:4x4x4, and --local")
    config = _plain(values.config.to_dict() if isinstance(values.config, config_dict.ConfigDict) else values.config)
    execution, num_seeds = config.pop("run"), config.pop("num_seeds")

    import jax

    if values.topology is not None:
        jax.config.update("jax_platforms", "cpu")
    else:
        _make_cpu_devices(execution["cpu_devices"])
    from jaxconcepts.sweeps import chips, packs, plan, points

    devices = chips.of_topology(values.topology) if values.topology else jax.devices()
    overrides = _sweep(values["config"].config_filename)
    if overrides is None:
        overrides = [{}]
    groups = points.group(points.expand(config, points.with_seeds(overrides, config["seed"], num_seeds)))
    try:
        plan.plan(groups, packs.Layout(execution["how"], execution["data"]), devices, each_group=values.each_group)
    except plan.CannotFitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _extract(argv: list[str]) -> int:
    values = flags.FlagValues()
    for name, default, text in (
        ("model", None, "a checkpoint folder, or a Hugging Face repository id"),
        ("prompts", None, 'JSON lines: {"prompt": text, label: value, ...}'),
        ("workdir", None, "where to store, local or gs://"),
        ("dtype", "float32", "float32 or bfloat16"),
        ("revision", None, "branch, tag or commit of the repository"),
    ):
        required = name in ("model", "prompts", "workdir")
        flags.DEFINE_string(name, default, text, required=required, flag_values=values)
    flags.DEFINE_bool("bos", None, "begin each prompt with the tokenizer's BOS?", required=True, flag_values=values)
    flags.DEFINE_integer("batch_size", 16, "prompts a batch", flag_values=values)
    _parse(argv, with_config=False, values=values)

    from etils import epath

    from jaxconcepts.studies import extraction

    config = extraction.ExtractConfig(
        values.model, values.prompts, values.bos, values.dtype, values.revision, values.batch_size
    )
    workdir = epath.Path(values.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    _log_to(workdir / "log.txt")
    log.info("hidden states: %s", extraction.extract(config, workdir) / "hidden.zarr")
    return 0


def _decodability(argv: list[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "where `extract` stored", required=True, flag_values=values)
    flags.DEFINE_string("label", None, "a label of the prompts file", required=True, flag_values=values)
    flags.DEFINE_integer("k", 10, "neighbours", flag_values=values)
    _parse(argv, with_config=False, values=values)
    from jaxconcepts.studies import extraction

    for row in extraction.decodability(values.workdir, values.label, values.k).iter_rows(named=True):
        print(f"layer {row['layer']:>3}  CD {row['cd']:.3f}")
    return 0


def _sweep(filename: str):
    """What the config file's get_sweep() returns, None where it has none."""
    get_sweep = runpy.run_path(filename.partition(":")[0]).get("get_sweep")
    return None if get_sweep is None else get_sweep()


def _report(argv: list[str]) -> int:
    values = _parse(argv, with_config=False)
    from jaxconcepts.figures.report import write_report

    print(f"report: {write_report(values.workdir)}")
    return 0


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, as JSON has them, so that a config equals the one read back."""
    if isinstance(config, dict):
        return {name: _plain(value) for name, value in config.items()}
    return [_plain(value) for value in config] if isinstance(config, list | tuple) else config


def _log_to(path) -> None:
    """Progress on the terminal, and with times in a log file."""
    log.setLevel(logging.INFO)
    log.propagate = False
    for old in list(log.handlers):
        log.removeHandler(old)
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(terminal)
    if "://" not in os.fspath(path):
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)


if __name__ == "__main__":
    sys.exit(main())
