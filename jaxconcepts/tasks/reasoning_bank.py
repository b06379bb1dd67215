"""A bank of problems as tokens: made once by several processes, kept in a folder, read whole.

    bank = write("banks/train", config, count=100_000, seed=0, processes=2, progress=print)
    tokens, mask = bank.tokens(), bank.loss_mask()
    bank.hash                                  # for a run's provenance

Problem i of seed s is `generate(config, s * 2**32 + i)`, so a bank depends on neither processes nor interruptions, and
banks of two seeds have no problem's seed in common. Each part of a bank is one file that is written whole or not at
all, with a checksum of its bytes in its name; a writer that was killed goes on with the parts that are missing.
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
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import numpy as np

from jaxconcepts.tasks import reasoning_labels, reasoning_text
from jaxconcepts.tasks.reasoning import ReasoningConfig, generate
from jaxconcepts.tasks.reasoning_items import Bank, pack

FORMAT = 1
SEED_STRIDE = 2**32
REQUEST, COMPLETE = "request.json", "complete.json"
_PART = re.compile(r"part-(\d{6})-([0-9a-f]{16})\.npz")


def write(
    folder: str | os.PathLike,
    config: ReasoningConfig,
    count: int,
    seed: int = 0,
    processes: int = 1,
    labels: bool = False,
    part_size: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> Bank:
    """Writes the bank, or what is missing of it, and reads it.

    count: problems. labels: whether the probes' labels are stored too (about 6 kB a problem). part_size: problems a
    file. progress: called with (problems done, count), first with what was there already.

    Raises ValueError where a number is not accepted, the config's operations cannot be reached, or the folder holds
    another bank or other files.
    """
    numbers = (("count", count, 1), ("seed", seed, 0), ("processes", processes, 1), ("part_size", part_size, 1))
    for name, value, least in numbers:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    if count > SEED_STRIDE:
        raise ValueError(f"count must be at most 2**32, got {count}")
    # Raises for a config without problems before there is a folder.
    generate(config, seed * SEED_STRIDE)
    folder = Path(folder)
    request = _request(config, count, seed, labels, part_size)
    _open(folder, request)
    existing = _parts(folder)
    sizes = [min(part_size, count - start) for start in range(0, count, part_size)]
    done = sum(sizes[index] for index in existing)
    if progress is not None:
        progress(done, count)
    missing = [index for index in range(len(sizes)) if index not in existing]
    for index in _make(folder, config, request, missing, processes):
        done += sizes[index]
        if progress is not None:
            progress(done, count)
    _finish(folder, request)
    return load(folder)


def load(folder: str | os.PathLike) -> Bank:
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
    # JSON knows no tuples.
    fields = {key: tuple(v) if isinstance(v, list) else v for key, v in request["config"].items()}
    config = ReasoningConfig(**fields)
    return Bank(config, {key: np.concatenate(parts) for key, parts in arrays.items()}, complete["hash"])


def _request(config: ReasoningConfig, count: int, seed: int, labels: bool, part_size: int) -> dict:
    numbers = {"count": count, "seed": seed, "labels": bool(labels), "part_size": part_size}
    # As JSON gives it back, tuples as lists.
    return json.loads(json.dumps({"format": FORMAT, "config": asdict(config), **numbers}))


def _open(folder: Path, request: dict) -> None:
    previous = _read_json(folder / REQUEST)
    if previous is None:
        # A writer killed at the start leaves a temporary file.
        if folder.exists() and (not folder.is_dir() or any(path.suffix != ".tmp" for path in folder.iterdir())):
            raise ValueError(f"folder must be new, empty or a bank's; {folder} holds something else")
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / REQUEST, json.dumps(request, indent=1).encode())
        return
    old, new = _flat(previous), _flat(request)
    differing = [key for key in old | new if old.get(key) != new.get(key)]
    changed = [f"{key}: was {old.get(key)!r}, now {new.get(key)!r}" for key in differing]
    if changed:
        raise ValueError(f"folder holds another bank: {folder}; {'; '.join(changed)}")


def _flat(request: dict) -> dict:
    task = {f"task.{key}": value for key, value in request.get("config", {}).items()}
    return {key: value for key, value in request.items() if key != "config"} | task


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


def _make(folder: Path, config: ReasoningConfig, request: dict, missing: list[int], processes: int) -> Iterator[int]:
    """Writes the missing parts and yields each one's number as it is done."""
    if processes == 1 or len(missing) < 2:
        for index in missing:
            yield _write_part(folder, config, request, index)
        return
    # Not forked: JAX's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(missing)), context, initializer=_follow_parent) as pool:
        try:
            futures = [pool.submit(_write_part, folder, config, request, index) for index in missing]
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


def _write_part(folder: Path, config: ReasoningConfig, request: dict, index: int) -> int:
    start = index * request["part_size"]
    stop = min(start + request["part_size"], request["count"])
    ids = reasoning_labels.ids(reasoning_text.vocabulary(config.form, config.modulus))
    problems = (generate(config, request["seed"] * SEED_STRIDE + number) for number in range(start, stop))
    data = _archive(pack(problems, ids, range(start, stop), request["labels"]))
    _replace(folder / f"part-{index:06d}-{hashlib.sha256(data).hexdigest()[:16]}.npz", data)
    return index


def _archive(arrays: dict[str, np.ndarray]) -> bytes:
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
