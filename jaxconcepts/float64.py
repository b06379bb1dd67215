"""float64 inside programs that are float32 otherwise, for sums whose squares or differences need the digits."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.custom_batching
import jax.numpy as jnp


def in_double(function: Callable, hidden, *arrays):
    """`function(hidden, *arrays)` with the states in float64, also inside jit; the answer in 32 bits.

    For what squares or cancels: one massive dimension leaves float32 no digits of the others. hidden: an array or
    several. Accelerators without float64 emulate it.
    """
    leaves, tree = jax.tree.flatten((hidden, arrays))

    def narrowed(*leaves):
        hidden, arrays = jax.tree.unflatten(tree, leaves)
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda states: jnp.asarray(states).astype(jnp.float64), hidden)
            return jax.tree.map(narrow, function(wide, *map(jnp.asarray, arrays)))

    return double_inside(narrowed)(*leaves)


def double_inside(function: Callable) -> Callable:
    """`function` of arrays that uses float64 inside, so that `vmap` may batch it outside: batched where float64 is on.

    JAX batches what is compiled after the function has returned, and float64 is off again by then.
    """
    batched = jax.custom_batching.custom_vmap(function)

    @batched.def_vmap
    def _(axis_size, in_batched, *arrays):
        axes = [0 if is_batched else None for is_batched in in_batched]
        out = double_inside(jax.vmap(function, axes, axis_size=axis_size))(*arrays)
        return out, jax.tree.map(lambda _: True, out)

    def call(*arrays):
        # Outside jit the function runs as it is.
        return (batched if any(isinstance(array, jax.core.Tracer) for array in arrays) else function)(*arrays)

    return call


def narrow(out):
    """The answer in 32 bits, as without float64; truth values stay."""
    if out.dtype == bool:
        return out
    return out.astype(jnp.int32 if jnp.issubdtype(out.dtype, jnp.integer) else jnp.float32)
