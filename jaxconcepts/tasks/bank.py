"""A bank of arrays on disk: made once by several processes, kept in a folder, read whole; killed, it goes on.

    write("banks/train", {"config": asdict(config), "seed": 0}, sizes=[1000, 1000, 500], make=partial(part, config),
          processes=2, progress=print)
    stored = load("banks/train")
    stored.arrays, stored.hash                          # the parts' arrays joined; for a run's provenance

A bank is a function of its request alone: part i is `make(i)`, whoever makes it and however often it was interrupted.
Each part is one file that is written whole or not at all, with a checksum of its bytes in its name; a writer that was
killed goes on with the parts that are missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import re
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxconcepts import nested

REQUEST, COMPLETE = "request.json", "complete.json"
_PART = re.compile(r"part-(\d{6})-([0-9a-f]{16})\.npz")


class Stored(NamedTuple):
    """A bank as it was read. request: as it was written, tuples as lists. arrays: joined along their first axis. hash:
    of the request and all bytes."""

    request: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    hash: str


def write(
    folder: str | os.PathLike,
    request: Mapping[str, Any],
    sizes: Sequence[int],
    make: Callable[[int], Mapping[str, np.ndarray]],
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Stored:
    """Writes the bank, or what is missing of it, and reads it.

    request: all that the arrays depend on, what JSON can hold; a section "config" is named "task" in errors. sizes:
    items in each part, for the progress. make: gives the arrays of a part by its number; with several `processes` it
    must be a function of a module (or a `partial` of one). progress: called with (items done, all), first with what was
    there already.

    Raises ValueError where `processes` is no positive integer, or the folder holds another bank or other files.
    """
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise ValueError(f"processes must be an integer of at least 1, got {processes!r}")
    folder, request = Path(folder), json.loads(json.dumps(request))
    _open(folder, request)
    existing = _parts(folder)
    done, count = sum(sizes[index] for index in existing), sum(sizes)
    report = progress or (lambda done, count: None)
    report(done, count)
    missing = [index for index in range(len(sizes)) if index not in existing]
    for index in _make(folder, make, missing, processes):
        done += sizes[index]
        report(done, count)
    _finish(folder, request)
    return load(folder)


def load(folder: str | os.PathLike) -> Stored:
    """Reads a bank that is complete, every part checked against its checksum.

    Raises ValueError, naming the file, where there is none, it is not complete, or a part is missing or damaged.
    """
    folder = Path(folder)
    request, complete = _read_json(folder / REQUEST), _read_json(folder / COMPLETE)
    if request is None or complete is None:
        state = "is not complete: write it again with the same arguments" if request else "holds no bank"
        raise ValueError(f"folder must hold a bank; {folder} {state}")
    existing = _parts(folder)
    damaged = [f"{index:06d}" for index, name in enumerate(complete["parts"]) if existing.get(index) != name]
    if damaged:
        raise ValueError(f"parts missing or damaged in {folder}: {', '.join(damaged)}; write the bank again to mend it")
    arrays: dict[str, list[np.ndarray]] = {}
    for name in complete["parts"]:
        with np.load(folder / name, allow_pickle=False) as part:
            for key in part.files:
                arrays.setdefault(key, []).append(part[key])
    return Stored(request, {key: np.concatenate(parts) for key, parts in arrays.items()}, complete["hash"])


def _open(folder: Path, request: dict) -> None:
    previous = _read_json(folder / REQUEST)
    if previous is None:
        # A writer killed at the start leaves a temporary file.
        if folder.exists() and (not folder.is_dir() or any(path.suffix != ".tmp" for path in folder.iterdir())):
            raise ValueError(f"folder must be new, empty or a bank's; {folder} holds something else")
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / REQUEST, json.dumps(request, indent=1).encode())
        return
    old, new = (nested.flat({"task" if key == "config" else key: of[key] for key in of}) for of in (previous, request))
    if changed := nested.differences(old, new):
        raise ValueError(f"folder holds another bank: {folder}; {changed}")


def _read_json(path: Path) -> dict | None:
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; remove the folder and write the bank again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it must hold an object; remove the folder and write the bank again")
    return content


def _parts(folder: Path) -> dict[int, str]:
    """The file of each part whose bytes are what its name says."""
    result = {}
    for path in folder.iterdir():
        match = _PART.fullmatch(path.name)
        if match and hashlib.sha256(path.read_bytes()).hexdigest().startswith(match[2]):
            result[int(match[1])] = path.name
    return result


def _make(folder: Path, make: Callable, missing: list[int], processes: int) -> Iterator[int]:
    """Writes the missing parts and yields each one's number as it is done."""
    if processes == 1 or len(missing) < 2:
        for index in missing:
            yield _write_part(folder, make, index)
        return
    # Not forked: JAX's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(missing)), context, initializer=_follow_parent) as pool:
        try:
            futures = [pool.submit(_write_part, folder, make, index) for index in missing]
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _follow_parent() -> None:
    """Ends this process with its parent, even one that was killed; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait():
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _write_part(folder: Path, make: Callable, index: int) -> int:
    data = _archive(make(index))
    _replace(folder / f"part-{index:06d}-{hashlib.sha256(data).hexdigest()[:16]}.npz", data)
    return index


def _archive(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An .npz file that is the same, byte for byte, whenever it is written."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            # ZipInfo's own date, in 1980, and not now.
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content.getvalue())
    return buffer.getvalue()


def _replace(path: Path, data: bytes) -> None:
    """The file appears whole, and stays whole when the machine stops."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _finish(folder: Path, request: dict) -> None:
    parts = _parts(folder)
    names = [parts[index] for index in sorted(parts)]
    for path in folder.iterdir():
        # What killed writers left behind, and parts that were damaged.
        if path.suffix == ".tmp" or (_PART.fullmatch(path.name) and path.name not in names):
            path.unlink(missing_ok=True)
    digest = hashlib.sha256(json.dumps([request, names], sort_keys=True).encode()).hexdigest()
    _replace(folder / COMPLETE, json.dumps({"hash": digest, "parts": names}, indent=1).encode())
