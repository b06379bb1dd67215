"""The annotations of arrays are checked in tests: in which modules, and that what breaks them is an error."""

import importlib

import jax.numpy as jnp
import numpy as np
import pytest
import shape_checks
from jaxtyping import Array, Float, TypeCheckError, jaxtyped

from jaxconcepts import intervals
from jaxconcepts.metrics import statistics
from tests.conftest import ANNOTATED


@jaxtyped(typechecker=shape_checks.only_arrays)
def shifted(
    states: Float[Array, "n d"], by: Float[Array, " n"] | None = None, rate: Float[Array, ""] = 1.0, times: int = 1
) -> Float[Array, "n d"]:
    if times == 0:
        raise ValueError("times must not be 0")
    return states if by is None else states + by[:, None] if times == 1 else states[0]


STATES = np.zeros((3, 2), np.float32)


@pytest.mark.parametrize("by", [None, np.zeros(3, np.float32), jnp.zeros(3)])
def test_arrays_of_both_kinds_pass_and_what_is_no_array_is_not_looked_at(by):
    assert shifted(STATES, by, rate=2, times=True).shape == (3, 2)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((STATES[0],), "states"),
        ((STATES.astype(int),), "states"),
        ((STATES, np.zeros(1, np.float32)), "by"),
        ((STATES, np.zeros(3, np.float32), 1.0, 2), "return value"),
    ],
)
def test_another_shape_or_type_is_an_error(arguments, named):
    with pytest.raises(TypeCheckError, match=named):
        shifted(*arguments)


def test_a_function_refuses_an_argument_in_its_own_words():
    with pytest.raises(ValueError, match="times must not be 0"):
        shifted(STATES[0], times=0)


def test_the_package_s_functions_are_checked():
    """Without a check NumPy would take one null for all three scores."""
    with pytest.raises(TypeCheckError, match="null"):
        statistics.p_value(np.zeros(3, np.float32), np.zeros((1, 10), np.float32))


def test_every_part_has_such_modules_and_those_without_arrays_are_left_alone():
    parts = {name.split(".")[1] for name in ANNOTATED}
    assert parts == {"metrics", "tasks", "models", "training", "interventions"}
    assert "jaxconcepts.metrics.decodability" in ANNOTATED and "jaxconcepts.tasks.reasoning_graph" not in ANNOTATED
    assert all(importlib.import_module(name) for name in ANNOTATED)
    assert not hasattr(intervals.wilson, "__wrapped__")
