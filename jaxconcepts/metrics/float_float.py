"""Squared distances to twice the precision of floats, as unevaluated sums of two (relative error 2^-46 in float32).

Differences and squares are exact, so that equal distances of duplicates and of integer grids come out equal.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Width of the partial sums that differences are added into.
LANES = 64


def squared_distance(a: Float[Array, "... d"], b: Float[Array, "... d"]) -> tuple[Array, Array]:
    """sum((a - b)^2) over the last axis as an unevaluated sum (high, low), |low| at most half an ulp of high.

    The difference is exact as s + e (Knuth's two-sum), s is cut into halves whose products are exact (Dekker), and
    the squares are added in float-float. Every product that matters is exact, so fusing a multiplication
    with an addition changes nothing.
    """
    as_integer, mask = (jnp.uint64, -(1 << 27)) if a.dtype == jnp.float64 else (jnp.uint32, -(1 << 12))
    mask = np.array(mask).astype(np.dtype(as_integer))

    def add(total, terms):
        high, error = _two_sum(total[0], terms[0])
        return _two_sum(high, error + (total[1] + terms[1])), None

    def add_squares(total, pair):
        a, b = pair
        s = a - b
        v = s - a
        e = (a - (s - v)) - (b + v)
        head = lax.bitcast_convert_type(lax.bitcast_convert_type(s, as_integer) & mask, s.dtype)
        tail = s - head
        high, low = _two_sum(head * head, 2 * head * tail)
        return add(total, (high, low + tail * tail + 2 * s * e))

    a, b = (_in_chunks(x, LANES) for x in (a, b))
    zero = jnp.zeros(jnp.broadcast_shapes(a.shape[1:], b.shape[1:]), a.dtype)
    lanes, _ = lax.scan(add_squares, (zero, zero), (a, b))
    total, _ = lax.scan(add, (zero[..., 0], zero[..., 0]), tuple(jnp.moveaxis(x, -1, 0) for x in lanes))
    return total


def resolution(dtype, width: int) -> float:
    """The relative difference below which sums of `width` squares are rounding.

    An ulp of float-float an addition, whose roundings are taken to be independent.
    """
    additions = min(width, LANES) + width / LANES
    return float(jnp.finfo(dtype).eps) ** 2 / 2 * (1 + additions) ** 0.5


def _in_chunks(x, size):
    """[..., d] -> [ceil(d / size), ..., size], filled up with zeros."""
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % size)])
    return jnp.moveaxis(x.reshape(*x.shape[:-1], -1, size), -2, 0)


def _two_sum(a, b):
    s = a + b
    v = s - a
    return s, (a - (s - v)) + (b - v)
