"""The command line: python -m jaxconcepts COMMAND --flag=value. `python -m jaxconcepts` lists the commands."""

from __future__ import annotations

import copy
import logging
import os
import sys
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

COMMANDS = {
    "train": "train the runs of a config and measure them: --config=configs/X.py --workdir=DIR [--config.field=value]",
    "report": "draw the figures and report.html of a run directory: --workdir=DIR",
}

log = logging.getLogger("jaxconcepts")


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for bad input, 75 when stopped by a signal and checkpointed."""
    argv = list(sys.argv if argv is None else argv)
    command = argv[1] if len(argv) > 1 else ""
    if command not in COMMANDS:
        lines = "\n".join(f"  {name:<8} {text}" for name, text in COMMANDS.items())
        print(f"usage: python -m jaxconcepts COMMAND [--flag=value ...]\n\n{lines}", file=sys.stderr)
        return 0 if command in ("", "help", "--help", "-h") else 2
    try:
        return {"train": _train, "report": _report}[command](argv[1:])
    except (ValueError, flags.Error, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parse(argv: list[str], with_config: bool) -> flags.FlagValues:
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
    if with_config and values.config is None:
        raise ValueError("--config=FILE is needed, e.g. --config=configs/quickstart.py")
    return values


def _train(argv: list[str]) -> int:
    values = _parse(argv, with_config=True)
    config = _plain(values.config.to_dict() if isinstance(values.config, config_dict.ConfigDict) else values.config)
    execution = config.pop("run")
    num_seeds = config.pop("num_seeds")
    if not isinstance(num_seeds, int) or num_seeds < 1:
        raise ValueError(f"num_seeds must be a positive integer, got {num_seeds!r}")

    import jax

    if jax.config.jax_platforms in (None, "", "cpu"):
        jax.config.update("jax_num_cpu_devices", execution["cpu_devices"])
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
