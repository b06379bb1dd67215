"""Tables of studies made of a finished run: WORKDIR/<study>/<kind>/<name>.parquet, beside the run's own tables.

A part appears whole or not at all, and one that is there is not made again, so a study that is killed goes on where it
stopped. WORKDIR/<study>/config.json says how all its parts were made.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
from etils import epath

from jaxconcepts.store import files, opening, tables


@contextlib.contextmanager
def open_study(workdir: epath.PathLike, study: str, config: Mapping[str, Any]) -> Iterator[epath.Path]:
    """The study's folder, held against other processes while parts are written.

    Raises WorkdirInUseError, and ValueError, naming the fields, where the folder's parts were made with another config.
    """
    folder = files.resolve(workdir) / _named("study", study)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        if files.is_local(folder):
            with contextlib.ExitStack() as starting:
                opening.lock(folder, (0, 1), held, starting)
        opening.check_config(folder / "config.json", config)
        yield folder


def has_result(workdir: epath.PathLike, study: str, kind: str, name: str) -> bool:
    """Whether that part has been written."""
    return _path(workdir, study, kind, name).exists()


def write_result(workdir: epath.PathLike, study: str, kind: str, name: str, frame: pl.DataFrame) -> None:
    """Writes a part, over one of the same name."""
    path = _path(workdir, study, kind, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, tables.to_parquet(frame))


def results(workdir: epath.PathLike, study: str, kind: str) -> pl.DataFrame | None:
    """All parts of a kind, one after another; None where there are none. Raises DamagedFileError naming a bad part."""
    folder = files.resolve(workdir) / _named("study", study) / _named("kind", kind)
    found = [tables.read_parquet(path) for path in files.listing(folder) if path.suffix == ".parquet"]
    found = [frame for frame in found if frame is not None]
    return pl.concat(found, how="diagonal_relaxed") if found else None


def _path(workdir, study, kind, name) -> epath.Path:
    return files.resolve(workdir) / _named("study", study) / _named("kind", kind) / f"{_named('name', name)}.parquet"


def _named(what: str, name: str) -> str:
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise ValueError(f"{what} must consist of letters, digits, -, _ and dots, got {name!r}")
    return name
