"""Squared distances of hidden states, batched, from one Gram product, and which neighbours they prove.

The distances come from |a|^2 + |b|^2 - 2 a.b after scaling and centring, at the highest precision: fast, but near-ties
can come out in the wrong order. So that rounding error is bounded (`window`). Where the k-th and the (k+1)-th distance
lie further apart than the bounds allow for, the k nearest are proved. All other points are decided again, in
`deciding`. The bound takes roundings to be independent (Higham and Mary 2019, "A new approach to probabilistic rounding
error analysis", SIAM J. Sci. Comput. 41, with lambda = 4).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxconcepts.metrics import host_neighbours

DEFAULT_MEMORY = 1 << 30
# Terms of a norm summed up before the sums are.
NORM_TERMS = 64
# From here on half of the Gram matrix is worth leaving out.
SYMMETRIC_MIN_POINTS = 512


class Listed(NamedTuple):
    """The nearest of N points each, ascending, in place of all their distances: values, indices [1, N, count]. The rest
    can be made again from the points."""

    values: Float[Array, "1 N count"]
    indices: Int[Array, "1 N count"]
    centred: Centred
    group: Int[Array, " N"] | None


class Distances(NamedTuple):
    """Squared distances of T target points to all N points, as the Gram product gives them.

    squared: [B, T, N], infinite for a point to itself and for points that may not be neighbours; or `Listed`.
    norms: [B, T], squared norms of the (centred) targets. largest: [B, 1], the largest squared norm of all points.
    All are of the hidden states times `scale` [B, 2], two powers of two, so that no square leaves the floats' range.
    width: number of terms of their dot products.
    """

    squared: Float[Array, "B T N"] | Listed
    norms: Float[Array, "B T"]
    largest: Float[Array, "B 1"]
    scale: Float[Array, "B 2"]
    width: int


class Centred(NamedTuple):
    """States [B, N, d] scaled by `scale` [B, 2] and without their mean over points, and their squared norms [B, N]."""

    states: Float[Array, "B N d"]
    norms: Float[Array, "B N"]
    scale: Float[Array, "B 2"]


def scales(hidden: Float[Array, "B N d"]) -> Float[Array, "B 2"]:
    """Two powers of two a slice, whose product brings the largest entry as high as squared distances allow.

    So small differences beside it keep their squares too. Two, since one alone can leave the floats' range.
    """
    info = jnp.finfo(hidden.dtype)
    top = (info.maxexp - 6 - int(np.ceil(np.log2(hidden.shape[-1])))) // 2
    _, exponent = jnp.frexp(jnp.max(jnp.abs(hidden), (-2, -1)))
    first = (top - exponent) // 2
    return jnp.stack([jnp.ldexp(jnp.ones((), hidden.dtype), e) for e in (first, top - exponent - first)], -1)


def rescale(states: Float[Array, "B ... d"], scale: Float[Array, "B 2"]) -> Float[Array, "B ... d"]:
    """States times both of a slice's powers of two, which is exact."""
    first, second = (scale[:, i].reshape(-1, *(1,) * (states.ndim - 1)) for i in (0, 1))
    return states * first * second


def centre(hidden: Float[Array, "B N d"]) -> Centred:
    """Scaled hidden states without their mean over points, which changes no order of distances."""
    scale = scales(hidden)
    scaled = rescale(hidden, scale)
    centred = scaled - jnp.mean(scaled, -2, keepdims=True)
    terms = min(NORM_TERMS, centred.shape[-1])
    padded = jnp.pad(centred, ((0, 0), (0, 0), (0, -centred.shape[-1] % terms)))
    partial = jnp.sum(jnp.square(padded.reshape(*centred.shape[:2], terms, -1)), -2)
    return Centred(centred, partial @ jnp.ones(partial.shape[-1], partial.dtype), scale)


