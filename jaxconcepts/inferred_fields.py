"""Fields of a config that is a mapping: their types from its values, their bounds from what declares them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from jaxconcepts import fields


def inferred(
    values: Mapping[str, Any],
    added: Mapping[str, Any] | None = None,
    kinds: Mapping[str, Iterable[type]] | None = None,
    prefix: str = "",
) -> type:
    """A dataclass of the nested `values`, which are the fields' defaults.

    A field is declared as in `kinds`, dataclasses by the name of their section ("" for no section). A field that none
    declares has the type of its default; None then takes any value, and inf takes inf. It still has the doc that a
    dataclass gives it. added: fields by dotted name that came later, and their defaults, see `field`.
    """
    hinted = [of for kind in (kinds or {}).get(prefix.rstrip("."), ()) for of in fields.hinted(kind)]
    known = {of[0]: of for of in hinted}
    docs = {of[0]: of[2].metadata["doc"] for of in hinted if "doc" in of[2].metadata}
    late = {name.removeprefix(prefix): value for name, value in (added or {}).items() if name.startswith(prefix)}
    late = {name: value for name, value in late.items() if "." not in name}
    made = []
    for name, value in {**values, **late}.items():
        if isinstance(value, Mapping) and value:
            kind = inferred(value, added, kinds, f"{prefix}{name}.")
            made.append((name, kind, fields.section(kind)))
        elif name in known and "limits" in known[name][2].metadata:
            metadata = {**known[name][2].metadata, "added": name in late}
            made.append((name, known[name][1], dataclasses.field(default=value, metadata=metadata)))
        else:
            infinite = isinstance(value, float) and math.isinf(value)
            of = fields.field(value, docs.get(name, ""), infinite=infinite, added=name in late)
            made.append((name, _type_of(value), of))
    name = f"{prefix.rstrip('.').title() or 'Config'}"
    return dataclasses.make_dataclass(name, made, frozen=True, namespace={"__post_init__": fields.check})


def _type_of(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple[_type_of(value[0]) if value else int | float | str, ...]
    return Any if value is None else Mapping if isinstance(value, Mapping) else type(value)
