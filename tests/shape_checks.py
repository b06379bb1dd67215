"""Shapes and types of arrays are checked in every test, as the annotations say (jaxtyping, by beartype).

Only annotations of arrays with axes count, and an array may be NumPy's or JAX's. What else is wrong in an argument must
be said by the function itself, and tests pass such values on purpose.
"""

import inspect
import re

import jax
import numpy as np
from beartype import BeartypeConf, beartype

OF_ARRAYS = re.compile(r"\b(Float|Int|UInt|Bool|Key|Shaped|Num|Real|Complex)\[\s*(?:Array|np\.ndarray)\s*,")
SCALAR = re.compile(r',\s*""\s*\]')
# Tests compare messages: none may be coloured.
CHECKED = beartype(conf=BeartypeConf(is_color=False))


def only_arrays(function):
    """`function` with its annotations of arrays checked, and all others left alone."""
    if not inspect.isfunction(function):
        return function
    annotations = function.__annotations__
    arrays = {
        name: OF_ARRAYS.sub(r"\1[_AnyArray,", hint)
        for name, hint in annotations.items()
        if isinstance(hint, str) and OF_ARRAYS.search(hint) and not SCALAR.search(hint)
    }
    if not arrays:
        return function
    function.__globals__.setdefault("_AnyArray", jax.Array | np.ndarray)
    function.__annotations__ = arrays
    try:
        return CHECKED(function)
    finally:
        function.__annotations__ = annotations