def all_distances(hidden: Float[Array, "B N d"], group: Int[Array, " N"] | None = None) -> Distances:
    """Every point to every point, infinite within a group. Of the symmetric Gram matrix of many points only 5/8 are
    multiplied out: square blocks beside the diagonal, halved down to a quarter of the points."""

    def several(hidden):
        centred = centre(hidden)
        if hidden.shape[1] < SYMMETRIC_MIN_POINTS:
            squared = _block(centred, 0, hidden.shape[1], 0, hidden.shape[1])
        else:
            squared = _symmetric(centred)
        if group is not None:
            squared = jnp.where(group[:, None] == group, jnp.inf, squared)
        return squared, centred.norms, centred.scale

    if hidden.shape[1] < SYMMETRIC_MIN_POINTS:
        squared, norms, scale = several(hidden)
    else:
        # One at a time: the centred copy of one layer stays in the cache.
        squared, norms, scale = lax.map(lambda one: tuple(x[0] for x in several(one[None])), hidden)
    return Distances(squared, norms, jnp.max(norms, -1, keepdims=True), scale, hidden.shape[-1])


def some_distances(centred: Centred, start, count: int, group: Int[Array, " N"] | None = None) -> Distances:
    """Points start to start + count (start may be traced) to every point, infinite within a group."""
    states, norms, scale = centred
    targets = lax.dynamic_slice_in_dim(norms, start, count, 1)
    squared = _block(centred, start, count, 0, states.shape[1])
    if group is not None:
        theirs = lax.dynamic_slice_in_dim(group, start, count, 0)
        squared = jnp.where(theirs[:, None] == group, jnp.inf, squared)
    return Distances(squared, targets, jnp.max(norms, -1, keepdims=True), scale, states.shape[-1])


def listed(hidden: Float[Array, "1 N d"], count: int, group: Int[Array, " N"] | None = None) -> Distances:
    """Every point to its `count` nearest, found by the host (`host_neighbours`)."""
    centred = centre(hidden)
    values, indices = host_neighbours.nearest(centred.states[0], centred.norms[0], count, group)
    largest = jnp.max(centred.norms, -1, keepdims=True)
    of_all = Listed(values[None], indices[None], centred, group)
    return Distances(of_all, centred.norms, largest, centred.scale, hidden.shape[-1])


def rows(distances: Distances, b: Int[Array, " R"], t: Int[Array, " R"]) -> Float[Array, "R N"]:
    """The squared distances of targets t of slices b to all points."""
    if not isinstance(distances.squared, Listed):
        return distances.squared.at[b, t].get(mode="clip")
    (states, norms, _), group = distances.squared.centred, distances.squared.group
    gram = jnp.matmul(states[0].at[t].get(mode="clip"), states[0].T, precision=lax.Precision.HIGHEST)
    squared = jnp.maximum(norms[0].at[t].get(mode="clip")[:, None] + norms[0] - 2 * gram, 0)
    apart = jnp.arange(states.shape[1]) if group is None else group
    return jnp.where(apart.at[t].get(mode="clip")[:, None] == apart, jnp.inf, squared)


def nearest(distances: Distances, count: int):
    """The `count` smallest of each target, as `nearest_candidates`."""
    if isinstance(distances.squared, Listed):
        return distances.squared.values, distances.squared.indices
    return nearest_candidates(distances.squared, count)


def nearest_values(squared: Float[Array, "B N N"], count: int) -> Float[Array, "count B N"]:
    """The `count` smallest of each column, ascending. A symmetric matrix goes in, so these are also each row's.

    Every row is inserted into a sorted list held for each column: s'_i = min(s_i, max(s_{i-1}, x)). On a CPU this is
    several times faster than `lax.top_k`, as long as `count` is small; non-negative floats compare like integers,
    whose minimum needs no test for NaN.
    """
    as_integer = jnp.int64 if squared.dtype == jnp.float64 else jnp.int32

    def insert(smallest, row):
        below = jnp.pad(smallest[:-1], ((1, 0), (0, 0)), constant_values=-1)
        return jnp.minimum(smallest, jnp.maximum(below, row)), None

    def smallest_of_columns(matrix):
        start = jnp.full((count, matrix.shape[-1]), jnp.iinfo(as_integer).max)
        return lax.scan(insert, start, lax.bitcast_convert_type(matrix, as_integer))[0]

    # One matrix at a time: its list stays in the fastest cache.
    return lax.bitcast_convert_type(jnp.moveaxis(lax.map(smallest_of_columns, squared), 0, 1), squared.dtype)


