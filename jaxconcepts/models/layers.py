"""Building blocks that architectures share: matrix products, norms and attention with their precision settled.

Master weights are float32. `dtype` is the type of matrix products only; norms and softmax are computed in float32.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Dense(nn.Module):
    """x @ kernel + bias with kernel [inputs, features], the product in `dtype`, leading axes of x merged.

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
        y = x.reshape(-1, x.shape[-1]).astype(self.dtype) @ kernel.astype(self.dtype)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y.reshape(*x.shape[:-1], self.features)


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


def rms_normalise(x: Float[Array, "*batch d"], eps: float) -> Float[Array, "*batch d"]:
    """x / sqrt(mean(x^2) + eps) over the last axis, in float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps)


def attention(
    q: Float[Array, "B T H e"],
    k: Float[Array, "B S H e"],
    v: Float[Array, "B S H e"],
    mask: Bool[Array, "... T S"],
    scale: float,
) -> Float[Array, "B T H e"]:
    """Plain attention: softmax(scale * q k^T) v where `mask` (as [B, H, T, S]) is true, softmax in float32."""
    scores = jnp.einsum("bthe,bshe->bhts", q, k, preferred_element_type=jnp.float32) * scale
    weights = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(jnp.float32).min), axis=-1)
    return jnp.einsum("bhts,bshe->bthe", weights.astype(v.dtype), v)
