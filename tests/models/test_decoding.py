"""Many rows, read a part after the other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.models import decoding


@pytest.mark.parametrize(("count", "length", "largest"), [(11, 3, 4), (12, 3, 4), (4, 3, 4), (5, 100, 1), (1, 100, 1)])
def test_rows_in_parts_are_those_of_one_pass(monkeypatch, count, length, largest):
    monkeypatch.setattr(decoding, "TOKENS_AT_ONCE", 13)
    sizes = []

    def function(rows):
        first, (second, nothing) = rows
        sizes.append(len(first))
        assert nothing is None
        return {"sum": first.sum(1) + second, "rows": first * 2}

    first, second = np.arange(count * 2.0).reshape(count, 2), np.arange(count)
    made = jax.jit(lambda *rows: decoding.by_rows(function, (rows[0], (rows[1], None)), length))(first, second)
    np.testing.assert_array_equal(made["sum"], first.sum(1) + second)
    np.testing.assert_array_equal(made["rows"], jnp.asarray(first * 2))
    assert max(sizes) <= largest
