"""Building blocks that architectures share: matrix products, norms and attention with their precision settled.

`dtype` is the type of matrix products only; norms, softmax and rotations are computed in float32 whatever it is.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxconcepts.models.decoder import Context


class LowRank(NamedTuple):
    """What is added to a kernel W: x @ W becomes x @ W + scale * dropout(x) @ a @ b (LoRA; Hu et al. 2021).

    The sum W + scale * a @ b is never formed, so that many adapters share one W in memory. Of the stacked blocks every
    part has a leading layer axis.

    a: [inputs, r]. b: [r, features]. scale: [] (alpha / r, or 0 where the block has no adapter).
    key: of the dropout, [], or None for none; rate: [] the share of x's entries that are set to 0, the others being
        divided by 1 - rate.
    """

    a: Float[Array, "inputs r"]
    b: Float[Array, "r features"]
    scale: Float[Array, ""]
    key: Key[Array, ""] | None = None
    rate: Float[Array, ""] | None = None


class Dense(nn.Module):
    """x @ kernel + bias with kernel [inputs, features], the product in `dtype`, leading axes of x merged.

    Where the parameters hold a `LowRank` under "low_rank" beside the kernel, it is added.

    XLA:CPU computes the weight gradient of a three-dimensional activation two to four times slower than of its
    two-dimensional reshape, so the axes are merged here.
    """

    features: int
    dtype: str = "float32"
    use_bias: bool = True
    stddev: float = 0.02

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch features"]:
        kernel = self.param("kernel", nn.initializers.normal(self.stddev), (x.shape[-1], self.features))
        flat = x.reshape(-1, x.shape[-1]).astype(self.dtype)
        y = product(flat, kernel.astype(self.dtype))
        if (low_rank := self.get_variable("params", "low_rank")) is not None:
            y = y + low_rank_product(flat, low_rank)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y.reshape(*x.shape[:-1], self.features)


def product(x: Float[Array, "N inputs"], kernel: Float[Array, "inputs features"]) -> Float[Array, "N features"]:
    """x @ kernel in their type, which is also that of its gradients.

    On a CPU, bfloat16 products are asked for in float32 and rounded after. XLA:CPU has fast ones of that kind alone:
    281 to 390 GFLOP/s for 107 to 160, on two cores with AVX-512 BF16. Both ways a float32 sum is rounded once.
    """
    if x.dtype != jnp.bfloat16:
        return x @ kernel
    return jax.lax.platform_dependent(x, kernel, cpu=_rounded, default=jnp.matmul)


@jax.custom_vjp
def _rounded(x, kernel):
    return jnp.matmul(x, kernel, preferred_element_type=jnp.float32).astype(x.dtype)


def _rounded_gradients(factors, gradient):
    x, kernel = factors
    return _rounded(gradient, kernel.T), _rounded(x.T, gradient)


_rounded.defvjp(lambda x, kernel: (_rounded(x, kernel), (x, kernel)), _rounded_gradients)


def low_rank_product(x: Float[Array, "N inputs"], low_rank: LowRank) -> Float[Array, "N features"]:
    """scale * dropout(x) @ a @ b in x's type; see `LowRank`."""
    a, b, scale, key, rate = low_rank
    if key is not None:
        kept = jax.random.bernoulli(key, 1 - rate, x.shape)
        x = jnp.where(kept, x / (1 - rate).astype(x.dtype), 0)
    return (x @ a.astype(x.dtype)) @ b.astype(x.dtype) * scale.astype(x.dtype)


class LayerNorm(nn.Module):
    """Layer norm over the last axis in float32, with the biased variance as in PyTorch."""

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + self.eps) * scale + bias


class PlainLayerNorm(nn.Module):
    """Layer norm without parameters (OLMo)."""

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        centred = x.astype(jnp.float32) - x.astype(jnp.float32).mean(-1, keepdims=True)
        return rms_normalise(centred, self.eps).astype(x.dtype)


class RMSNorm(nn.Module):
    """x / rms(x) times a scale kept as scale - offset (offset 1 for Gemma, whose checkpoints hold scale - 1)."""

    eps: float = 1e-6
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        scale = self.param("scale", nn.initializers.constant(1 - self.offset), (x.shape[-1],))
        return (rms_normalise(x, self.eps) * (self.offset + scale.astype(jnp.float32))).astype(x.dtype)


