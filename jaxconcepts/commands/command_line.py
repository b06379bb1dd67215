"""What commands share beside their arguments: the log on terminal and file, and devices."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

log = logging.getLogger("jaxconcepts")


def make_cpu_devices(count: int) -> None:
    """Before jax starts its backend: how many devices a CPU is to be."""
    import jax

    if jax.config.jax_platforms in (None, "", "cpu") and jax.config.jax_num_cpu_devices != count:
        jax.config.update("jax_num_cpu_devices", count)


def device() -> dict[str, Any]:
    """What jax runs on, for the provenance."""
    import jax

    return {"platform": jax.default_backend(), "kind": jax.devices()[0].device_kind, "count": jax.device_count()}


def log_to(path) -> None:
    """Progress on the terminal, and with times in a log file."""
    log.setLevel(logging.INFO)
    log.propagate = False
    for old in list(log.handlers):
        log.removeHandler(old)
        old.close()
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(terminal)
    if "://" not in os.fspath(path):
        file = _LogFile(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)


class _LogFile(logging.FileHandler):
    """A log file that stays silent on a full disk, which is named by what must be written."""

    def handleError(self, record):
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)
