"""The tables of a run directory and the snapshots of hidden states: their columns, checked; read part by part."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl
from etils import epath
from jaxtyping import Float, Int

from jaxconcepts.store import manifest
from jaxconcepts.store.files import DamagedFileError, existing_run, list_parts, listing

METRICS = pl.Schema(
    {
        "run": pl.String, "step": pl.Int64, "metric": pl.String, "layer": pl.Int32,
        "token": pl.String, "concept": pl.Int32, "position": pl.Int32, "label": pl.String, "value": pl.Float64,
    }
)  # fmt: skip
"""Columns of the metrics table. layer (0 = embeddings), token (its name), concept, position and label (which of several
kinds of concept, say) may be null."""
NULLABLE = ("layer", "token", "concept", "position", "label")
RUNS = pl.Schema(
    {"run": pl.String, "point": pl.String, "status": pl.String, "seed": pl.Int64, "step": pl.Int64}
    | {"diverged_at": pl.Int64}
)
"""First columns of the runs table; diverged_at may be null. Hyper-parameters follow, by dotted name."""
QUANTITIES = pl.Schema(
    {"run": pl.String, "metric": pl.String, "label": pl.String, "unit": pl.String, "chance": pl.Float64}
)
"""What values of a metric are in, and what something that knows nothing scores, null where there is no such. label may
be null: of all labels."""
STATUSES = ("running", "done", "diverged")


class HiddenSnapshot(NamedTuple):
    """Hidden states of some runs at one step: hidden[r, l, p] is run[r]'s state at layer l for point p."""

    step: int
    hidden: Float[np.ndarray, "runs layers points width"]
    concepts: Int[np.ndarray, " points"]
    run: list[str]


def metrics(workdir: epath.PathLike) -> pl.DataFrame:
    """All metrics written so far, in `METRICS`' columns. Raises DamagedFileError naming a part that is damaged."""
    frames = manifest.read_parts(existing_run(workdir), "metrics", partial(_part, schema=METRICS))
    return pl.concat([pl.DataFrame(schema=METRICS), *frames])