def rms_normalise(x: Float[Array, "*batch d"], eps: float) -> Float[Array, "*batch d"]:
    """x / sqrt(mean(x^2) + eps) over the last axis, in float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps)


def inverse_frequencies(theta: float, head_dim: int) -> Float[np.ndarray, " half"]:
    """theta^(-2i / head_dim) for i < head_dim / 2, radians a token (Su et al. 2021), in float32 as in training."""
    return np.float32(1) / np.float32(theta) ** (np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim))


def rope(
    x: Float[Array, "B T H e"], positions: Int[Array, "#B T"], frequencies, amplitude=None
) -> Float[Array, "B T H e"]:
    """Rotates the pairs (x_i, x_(i + r/2)) of the first r = 2 * len(frequencies) dimensions by position * frequency_i,
    in float32; the others stay as they are. amplitude: what the pairs are multiplied by, None for 1."""
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if amplitude is not None:
        cos, sin = cos * amplitude, sin * amplitude
    turned = 2 * frequencies.shape[-1]
    left, right = jnp.split(x[..., :turned].astype(jnp.float32), 2, axis=-1)
    pairs = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(x.dtype)
    return pairs if turned == x.shape[-1] else jnp.concatenate([pairs, x[..., turned:]], axis=-1)


def soft_cap(x: Float[Array, "*any"], cap: float | None) -> Float[Array, "*any"]:
    """cap * tanh(x / cap): keeps x within (-cap, cap). None leaves it as it is."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def attend(
    q: Float[Array, "B P H e"],
    k: Float[Array, "B T K e"],
    v: Float[Array, "B T K f"],
    context: Context | None,
    scale: float,
    cap: float | None = None,
) -> Float[Array, "B P H f"]:
    """Causal attention over the new tokens and the context's past, if any; H / K query heads share a key head.

    q: of the tokens that the context asks for (all T unless it has `queries`).

    context None means positions 0, 1, ... with no past and no window. Scores and softmax are float32.
    """
    batch, length, heads, head_dim = q.shape
    if context is None:
        causal = jnp.tril(jnp.ones((length, length), bool))
        return attention(q, k, v, causal, scale)
    if context.attention != "xla" and context.past is None and context.queries is None:
        return fused_attention(q, k, v, scale, context.attention)
    here, window = context.asked(context.positions)[:, :, None], context.window
    pairs = [(k, v, context.seen(), context.positions[:, None, :])]
    if context.past is not None:
        slots = jnp.arange(context.past[0].shape[1])[None, None]
        pairs.insert(0, (*context.past, slots < context.positions[:, :1, None], slots))
    # The queries that share a key head as rows of one product: other orders would have the scores transposed, which are
    # the largest arrays here.
    rows = q.reshape(batch, length, k.shape[2], -1, head_dim).transpose(0, 2, 3, 1, 4)
    groups = rows.shape[:4]
    rows = rows.reshape(batch, k.shape[2], -1, head_dim)
    scores = []
    for keys, _, seen, there in pairs:
        seen = seen if window is None else seen & (here - there < window)
        score = jnp.einsum("bkne,bske->bkns", rows, keys, preferred_element_type=jnp.float32) * scale
        score = soft_cap(score.reshape(*groups, -1), cap)
        scores.append(jnp.where(seen[:, None, None], score, jnp.finfo(jnp.float32).min))
    # One softmax over past and new scores, so that the past's keys and values are never copied.
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(v.dtype)
    weights = jnp.split(weights.reshape(*rows.shape[:3], -1), [pairs[0][0].shape[1]], axis=-1)
    sums = [weighted_sum("bkns,bske->bkne", w, pair[1]) for w, pair in zip(weights, pairs, strict=False)]
    return sum(sums).reshape(*groups, head_dim).transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, head_dim)


def weighted_sum(subscripts: str, weights: Float[Array, "*any"], v: Float[Array, "*values"]) -> Float[Array, "*sums"]:
    """jnp.einsum of both in their type; of bfloat16 on a CPU as in `product` (143 for 45 GFLOP/s)."""
    plain = partial(jnp.einsum, subscripts)
    if v.dtype != jnp.bfloat16:
        return plain(weights, v)
    rounded = lambda weights, v: plain(weights, v, preferred_element_type=jnp.float32).astype(v.dtype)  # noqa: E731
    return jax.lax.platform_dependent(weights, v, cpu=rounded, default=plain)


def fused_attention(
    q: Float[Array, "B T H e"],
    k: Float[Array, "B T K e"],
    v: Float[Array, "B T K e"],
    scale: float,
    implementation: str,
    window: int | None = None,
) -> Float[Array, "B T H e"]:
    """What `attend` computes at positions 0, 1, ... with no past and no soft-cap, by JAX's own function, which runs it
    as one kernel where `implementation` is "cudnn" (and as plain products where it is "xla")."""
    look_back = None if window is None else (window - 1, 0)
    return jax.nn.dot_product_attention(
        q, k, v, scale=scale, is_causal=True, local_window_size=look_back, implementation=implementation
    )


def merge_heads(heads: Float[Array, "B T H e"]) -> Float[Array, "B T He"]:
    """The heads side by side."""
    return heads.reshape(*heads.shape[:2], -1)


def attention(
    q: Float[Array, "B T H e"],
    k: Float[Array, "B S H e"],
    v: Float[Array, "B S H f"],
    mask: Bool[Array, "... T S"],
    scale: float,
) -> Float[Array, "B T H f"]:
    """Plain attention: softmax(scale * q k^T) v where `mask` (as [B, H, T, S]) is true, softmax in float32."""
    scores = jnp.einsum("bthe,bshe->bhts", q, k, preferred_element_type=jnp.float32) * scale
    weights = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(jnp.float32).min), axis=-1)
    return weighted_sum("bhts,bshe->bthe", weights.astype(v.dtype), v)
