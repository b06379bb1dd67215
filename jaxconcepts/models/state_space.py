"""The parts of a state-space block: a short convolution, a selective recurrence in chunks, a gated norm by groups.

Shape letters: B batch, T tokens, H heads of the state space, p a head's width, n the state's size, G groups, c channels
of the convolution (H * p + 2 * G * n), k its taps less one.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxconcepts.models import layers


class Convolution(nn.Module):
    """silu of a causal convolution of each channel over its last `taps` tokens; and the inputs that the next need."""

    taps: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T c"], past: Float[Array, "B k c"] | None, lengths
    ) -> tuple[Float[Array, "B T c"], Float[Array, "B k c"]]:
        weight = self.param("weight", nn.initializers.normal(0.2), (x.shape[-1], 1, self.taps)).astype(jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],)).astype(jnp.float32)
        batch, length, channels = x.shape
        past = jnp.zeros((batch, self.taps - 1, channels), x.dtype) if past is None else past
        seen = jnp.concatenate([past, x], axis=1)
        out = sum(seen[:, tap : tap + length] * weight[:, 0, tap] for tap in range(self.taps)) + bias
        last = jnp.full((batch,), length) if lengths is None else lengths
        places = last[:, None] + jnp.arange(self.taps - 1)
        return nn.silu(out), jnp.take_along_axis(seen, places[..., None], axis=1)


class GroupNorm(nn.Module):
    """Root mean square norm of each of `groups` parts of the last axis, with one scale for all."""

    groups: int
    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "B T f"]) -> Float[Array, "B T f"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],)).astype(jnp.float32)
        parts = layers.rms_normalise(x.reshape(*x.shape[:-1], self.groups, -1), self.eps)
        return parts.reshape(x.shape) * scale


def scan_chunks(
    x: Float[Array, "B T H p"],
    step: Float[Array, "B T H"],
    decay: Float[Array, " H"],
    write: Float[Array, "B T G n"],
    read: Float[Array, "B T G n"],
    state: Float[Array, "B H p n"] | None,
    chunk: int,
) -> tuple[Float[Array, "B T H p"], Float[Array, "B H p n"]]:
    """y_t = S_t read_t with S_t = exp(step_t decay) S_(t-1) + step_t x_t write_t^T, and the last S.

    Within a chunk as products of matrices, from chunk to chunk by the state (section 6 of the paper); chunk 1 is the
    recurrence itself. state: S before the first token, None for 0.
    """
    batch, length, heads, width = x.shape
    chunk = min(chunk, length)
    share = heads // write.shape[2]
    rest = -length % chunk
    # Padding takes steps of 0.
    parts = [jnp.pad(a, [(0, 0), (0, rest)] + [(0, 0)] * (a.ndim - 2)) for a in (x, step, write, read)]
    parts = [a.reshape(batch, -1, chunk, *a.shape[2:]).swapaxes(0, 1) for a in parts]
    if state is None:
        state = jnp.zeros((batch, heads, width, write.shape[-1]), x.dtype)
    earlier = jnp.tril(jnp.ones((chunk, chunk), bool))

    def one(state, part):
        x, step, write, read = part
        write, read = (jnp.repeat(a, share, axis=2) for a in (write, read))
        total = jnp.cumsum(step * decay, axis=1)
        # exp of the decay from token s to token t, where s is not after t.
        between = jnp.where(earlier[..., None], total[:, :, None] - total[:, None], -jnp.inf)
        weights = jnp.einsum("bthn,bshn->btsh", read, write) * jnp.exp(between)
        entering = x * step[..., None]
        y = jnp.einsum("btsh,bshp->bthp", weights, entering)
        y = y + jnp.einsum("bthn,bhpn->bthp", read * jnp.exp(total)[..., None], state)
        left = jnp.exp(total[:, -1:] - total)
        grown = jnp.einsum("bshp,bshn->bhpn", entering * left[..., None], write)
        return state * jnp.exp(total[:, -1])[..., None, None] + grown, y

    state, y = jax.lax.scan(one, state, tuple(parts))
    return y.swapaxes(0, 1).reshape(batch, -1, heads, width)[:, :length], state


def initial_step(key, shape):
    """softplus^-1 of steps from 0.001 to 0.1, evenly in the logarithm."""
    step = jnp.exp(jax.random.uniform(key, shape) * math.log(100) + math.log(0.001))
    return step + jnp.log(-jnp.expm1(-step))


def initial_decay(key, shape):
    """Logarithms of 1, 2, 3, ..., one a head."""
    return jnp.log(jnp.arange(1, shape[0] + 1, dtype=jnp.float32))


def steps(
    raw: Float[Array, "B T H"], limit: tuple[float, float] | None, lengths: Int[Array, " B"] | None
) -> Float[Array, "B T H"]:
    """softplus of the projection, within the limit; 0 past a row's length, which leaves the state as it is."""
    step = jax.nn.softplus(raw)
    step = step if limit is None else jnp.clip(step, *limit)
    return step if lengths is None else step * (jnp.arange(step.shape[1]) < lengths[:, None])[..., None]
