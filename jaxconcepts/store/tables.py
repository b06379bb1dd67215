"""The tables of a run directory and the snapshots of hidden states: their columns, checked; read part by part."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
from etils import epath
from jaxtyping import Float, Int

from jaxconcepts.store.files import DamagedFileError, existing_run, list_parts

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
STATUSES = ("running", "done", "diverged")


class HiddenSnapshot(NamedTuple):
    """Hidden states of some runs at one step: hidden[r, l, p] is run[r]'s state at layer l for point p."""

    step: int
    hidden: Float[np.ndarray, "runs layers points width"]
    concepts: Int[np.ndarray, " points"]
    run: list[str]


def metrics(workdir: epath.PathLike) -> pl.DataFrame:
    """All metrics written so far, in `METRICS`' columns. Raises DamagedFileError naming a part that is damaged."""
    frames = [read_parquet(path) for _, path in list_parts(existing_run(workdir) / "metrics")]
    # Parts of before there were labels have no column for them.
    frames = [conform(frame, METRICS, NULLABLE) for frame in frames if frame is not None]
    return pl.concat([pl.DataFrame(schema=METRICS), *frames])


def runs(workdir: epath.PathLike) -> pl.DataFrame:
    """A row a run: `RUNS`' columns and the hyper-parameters. Raises DamagedFileError naming a part that is damaged."""
    frames = [read_parquet(path) for path in sorted((existing_run(workdir) / "runs").glob("*.parquet"))]
    table = pl.concat([pl.DataFrame(schema=RUNS), *(f for f in frames if f is not None)], how="diagonal_relaxed")
    # A pack taken over by another number of processes has two parts for a moment.
    return table.unique("run", keep="last", maintain_order=True)


def hidden(workdir: epath.PathLike) -> Iterator[HiddenSnapshot]:
    """The snapshots of hidden states, one at a time, pack by pack and by step."""
    for _, path in list_parts(existing_run(workdir) / "hidden"):
        if (arrays := _read_npz(path)) is not None:
            run = arrays["run"].tolist()
            yield HiddenSnapshot(int(arrays["step"]), arrays["hidden"], arrays["concepts"], run)


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
        return pl.read_parquet(io.BytesIO(path.read_bytes()))
    except FileNotFoundError:
        return None
    except pl.exceptions.PolarsError as error:
        raise DamagedFileError(f"damaged table part {path}: {error}") from error


def _read_npz(path: epath.Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            return dict(file)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DamagedFileError(f"damaged snapshot {path}: {error}") from error


def is_readable(path: epath.Path) -> bool:
    """Whether a part can be read whole (one that has gone counts as readable)."""
    try:
        _read_npz(path) if path.suffix == ".npz" else read_parquet(path)
    except DamagedFileError:
        return False
    return True
