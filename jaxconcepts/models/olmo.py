"""OLMo (Groeneveld et al. 2024): Llama's block with a layer norm that has no parameters, and clipped projections."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxconcepts.models import decoder, hf_config, layers, llama, residual


@dataclass(frozen=True)
class OlmoConfig(decoder.Decoder):
    """OLMo-7B by default. clip_qkv: queries, keys and values are clipped to [-clip, clip]; None leaves them. The rest
    as in `llama.LlamaConfig`."""

    vocab_size: int = 50304
    width: int = 4096
    layers: int = 32
    heads: int = 32
    kv_heads: int = 32
    head_dim: int = 128
    mlp_width: int = 11008
    context: int = 2048
    rope_theta: float = 10000.0
    clip_qkv: float | None = None
    tied: bool = False
    dtype: str = "float32"
    stop_tokens: tuple[int, ...] = ()

    MODEL_TYPE = "olmo"
    CHECKPOINT = {path: name for path, name in llama.LlamaConfig.CHECKPOINT.items() if "norm" not in path}
    BUFFERS = llama.LlamaConfig.BUFFERS

    def __post_init__(self):
        decoder.check_sizes(self, tuple(hf_config.SIZES))

    def block(self):
        return Block(self)

    def final_norm(self):
        return layers.PlainLayerNorm()

    @classmethod
    def from_hf(cls, fields):
        shared = fields.llama_like()
        return cls(**shared, clip_qkv=fields.cap("clip_qkv", None))

    def to_hf(self):
        return hf_config.llama_like(self, "OlmoForCausalLM") | {"clip_qkv": self.clip_qkv}


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the norms have no parameters."""

    config: OlmoConfig

    @nn.compact
    def __call__(self, stream, context: decoder.Context, head_edits=None):
        c, asked = self.config, context.asked
        dense = partial(layers.Dense, dtype=c.dtype, use_bias=False)
        frequencies = layers.inverse_frequencies(c.rope_theta, c.head_dim)
        rope = partial(layers.rope, frequencies=frequencies)
        normed = layers.PlainLayerNorm()(stream)

        def project(normed, heads, name):
            x = dense(heads * c.head_dim, name=name)(normed)
            x = x if c.clip_qkv is None else jnp.clip(x, -c.clip_qkv, c.clip_qkv)
            return x.reshape(*x.shape[:2], heads, c.head_dim)

        q = rope(project(asked(normed), c.heads, "q"), asked(context.positions))
        k, v = rope(project(normed, c.kv_heads, "k"), context.positions), project(normed, c.kv_heads, "v")
        heads = residual.edit_heads(layers.attend(q, k, v, context, c.head_dim**-0.5), head_edits)
        stream = asked(stream) + dense(c.width, name="out")(layers.merge_heads(heads))
        normed = layers.PlainLayerNorm()(stream)
        gated = nn.silu(dense(c.mlp_width, name="gate")(normed)) * dense(c.mlp_width, name="up")(normed)
        return stream + dense(c.width, name="down")(gated), decoder.Written(k, v, heads)