def runs(workdir: epath.PathLike) -> pl.DataFrame:
    """A row a run: `RUNS`' columns and the hyper-parameters. Raises DamagedFileError naming a part that is damaged,
    missing or a copy of another."""
    root = existing_run(workdir)
    try:
        table = pl.concat([pl.DataFrame(schema=RUNS), *_of_packs(root, "runs", RUNS)], how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DamagedFileError(f"the parts of {root / 'runs'} do not go together: {error}") from error
    # A pack taken over by another number of processes has two parts for a moment.
    return table.unique("run", keep="last", maintain_order=True)


def quantities(workdir: epath.PathLike) -> pl.DataFrame:
    """Unit and chance of what was measured, in `QUANTITIES`' columns; of no metric in older run directories. Raises as
    `runs`."""
    frames = _of_packs(existing_run(workdir), "quantities", QUANTITIES)
    return pl.concat([pl.DataFrame(schema=QUANTITIES), *frames]).unique(maintain_order=True)


def hidden(workdir: epath.PathLike) -> Iterator[HiddenSnapshot]:
    """The snapshots of hidden states, one at a time, pack by pack and by step."""
    yield from manifest.read_parts(existing_run(workdir), "hidden", _snapshot)


def _of_packs(root: epath.Path, kind: str, schema: pl.Schema) -> list[pl.DataFrame]:
    """The parts of a table that has one a pack (`manifest.TABLES`)."""
    for tried in range(manifest.TRIES):
        manifests = manifest.read(root)
        frames = {path.name: _read(path, schema) for path in listing(root / kind) if path.suffix == ".parquet"}
        frames = {name: frame for name, frame in frames.items() if frame is not None}
        wrong = _wrong_rows(kind, manifests, frames)
        if not wrong or (manifest.read(root) == manifests and tried):
            break
    if wrong:
        raise DamagedFileError(f"{root / kind}: " + "; ".join(wrong))
    return list(frames.values())


def _wrong_rows(kind: str, manifests: list[manifest.Manifest], frames: dict[str, pl.DataFrame]) -> list[str]:
    """What is wrong with the parts, in words."""
    wrong, owners = [], {}
    for of in manifests:
        name, expected = f"{of.pack}{of.suffix}.parquet", getattr(of, kind)
        rows = frames[name].height if name in frames else None
        # Quantities are added to.
        if expected is not None and (rows is None or rows < expected or (kind == "runs" and rows != expected)):
            said = "is missing" if rows is None else f"must hold {expected} {kind}, and holds {rows}"
            wrong.append(f"{name} {said}")
    for name, frame in frames.items():
        for run in frame["run"].unique(maintain_order=True):
            other = owners.setdefault(run, name)
            if other.partition(".")[0] != name.partition(".")[0]:
                wrong.append(f"{name} and {other} both hold run {run!r}; delete the one that no run has written")
    return wrong[:5]


def conform(frame: pl.DataFrame, schema: pl.Schema, nullable: tuple[str, ...], others: bool = False) -> pl.DataFrame:
    """The frame with exactly the schema's columns and types (`others`: any may follow)."""
    unknown = [name for name in frame.columns if name not in schema]
    if unknown and not others:
        raise ValueError(f"columns must be among {', '.join(schema)}, got {', '.join(unknown)}")
    for name, dtype in schema.items():
        if name not in frame.columns and name in nullable:
            frame = frame.with_columns(pl.lit(None, dtype).alias(name))
        elif name not in frame.columns:
            raise ValueError(f"column {name} is missing, got {', '.join(frame.columns)}")
        given = frame.schema[name]
        if given != pl.Null and (dtype == pl.String) != (given == pl.String) or dtype.is_integer() and given.is_float():
            raise ValueError(f"column {name} must be {dtype}, got {given}")
        if name not in nullable and frame[name].null_count():
            raise ValueError(f"column {name} must have no nulls, got {frame[name].null_count()}")
    return frame.select(*(pl.col(name).cast(dtype) for name, dtype in schema.items()), *unknown)


def to_parquet(frame: pl.DataFrame) -> bytes:
    """The frame as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def read_parquet(path: epath.Path) -> pl.DataFrame | None:
    """The table, or None if the part has been dropped or replaced since it was listed."""
    try:
        return _parquet(path, path.read_bytes())
    except FileNotFoundError:
        return None


def is_readable(path: epath.Path, sha256: str | None = None) -> bool:
    """Whether a part can be read whole and has the hash, if one is given (one that has gone counts as readable)."""
    try:
        data = path.read_bytes()
        _snapshot(path, data) if path.suffix == ".npz" else _parquet(path, data)
    except FileNotFoundError:
        return True
    except DamagedFileError:
        return False
    return sha256 in (None, manifest.digest(data))


def _read(path: epath.Path, schema: pl.Schema) -> pl.DataFrame | None:
    try:
        return _part(path, path.read_bytes(), schema)
    except FileNotFoundError:
        return None


def _part(path: epath.Path, data: bytes, schema: pl.Schema) -> pl.DataFrame:
    """The table with the schema's columns first. Raises DamagedFileError naming a column that is missing or another."""
    frame = _parquet(path, data)
    if schema == METRICS and "label" not in frame.columns:
        # Written before there were labels.
        frame = frame.with_columns(pl.lit(None, pl.String).alias("label"))
    for name, dtype in schema.items():
        if (given := frame.schema.get(name)) != dtype:
            raise DamagedFileError(f"damaged table part {path}: column {name} must be {dtype}, got {given or 'none'}")
    if schema == METRICS and (unknown := [name for name in frame.columns if name not in schema]):
        raise DamagedFileError(f"damaged table part {path}: columns must be {', '.join(schema)}, got {unknown[0]} too")
    return frame.select(*schema, *(name for name in frame.columns if name not in schema))


def _parquet(path: epath.Path, data: bytes) -> pl.DataFrame:
    try:
        return pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DamagedFileError(f"damaged table part {path}: {error}") from error


def _snapshot(path: epath.Path, data: bytes) -> HiddenSnapshot:
    try:
        with np.load(io.BytesIO(data)) as file:
            hidden, concepts, run, step = (file[name] for name in ("hidden", "concepts", "run", "step"))
        if hidden.ndim != 4 or hidden.shape[0] != run.size or concepts.shape != hidden.shape[2:3]:
            raise ValueError(f"hidden {hidden.shape}, concepts {concepts.shape} and {run.size} runs do not go together")
        return HiddenSnapshot(int(step), hidden, concepts, run.tolist())
    except Exception as error:  # The bytes may be anything, and so may what numpy raises for them.
        raise DamagedFileError(f"damaged snapshot {path}: {error}") from error


def check_parts(workdir: epath.Path, pack: str, manifests: list[manifest.Manifest]):
    """(step, path) of the pack's parts; (step, what is wrong) of those that are damaged or missing; those that no
    run has written."""
    listed = {name: entry for of in manifests for name, entry in of.parts.items()}
    parts, damaged, foreign = [], [], []
    for of in manifests:
        path = workdir / "quantities" / f"{of.pack}{of.suffix}.parquet"
        if of.quantities is not None and not (path.exists() and is_readable(path)):
            damaged.append((0, f"damaged or missing {path}"))
    for kind in ("metrics", "hidden"):
        there = list_parts(workdir / kind, re.escape(pack))
        wrong = manifest.problems(manifests, kind, {path.name for _, path in there})
        damaged += [(manifest.step_of(text), f"{kind}: {text}") for text in wrong if text.endswith("is missing")]
        alien = {text.split(" is in no manifest")[0] for text in wrong if not text.endswith("is missing")}
        for step, path in there:
            if path.name in alien:
                foreign.append(path)
                continue
            parts.append((step, path))
            if not is_readable(path, listed.get(f"{kind}/{path.name}", (0, None))[1]):
                damaged.append((step, f"damaged {path}"))
    return parts, damaged, foreign
