"""What commands share beside their arguments: the log on terminal and file, and devices."""

from __future__ import annotations

import logging
import sys
from typing import Any

from etils import epath

from jaxconcepts.commands.pulse import Pulse
from jaxconcepts.runs import preemption
from jaxconcepts.store import files

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


def log_to(path: epath.Path, opened: epath.Path | None = None) -> None:
    """Progress on the terminal, and with times in a log file.

    opened: the file that says that the run directory is open, config.json beside the log by default. Until it is
    there, lines are kept: nothing is written before a command's input has been read and checked.
    """
    to_terminal()
    if files.is_local(path):
        file = _LogFile(path, path.parent / "config.json" if opened is None else opened)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)


def to_terminal() -> None:
    """Progress on the terminal alone."""
    log.setLevel(logging.INFO)
    log.propagate = False
    for old in [handler for handler in log.handlers if not isinstance(handler, Pulse)]:
        log.removeHandler(old)
        old.close()
    terminal = _Terminal(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(terminal)


class _Terminal(logging.StreamHandler):
    """Lines on standard output. Those that it takes no more (a full disk, a terminal that has gone) end no work, for
    the log file has them; a reader that has gone asks to stop."""

    def handleError(self, record):
        error = sys.exception()
        if isinstance(error, BrokenPipeError):
            preemption.nobody_reads()
        elif not isinstance(error, OSError):
            super().handleError(record)


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
