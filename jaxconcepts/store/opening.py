"""What a run directory says of itself (config.json, provenance.json), and the lock that keeps a second job out."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from etils import epath

from jaxconcepts.store.files import DamagedFileError, differences, read_json, resolve, says_full, write

log = logging.getLogger("jaxconcepts.store")

VERSIONED = ("jaxconcepts", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "polars")


class WorkdirInUseError(RuntimeError):
    """Another live process writes to this workdir."""


def config(workdir: epath.PathLike) -> dict[str, Any]:
    """The full configuration that the workdir was made with."""
    return read_json(resolve(workdir) / "config.json")


def provenance(workdir: epath.PathLike) -> dict[str, Any]:
    """Versions, device, command line, UTC start time and git revision; the same for each of "resumes"."""
    return read_json(resolve(workdir) / "provenance.json")


@contextlib.contextmanager
def writable(root: epath.Path) -> Iterator[None]:
    """Makes a ValueError naming the workdir of an error in making it, unless its disk is full."""
    try:
        yield
    except OSError as error:
        if says_full(error):
            raise
        raise ValueError(f"workdir must be a folder that can be written to, got {root}: {error}") from error


def lock(root: epath.Path, writer: tuple[int, int], held: contextlib.ExitStack, starting: contextlib.ExitStack) -> None:
    """Takes this writer's lock until `held` closes, and until `starting` closes the one under which a run opens.

    Raises WorkdirInUseError, naming the holder's process, if another process has this writer's lock, or if one opened
    the workdir with another count of writers: their packs would overlap.
    """
    import fcntl

    root, (index, count) = Path(root), writer
    gate = starting.enter_context((root / ".lock").open("a+"))
    try:
        fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        gate.seek(0)
        log.warning("waiting for %s, which is opening %s too", gate.read() or "another process", root)
        fcntl.flock(gate, fcntl.LOCK_EX)
    _sign(gate.buffer.raw)
    own = root / f".lock.{index}of{count}"
    own.touch()
    for path in sorted(root.glob(".lock.*of*")):
        if path != own and path.name.endswith(f"of{count}"):
            continue  # One of those that write together with this process.
        file = (held if path == own else starting).enter_context(path.open("r+b", buffering=0))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read().decode() or "another process"
            raise WorkdirInUseError(f"workdir {root} is being written by {holder}") from None
        if path == own:
            _sign(file)


def _sign(file: io.RawIOBase) -> None:
    """Writes into a lock who holds it."""
    with contextlib.suppress(OSError):  # On a full disk the lock holds, only without a name.
        file.truncate(0)
        file.seek(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}".encode())


def check_config(path: epath.Path, config: Mapping[str, Any]) -> None:
    """Writes the config of a new run; raises ValueError naming each field that differs from an old one's."""
    new = _dotted(config)
    if not path.exists():
        write(path, json.dumps(config, indent=2).encode())
        return
    old = _dotted(read_json(path))
    if differing := differences(old, new, ("was", "now", "absent")):
        raise ValueError(
            f"workdir {path.parent} was made with another config: {differing}; give another "
            "workdir, or these fields as they were (a training cannot be made longer: its schedule is of its steps)"
        )


def record_provenance(path: epath.Path, command: str | None, device: Mapping[str, Any] | None) -> None:
    """Writes what this run is made with, or adds it to the record's resumes."""
    entry = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv) if command is None else command,
        "device": dict(device or {}),
        "platform": platform.platform(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in VERSIONED},
        "git_revision": _git_revision(),
    }
    record = entry | {"resumes": []}
    if path.exists():
        record = read_json(path)
        if not isinstance(record.get("resumes"), list):
            raise DamagedFileError(f'damaged {path}: "resumes" must be a list; delete the file to begin a new record')
        record["resumes"].append(entry)
    write(path, json.dumps(record, indent=2).encode())


def _dotted(tree: Any, prefix: str = "") -> dict[str, str]:
    """Every leaf as JSON text under its dotted name."""
    if isinstance(tree, dict) and tree:
        return {k: v for key, sub in tree.items() for k, v in _dotted(sub, f"{prefix}{key}.").items()}
    try:
        return {prefix[:-1]: json.dumps(tree)}
    except TypeError as error:
        raise ValueError(f"config field {prefix[:-1]} must be a JSON value, got {tree!r}") from error


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """The commit of the checkout that this package is run from, "-dirty" added if changed; None when installed."""
    checkout = epath.Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", os.fspath(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
