"""Safetensors files: one tensor at a time in and out, so that no more than one is ever in host memory.

The format: 8 bytes (little-endian length of the header), a JSON header {name: {dtype, shape, data_offsets}}, the data.
Files are read with plain reads, not mapped, so that a tensor's memory is given back when it is dropped.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

DTYPES = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"),
    "U8": np.dtype("u1"), "BOOL": np.dtype("?"),
}  # fmt: skip


class Entry(NamedTuple):
    """Where a tensor lies: `start` is its first byte in the file."""

    path: Path
    start: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        return np.fromfile(self.path, self.dtype, int(np.prod(self.shape)), offset=self.start).reshape(self.shape)


def scan(path: Path) -> dict[str, Entry]:
    """The tensors of one file. Raises ValueError naming the file, and the tensor, where its bytes are not all there."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= size - 8:
            raise ValueError(f"{path} is not a whole safetensors file: {size} bytes, the header needs {length + 8}")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise ValueError(f"{path} is not a safetensors file: its header is not JSON ({error})") from None
    header.pop("__metadata__", None)
    entries = {}
    for name, found in header.items():
        dtype, shape, (start, stop) = DTYPES.get(found["dtype"]), tuple(found["shape"]), found["data_offsets"]
        if dtype is None:
            raise ValueError(f"{path}: tensor {name!r} has dtype {found['dtype']}; understood: {', '.join(DTYPES)}")
        if stop - start != dtype.itemsize * int(np.prod(shape)):
            raise ValueError(
                f"{path}: tensor {name!r} is corrupt, {stop - start} bytes for {found['dtype']} of {shape}"
            )
        if 8 + length + stop > size:
            raise ValueError(f"{path} is truncated: tensor {name!r} ends at byte {8 + length + stop} of {size}")
        entries[name] = Entry(path, 8 + length + start, dtype, shape)
    return entries


def scan_folder(folder: Path) -> dict[str, Entry]:
    """All tensors of a checkpoint folder: model.safetensors, or the shards that model.safetensors.index.json lists."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        if not (folder / "model.safetensors").exists():
            pickled = sorted(path.name for path in folder.glob("*.bin"))
            reason = f"only {', '.join(pickled)}: pickled checkpoints are not read" if pickled else "no safetensors"
            raise ValueError(f"{folder} holds {reason}; expected model.safetensors or model.safetensors.index.json")
        return scan(folder / "model.safetensors")
    where = json.loads(index.read_text())["weight_map"]
    entries = {}
    for shard in sorted(set(where.values())):
        if not (folder / shard).exists():
            raise ValueError(f"{index} lists the shard {shard}, which is missing")
        found = scan(folder / shard)
        entries |= {name: entry for name, entry in found.items() if where.get(name) == shard}
    if absent := sorted(set(where) - set(entries)):
        raise ValueError(f"{index} lists tensors that their shards do not hold: {', '.join(absent)}")
    return entries


def write(path: Path, tensors: Iterable[tuple[str, tuple[int, ...], np.dtype, Callable[[], np.ndarray]]]) -> None:
    """Writes (name, shape, dtype, read) one after another, calling `read` for a tensor when its turn comes.

    The error of a full disk names the file.
    """
    tensors = sorted(tensors, key=lambda tensor: tensor[0])
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, dtype, _ in tensors:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        offsets = [offset, offset + size]
        header[name] = {"dtype": names[np.dtype(dtype)], "shape": list(shape), "data_offsets": offsets}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    try:
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name, shape, dtype, read in tensors:
                data = np.ascontiguousarray(read())
                assert data.shape == tuple(shape) and data.dtype == dtype, name
                # Not tofile, whose error on a full disk does not say so.
                file.write(data.reshape(-1).view(np.uint8))
    except OSError as error:
        if error.filename:  # Not of this file, perhaps: `read` reads another.
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
