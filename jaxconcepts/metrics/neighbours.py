"""Exact leave-one-out nearest neighbours of hidden states, batched, from one Gram product and a proof of each row.

Squared distances come from |a|^2 + |b|^2 - 2 a.b after centring, at the highest precision: fast, but near-ties can
come out in the wrong order. So that rounding error is bounded (`_window`). Where the k-th and the (k+1)-th distance lie
further apart than the bounds allow for, the k nearest are proved. All other points are decided again from float-float
sums of (a - b)^2 (relative error about 2^-46 in float32), whose differences and squares are exact, so that duplicates
and integer grids tie exactly; those ties go to the smaller index. The bound takes roundings to be independent (Higham
and Mary 2019, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41, with lambda = 4).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxconcepts.metrics import float_float

DEFAULT_MEMORY = 1 << 30
# Elements of the differences held at once while points are decided again.
EXACT_ELEMENTS = 1 << 21
# Candidates either side of the k-th that are compared first, and beyond it that are compared next.
NEAR = 4
MARGIN = 14
# Terms of a norm summed up before the sums are.
NORM_TERMS = 64
# From here on half of the Gram matrix is worth leaving out.
SYMMETRIC_MIN_POINTS = 512


class Distances(NamedTuple):
    """Squared distances of T target points to all N points, as the Gram product gives them.

    squared: [B, T, N], infinite for a point to itself and for points that may not be neighbours.
    norms: [B, T], squared norms of the (centred) targets. largest: [B, 1], the largest squared norm of all points.
    width: number of terms of their dot products.
    """

    squared: Float[Array, "B T N"]
    norms: Float[Array, "B T"]
    largest: Float[Array, "B 1"]
    width: int


def centre(hidden: Float[Array, "B N d"]) -> tuple[Float[Array, "B N d"], Float[Array, "B N"]]:
    """Hidden states without their mean over points (distances stay as they are), and their squared norms."""
    centred = hidden - jnp.mean(hidden, -2, keepdims=True)
    terms = min(NORM_TERMS, centred.shape[-1])
    padded = jnp.pad(centred, ((0, 0), (0, 0), (0, -centred.shape[-1] % terms)))
    partial = jnp.sum(jnp.square(padded.reshape(*centred.shape[:2], terms, -1)), -2)
    return centred, partial @ jnp.ones(partial.shape[-1], partial.dtype)


def all_distances(hidden: Float[Array, "B N d"]) -> Distances:
    """Every point to every point. Of the symmetric Gram matrix of many points only 5/8 are multiplied out: square
    blocks beside the diagonal, halved down to a quarter of the points."""

    def several(hidden):
        centred, norms = centre(hidden)
        if hidden.shape[1] < SYMMETRIC_MIN_POINTS:
            return _block(centred, norms, 0, hidden.shape[1], 0, hidden.shape[1]), norms
        return _symmetric(centred, norms), norms

    if hidden.shape[1] < SYMMETRIC_MIN_POINTS:
        squared, norms = several(hidden)
    else:
        # One at a time: the centred copy of one layer stays in the cache.
        squared, norms = lax.map(lambda one: tuple(x[0] for x in several(one[None])), hidden)
    return Distances(squared, norms, jnp.max(norms, -1, keepdims=True), hidden.shape[-1])


def some_distances(centred: Float[Array, "B N d"], norms: Float[Array, "B N"], start, count: int) -> Distances:
    """Points start to start + count (start may be traced) to every point."""
    targets = lax.dynamic_slice_in_dim(norms, start, count, 1)
    squared = _block(centred, norms, start, count, 0, centred.shape[1])
    return Distances(squared, targets, jnp.max(norms, -1, keepdims=True), centred.shape[-1])


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


def nearest_candidates(squared: Float[Array, "B T N"], count: int):
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


def unproved(distances: Distances, last: Float[Array, "B T"], following: Float[Array, "B T"]) -> Bool[Array, "B T"]:
    """Targets whose k-th (`last`) and (k+1)-th (`following`) distances are too close for their order to be sure."""
    return ~(following - last > _window(distances, last)) & jnp.isfinite(last)


def in_question(distances: Distances, values: Float[Array, "k B T"]) -> Int[Array, "B T"]:
    """How many of the k nearest (`values`, ascending) could have to give way to points further off, at most.

    Twice the window, as the two triangles of the distances may differ by rounding.
    """
    return jnp.sum(values >= values[-1] - 2 * _window(distances, values[-1]), 0)


def decide(
    hidden: Float[Array, "B N d"], distances: Distances, last, open_: Bool[Array, "B T"], k: int, start, table, entry
):
    """Overwrites, in `table` [B, T, ...], the entries of the open targets by `entry(neighbours [R, k])`.

    The neighbours are the k smallest in (distance, index) order. Distances to float-float precision are taken of the
    few points around the k-th. Where more are in question, exact duplicates beyond the first k + 1 of their kind are
    left out (others of their kind come before them) and more points compared, and if that is not enough, all points.
    `last`: [B, T], the k-th smallest approximate distance. `start`: index of the first target.
    """
    points = hidden.shape[1]
    everyone = jnp.ones(hidden.shape[:2], bool)

    def among(table, open_, sure, count, kept):
        return _decide_among(hidden, distances, last, k, start, entry, sure, count, kept, table, open_)

    def further(table, open_):
        kept = _first_of_kind(hidden, k + 1)
        if k + MARGIN < points:
            table, open_ = among(table, open_, 0, k + MARGIN, kept)
        return among(table, open_, 0, points, kept)[0]

    def first(table, open_):
        table, open_ = among(table, open_, max(k - NEAR, 0), min(k + NEAR, points), everyone)
        return lax.cond(jnp.any(open_), further, lambda table, _: table, table, open_)

    return lax.cond(jnp.any(open_), first, lambda table, _: table, table, open_)


def _symmetric(centred, norms):
    points = centred.shape[1]

    def fill(squared, start, stop):
        if stop - start <= -(-points // 4):
            block = _block(centred, norms, start, stop - start, start, stop)
            return squared.at[:, start:stop, start:stop].set(block)
        middle = (start + stop) // 2
        block = _block(centred, norms, start, middle - start, middle, stop)
        squared = squared.at[:, start:middle, middle:stop].set(block)
        squared = squared.at[:, middle:stop, start:middle].set(jnp.swapaxes(block, 1, 2))
        return fill(fill(squared, start, middle), middle, stop)

    return fill(jnp.zeros((1, points, points), centred.dtype), 0, points)


def _block(centred, norms, start, count, first, stop):
    """Squared distances of `count` points from `start` on (it may be traced) to the points from `first` to `stop`."""
    targets = lax.dynamic_slice_in_dim(centred, start, count, 1)
    gram = jnp.einsum("btd,bnd->btn", targets, centred[:, first:stop], precision=lax.Precision.HIGHEST)
    own = lax.dynamic_slice_in_dim(norms, start, count, 1)
    squared = jnp.maximum(own[..., None] + norms[:, None, first:stop] - 2 * gram, 0)
    row, column = (lax.broadcasted_iota(jnp.int32, gram.shape[1:], axis) for axis in (0, 1))
    return jnp.where(row + start == column + first, jnp.inf, squared)


def _rounding(dtype, width: int) -> float:
    """Bound on the rounding error of a dot product of `width` terms, relative to the sum of their sizes."""
    return float(jnp.finfo(dtype).eps) / 2 * (min(width, 4 * width**0.5) + 4)


def _window(distances: Distances, last):
    """Two distances of a target, both near `last`, that differ by more than this [B, T] are in the right order.

    The dot product of points i and j errs by at most its rounding times (|i|^2 + |j|^2) / 2, the norm of j (its partial
    sums are short) by its own rounding times |j|^2; that of i is common to both. No neighbour at squared distance
    `last` has a squared norm above 2 (|i|^2 + last).
    """
    other = jnp.minimum(distances.largest, 2 * (distances.norms + last))
    dtype, width = distances.norms.dtype, distances.width
    product, norm = _rounding(dtype, width), _rounding(dtype, min(width, NORM_TERMS + width // NORM_TERMS))
    return 2 * (product * (distances.norms + other) + norm * other)


def _decide_among(hidden, distances, last, k, start, entry, sure, count, kept, table, open_):
    """One pass of `decide`: of the `count` nearest candidates the `sure` nearest are taken, the others compared.

    Returns the table and the targets for which that was not enough.
    """
    batch, targets, points = distances.squared.shape
    width, compared = hidden.shape[-1], count - sure
    rows = int(np.clip(EXACT_ELEMENTS // (compared * width), 1, min(64, batch * targets)))
    at_once = int(np.clip(EXACT_ELEMENTS // (rows * width), 1, compared))
    window = _window(distances, last)
    order = jnp.cumsum(open_.reshape(-1))

    def decide_some(carry):
        step, table, still_open = carry
        flat = jnp.searchsorted(order, step * rows + 1 + jnp.arange(rows))
        b, t = jnp.divmod(flat, targets)
        squared, own_last, own_window = (x.at[b, t].get(mode="clip") for x in (distances.squared, last, window))
        approximate = jnp.where(kept.at[b].get(mode="clip"), squared, jnp.inf)
        candidates, beyond = jnp.broadcast_to(jnp.arange(points), squared.shape), jnp.zeros(rows, bool)
        if count < points:
            # Without the barrier XLA:CPU merges the slices below into a full sort.
            approximate, candidates = lax.optimization_barrier(lax.top_k(-approximate, count))
            approximate = -approximate
            beyond = approximate[:, -1] <= own_last + own_window
        elif sure:
            candidates = jnp.argsort(approximate, -1)
            approximate = jnp.take_along_axis(approximate, candidates, -1)
        if sure:
            beyond |= approximate[:, sure - 1] >= own_last - own_window
        target = hidden.at[b, start + t].get(mode="clip")
        high, low = lax.map(
            lambda one: float_float.squared_distance(target, hidden.at[b, one].get(mode="clip")),
            candidates[:, sure:].T,
            batch_size=at_once,
        )
        high = jnp.where(jnp.isfinite(approximate[:, sure:]), high.T, jnp.inf)
        nearest = lax.sort((high, low.T, candidates[:, sure:]), num_keys=3)[2][:, : k - sure]
        neighbours = jnp.sort(jnp.concatenate([candidates[:, :sure], nearest], -1), -1)
        # Every target looks its own answer up: on a CPU a scatter runs row by row.
        slot = order.reshape(open_.shape) - 1 - step * rows
        answered, slot = open_ & (slot >= 0) & (slot < rows), jnp.clip(slot, 0, rows - 1)
        chosen = answered.reshape(answered.shape + (1,) * (table.ndim - 2))
        table = jnp.where(chosen, entry(neighbours).astype(table.dtype)[slot], table)
        return step + 1, table, jnp.where(answered, beyond[slot], still_open)

    _, table, open_ = lax.while_loop(lambda c: c[0] * rows < order[-1], decide_some, (0, table, open_))
    return table, open_


def _first_of_kind(hidden, count):
    """[B, N]: whether fewer than `count` earlier points are exact duplicates of the point.

    Duplicates are found by a hash of the bits and checked against the first point that has it.
    """
    as_integer = jnp.uint64 if hidden.dtype == jnp.float64 else jnp.uint32
    bits = lax.bitcast_convert_type(hidden + 0.0, as_integer)
    odd = np.arange(hidden.shape[-1], dtype=np.uint64) * np.uint64(2654435769) | np.uint64(1)
    code = jnp.sum((bits ^ (bits >> 15)) * odd.astype(np.dtype(as_integer)), -1, dtype=as_integer)
    same = code[:, :, None] == code[:, None, :]
    first = jnp.argmax(same, -1)
    checked = jnp.all(jnp.take_along_axis(hidden, first[..., None], 1) == hidden, -1)
    earlier = jnp.tril(same & checked[:, None, :], -1)
    return ~checked | (jnp.sum(earlier, -1) < count)
