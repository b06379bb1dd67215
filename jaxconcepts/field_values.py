"""Values of config fields: whether one is of its field's type and within its bounds, and how one is written as text."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

LARGEST_INT = 2**31 - 1
"""Whole numbers reach JAX as 32 bits unless a field says otherwise."""
LARGEST_FLOAT = float(np.finfo(np.float32).max)
"""Real numbers reach JAX as float32."""
SMALLEST_FLOAT = float(np.finfo(np.float32).tiny)
"""What is smaller is 0 on a device, which has no subnormal numbers."""


class FieldError(ValueError):
    """A value that a field does not take. name: of the field; the message goes on after it: "must be ..., got ..."."""

    def __init__(self, name: str, message: str):
        super().__init__(f"{name} {message}")
        self.name, self.message = name, message

    def under(self, prefix: str) -> FieldError:
        """The same error of the field in a section, e.g. `prefix` "train."."""
        return FieldError(prefix + self.name, self.message)


@dataclasses.dataclass(frozen=True)
class Limits:
    """low, high: the least and greatest value. above, below: the same, the bound itself excluded. choices: all values.
    infinite: whether inf is a value. Of a tuple they bound every element; of a text `low` is the least length."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] | None = None
    infinite: bool = False

    def hold(self, value: Any) -> bool:
        """Whether a value of the right type is within the limits."""
        if self.choices is not None and value not in self.choices:
            return False
        if isinstance(value, bool | str):
            return isinstance(value, bool) or len(value) >= (self.low or 0)
        # An excluded bound is no value of float32 either: 1 - 1e-12 is 1 there, and 1e-50 is 0.
        narrow = _narrow(value)
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or narrow > self.above)
            and (self.below is None or narrow < self.below)
        )

    def text(self) -> str:
        """The bounds in words, e.g. "of at least 1"; empty where there are none."""
        if self.low is not None and self.high is not None:
            return f"from {_short(self.low)} to {_short(self.high)}"
        bounds = [
            f"{words} {_short(bound)}"
            for words, bound in (
                ("of at least", self.low), ("of at most", self.high), ("above", self.above), ("below", self.below),
            )
            if bound is not None
        ]  # fmt: skip
        return " and ".join(bounds)


def checked(name: str, kind: Any, value: Any, limits: Limits) -> Any:
    """The value as plain Python: tuples for lists, a float where the field is real, None where that is a value.

    Raises FieldError for a value of another type or outside the limits; the message says what is accepted.
    """
    value = _python(value)
    if value is None and type(None) in members(kind):
        return None
    for member in members(kind):
        if (taken := _taken(member, value, limits)) is not _REFUSED:
            return taken
    raise FieldError(name, f"must be {accepted(kind, limits, value)}, got {shown(_refused(kind, value, limits))}")


def from_text(name: str, kind: Any, text: str, limits: Limits) -> Any:
    """The value that a text on the command line stands for: `a,b` is a tuple, `none` is None, `true` is a bool.

    A tuple may stand in brackets. Raises FieldError for a text that is no value of the type, and as `checked` does.
    """
    kinds = members(kind)
    if (type(None) in kinds or kind is Any) and text.strip().lower() in ("none", "null"):
        return None
    for member in kinds:
        if (value := _parsed(member, text)) is not _REFUSED and _taken(member, value, limits) is not _REFUSED:
            return _taken(member, value, limits)
    value = next((parsed for member in kinds if (parsed := _parsed(member, text)) is not _REFUSED), _guess(text))
    raise FieldError(name, f"must be {accepted(kind, limits, value)}, got {shown(_refused(kind, value, limits))}")


def members(kind: Any) -> tuple[Any, ...]:
    """The types that a union is of, or the type alone."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def accepted(kind: Any, limits: Limits, value: Any = None) -> str:
    """What a field takes, in words. value: what it got, by which bounds of the machine's numbers are named or not."""
    names = [_described(member, limits, value) for member in members(kind) if member is not type(None)]
    return ", or ".join(names + ["None"] * (type(None) in members(kind)))


def shown(value: Any) -> str:
    """The value as an error shows it: one short line."""
    text = repr(value)
    text = text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode()


_REFUSED = object()


