"""Files of a run directory: found by name, written whole or not at all, on a local disk or on gs://."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath


class DamagedFileError(ValueError):
    """A part or a checkpoint cannot be read, for instance because it was truncated. The message names it."""


def says_full(error: BaseException) -> bool:
    """Whether the error is that of a full disk, or of one's share of it; libraries may say so in words alone."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in codes or any(os.strerror(code) in str(error) for code in codes)


def resolve(workdir: epath.PathLike) -> epath.Path:
    """The run directory's path, absolute where it is local. Raises ValueError where there is no text or a null byte,
    and for bytes that are not UTF-8."""
    text = os.fspath(workdir)
    if not text.strip() or "\0" in text:
        raise ValueError(f"workdir must name a folder, got {text!r}")
    if any("\ud800" <= character <= "\udfff" for character in text):  # How Python shows such bytes; Orbax takes none.
        raise ValueError(f"workdir must have a name in UTF-8, got {text!r}")
    path = open_path(text, "workdir").expanduser()
    return path.absolute() if is_local(path) else path


def open_path(text: str, what: str) -> epath.Path:
    """The path that a user names, local or in a bucket. Raises ValueError for what no reader is there for."""
    try:
        return epath.Path(text)
    except KeyError:  # epath has no such scheme.
        raise ValueError(f"{what} must be local or gs://, got {text}") from None


def existing_run(workdir: epath.PathLike) -> epath.Path:
    """The path of a run directory; ValueError where there is none."""
    root = resolve(workdir)
    if not (root / "config.json").exists():
        raise ValueError(f"workdir must hold a run, but there is no {root / 'config.json'}")
    return root


def is_local(path: epath.Path) -> bool:
    """Whether the path is on a file system, and not gs:// or the like."""
    return "://" not in os.fspath(path)


def is_file(path: epath.Path) -> bool:
    """Whether the path is one of a file, and not of a pipe or a device, which would be waited for: to epath a file is
    what is no folder."""
    return Path(path).is_file() if is_local(path) else path.is_file()


def valid_pack(pack: str) -> str:
    """The pack's name, or ValueError where a file name could not hold it (see `safe_name`)."""
    if not re.fullmatch(r"[\w%-]+", pack):
        raise ValueError(f"pack must consist of letters, digits, -, _ and %, got {pack!r}")
    return pack


def safe_name(text: str) -> str:
    """The text as a file name can hold it: what is no letter, digit, - or _ as %XX. No two texts give the same."""
    return re.sub(
        r"[^\w-]", lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass")), text
    )


def valid_step(step: int) -> int:
    """The step, or ValueError where nine digits do not hold it."""
    if not 0 <= step < 10**9:
        raise ValueError(f"step must be from 0 to 999 999 999, got {step}")
    return int(step)


def listing(folder: epath.Path) -> list[epath.Path]:
    """What is in the folder, by name; nothing where there is no folder."""
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except FileNotFoundError:
        return []


def list_parts(folder: epath.Path, pack: str = r"[\w%-]+") -> list[tuple[int, epath.Path]]:
    """The table parts or snapshots in a folder, (last step, path), of the packs that match."""
    pattern = re.compile(rf"{pack}\.(\d{{9}})(\.\d+of\d+)?\.(parquet|npz)")
    return [(int(match[1]), path) for path in listing(folder) if (match := pattern.fullmatch(path.name))]


def of_pack(folder: epath.Path, pack: str) -> list[epath.Path]:
    """The files in a folder that are a pack's."""
    return [path for path in listing(folder) if path.name.startswith(f"{pack}.")]


def write(path: epath.Path, data: bytes) -> None:
    """Makes the file appear whole or not at all; the error of a full disk names it."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        if not is_local(path):
            path.write_bytes(data)  # An object in a bucket appears whole.
            return
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def is_uncommitted(checkpoint: epath.Path) -> bool:
    """Whether a checkpoint under its final name is incomplete: never on a local disk, where a rename comes last."""
    return not is_local(checkpoint) and not (checkpoint / "commit_success.txt").exists()


def remove(folder: epath.Path) -> None:
    """Deletes a folder of checkpoints so that, killed half-way, it is not taken for a whole one."""
    if folder.exists():
        if is_local(folder):
            folder = folder.rename(folder.with_name(f"{folder.name}.tmp"))
        folder.rmtree()


def remove_temporary(root: epath.Path, pack: str | None = None) -> None:
    """Removes what a killed process left half-written, of one pack or of all and of the workdir itself."""
    # By listing, for the glob of a path takes brackets and stars in the folder's own name for patterns.
    kinds = ("metrics", "hidden", "runs", "quantities", "manifests")
    left = [path for kind in kinds for path in listing(root / kind) if path.name.endswith("tmp")]
    packs = [folder for folder in listing(root / "checkpoints") if pack in (None, folder.name)]
    for path in left:
        if pack is None or path.name.startswith(f"{pack}."):
            path.unlink(missing_ok=True)
    for path in [path for folder in packs for path in listing(folder)]:
        if "tmp" in path.name or is_uncommitted(path):
            path.rmtree(missing_ok=True)
            continue
        for within in listing(path):
            # What is noted of a checkpoint that is whole, such as its files' hashes.
            if within.name.endswith(".tmp"):
                within.unlink(missing_ok=True)
    for path in listing(root) if pack is None else ():
        if path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)


def read_json(path: epath.Path) -> dict[str, Any]:
    """The JSON object in a file of a run directory. Raises DamagedFileError naming a file that holds none."""
    with naming(path):
        if path.exists() and not is_file(path):
            raise ValueError("it is no file")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected a JSON object, got a {type(content).__name__}")
    return content


@contextlib.contextmanager
def naming(path: epath.Path, hint: str = "") -> Iterator[None]:
    """Makes a DamagedFileError naming the file of what goes wrong in the body because its content is not as it was
    written. hint: what to do."""
    try:
        yield
    except DamagedFileError as error:
        raise DamagedFileError(f"{error}{hint}") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        said = error if type(error) is ValueError or isinstance(error, json.JSONDecodeError) else repr(error)
        raise DamagedFileError(f"damaged {path}: {said}{hint}") from error
