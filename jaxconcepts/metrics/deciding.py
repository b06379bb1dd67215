"""Neighbours that the Gram product leaves open, decided from float-float distances: in order, or with their ties.

Squared distances are float-float sums of (a - b)^2 (relative error about 2^-46 in float32), whose differences and
squares are exact, so that duplicates and integer grids tie exactly. `decide` takes the k nearest in (distance, index)
order; `decide_tied` takes the points strictly nearer than the k-th distance and all that tie at it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxconcepts.metrics import float_float, neighbours
from jaxconcepts.metrics.neighbours import Distances

# Elements of the differences held at once while points are decided again.
EXACT_ELEMENTS = 1 << 21
# Candidates either side of the k-th that are compared first, and beyond it that are compared next.
NEAR = 4
MARGIN = 14
# Targets decided at once.
ROWS = 64


class Tied(NamedTuple):
    """Neighbours of R targets out of C candidates each: candidates [R, C], indices of points. inside [R, C]: nearer
    than the k-th distance. boundary [R, C]: at the k-th distance. At least k are in one or the other."""

    candidates: Int[Array, "R C"]
    inside: Bool[Array, "R C"]
    boundary: Bool[Array, "R C"]


def decide(
    hidden: Float[Array, "B N d"], distances: Distances, last, open_: Bool[Array, "B T"], k: int, start, table, entry
) -> Array:
    """Overwrites, in `table` [B, T, ...], the entries of the open targets by `entry(neighbours [R, k])`.

    The neighbours are the k smallest in (distance, index) order. Distances to float-float precision are taken of the
    few points around the k-th. Where more are in question, only the first k that may be neighbours of each kind of
    exact duplicates are kept and more points compared, and if that is not enough, all points.
    `last`: [B, T], the k-th smallest approximate distance. `start`: index of the first target.
    """
    points = hidden.shape[1]
    rows = _Rows(hidden, distances, last, start)

    def among(table, open_, sure, count, kept):
        def answer(b, t):
            squared = kept(b, rows.squared(b, t))
            candidates, approximate, beyond = rows.candidates(b, t, squared, sure, count)
            high, low = rows.exact(b, t, candidates[:, sure:])
            high = jnp.where(jnp.isfinite(approximate[:, sure:]), high, jnp.inf)
            nearest = lax.sort((high, low, candidates[:, sure:]), num_keys=3)[2][:, : k - sure]
            return entry(jnp.sort(jnp.concatenate([candidates[:, :sure], nearest], -1), -1)), beyond

        return _for_open(open_, table, rows.at_once(count - sure), answer)

    def further(table, open_):
        kept = _first_of_kinds(_kinds(hidden), k)
        if k + MARGIN < points:
            table, open_ = among(table, open_, 0, k + MARGIN, kept)
        return among(table, open_, 0, points, kept)[0]

    def first(table, open_):
        table, open_ = among(table, open_, max(k - NEAR, 0), min(k + NEAR, points), lambda _, squared: squared)
        return lax.cond(jnp.any(open_), further, lambda table, _: table, table, open_)

    return lax.cond(jnp.any(open_), first, lambda table, _: table, table, open_)


def decide_tied(
    hidden: Float[Array, "B N d"],
    distances: Distances,
    last,
    open_: Bool[Array, "B T"],
    k: int,
    start,
    table,
    entry: Callable[[Array, Tied], Array],
) -> Array:
    """`decide` for neighbours with their ties: entries become `entry(targets [R], tied)`, targets as indices of points.

    Points tie where float-float sums do not tell their distances apart. Where more than a few points are in question,
    only one point of each kind of exact duplicates is measured, and stands for all.
    """
    points = hidden.shape[1]
    rows = _Rows(hidden, distances, last, start)

    def near(table, open_):
        sure, count = max(k - NEAR, 0), min(k + NEAR, points)

        def answer(b, t):
            candidates, approximate, beyond = rows.candidates(b, t, rows.squared(b, t), sure, count)
            high, low = rows.exact(b, t, candidates[:, sure:])
            high = jnp.where(jnp.isfinite(approximate[:, sure:]), high, jnp.inf)
            inside, boundary = _tie_sets(high, low, k - sure, hidden.shape[-1])
            inside = jnp.pad(inside, ((0, 0), (sure, 0)), constant_values=True)
            return entry(start + t, Tied(candidates, inside, jnp.pad(boundary, ((0, 0), (sure, 0))))), beyond

        return _for_open(open_, table, rows.at_once(count - sure), answer)

    def by_kind(table, open_):
        kinds = _kinds(hidden)
        order = jnp.argsort(kinds, -1, stable=True)

        def answer(b, t):
            squared, kind, own_order = (
                rows.squared(b, t), *(x.at[b].get(mode="clip") for x in (kinds, order))
            )  # fmt: skip
            # The nearest of each kind, at its last point in the order by kind; the others of the kind not at all.
            by_order = jnp.take_along_axis(kind, own_order, -1)
            nearest = _least_of_each(jnp.take_along_axis(squared, own_order, -1), by_order)
            places, approximate, beyond = rows.candidates(b, t, nearest, 0, k + MARGIN)
            candidates = jnp.take_along_axis(own_order, places, -1)
            # What is measured of a kind holds for all points of it that may be neighbours.
            same = jnp.take_along_axis(kind, candidates, -1)[:, :, None] == kind[:, None]
            same &= jnp.isfinite(approximate)[..., None]  # once each
            high, low = rows.exact(b, t, candidates)
            high = jnp.min(jnp.where(same, high[..., None], jnp.inf), 1)
            low = jnp.sum(jnp.where(same, low[..., None], 0), 1)
            return of_everyone(t, squared, high, low), beyond

        return _for_open(open_, table, rows.at_once(k + MARGIN), answer)

    def everyone(table, open_):
        def answer(b, t):
            squared = rows.squared(b, t)
            candidates, _, beyond = rows.candidates(b, t, squared, 0, points)
            return of_everyone(t, squared, *rows.exact(b, t, candidates)), beyond

        return _for_open(open_, table, rows.at_once(points), answer)

    def of_everyone(t, squared, high, low):
        high = jnp.where(jnp.isfinite(squared), high, jnp.inf)
        candidates = jnp.broadcast_to(jnp.arange(points), squared.shape)
        return entry(start + t, Tied(candidates, *_tie_sets(high, low, k, hidden.shape[-1])))

    def further(table, open_):
        if k + MARGIN < points:
            table, open_ = by_kind(table, open_)
        return everyone(table, open_)[0]

    def first(table, open_):
        table, open_ = near(table, open_)
        return lax.cond(jnp.any(open_), further, lambda table, _: table, table, open_)

    return lax.cond(jnp.any(open_), first, lambda table, _: table, table, open_)


class _Rows(NamedTuple):
    """Targets, looked up by slice b [R] and place t [R] (beyond the end: the last one, for rows that nobody reads)."""

    hidden: Float[Array, "B N d"]
    distances: Distances
    last: Float[Array, "B T"]
    start: int | Array

    def squared(self, b, t):
        return neighbours.rows(self.distances, b, t)

    def at_once(self, compared: int) -> int:
        batch, targets = self.distances.norms.shape
        return int(np.clip(EXACT_ELEMENTS // (compared * self.hidden.shape[-1]), 1, min(ROWS, batch * targets)))

    def candidates(self, b, t, squared, sure: int, count: int):
        """The `count` nearest by approximate distances `squared` [R, N], those, and whether they may not be enough.

        Not enough: one beyond the candidates may be among the k, or one of the `sure` nearest may not be.
        """
        points = squared.shape[-1]
        last = self.last.at[b, t].get(mode="clip")
        margin = neighbours.window(self.distances, self.last).at[b, t].get(mode="clip")
        beyond = jnp.zeros(len(squared), bool)
        if count < points:
            # Without barriers XLA:CPU merges the slices below into a full sort. One barrier for both would be handed
            # the pair itself, at which XLA's partitioner for several devices ends the process.
            approximate, candidates = map(lax.optimization_barrier, lax.top_k(-squared, count))
            approximate = -approximate
            beyond = approximate[:, -1] <= last + margin
        elif sure:
            candidates = jnp.argsort(squared, -1)
            approximate = jnp.take_along_axis(squared, candidates, -1)
        else:
            candidates, approximate = jnp.broadcast_to(jnp.arange(points), squared.shape), squared
        if sure:
            beyond |= approximate[:, sure - 1] >= last - margin
        return candidates, approximate, beyond

    def exact(self, b, t, candidates):
        """Float-float squared distances (high, low), [R, C] each, of the targets to their candidates."""
        scale = self.distances.scale.at[b].get(mode="clip")

        def scaled(point):
            return neighbours.rescale(self.hidden.at[b, point].get(mode="clip"), scale)

        target = scaled(self.start + t)
        at_once = max(EXACT_ELEMENTS // (len(candidates) * self.hidden.shape[-1]), 1)
        high, low = lax.map(
            lambda one: float_float.squared_distance(target, scaled(one)),
            candidates.T,
            batch_size=min(at_once, candidates.shape[-1]),
        )
        return high.T, low.T


def _for_open(open_, table, rows: int, answer):
    """Fills the entries of the open targets from `answer(b, t) -> (entries [R, ...], unsettled [R])`, some at a time.

    Returns the table and the targets that are still open.
    """
    targets = open_.shape[1]
    order = jnp.cumsum(open_.reshape(-1))

    def some(carry):
        step, table, still_open = carry
        b, t = jnp.divmod(jnp.searchsorted(order, step * rows + 1 + jnp.arange(rows)), targets)
        entries, unsettled = answer(b, t)
        # Every target looks its own answer up: on a CPU a scatter runs row by row.
        slot = order.reshape(open_.shape) - 1 - step * rows
        answered, slot = open_ & (slot >= 0) & (slot < rows), jnp.clip(slot, 0, rows - 1)
        chosen = answered.reshape(answered.shape + (1,) * (table.ndim - 2))
        table = jnp.where(chosen, entries.astype(table.dtype)[slot], table)
        return step + 1, table, jnp.where(answered, unsettled[slot], still_open)

    _, table, open_ = lax.while_loop(lambda c: c[0] * rows < order[-1], some, (0, table, open_))
    return table, open_


def _least_of_each(values, kinds):
    """[R, N] values whose kinds stand together: at the last of each kind the least of it, infinite elsewhere."""

    def least(first, second):
        (kind, value), (other_kind, other) = first, second
        return other_kind, jnp.where(kind == other_kind, jnp.minimum(value, other), other)

    _, running = lax.associative_scan(least, (kinds, values), axis=1)
    last = jnp.pad(kinds[:, 1:] != kinds[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    return jnp.where(last, running, jnp.inf)


def _tie_sets(high, low, k: int, width: int):
    """(inside, boundary) of exact distances [R, C]: nearer than the k-th smallest, and not told apart from it."""
    sorted_high, sorted_low = lax.sort((high, low), num_keys=2)
    kth_high, kth_low = sorted_high[:, k - 1 : k], sorted_low[:, k - 1 : k]
    beyond = (high - kth_high) + (low - kth_low)
    tolerance = float_float.resolution(high.dtype, width) * kth_high
    return beyond < -tolerance, jnp.abs(beyond) <= tolerance


def _kinds(hidden):
    """[B, N]: the first point that each point is an exact duplicate of, itself where there is none before it.

    Duplicates are found by a hash of the bits and checked against the first point that has it.
    """
    as_integer = jnp.uint64 if hidden.dtype == jnp.float64 else jnp.uint32
    bits = lax.bitcast_convert_type(hidden + 0.0, as_integer)
    odd = np.arange(hidden.shape[-1], dtype=np.uint64) * np.uint64(2654435769) | np.uint64(1)
    code = jnp.sum((bits ^ (bits >> 15)) * odd.astype(np.dtype(as_integer)), -1, dtype=as_integer)
    first = jnp.argmax(code[:, :, None] == code[:, None, :], -1)
    checked = jnp.all(jnp.take_along_axis(hidden, first[..., None], 1) == hidden, -1)
    return jnp.where(checked, first, jnp.arange(hidden.shape[1]))


def _first_of_kinds(kinds: Int[Array, "B N"], k: int) -> Callable[[Array, Array], Array]:
    """kept(b, squared [R, N]): the distances of rows of slices b [R], infinite for all but the first k points of each
    kind among those whose distance is finite."""
    order = jnp.argsort(kinds, -1, stable=True)
    back = jnp.argsort(order, -1)
    kind_at = jnp.take_along_axis(kinds, order, -1)
    begins = jnp.pad(kind_at[:, 1:] != kind_at[:, :-1], ((0, 0), (1, 0)), constant_values=True)

    def kept(b, squared):
        of_row = lambda a: a.at[b].get(mode="clip")  # noqa: E731
        finite = jnp.isfinite(jnp.take_along_axis(squared, of_row(order), -1)).astype(jnp.int32)
        before = jnp.cumsum(finite, -1) - finite
        earlier = before - lax.cummax(jnp.where(of_row(begins), before, 0), axis=1)
        return jnp.where(jnp.take_along_axis(earlier, of_row(back), -1) < k, squared, jnp.inf)

    return kept
