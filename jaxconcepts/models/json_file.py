"""JSON files that others wrote: one object, strict, and an error that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# No config, index or header of a checkpoint comes near; a file that is longer is something else.
LARGEST = 2**27


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError naming the file: not a file, not UTF-8, not JSON, not an object, or
    a name that is given twice in one object."""
    if not path.is_file():
        raise ValueError(
            f"{path} must be a file with a JSON object, and it is {'no file' if path.exists() else 'missing'}"
        )
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path} must be a JSON file of at most {LARGEST} bytes, got {size}")
    return parse_object(path.read_bytes(), str(path))


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """The object that UTF-8 JSON holds; `where` names it in the ValueError of text that is anything else."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_without_doubles)
    except RecursionError:
        raise ValueError(f"{where} is not JSON that can be read: it is nested too deeply") from None
    except ValueError as error:  # Of the decoder of UTF-8 and of JSON.
        raise ValueError(f"{where} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where} must hold a JSON object, got {type(value).__name__}")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any] | float:
    names = [name for name, _ in pairs]
    if (
        doubled := next((name for name in names if names.count(name) > 1), None)
        if len(set(names)) < len(names)
        else None
    ):
        raise ValueError(f"the name {doubled!r} is given twice")
    if names == ["__float__"] and pairs[0][1] in ("Infinity", "-Infinity", "NaN"):
        return float(pairs[0][1])  # as transformers 5 writes what JSON has no number for
    return dict(pairs)
