"""What commands share: flags and configs read with errors that name them, the log on terminal and file, devices."""

from __future__ import annotations

import logging
import os
import runpy
import sys
from collections.abc import Iterable
from typing import Any

from absl import flags
from etils import epath
from ml_collections import config_dict, config_flags

from jaxconcepts.store import files

log = logging.getLogger("jaxconcepts")


def workdir_flag() -> flags.FlagValues:
    """New flags with --workdir."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run directory, local or gs://", required=True, flag_values=values)
    return values


def text_flags(*described: tuple[str, str | None, str], required: Iterable[str] = ()) -> flags.FlagValues:
    """New flags whose values are text: (name, default, what it is)."""
    values = flags.FlagValues()
    for name, default, text in described:
        flags.DEFINE_string(name, default, text, required=name in required, flag_values=values)
    return values


def parse(argv: list[str], values: flags.FlagValues | None = None) -> flags.FlagValues:
    """The command's flags, read: those defined in `values`, or --workdir. With --help they are listed, and that is all.

    Raises ValueError for an argument that is no flag and a config field that there is not, flags.Error for a bad flag.
    """
    values = workdir_flag() if values is None else values
    if {"--help", "-h"} & set(argv[1:]):
        print(f"usage: python -m jaxconcepts {argv[0]} [--flag=value ...]\n")
        for name in values:
            default = f" (default: {values[name].default})" if values[name].default is not None else ""
            print(f"  --{name:<18} {values[name].help}{default}")
        raise SystemExit(0)
    try:
        left = values(argv)
    except (AttributeError, KeyError) as error:
        # ml_collections raises these for a field that the config does not have.
        raise ValueError(f"unknown config field: {error.args[0]}") from error
    if len(left) > 1:
        raise ValueError(f"arguments must be flags of the form --name=value, got {left[1]!r}")
    if "workdir" in values and values.workdir is not None:
        values.workdir = os.fspath(files.resolve(values.workdir))
    return values


def parse_with_config(
    argv: list[str],
    values: flags.FlagValues | None = None,
    needs: tuple[str, ...] = ("run", "num_seeds"),
    example: str = "configs/quickstart.py",
    source: str = "runs.loop.default_config()",
) -> tuple[flags.FlagValues, dict[str, Any]]:
    """The command's flags as `parse` reads them, and the config of --config, changed by --config.field=value.

    needs: fields that the config must have; `source` is where a config with them comes from, `example` a file.
    """
    values = workdir_flag() if values is None else values
    config_flags.DEFINE_config_file(
        "config", None, "a config file; --config.field=value changes a field of it", flag_values=values
    )
    parse(argv, values)
    if values.config is None:
        raise ValueError(f"--config=FILE is needed, e.g. --config={example}")
    try:
        absent = [name for name in needs if getattr(values.config, name, None) is None]
    except OSError as error:  # ml_collections gives an object that raises this for a file that it could not load.
        raise ValueError(f"--config cannot be loaded: {error}") from error
    if absent:
        raise ValueError(f"config field {absent[0]} is missing; start from {source}")
    config = values.config
    return values, _plain(config.to_dict() if isinstance(config, config_dict.ConfigDict) else config)


def get_sweep(values: flags.FlagValues):
    """What the config file's get_sweep() returns, None where it has none."""
    sweep = runpy.run_path(config_file(values).partition(":")[0]).get("get_sweep")
    return None if sweep is None else sweep()


def config_file(values: flags.FlagValues) -> str:
    """What --config was given."""
    return values["config"].config_filename


def make_cpu_devices(count: int) -> None:
    """Before jax starts its backend: how many devices a CPU is to be."""
    import jax

    if not isinstance(count, int) or count < 1:
        raise ValueError(f"run.cpu_devices must be a positive integer, got {count!r}")
    if jax.config.jax_platforms in (None, "", "cpu") and jax.config.jax_num_cpu_devices != count:
        jax.config.update("jax_num_cpu_devices", count)


def device() -> dict[str, Any]:
    """What jax runs on, for the provenance."""
    import jax

    return {"platform": jax.default_backend(), "kind": jax.devices()[0].device_kind, "count": jax.device_count()}


def log_to(path: epath.Path, opened: epath.Path | None = None) -> None:
    """Progress on the terminal, and with times in a log file.

    opened: the file that says that the run directory is open, config.json beside the log by default. Until it is
    there, lines are kept: nothing is written before a command's input has been read and checked.
    """
    log.setLevel(logging.INFO)
    log.propagate = False
    for old in list(log.handlers):
        log.removeHandler(old)
        old.close()
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(terminal)
    if files.is_local(path):
        file = _LogFile(path, path.parent / "config.json" if opened is None else opened)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)


class _LogFile(logging.FileHandler):
    """A log file that keeps its lines until `opened` exists, and that stays silent on a full disk, which is named by
    what must be written."""

    def __init__(self, path: epath.Path, opened: epath.Path):
        super().__init__(path, encoding="utf-8", errors="backslashreplace", delay=True)
        self._opened, self._kept = opened, []

    def emit(self, record):
        self._kept.append(record)
        if self.stream is not None or self._opened.exists():
            for kept in self._kept:
                super().emit(kept)
            self._kept.clear()

    def handleError(self, record):
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def _plain(config: Any) -> Any:
    """Tuples as lists, as JSON has them, so that a config equals the one read back."""
    if isinstance(config, dict):
        return {name: _plain(value) for name, value in config.items()}
    return [_plain(value) for value in config] if isinstance(config, list | tuple) else config
