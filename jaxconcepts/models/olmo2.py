"""OLMo 2 (OLMo Team 2025): norms after attention and feed-forward, not before, and on all queries and keys at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import flax.linen as nn

from jaxconcepts.models import decoder, hf_config, layers, llama, residual

BLOCK = "model.layers.{}."


@dataclass(frozen=True)
class Olmo2Config(decoder.Decoder):
    """OLMo-2-7B by default; fields as in `llama.LlamaConfig`."""

    vocab_size: int = 100352
    width: int = 4096
    layers: int = 32
    heads: int = 32
    kv_heads: int = 32
    head_dim: int = 128
    mlp_width: int = 11008
    context: int = 4096
    rope_theta: float = 500000.0
    eps: float = 1e-6
    tied: bool = False
    dtype: str = "float32"
    stop_tokens: tuple[int, ...] = ()

    MODEL_TYPE = "olmo2"
    CHECKPOINT = {
        **{path: name for path, name in llama.LlamaConfig.CHECKPOINT.items() if path != "blocks/attn_norm/scale"},
        "blocks/q_norm/scale": BLOCK + "self_attn.q_norm.weight",
        "blocks/k_norm/scale": BLOCK + "self_attn.k_norm.weight",
        "blocks/attn_norm/scale": BLOCK + "post_attention_layernorm.weight",
        "blocks/mlp_norm/scale": BLOCK + "post_feedforward_layernorm.weight",
    }
    BUFFERS = llama.LlamaConfig.BUFFERS

    def __post_init__(self):
        decoder.check_sizes(self, tuple(hf_config.SIZES))

    def block(self):
        return Block(self)

    def final_norm(self):
        return layers.RMSNorm(self.eps)

    @classmethod
    def from_hf(cls, fields):
        shared = fields.llama_like()
        return cls(**shared, eps=fields.number("rms_norm_eps", 1e-5))

    def to_hf(self):
        return hf_config.llama_like(self, "Olmo2ForCausalLM") | {"rms_norm_eps": self.eps}


class Block(nn.Module):
    """x + norm(attention(x)), then x + norm(mlp(x))."""

    config: Olmo2Config

    @nn.compact
    def __call__(self, stream, context: decoder.Context, head_edits=None):
        c, asked = self.config, context.asked
        dense, norm = partial(layers.Dense, dtype=c.dtype, use_bias=False), partial(layers.RMSNorm, c.eps)
        frequencies = layers.inverse_frequencies(c.rope_theta, c.head_dim)
        rope = partial(layers.rope, frequencies=frequencies)
        split = lambda x: x.reshape(*x.shape[:2], -1, c.head_dim)  # noqa: E731
        # The queries of all heads are normalised together, before they are split; so are the keys.
        q = split(norm(name="q_norm")(dense(c.heads * c.head_dim, name="q")(asked(stream))))
        k = split(norm(name="k_norm")(dense(c.kv_heads * c.head_dim, name="k")(stream)))
        q, k = rope(q, asked(context.positions)), rope(k, context.positions)
        v = split(dense(c.kv_heads * c.head_dim, name="v")(stream))
        heads = residual.edit_heads(layers.attend(q, k, v, context, c.head_dim**-0.5), head_edits)
        attended = dense(c.width, name="out")(layers.merge_heads(heads))
        stream = asked(stream) + norm(name="attn_norm")(attended)
        gated = nn.silu(dense(c.mlp_width, name="gate")(stream)) * dense(c.mlp_width, name="up")(stream)
        return stream + norm(name="mlp_norm")(dense(c.width, name="down")(gated)), decoder.Written(k, v, heads)
