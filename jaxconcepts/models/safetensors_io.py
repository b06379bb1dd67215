"""Safetensors files: one tensor at a time in and out, so that no more than one is ever in host memory.

The format: 8 bytes (little-endian length of the header), a JSON header {name: {dtype, shape, data_offsets}}, the data.
Headers are checked here, where errors name the tensor, and by the `safetensors` library, which has the last word. Data
is read with plain reads, not mapped, so that a tensor's memory is given back when it is dropped.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxconcepts.models import json_file

DTYPES = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"), "U32": np.dtype("<u4"), "U16": np.dtype("<u2"), "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn), "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}  # fmt: skip
# What weights may be; the rest is for buffers, and for packed numbers.
WEIGHTS = ("F64", "F32", "F16", "BF16")
# The library's own bound.
LONGEST_HEADER = 100_000_000


class Entry(NamedTuple):
    """Where a tensor lies: `start` is its first byte in the file."""

    path: Path
    start: int
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def type_name(self) -> str:
        """The format's name of the type."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    def read(self) -> np.ndarray:
        return np.fromfile(self.path, self.dtype, math.prod(self.shape), offset=self.start).reshape(self.shape)


def scan(path: Path) -> dict[str, Entry]:
    """The tensors of one file. Raises ValueError naming the file, and the tensor, where anything in it is not as the
    format says: header, types, shapes, offsets that overlap or leave holes, bytes that are missing or left over."""
    if not path.is_file():
        raise ValueError(f"{path} must be a safetensors file, and it is {'no file' if path.exists() else 'missing'}")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(size - 8, LONGEST_HEADER):
            raise ValueError(
                f"{path} is not a whole safetensors file: it has {size} bytes, and its header needs {length + 8}"
            )
        header = json_file.parse_object(file.read(length), f"the header of {path}")
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, described, 8 + length) for name, described in header.items()}
    _check_offsets(path, entries, 8 + length, size)
    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a safetensors file that can be read: {reason}") from None
    return entries


def _entry(path: Path, name: str, described: Any, begin: int) -> Entry:
    """A tensor as its part of the header says."""
    if not isinstance(described, dict) or set(described) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{path}: tensor {name!r} must have dtype, shape and data_offsets, got {described!r:.120}")
    kind, shape, offsets = (described[key] for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or kind not in DTYPES:
        raise ValueError(f"{path}: tensor {name!r} has dtype {kind!r:.60}; understood: {', '.join(DTYPES)}")
    if not _are_whole(shape):
        raise ValueError(f"{path}: the shape of tensor {name!r} must be whole numbers from 0 on, got {shape!r:.120}")
    if not _are_whole(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(
            f"{path}: data_offsets of tensor {name!r} must be the numbers of its first byte and of the byte after its "
            f"last, got {offsets!r:.120}"
        )
    dtype, (start, stop) = DTYPES[kind], offsets
    if stop - start != dtype.itemsize * math.prod(shape):
        raise ValueError(
            f"{path}: tensor {name!r} is corrupt: {stop - start} bytes, and {kind} of shape {shape!s:.120} takes "
            f"{dtype.itemsize * math.prod(shape)}"
        )
    return Entry(path, begin + start, dtype, tuple(shape))


def _are_whole(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _check_offsets(path: Path, entries: dict[str, Entry], begin: int, size: int) -> None:
    """Raises ValueError unless the tensors lie one after another, from the header to the end of the file."""
    at = begin
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].size)):
        if entry.start + entry.size > size:
            end = entry.start + entry.size
            raise ValueError(f"{path} is truncated: tensor {name!r} ends at byte {end} of {size}")
        if entry.start != at:
            what = "overlaps the one before it" if entry.start < at else "leaves bytes unused before it"
            raise ValueError(f"{path}: tensor {name!r} begins at byte {entry.start}, {what}; expected byte {at}")
        at += entry.size
    if at != size:
        raise ValueError(f"{path} has {size - at} bytes after its last tensor; expected none")


def scan_folder(folder: Path) -> dict[str, Entry]:
    """All tensors of a checkpoint folder: model.safetensors, or the shards that model.safetensors.index.json lists."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        if not (folder / "model.safetensors").exists():
            pickled = sorted(path.name for path in folder.glob("*.bin"))
            reason = f"only {', '.join(pickled)}: pickled checkpoints are not read" if pickled else "no safetensors"
            raise ValueError(f"{folder} holds {reason}; expected model.safetensors or model.safetensors.index.json")
        return scan(folder / "model.safetensors")
    where = weight_map(index)
    entries = {}
    for shard in sorted(set(where.values())):
        if not (folder / shard).exists():
            raise ValueError(f"{index} lists the shard {shard}, which is missing")
        tensors = scan(folder / shard)
        entries |= {name: entry for name, entry in tensors.items() if where.get(name) == shard}
    if absent := sorted(set(where) - set(entries)):
        raise ValueError(f"{index} lists tensors that their shards do not hold: {', '.join(absent[:8])}")
    return entries


def weight_map(index: Path) -> dict[str, str]:
    """Tensor -> shard of an index. Raises ValueError where a shard is not a file of the index's own folder."""
    where = json_file.read_object(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise ValueError(f"{index}: weight_map must be an object, tensor to shard, got {where!r:.120}")
    for name, shard in where.items():
        is_plain = isinstance(shard, str) and Path(shard).name == shard and "\\" not in shard and "\0" not in shard
        if not is_plain or not shard.endswith(".safetensors"):
            raise ValueError(
                f"{index}: the shard of tensor {name!r} must be the name of a safetensors file in this folder, got "
                f"{shard!r:.120}"
            )
    return where


def write(path: Path, tensors: Iterable[tuple[str, tuple[int, ...], np.dtype, Callable[[], np.ndarray]]]) -> None:
    """Writes (name, shape, dtype, read) one after another, calling `read` for a tensor when its turn comes.

    The error of a full disk names the file.
    """
    tensors = sorted(tensors, key=lambda tensor: tensor[0])
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, dtype, _ in tensors:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        offsets = [offset, offset + size]
        header[name] = {"dtype": names[np.dtype(dtype)], "shape": list(shape), "data_offsets": offsets}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    try:
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name, shape, dtype, read in tensors:
                data = np.asarray(read(), order="C")
                assert data.shape == tuple(shape) and data.dtype == dtype, name
                # Not tofile, whose error on a full disk does not say so.
                file.write(data.reshape(-1).view(np.uint8))
    except OSError as error:
        if error.filename:  # Not of this file, perhaps: `read` reads another.
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