def _taken(kind: Any, value: Any, limits: Limits) -> Any:
    """The value as one of the type, or _REFUSED."""
    origin = get_origin(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return _REFUSED
        inner = get_args(kind)[0]
        elements = [_taken_by_any(inner, element, limits) for element in value]
        return _REFUSED if _REFUSED in elements else tuple(elements)
    if origin is Literal:
        return value if type(value) is str and value in get_args(kind) else _REFUSED
    if kind is Mapping or origin is Mapping or kind is dict or origin is dict:
        return value if isinstance(value, Mapping) else _REFUSED
    if kind is Any:
        return value
    if kind is float and type(value) is int and abs(value) <= LARGEST_FLOAT:
        value = float(value)
    if type(value) is not kind or not limits.hold(value):
        return _REFUSED
    if kind is int and limits.high is None and limits.below is None and abs(value) > LARGEST_INT:
        return _REFUSED
    if kind is float and not abs(value) <= (math.inf if limits.infinite else LARGEST_FLOAT):
        return _REFUSED
    return _REFUSED if kind is float and LARGEST_FLOAT < abs(value) < math.inf else value


def _taken_by_any(kind: Any, value: Any, limits: Limits) -> Any:
    if value is None and type(None) in members(kind):
        return None
    takes = (_taken(member, value, limits) for member in members(kind))
    return next((taken for taken in takes if taken is not _REFUSED), _REFUSED)


def _parsed(kind: Any, text: str) -> Any:
    """The text as a value of the type, its limits not looked at, or _REFUSED."""
    if get_origin(kind) is tuple:
        return _parsed_tuple(get_args(kind)[0], text)
    if kind is bool:
        return {"true": True, "false": False}.get(text.strip().lower(), _REFUSED)
    if kind is int:
        return int(text) if re.fullmatch(r"\s*[+-]?\d{1,30}\s*", text, re.ASCII) else _REFUSED
    if kind is float:
        try:
            return float(text) if "_" not in text else _REFUSED
        except ValueError:
            return _REFUSED
    if kind is str or get_origin(kind) is Literal:
        return text
    return _literal(text)


def _parsed_tuple(inner: Any, text: str) -> Any:
    bare = text.strip()
    if bare[:1] + bare[-1:] in ("()", "[]"):
        literal = _literal(bare)
        if isinstance(literal, list | tuple):
            return literal
        bare = bare[1:-1].strip() if literal is _REFUSED else text
    if not bare:
        return ()
    parts = [part.strip() for part in bare.removesuffix(",").split(",")]
    values = [next((v for m in members(inner) if (v := _parsed(m, part)) is not _REFUSED), _REFUSED) for part in parts]
    return _REFUSED if _REFUSED in values else tuple(values)


def _refused(kind: Any, value: Any, limits: Limits) -> Any:
    """Of a tuple the first element that the field does not take, of anything else the value."""
    inner = next((get_args(member)[0] for member in members(kind) if get_origin(member) is tuple), None)
    if inner is None or not isinstance(value, list | tuple):
        return value
    return next((element for element in value if _taken_by_any(inner, element, limits) is _REFUSED), value)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return _REFUSED


def _guess(text: str) -> Any:
    """The number that a text is, for the bounds that an error names."""
    for kind in (int, float):
        if (value := _parsed(kind, text)) is not _REFUSED:
            return value
    return text


def _described(kind: Any, limits: Limits, value: Any) -> str:
    origin = get_origin(kind)
    if origin is tuple:
        inner = get_args(kind)[0]
        culprit = _refused(kind, value, limits) if isinstance(value, list | tuple) else None
        return f"a tuple, each element {accepted(inner, limits, culprit)}"
    if origin is Literal or limits.choices is not None:
        choices = get_args(kind) if origin is Literal else limits.choices
        return f"one of {', '.join(map(str, choices))}"
    if kind is str:
        return "a text" + (" that is not empty" if limits.low else "")
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return _number(kind, limits, value)
    if dataclasses.is_dataclass(kind):
        return f"a section with {', '.join(f.name for f in dataclasses.fields(kind))}"
    return "a mapping" if origin is Mapping or kind in (Mapping, dict) or origin is dict else "a value"


def _number(kind: Any, limits: Limits, value: Any) -> str:
    noun = "integer" if kind is int else "number"
    article = "an" if kind is int else "a"
    if (limits.low, limits.high) == (1, None) and kind is int or (limits.above, limits.below) == (0, None):
        text = f"a positive {noun}"
    else:
        text = f"{article} {noun} {limits.text()}".rstrip()
    if not isinstance(value, int | float) or isinstance(value, bool):
        return text
    if kind is float and _narrow(value) in (limits.above, limits.below) and value != _narrow(value):
        return f"{text}, rounded to float32 too"
    largest = LARGEST_INT if kind is int else LARGEST_FLOAT
    unbounded = limits.high is None and limits.below is None
    beyond = value != value or (unbounded and abs(value) > largest)
    if kind is float and beyond and not (limits.infinite and abs(value) == math.inf):
        return f"{text}, finite in float32" + (" or inf" if limits.infinite else "")
    return f"{text} and at most {largest}" if beyond and kind is int else text


def _narrow(value: float) -> float:
    """A real number as a device has it, in float32; others as they are."""
    if not isinstance(value, float) or not abs(value) <= LARGEST_FLOAT:
        return value
    return float(np.float32(value)) if abs(value) >= SMALLEST_FLOAT else 0.0


def _short(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() and abs(bound) < 1e16 else f"{bound:g}"


def _python(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def unknown(name: str, known: Iterable[str]) -> FieldError:
    """The error for a field that there is not: it names the nearest of those that there are, or those of its section.

    known: dotted names.
    """
    section, _, last = name.rpartition(".")
    beside = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    others = {other: other for other in known if other not in beside.values()}
    near = [beside[match] for match in difflib.get_close_matches(last, beside, 1)]
    near += [others[match] for match in difflib.get_close_matches(name, others, 1, 0.7)]
    # The right name in another section.
    near += [other for other in others if other.rpartition(".")[2] == last]
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(beside.values() or known)}"
    return UnknownFieldError(name, hint)


class UnknownFieldError(FieldError):
    """A field that a config does not have."""

    def __init__(self, name: str, hint: str):
        ValueError.__init__(self, f"unknown config field {shown(name)[1:-1]}; {hint}")
        self.name, self.message = name, hint

    def under(self, prefix: str) -> UnknownFieldError:
        return self
