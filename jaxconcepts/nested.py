"""Nested configurations: as JSON has them, their leaves by dotted name, and how two of them differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxconcepts import fields


def as_json(value: Any) -> Any:
    """The value with lists for tuples and dicts for mappings and dataclasses, so that it equals what is read back."""
    if dataclasses.is_dataclass(value):
        value = fields.plain(value)
    if isinstance(value, Mapping):
        return {name: as_json(part) for name, part in value.items()}
    return [as_json(part) for part in value] if isinstance(value, list | tuple) else value


def flat(tree: Mapping[str, Any], depth: int = -1) -> dict[str, Any]:
    """The leaves by dotted name. depth: of how many levels the sections are opened, all of them by default."""
    leaves = {}
    for name, part in tree.items():
        section = isinstance(part, Mapping) and part and depth
        leaves |= {f"{name}.{of}": leaf for of, leaf in flat(part, depth - 1).items()} if section else {name: part}
    return leaves


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The names whose values differ or that one of the two has not, sorted."""
    return [name for name in sorted(old.keys() | new.keys()) if old.get(name, ...) != new.get(name, ...)]


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], words: tuple[str, str, str] = ("was", "now", "absent")
) -> str:
    """Each name whose value differs, as "name: was 1, now absent", in such words; empty where none does."""
    was, now, absent = words
    names = differing(old, new)
    return "; ".join(f"{name}: {was} {old.get(name, absent)}, {now} {new.get(name, absent)}" for name in names)
