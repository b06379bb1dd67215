"""Tables of studies made of a finished run: WORKDIR/<study>/<kind>/<name>.parquet, beside the run's own tables.

A part appears whole or not at all, and one that is there is not made again, so a study that is killed goes on where it
stopped. WORKDIR/<study>/config.json says how all its parts were made, WORKDIR/<study>/<kind>/manifest.json which parts
there must be, with their hashes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
from etils import epath

from jaxconcepts.store import files, manifest, opening, tables

log = logging.getLogger("jaxconcepts.store")

MANIFEST = "manifest.json"


@contextlib.contextmanager
def open_study(workdir: epath.PathLike, study: str, config: Mapping[str, Any]) -> Iterator[epath.Path]:
    """The study's folder, held against other processes while parts are written.

    Raises WorkdirInUseError, and ValueError, naming the fields, where the folder's parts were made with another config.
    """
    folder = files.resolve(workdir) / _named("study", study)
    with contextlib.ExitStack() as held:
        with contextlib.ExitStack() as starting, opening.writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if files.is_local(folder):
                opening.lock(folder, (0, 1), held, starting)
        opening.check_config(folder / "config.json", config)
        yield folder


def has_result(workdir: epath.PathLike, study: str, kind: str, name: str) -> bool:
    """Whether that part has been written, and is as it was: one that is damaged is to be made again."""
    folder, part = _folder(workdir, study, kind), _part(name)
    listed = _listed(folder)
    if not (folder / part).exists():
        return False
    if listed is not None and listed.get(part) is None:
        return False  # Killed before it was listed.
    if tables.is_readable(folder / part, None if listed is None else listed[part]):
        return True
    log.warning("damaged %s: it is computed again", folder / part)
    return False


def write_result(workdir: epath.PathLike, study: str, kind: str, name: str, frame: pl.DataFrame) -> None:
    """Writes a part, over one of the same name."""
    folder, part, data = _folder(workdir, study, kind), _part(name), tables.to_parquet(frame)
    folder.mkdir(parents=True, exist_ok=True)
    listed = _listed(folder)
    if listed is None:  # Of a study from before there were manifests: all that can be read.
        there = [path for path in files.listing(folder) if path.suffix == ".parquet" and tables.is_readable(path)]
        listed = {path.name: manifest.digest(path.read_bytes()) for path in there}
    files.write(folder / MANIFEST, json.dumps(listed | {part: None}).encode())
    files.write(folder / part, data)
    files.write(folder / MANIFEST, json.dumps(listed | {part: manifest.digest(data)}).encode())


def results(workdir: epath.PathLike, study: str, kind: str) -> pl.DataFrame | None:
    """All parts of a kind, one after another; None where there are none.

    Raises DamagedFileError naming a part that is damaged, missing, or not the study's.
    """
    folder = _folder(workdir, study, kind)
    for tried in range(manifest.TRIES):
        listed = _listed(folder)
        paths = [path for path in files.listing(folder) if path.suffix == ".parquet"]
        wrong = [] if listed is None else _wrong(listed, {path.name for path in paths})
        if not wrong or (tried and _listed(folder) == listed):
            break
    if wrong:
        raise files.DamagedFileError(f"{folder}: " + "; ".join(wrong))
    frames = []
    for path in paths:
        if (frame := tables.read_parquet(path)) is None:
            continue
        wanted = None if listed is None else listed[path.name]
        if wanted is not None and not tables.is_readable(path, wanted) and _listed(folder) == listed:
            raise files.DamagedFileError(f"damaged {path}: not as it was written; delete it to make it again")
        frames.append(frame)
    try:
        return pl.concat(frames, how="diagonal_relaxed") if frames else None
    except pl.exceptions.PolarsError as error:
        raise files.DamagedFileError(f"the parts of {folder} do not go together: {error}") from error


def _listed(folder: epath.Path) -> dict[str, str | None] | None:
    """The parts that there must be, with their hashes (None: about to be written); None where there is no manifest."""
    try:
        with files.naming(folder / MANIFEST, manifest.HINT):
            content = files.read_json(folder / MANIFEST)
            if not all(value is None or isinstance(value, str) for value in content.values()):
                raise ValueError("expected a hash for each name")
            return content
    except FileNotFoundError:
        return None


def _wrong(listed: Mapping[str, str | None], there: set[str]) -> list[str]:
    missing = [name for name, sha in sorted(listed.items()) if sha is not None and name not in there]
    lost = [f"{name} is missing; the study's command makes it again" for name in missing]
    return lost + [f"{name} is in no manifest: no study wrote it" for name in sorted(there - set(listed))]


def _folder(workdir, study, kind) -> epath.Path:
    return files.resolve(workdir) / _named("study", study) / _named("kind", kind)


def _part(name: str) -> str:
    return f"{_named('name', name)}.parquet"


def _named(what: str, name: str) -> str:
    if not re.fullmatch(r"[\w%-][\w%.-]*", name):
        raise ValueError(f"{what} must consist of letters, digits, -, _, % and dots, got {name!r}")
    return name
