"""Functions of distances over many slices and points, as much at once as a memory allows."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxconcepts.metrics import host_neighbours, neighbours


def by_targets(function, like, hidden, memory, group, count):
    """`function(states [B, N, d], distances of T targets, the first one's index) -> [B, T, ...]` over all points.

    As many targets at once as the memory allows; of many points on a CPU all, by the `count` nearest of each. like:
    [N, ...], an answer for one slice.
    """
    if hidden.shape[-2] < host_neighbours.MIN_POINTS or hidden.dtype != jnp.float32:
        return _on_device(function, like, hidden, memory, group)

    def on_host(hidden):
        of_slice = lambda states: function(states[None], neighbours.listed(states[None], count, group), 0)[0]  # noqa: E731
        made = lax.map(of_slice, hidden.reshape(-1, *hidden.shape[-2:]))
        return made.reshape(*hidden.shape[:-2], *made.shape[1:])

    on_device = partial(_on_device, function, like, memory=memory, group=group)
    return lax.platform_dependent(hidden, cpu=on_host, default=on_device)


def _on_device(function, like, hidden, memory, group):
    points = hidden.shape[-2]
    at_once = max(min(points, memory // (points * hidden.dtype.itemsize)), 1)

    def over(states):
        if at_once == points:
            return function(states, neighbours.all_distances(states, group), 0)
        centred = neighbours.centre(states)

        def some(step, table):
            start = jnp.minimum(step * at_once, points - at_once)
            part = function(states, neighbours.some_distances(centred, start, at_once, group), start)
            return lax.dynamic_update_slice_in_dim(table, part, start, 1)

        empty = jnp.zeros((states.shape[0], *like.shape), like.dtype)
        return lax.fori_loop(0, -(-points // at_once), some, empty)

    return by_slabs(over, hidden, memory)


def by_slabs(function, hidden, memory):
    """`function([B, N, d]) -> [B, ...]` over all leading axes, as many slices at once as the memory allows."""
    flat = hidden.reshape(-1, *hidden.shape[-2:])
    slices, points = flat.shape[:2]
    at_once = int(np.clip(memory // (points**2 * flat.dtype.itemsize), 1, slices))
    steps = -(-slices // at_once)
    if steps == 1:
        out = function(flat)
    elif at_once == 1:
        out = lax.map(lambda one: function(one[None])[0], flat)
    else:
        # The last slab overlaps the one before it instead of being padded.
        starts = jnp.minimum(jnp.arange(steps) * at_once, slices - at_once)
        slabs = lax.map(lambda start: function(lax.dynamic_slice_in_dim(flat, start, at_once)), starts)
        whole = slabs[:-1].reshape(-1, *slabs.shape[2:])
        out = jnp.concatenate([whole, slabs[-1, steps * at_once - slices :]])
    return out.reshape(*hidden.shape[:-2], *out.shape[1:])
