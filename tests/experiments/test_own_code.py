"""What an evaluator of a user's own raises is one line that names it and the line of its file."""

import jax.numpy as jnp
import pytest

from jaxconcepts.experiments import own_code


def misspells(states, outputs, held_out):
    return {"a": states["concpt"].mean()}


def does_not_fit(states, outputs, held_out):
    return {"a": jnp.ones(3) @ jnp.ones(4)}


def takes_two(states, outputs):
    return {}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (misspells, r"evaluator mine.py:f, line 10 of test_own_code.py: KeyError: 'concpt'"),
        (does_not_fit, r"evaluator mine.py:f, line 14 of test_own_code.py: TypeError: .*\(3,\) and \(4,\)"),
        (takes_two, r"evaluator mine.py:f: TypeError: takes_two\(\) takes 2 positional arguments but 3 were given"),
    ],
)
def test_what_it_raises_is_one_line(function, message):
    with pytest.raises(ValueError, match=message) as raised:
        own_code.call("mine.py:f", function, {}, None, None)
    assert "\n" not in str(raised.value)
