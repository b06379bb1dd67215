"""Shapes and types of arrays are checked in every test, as the annotations say (jaxtyping, by beartype).

Only annotations of arrays with axes count, and an array may be NumPy's or JAX's. What else is wrong in an argument must
be said by the function itself, and tests pass such values on purpose.
"""

import functools
import inspect
import operator
import types
import typing
from pathlib import Path
from typing import Annotated

import jax
import jaxtyping
import numpy as np
from beartype import BeartypeConf, beartype
from beartype.vale import Is

ARRAYS = jax.Array | np.ndarray
# Lists, PyTorch's arrays and shapes without values: what takes them says what is wrong with them.
NO_ARRAY = Annotated[object, Is[lambda value: not isinstance(value, ARRAYS)]]
# Tests compare messages: none may be coloured.
CHECKED = beartype(conf=BeartypeConf(is_color=False))


def annotated_modules(package: Path, parts: tuple[str, ...]) -> list[str]:
    """Names of the modules in those parts of a package that annotate arrays. In any other module each call would take
    several times as long for nothing."""
    files = sorted(path for part in parts for path in (package / part).rglob("*.py"))
    annotated = [path.relative_to(package.parent) for path in files if "from jaxtyping import" in path.read_text()]
    return [".".join(path.with_suffix("").parts) for path in annotated]


def only_arrays(function):
    """`function`, as jaxtyping gives it with its annotations read, with those of arrays checked and all others not.

    jaxtyping checks arguments before a call, and arguments and result after it. The first is left out, so that a
    function that refuses an argument does so in its own words.
    """
    if not inspect.isfunction(function) or function.__annotations__.get("return") is typing.Any:
        return function
    annotations = function.__annotations__
    arrays = {name: hint for name, given in annotations.items() if (hint := of_arrays(given)) is not None}
    if not arrays:
        return function
    function.__annotations__ = arrays
    try:
        return CHECKED(function)
    finally:
        function.__annotations__ = annotations


def of_arrays(hint):
    """An annotation with any kind of array in place of JAX's; None where there is no array with axes to check."""
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return hint.dtype[ARRAYS, hint.dim_str] | NO_ARRAY if hint.dim_str else None
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin not in (typing.Union, types.UnionType, tuple, list, dict):
        return None
    checked = [of_arrays(part) for part in inner]
    if all(part is None for part in checked):
        return None
    inner = tuple(given if part is None else part for given, part in zip(inner, checked, strict=True))
    return origin[inner] if origin in (tuple, list, dict) else functools.reduce(operator.or_, inner)
