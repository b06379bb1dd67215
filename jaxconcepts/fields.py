"""Fields of configs: each is declared once, in a dataclass, with its type, its bounds and one line of doc.

    @dataclass(frozen=True)
    class TrainConfig:
        steps: int = field(1000, "steps of the whole run", low=1)
        schedule: Literal["constant", "cosine"] = field("constant", "course of the learning rate")
        noise: float | None = field(None, "standard deviation of the noise; None for that of the data", low=0)
        measured: tuple[int, ...] = field((), "steps that are measured", low=0)

        def __post_init__(self):
            check(self)
            if self.noise is None and self.steps > 10:
                raise FieldError("noise", f"must be given for more than 10 steps, got steps = {self.steps}")

The declarations are used to check values from Python (`check`, `read`, `override`) and from the command line
(`override_text`), for the list of fields of `--help` (`describe`), and for the name of a run (`identity`).

Types: bool, int, float, str, Literal, tuple[T, ...], T | None, Mapping (any values), and dataclasses, which are
sections. A bool is not a number, and a text is not a bool. An int is accepted for a float, but a float not for an int.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_type_hints

import numpy as np

from jaxconcepts import field_values
from jaxconcepts.field_values import FieldError, Limits

__all__ = [
    "REQUIRED", "Declared", "FieldError", "Limits", "check", "checked", "declared", "defaults", "describe", "field",
    "hinted", "identity", "override", "override_text", "part", "plain", "read", "section",
]  # fmt: skip

Kind = TypeVar("Kind")
REQUIRED = dataclasses.MISSING
"""The default of a field that must be given; the dataclass is then `kw_only`."""


def field(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[Any, ...] | None = None,
    infinite: bool = False,
    added: bool = False,
    derived: bool = False,
) -> Any:
    """Declares a field of a config's dataclass.

    doc: one line for `--help`; it must be clear without the field's name.
    low, high, above, below, choices, infinite: the bounds, see `Limits`; for a tuple, of every element.
    added: the field is newer than some run directories. At its default it is not part of a run's name (`identity`), so
        old runs keep their names.
    derived: the field follows from others. No config has it; the code that builds the dataclass sets it.
    """
    limits = Limits(low, high, above, below, choices, infinite)
    metadata = {"doc": doc, "limits": limits, "added": added, "derived": derived}
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(kind: type, doc: str = "", *, added: bool = False, **changed: Any) -> Any:
    """Declares a field that is a section: another such dataclass. changed: its fields with other defaults."""
    metadata = {"doc": doc, "limits": Limits(), "added": added}
    return dataclasses.field(default_factory=lambda: kind(**changed), metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Declared:
    """A declared field. name: dotted. type: its annotation. doc, limits, added: see `field`."""

    name: str
    type: Any
    default: Any
    doc: str
    limits: Limits
    added: bool

    def accepted(self) -> str:
        """The values that the field accepts, in words."""
        return field_values.accepted(self.type, self.limits)


def check(config: Any) -> None:
    """Checks every field of a frozen dataclass against its declaration, in its `__post_init__`. Lists become tuples.

    Raises FieldError with the name of the field, without its section.
    """
    for name, kind, of in _members(type(config), derived=True):
        value = getattr(config, name)
        if _section_of(kind) is None:
            value = field_values.checked(name, kind, value, _limits(of))
        elif not isinstance(value, field_values.members(kind)):
            message = f"must be {field_values.accepted(kind, Limits())}, got {field_values.shown(value)}"
            raise FieldError(name, message)
        object.__setattr__(config, name, value)


def read(kind: type[Kind], values: Mapping[str, Any], prefix: str = "") -> Kind:
    """Builds the dataclass from nested values. A field that is not given has its default.

    Raises FieldError, with the dotted name after `prefix`, for an unknown field (the message names the nearest one),
    for a value that the field does not accept, and as the `__post_init__` of the dataclass does.
    """
    if not isinstance(values, Mapping):
        message = f"must be {field_values.accepted(kind, Limits())}, got {field_values.shown(values)}"
        raise FieldError(prefix.rstrip(".") or "the config", message)
    known = {name: (inner, of) for name, inner, of in _members(kind)}
    for name in values:
        if name not in known:
            raise field_values.unknown(f"{prefix}{name}", [f"{prefix}{other}" for other in known])
    given = {}
    for name, (inner, of) in known.items():
        if name not in values:
            if of.default is dataclasses.MISSING and of.default_factory is dataclasses.MISSING:
                raise FieldError(f"{prefix}{name}", "is missing")
            continue
        nested, value = _section_of(inner), values[name]
        if nested is None or (value is None and type(None) in field_values.members(inner)):
            given[name] = field_values.checked(f"{prefix}{name}", inner, value, _limits(of))
        else:
            given[name] = value if isinstance(value, nested) else read(nested, value, f"{prefix}{name}.")
    try:
        return kind(**given)
    except FieldError as error:
        raise error.under(prefix) from None


@functools.cache
def declared(kind: type, prefix: str = "", added: bool = False) -> dict[str, Declared]:
    """All fields of the dataclass and of its sections, by dotted name, in order."""
    fields: dict[str, Declared] = {}
    for name, inner, of in _members(kind):
        late = added or of.metadata.get("added", False)
        if (nested := _section_of(inner)) is None:
            doc = of.metadata.get("doc", "")
            fields[prefix + name] = Declared(prefix + name, inner, _default(of), doc, _limits(of), late)
            continue
        within = declared(nested, f"{prefix}{name}.", late)
        if dataclasses.is_dataclass(default := _default(of)):
            # A section's fields may have other defaults there than by themselves.
            values = flat(nested, plain(default), f"{prefix}{name}.")
            within = {key: dataclasses.replace(field, default=values[key]) for key, field in within.items()}
        fields |= within
    return fields


def defaults(kind: type, without: Iterable[str] = ()) -> dict[str, Any]:
    """The default of every field, nested: what a config file starts from. without: fields that are left out."""
    return {name: value for name, value in plain(kind()).items() if name not in without}


def plain(config: Any) -> dict[str, Any]:
    """The fields of the dataclass as nested dicts, without derived ones. Tuples stay tuples."""
    values = {name: getattr(config, name) for name, _, _ in _members(type(config))}
    return {name: plain(value) if dataclasses.is_dataclass(value) else value for name, value in values.items()}


def part(config: Any, kind: type[Kind]) -> Kind:
    """The dataclass `kind`, with its fields taken from `config`. For a section that joins several dataclasses."""
    return kind(**{of.name: getattr(config, of.name) for of in dataclasses.fields(kind)})


def flat(kind: type, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name, without those that are not fields of the dataclass."""
    result: dict[str, Any] = {}
    for name, inner, _ in _members(kind):
        if name not in values:
            continue
        nested = _section_of(inner)
        if nested is not None and isinstance(values[name], Mapping):
            result |= flat(nested, values[name], f"{prefix}{name}.")
        else:
            result[prefix + name] = values[name]
    return result


