"""Which parts there must be: of every pack a list with the rows and the hash of each part that a checkpoint covers.

    workdir/manifests/<pack>.json   {"covers": step, "parts": {"metrics/<pack>.<step>.parquet": [rows, sha256]},
                                     "runs": rows, "quantities": rows}

Parts come first, then the manifest, then the checkpoint. So what a manifest lists is there unless somebody took it
away, and a part that is not listed is either past `covers`, where it has just been written, or nobody's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from etils import epath

from jaxconcepts.store import files

TRIES = 5  # Readings of a table that is changed meanwhile.
TABLES = ("runs", "quantities")
"""Folders with one file a pack, of which a manifest knows how many rows it has."""
HINT = "; delete it to go on without a check of its parts"


@dataclass
class Manifest:
    """Of one pack and one writer (`suffix`, such as ".0of2"). parts: name -> (rows, sha256). runs: rows of its part of
    the runs table, quantities of that of quantities, at least; None while that is not known."""

    pack: str
    suffix: str = ""
    covers: int = -1
    parts: dict[str, tuple[int, str]] = field(default_factory=dict)
    runs: int | None = None
    quantities: int | None = None

    def up_to(self, step: int) -> Manifest:
        """What is left of it once the parts past a step have been dropped."""
        kept = {name: entry for name, entry in self.parts.items() if step_of(name) <= step}
        quantities = None if step < 0 else self.quantities  # Nothing is left: they are noted anew.
        return Manifest(self.pack, self.suffix, min(self.covers, step), kept, self.runs, quantities)


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def step_of(name: str) -> int:
    """The step of a part's name."""
    return int(re.search(r"\.(\d{9})\.", name)[1])


def write(root: epath.Path, manifest: Manifest) -> None:
    """Writes it, over the one before."""
    content = {name: getattr(manifest, name) for name in ("covers", "parts", "runs", "quantities")}
    folder = root / "manifests"
    folder.mkdir(exist_ok=True)
    files.write(folder / f"{manifest.pack}{manifest.suffix}.json", json.dumps(content).encode())


def remove(root: epath.Path, pack: str) -> None:
    """Deletes the manifests of a pack, before its parts are deleted."""
    for path, _ in _paths(root, re.escape(pack)):
        path.unlink(missing_ok=True)


def forget_runs(root: epath.Path, pack: str) -> None:
    """No longer expects the pack's part of the runs table, which the pack is to write anew."""
    for of in read(root, pack):
        if of.runs is not None:
            of.runs = None
            write(root, of)


def read(root: epath.Path, pack: str | None = None) -> list[Manifest]:
    """Those of a pack, or all. Raises DamagedFileError naming a file that is not one."""
    manifests = []
    for path, match in _paths(root, r"[\w%-]+" if pack is None else re.escape(pack)):
        with contextlib.suppress(FileNotFoundError), files.naming(path, HINT):
            content = files.read_json(path)
            parts = {str(name): (int(rows), str(sha)) for name, (rows, sha) in content["parts"].items()}
            tables = [content["runs"], content.get("quantities")]
            runs, quantities = (None if rows is None else int(rows) for rows in tables)
            _ = [step_of(name) for name in parts]
            manifests.append(Manifest(match[1], match[2] or "", int(content["covers"]), parts, runs, quantities))
    return manifests


def read_parts(root: epath.Path, kind: str, read_part: Callable[[epath.Path, bytes], Any]) -> Iterator[Any]:
    """What `read_part(path, data)` gives for each part of a kind, in the order of names.

    Raises DamagedFileError naming parts that are missing, changed, doubled or in no manifest. A run may be writing or
    going back meanwhile: where the manifests have changed since they were read, they are right, not the reading.
    """
    manifests = read(root)
    for tried in range(TRIES):
        paths = [path for _, path in files.list_parts(root / kind)]
        wrong = problems(manifests, kind, {path.name for path in paths})
        if not wrong or (newer := read(root)) == manifests or tried == TRIES - 1:
            break
        manifests = newer
    if wrong:
        raise files.DamagedFileError(f"{root / kind}: " + "; ".join(wrong))
    listed = {name: entry for manifest in manifests for name, entry in manifest.parts.items()}
    seen: dict[str, str] = {}
    for path in paths:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # Dropped or replaced since it was listed.
        part = read_part(path, data)
        name, sha = f"{kind}/{path.name}", digest(data)
        if name in listed and sha != listed[name][1] and read(root) == manifests:
            raise files.DamagedFileError(f"damaged {path}: not as it was written, with {listed[name][0]} rows")
        if sha in seen and len(part):
            raise files.DamagedFileError(f"{path} is a copy of {seen[sha]}; delete the one that no run has written")
        seen[sha] = path.name
        yield part


def problems(manifests: list[Manifest], kind: str, there: set[str]) -> list[str]:
    """What is wrong with the names of a kind's parts, in words; nothing where there are no manifests."""
    listed = {name for manifest in manifests for name in manifest.parts if name.startswith(f"{kind}/")}
    missing = sorted(name for name in listed if name.removeprefix(f"{kind}/") not in there)
    covers = {(manifest.pack, manifest.suffix): manifest.covers for manifest in manifests}
    foreign = [name for name in sorted(there) if _covered(name, covers) and f"{kind}/{name}" not in listed]
    return [f"{name} is missing" for name in missing] + [
        f"{name} is in no manifest: no run wrote it" for name in foreign
    ]


def incomplete(root: epath.Path) -> dict[str, list[str]]:
    """The packs with a part that is missing, by name, and those parts."""
    manifests = read(root)
    there = {kind: {path.name for path in files.listing(root / kind)} for kind in ("metrics", "hidden", *TABLES)}
    lost: dict[str, list[str]] = {}
    for manifest in manifests:
        known = [kind for kind in TABLES if getattr(manifest, kind) is not None]
        wanted = [*manifest.parts, *(f"{kind}/{manifest.pack}{manifest.suffix}.parquet" for kind in known)]
        for name in wanted:
            kind, _, file = name.partition("/")
            if file not in there[kind]:
                lost.setdefault(manifest.pack, []).append(name)
    return lost


def _covered(name: str, covers: dict[tuple[str, str], int]) -> bool:
    match = re.fullmatch(r"([\w%-]+)\.(\d{9})(\.\d+of\d+)?\.\w+", name)
    return match is not None and int(match[2]) <= covers.get((match[1], match[3] or ""), -1)


def _paths(root: epath.Path, pack: str) -> list[tuple[epath.Path, re.Match]]:
    pattern = re.compile(rf"({pack})(\.\d+of\d+)?\.json")
    return [(path, match) for path in files.listing(root / "manifests") if (match := pattern.fullmatch(path.name))]
