"""What an extraction has stored: the array of hidden states, the tables of its prompts, and the hashes of both.

hidden.zarr                  zarr 3 with a checksum a chunk, which every reader verifies; a chunk a batch
prompts/<first row>.parquet  of a window of batches
hashes/<first row>.json      {"prompts": sha256 of the window's table, "batches": {first row: sha256 of its states}}
done.json                    rows written so far
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from jaxconcepts.store import DamagedFileError, files, tables


def hidden_states(workdir: epath.PathLike):
    """The stored array [prompts, layers + 1, width], a tensorstore: index it, then `.read().result()`, which raises
    ValueError naming a chunk that is missing or damaged."""
    return open_array(files.resolve(workdir))


def prompts(workdir: epath.PathLike) -> pl.DataFrame:
    """A row a prompt in the array's order: row, line, tokens, and the labels of the prompts file.

    Raises ValueError where there are none, DamagedFileError naming a table that is damaged, missing or doubled.
    """
    workdir = files.resolve(workdir)
    paths = {path.stem: path for path in files.listing(workdir / "prompts") if path.suffix == ".parquet"}
    windows = {path.stem: path for path in files.listing(workdir / "hashes") if path.suffix == ".json"}
    if not paths and not windows:
        raise ValueError(f"{workdir} holds no extracted prompts; run `extract` first")
    frames, row = [], 0
    for name in sorted(paths.keys() | windows.keys()):
        if name not in paths:
            raise DamagedFileError(
                f"{workdir / 'prompts' / name}.parquet is missing: delete {workdir} and extract again"
            )
        if name not in windows:
            raise DamagedFileError(f"there is no hashes/{name}.json for {paths[name]}: start `extract` again to finish")
        if not tables.is_readable(paths[name], read_hashes(windows[name])["prompts"]):
            raise DamagedFileError(f"damaged table part {paths[name]}: not as it was written")
        frame = tables.read_parquet(paths[name])
        if frame["row"].to_list() != list(range(row, row + frame.height)):
            raise DamagedFileError(
                f"{workdir / 'prompts'}: rows must go on with {row} in {name}.parquet; a part is missing"
            )
        frames, row = [*frames, frame], row + frame.height
    return pl.concat(frames, how="vertical_relaxed")


def verify(workdir: epath.PathLike) -> None:
    """Reads every batch; raises ValueError naming one that is missing, damaged or another's."""
    workdir = files.resolve(workdir)
    array, row = hidden_states(workdir), 0
    for path in files.listing(workdir / "hashes"):
        for first, (stop, sha256) in sorted(read_hashes(path)["batches"].items(), key=lambda batch: int(batch[0])):
            if int(first) != row or sha256 != digest(array[row:stop].read().result()):
                raise DamagedFileError(
                    f"damaged {workdir / 'hidden.zarr'}: rows {row} to {stop - 1} are not as they were written"
                )
            row = stop
    if row < rows_done(workdir):
        raise DamagedFileError(f"damaged {workdir / 'hashes'}: there are none from row {row} on")


def digest(states: np.ndarray) -> str:
    """SHA-256 of a batch's states [rows, layers + 1, width] as they are stored."""
    return hashlib.sha256(np.ascontiguousarray(states).view(np.uint8)).hexdigest()


def rows_done(workdir: epath.Path) -> int:
    """Rows written so far, all rows before them included."""
    path = workdir / "done.json"
    if not path.exists():
        return 0
    rows = files.read_json(path).get("rows")
    if type(rows) is not int or rows < 0:
        raise DamagedFileError(f'damaged {path}: "rows" must be a number of rows, got {rows!r}')
    return rows


def read_hashes(path: epath.Path) -> dict[str, Any]:
    """The hashes of a window. Raises DamagedFileError naming the file."""
    with files.naming(path):
        content = files.read_json(path)
        batches = {str(int(first)): (int(stop), str(sha)) for first, (stop, sha) in content["batches"].items()}
        return {"prompts": str(content["prompts"]), "batches": batches}


def open_array(workdir: epath.Path, **created: Any):
    """The array. created: shape, dtype and chunk_layout, where it is to be made if it is not there."""
    import tensorstore

    path = workdir / "hidden.zarr"
    if (path / ".zarray").exists():
        raise ValueError(f"{path} was written by a version that kept no checksums: extract into another workdir")
    kvstore = {"driver": "file", "path": str(path)} if files.is_local(path) else str(path)
    # A chunk that is missing is an error, not zeros; so zeros are stored too.
    spec = {"driver": "zarr3", "kvstore": kvstore, "fill_missing_data_reads": False}
    spec |= {"store_data_equal_to_fill_value": True}
    if not created:
        return tensorstore.open(spec, read=True).result()
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    return tensorstore.open(spec | {"metadata": {"codecs": codecs}}, open=True, create=True, **created).result()
