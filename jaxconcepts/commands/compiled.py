"""Compiled programs are kept from one command to the next, in the user's cache folder.

JAX's own persistent cache does it (docs.jax.dev, "Persistent compilation cache"): an entry's key holds the program, the
versions of JAX and of the compiler, and the devices. Programs for a CPU are machine code, so each kind of CPU has a
folder of its own: a home folder may be shared by machines that differ.

Imports no jax, which reads the environment when it is imported.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from pathlib import Path

FOLDER = "JAX_COMPILATION_CACHE_DIR"
LEAST_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
LARGEST = 4 * 2**30
"""Bytes that may be kept; beyond, what was written first goes."""


def keep() -> None:
    """Sets JAX's environment variables for its cache, unless the user has set them.

    JAX_ENABLE_COMPILATION_CACHE=false turns the cache off. Where the folder cannot be made, nothing is kept.
    """
    if os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in ("false", "0") or FOLDER in os.environ:
        return
    try:
        folder = _home() / "jaxconcepts" / "compiled" / _cpu()
        folder.mkdir(parents=True, exist_ok=True)
        _prune(folder)
    except (OSError, RuntimeError):
        return
    os.environ[FOLDER] = str(folder)
    os.environ.setdefault(LEAST_SECONDS, "0.2")


def _home() -> Path:
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given:
        return Path(given)
    return Path.home() / ("Library/Caches" if platform.system() == "Darwin" else ".cache")


def _cpu() -> str:
    """A name of the kind of CPU: its model and what instructions it has."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        lines = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", text, re.MULTILINE)
    except OSError:
        lines = []
    kind = "\n".join(sorted(set(lines))) or platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"


def _prune(folder: Path) -> None:
    entries = sorted((entry.stat().st_mtime, entry.stat().st_size, entry) for entry in folder.iterdir())
    total = sum(size for _, size, _ in entries)
    for _, size, entry in entries:
        if total <= LARGEST:
            return
        entry.unlink(missing_ok=True)
        total -= size
