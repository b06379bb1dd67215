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
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from etils import epath

from jaxconcepts import nested
from jaxconcepts.store.files import DamagedFileError, existing_run, read_json, resolve, says_full, write

log = logging.getLogger("jaxconcepts.store")

EARLIER = "earlier.json"
VERSIONED = ("jaxconcepts", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "polars")


class WorkdirInUseError(RuntimeError):
    """Another live process writes to this workdir."""


def config(workdir: epath.PathLike) -> dict[str, Any]:
    """The full configuration that the workdir was made with."""
    return read_json(existing_run(workdir) / "config.json")


def earlier(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """The configurations that the workdir had before its runs were made longer, the first first."""
    path, now = resolve(workdir) / EARLIER, config(workdir)
    configs = read_json(path).get("configs") if path.exists() else []
    if not isinstance(configs, list) or not all(isinstance(each, dict) for each in configs):
        raise DamagedFileError(f'damaged {path}: "configs" must be a list of configurations')
    # It is written first: killed before config.json was, it names what the workdir still is.
    return configs[:-1] if configs and not differing(configs[-1], now) else configs


def provenance(workdir: epath.PathLike) -> dict[str, Any]:
    """Versions, device, command line, UTC start time and git revision; the same for each of "resumes". {} where the
    record was deleted."""
    path = existing_run(workdir) / "provenance.json"
    return read_json(path) if path.exists() else {}


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


def check_config(path: epath.Path, config: Mapping[str, Any], extend: Callable[[], None] | None = None) -> None:
    """Writes the config of a new run; raises ValueError naming each field that differs from an old one's.

    extend: raises ValueError unless the old one's runs may be made longer; where it does not, the config is replaced,
    and the old one kept (`earlier`).
    """
    _texts(config)  # Names the field that JSON has not.
    text = json.dumps(config, indent=2).encode()
    if not path.exists():
        write(path, text)
        return
    old = read_json(path)
    if not differing(old, config):
        return
    if extend is None:
        said = nested.differences(_texts(old), _texts(config))
        hint = ", or --extend to make the runs of `train` and `sweep` longer" if "train.steps: " in said else ""
        raise ValueError(
            f"workdir {path.parent} was made with another config: {said}; give another workdir, or the "
            f"earlier values of these fields{hint}"
        )
    extend()
    write(path.parent / EARLIER, json.dumps({"configs": [*earlier(path.parent), old]}, indent=2).encode())
    write(path, text)


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The fields that two configurations have otherwise, by dotted name."""
    return nested.differing(_texts(old), _texts(new))


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


def _texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Every field as JSON text by dotted name."""
    return {name: _text(name, value) for name, value in nested.flat(config).items()}


def _text(name: str, value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError as error:
        raise ValueError(f"config field {name} must be a JSON value, got {value!r}") from error


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