def nearest_candidates(
    squared: Float[Array, "B T N"], count: int
) -> tuple[Float[Array, "B T count"], Int[Array, "B T count"]]:
    """The `count` smallest of each row, ascending, as (values [B, T, count], indices [B, T, count]).

    Long rows are first cut into lanes: the `count` lanes with the smallest minima hold the `count` smallest entries.
    """
    points = squared.shape[-1]
    lane = 16 if points >= 64 * count and jax.default_backend() == "cpu" else 1
    if lane == 1:
        values, indices = lax.top_k(-squared, count)
        return -values, indices
    lanes = -(-points // lane)
    padding = [(0, 0), (0, 0), (0, lane * lanes - points)]
    cut = jnp.pad(squared, padding, constant_values=jnp.inf).reshape(*squared.shape[:2], lane, lanes)
    _, chosen = lax.top_k(-jnp.min(cut, -2), count)
    candidates = jnp.take_along_axis(cut, chosen[..., None, :], -1).reshape(*squared.shape[:2], lane * count)
    values, place = lax.top_k(-candidates, count)
    indices = jnp.take_along_axis(chosen, place % count, -1) + lanes * (place // count)
    return -values, indices


def window(distances: Distances, last: Float[Array, "B T"]) -> Float[Array, "B T"]:
    """Two distances of a target, both near `last`, that differ by more than this [B, T] are in the right order.

    The dot product of points i and j errs by at most its rounding times (|i|^2 + |j|^2) / 2, the norm of j (its partial
    sums are short) by its own rounding times |j|^2; that of i is common to both. No neighbour at squared distance
    `last` has a squared norm above 2 (|i|^2 + last).
    """
    other = jnp.minimum(distances.largest, 2 * (distances.norms + last))
    dtype, width = distances.norms.dtype, distances.width
    product, norm = _rounding(dtype, width), _rounding(dtype, min(width, NORM_TERMS + width // NORM_TERMS))
    return 2 * (product * (distances.norms + other) + norm * other)


def unproved(distances: Distances, last: Float[Array, "B T"], following: Float[Array, "B T"]) -> Bool[Array, "B T"]:
    """Targets whose k-th (`last`) and (k+1)-th (`following`) distances are too close for their order to be sure."""
    return ~(following - last > window(distances, last)) & jnp.isfinite(last)


def in_question(distances: Distances, values: Float[Array, "k B T"]) -> Int[Array, "B T"]:
    """How many of the k nearest (`values`, ascending) could have to give way to points further off, at most.

    Twice the window, as the two triangles of the distances may differ by rounding.
    """
    return jnp.sum(values >= values[-1] - 2 * window(distances, values[-1]), 0)


def _symmetric(centred):
    points = centred.states.shape[1]

    def fill(squared, start, stop):
        if stop - start <= -(-points // 4):
            block = _block(centred, start, stop - start, start, stop)
            return squared.at[:, start:stop, start:stop].set(block)
        middle = (start + stop) // 2
        block = _block(centred, start, middle - start, middle, stop)
        squared = squared.at[:, start:middle, middle:stop].set(block)
        squared = squared.at[:, middle:stop, start:middle].set(jnp.swapaxes(block, 1, 2))
        return fill(fill(squared, start, middle), middle, stop)

    return fill(jnp.zeros((1, points, points), centred.states.dtype), 0, points)


def _block(centred, start, count, first, stop):
    """Squared distances of `count` points from `start` on (it may be traced) to the points from `first` to `stop`."""
    states, norms, _ = centred
    targets = lax.dynamic_slice_in_dim(states, start, count, 1)
    gram = jnp.einsum("btd,bnd->btn", targets, states[:, first:stop], precision=lax.Precision.HIGHEST)
    own = lax.dynamic_slice_in_dim(norms, start, count, 1)
    squared = jnp.maximum(own[..., None] + norms[:, None, first:stop] - 2 * gram, 0)
    row, column = (lax.broadcasted_iota(jnp.int32, gram.shape[1:], axis) for axis in (0, 1))
    return jnp.where(row + start == column + first, jnp.inf, squared)


def _rounding(dtype, width: int) -> float:
    """Bound on the rounding error of a dot product of `width` terms, relative to the sum of their sizes."""
    return float(jnp.finfo(dtype).eps) / 2 * (min(width, 4 * width**0.5) + 4)
