"""Nearest neighbours of thousands of points on a CPU: NumPy's BLAS for the products, each distance read once.

Half of the distances are made, tile after tile, so that memory does not grow with their number. A threshold for every
point, from the distances to a few hundred others, leaves a few dozen candidates a point; these alone are sorted. Where
a threshold leaves too few, the point's row is made again; where it leaves too many, the tile is partitioned.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

MIN_POINTS = 2048
"""From here on this is faster than what XLA makes of a CPU."""
TILE_ELEMENTS = 10_000_000
PART_ELEMENTS = 400_000
SAMPLED = 512
RANK = 3
"""A point's threshold is the distance of this rank among the sampled ones."""
CROWDED = 8
"""A tile with this many times the candidates that are expected is partitioned."""


def nearest(
    states: Float[Array, "N d"], norms: Float[Array, " N"], count: int, group: Int[Array, " N"] | None = None
) -> tuple[Float[Array, "N count"], Int[Array, "N count"]]:
    """The `count` smallest squared distances of each point to others outside its group, ascending, and whose they are.

    Distances are |a|^2 + |b|^2 - 2 a.b in float32, from `norms`; infinite where a point has too few others. To be
    called inside jit, on a CPU.
    """
    points = states.shape[0]
    shapes = (jax.ShapeDtypeStruct((points, count), np.float32), jax.ShapeDtypeStruct((points, count), np.int32))
    given = (states, norms) if group is None else (states, norms, group)
    return jax.pure_callback(lambda *given: _nearest(count, *given), shapes, *given, vmap_method="sequential")


def _nearest(count: int, states: Any, norms: Any, group: Any = None):
    search = _Search(np.asarray(states), np.asarray(norms), None if group is None else np.asarray(group))
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        found = search.candidates(count, pool, workers)
        return search.smallest(count, *found, pool, workers)


class _Search:
    """Points with the same rounding of each pair's distance wherever it is made but for the product's own."""

    def __init__(self, states, norms, group):
        self.states, self.norms, self.group = states, norms, group
        self.doubled = -2 * states

    def distances(self, rows, columns):
        """[rows, columns], each an array of indices or a slice of the points."""
        each = np.arange(len(self.norms))
        made = self.finish(np.matmul(self.doubled[rows], self.states[columns].T), rows, columns)
        made[each[rows, None] == each[columns]] = np.inf
        return made

    def finish(self, made, rows, columns):
        """Products as distances, but for points to themselves."""
        made += self.norms[columns]
        made += self.norms[rows, None]
        if self.group is not None:
            made[self.group[rows, None] == self.group[columns]] = np.inf
        return made

    def candidates(self, count, pool, workers):
        """Keys, that sort by point and distance, and the other point of each; all that may be among the nearest."""
        points = len(self.norms)
        sampled = np.sort(np.random.default_rng(0).choice(points, min(SAMPLED, points), replace=False))

        def limit(part):
            return np.partition(self.distances(part, sampled), RANK - 1, axis=1)[:, RANK - 1]

        limits = np.concatenate(list(pool.map(limit, _parts(0, points, max(workers, points // 4096)))))
        limits = np.clip(limits, 0, np.finfo(np.float32).max)
        tile = int(np.clip(TILE_ELEMENTS // points, 64, 1024))
        buffer = np.empty(min(tile, points) * points, np.float32)
        keys, others = [], []
        for start in range(0, points, tile):
            stop = min(start + tile, points)
            # To itself and to the points behind it: the other half is the same.
            made = buffer[: (stop - start) * (points - start)].reshape(stop - start, -1)
            np.matmul(self.doubled[start:stop], self.states[start:].T, out=made)
            # In parts that stay in a core's cache.
            parts = _parts(start, stop, max(workers, made.size // PART_ELEMENTS))
            work = [(made, start, part, limits) for part in parts]
            for of_keys, of_others in pool.map(lambda part: self._of_tile(count, *part), work):
                keys += of_keys
                others += of_others
        return np.concatenate(keys), np.concatenate(others)

    def _of_tile(self, count, made, start, rows, limits):
        first, stop = rows.start, start + len(made)
        made = self.finish(made[first - start : rows.stop - start], rows, slice(start, None))
        np.fill_diagonal(made[:, first - start :], np.inf)
        keys, others = [], []

        def keep(point, other, distance):
            keys.append(point.astype(np.uint64) << np.uint64(32) | distance.view(np.uint32))
            others.append(other.astype(np.int32))

        row, column, distance = _below(made, limits[rows, None], count, 1)
        keep(row + first, column + start, distance)
        row, column, distance = _below(made[:, stop - start :], limits[stop:], count, 0)
        keep(column + stop, row + first, distance)
        return keys, others

    def smallest(self, count, keys, others, pool, workers):
        parts = _parts(0, len(self.norms), workers)
        made = pool.map(lambda points: self._smallest_of(count, keys, others, points), parts)
        return tuple(np.concatenate(each) for each in zip(*made, strict=True))

    def _smallest_of(self, count, keys, others, points):
        edges = np.arange(points.start, points.stop + 1).astype(np.uint64) << np.uint64(32)
        inside = (keys >= edges[0]) & (keys < edges[-1])
        keys, others = keys[inside], others[inside]
        order = np.argsort(keys)
        # One more, for points with too few to take instead.
        keys, others = np.append(keys[order], edges[-1]), np.append(others[order], np.int32(0))
        first = np.searchsorted(keys, edges)
        at = first[:-1, None] + np.arange(count)
        values, indices = keys.take(at, mode="clip").astype(np.uint32).view(np.float32), others.take(at, mode="clip")
        few = np.flatnonzero(np.diff(first) < count)
        for part in _parts(0, len(few), -(-len(few) * len(self.norms) // TILE_ELEMENTS)):
            rows = few[part]
            made = np.maximum(self.distances(points.start + rows, slice(None)), 0)
            nearest = np.argpartition(made, count - 1, axis=1)[:, :count]
            of_nearest = np.take_along_axis(made, nearest, 1)
            order = np.argsort(of_nearest, axis=1)
            values[rows], indices[rows] = (np.take_along_axis(a, order, 1) for a in (of_nearest, nearest))
        return values, indices


def _below(made, limits, count, axis):
    """(rows, columns, distances) of the entries not above the limits; or the `count` smallest along the axis, where
    these are too many."""
    below = np.flatnonzero(made <= limits)
    if len(below) > CROWDED * (RANK * made.size // SAMPLED + count * made.shape[1 - axis]):
        size = min(count, made.shape[axis])
        nearest = np.argpartition(made, size - 1, axis=axis)
        nearest = nearest[:, :size] if axis == 1 else nearest[:size]
        beside = np.arange(made.shape[1 - axis])
        rows, columns = (beside[:, None], nearest) if axis == 1 else (nearest, beside)
        below = (rows * made.shape[1] + columns).reshape(-1)
    rows, columns = np.divmod(below, made.shape[1])
    # Not below zero, nor its negative: so they sort by their bits.
    return rows, columns, np.maximum(made[rows, columns], 0) + np.float32(0)


def _parts(start, stop, number):
    """The range as slices of about the same length."""
    edges = np.linspace(start, stop, max(number, 1) + 1).astype(int)
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False) if b > a]