def checked(fields: Mapping[str, Declared], name: str, value: Any) -> Any:
    """The value, checked for the field of that dotted name. fields: of `declared`. Raises FieldError as `read` does."""
    of = _named(fields, name)
    return field_values.checked(name, of.type, value, of.limits)


def override(kind: type, values: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the nested values with fields replaced by dotted name. Raises FieldError as `read` does."""
    fields = declared(kind)
    for name, value in changed.items():
        values = _with(values, name.split("."), checked(fields, name, value))
    return dict(values)


def override_text(kind: type, values: Mapping[str, Any], changed: Mapping[str, str]) -> dict[str, Any]:
    """`override` with texts of the command line instead of values, see `field_values.from_text`."""
    fields = declared(kind)
    for name, text in changed.items():
        of = _named(fields, name)
        values = _with(values, name.split("."), field_values.from_text(name, of.type, text, of.limits))
    return dict(values)


def identity(kind: type, values: Mapping[str, Any], keep: Iterable[str] = ()) -> dict[str, Any]:
    """The values whose hash names a run, nested: all fields except added ones at their default.

    So a field with `added=True` does not change the names of earlier runs. keep: dotted names of added fields that are
    included even at their default, because they were given or are swept.
    """
    late = {name: f.default for name, f in declared(kind).items() if f.added and name not in set(keep)}
    result: dict[str, Any] = {}
    for name, value in flat(kind, values).items():
        if name not in late or _comparable(value) != _comparable(late[name]):
            result = _with(result, name.split("."), value)
    return result


def describe(kind: type, values: Mapping[str, Any] | None = None) -> str:
    """The lines of --help: every field with its value in `values` or its default, its doc, and what it accepts."""
    given = flat(kind, values or {})
    lines, last = [], ""
    for name, f in declared(kind).items():
        if (head := name.rpartition(".")[0]) != last:
            lines.append("")
            last = head
        value = given.get(name, f.default)
        changed = "" if _comparable(value) == _comparable(f.default) else f", default {as_text(f.default)}"
        lines.append(f"  --config.{name}={as_text(value)}")
        lines.append(f"      {f.doc}{'; ' if f.doc else ''}{f.accepted()}{changed}")
    return "\n".join(lines)


def as_text(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, list | tuple):
        nested = any(isinstance(element, list | tuple) for element in value)
        return str(value).replace(" ", "") if nested else ",".join(map(as_text, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _members(kind: type, derived: bool = False) -> list[tuple[str, Any, dataclasses.Field]]:
    """Name, type and declaration of the fields that a config has, or of all."""
    return [of for of in hinted(kind) if derived or not of[2].metadata.get("derived", False)]


@functools.cache
def hinted(kind: type) -> list[tuple[str, Any, dataclasses.Field]]:
    """Name, type and declaration of every field of a dataclass that its constructor takes."""
    hints = get_type_hints(kind)  # Of a made dataclass the annotations are types already.
    return [(of.name, hints[of.name], of) for of in dataclasses.fields(kind) if of.init]


def _section_of(kind: Any) -> type | None:
    """The dataclass that a field is, if it is a section (or None)."""
    return next((member for member in field_values.members(kind) if dataclasses.is_dataclass(member)), None)


def _limits(of: dataclasses.Field) -> Limits:
    return of.metadata.get("limits", Limits())


def _default(of: dataclasses.Field) -> Any:
    return of.default_factory() if of.default_factory is not dataclasses.MISSING else of.default


def _named(fields: Mapping[str, Declared], name: str) -> Declared:
    if name in fields:
        return fields[name]
    name = str(name)
    if below := [other for other in fields if other.startswith(f"{name}.")]:
        raise FieldError(name, f"is a section, so one of its fields must be named, such as {below[0]}")
    raise field_values.unknown(name, list(fields))


def _with(values: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    if not rest:
        return {**values, first: value}
    inner = values.get(first) or {}
    return {**values, first: _with(inner, rest, value)}


def _comparable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_comparable, value))
    return _comparable(value.tolist()) if isinstance(value, np.ndarray) else value
