"""The two parts of a block that families share: attention over heads with rotary positions, and the gated feed-forward
part. To be called inside a block's `nn.compact`, so that their projections are the block's own parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxconcepts.models import layers, residual
from jaxconcepts.models.decoder import Context, Written

Split = Callable[[Float[Array, "B T f"]], Sequence[Float[Array, "B T H e"]]]
Norm = Callable[..., nn.Module]


def self_attention(
    config,
    x: Float[Array, "B T d"],
    context: Context,
    head_edits: residual.HeadEdits | None,
    *,
    fused: Split | None = None,
    bias: bool = False,
    out_bias: bool = False,
    norm_each: Norm | None = None,
    norm_all: Norm | None = None,
    clip: float | None = None,
    scale: float | None = None,
    cap: float | None = None,
) -> tuple[Float[Array, "B P d"], Written]:
    """What attention over x would add to the stream, at the tokens that the context asks for.

    config: heads, kv_heads, head_dim, width, dtype, and frequencies() and amplitude of rotary positions, which the
        context's count before.
    fused: one projection "attn_qkv" in place of "q", "k" and "v", and how its output is split into the three.
    bias, out_bias: of the projections into the heads, and out of them.
    norm_each, norm_all: the norm of queries and keys (named "q_norm" and "k_norm"), of each head or over all of them.
    clip: queries, keys and values are clipped to [-clip, clip]. scale: of the scores, None for head_dim ** -0.5.
    cap: the scores' soft-cap.
    """
    c, asked = config, context.asked
    dense = partial(layers.Dense, dtype=c.dtype)
    if fused is not None:
        width = (c.heads + 2 * c.kv_heads) * c.head_dim
        q, k, v = fused(dense(width, use_bias=bias, name="attn_qkv")(x))
        q = asked(q)
    else:
        split = lambda x: x.reshape(*x.shape[:2], -1, c.head_dim)  # noqa: E731

        def project(x, heads, name):
            projected = dense(heads * c.head_dim, use_bias=bias, name=name)(x)
            if norm_all is not None and name != "v":
                projected = norm_all(name=f"{name}_norm")(projected)
            return split(projected if clip is None else jnp.clip(projected, -clip, clip))

        q, k, v = project(asked(x), c.heads, "q"), project(x, c.kv_heads, "k"), project(x, c.kv_heads, "v")
    if norm_each is not None:
        q, k = norm_each(name="q_norm")(q), norm_each(name="k_norm")(k)
    frequencies = c.frequencies() if context.frequencies is None else context.frequencies
    amplitude = c.amplitude if context.amplitude is None else context.amplitude
    amplitude = () if isinstance(amplitude, float) and amplitude == 1 else (amplitude,)
    q = layers.rope(q, asked(context.positions), frequencies, *amplitude)
    k = layers.rope(k, context.positions, frequencies, *amplitude)
    heads = layers.attend(q, k, v, context, c.head_dim**-0.5 if scale is None else scale, cap)
    heads = residual.edit_heads(heads, head_edits)
    return dense(c.width, use_bias=out_bias, name="out")(layers.merge_heads(heads)), Written((k, v), heads)


def gated_mlp(
    config, x: Float[Array, "B P d"], activation: Callable[[Array], Array], fused: bool = False
) -> Float[Array, "B P d"]:
    """down(activation(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202); fused: gate and up are one projection
    "gate_up", side by side."""
    dense = partial(layers.Dense, dtype=config.dtype, use_bias=False)
    if fused:
        gate, up = jnp.split(dense(2 * config.mlp_width, name="gate_up")(x), 2, axis=-1)
    else:
        gate, up = dense(config.mlp_width, name="gate")(x), dense(config.mlp_width, name="up")(x)
    return dense(config.width, name="down")(activation(gate) * up)
