"""OLMo 2 (OLMo Team 2025): norms after attention and feed-forward, not before, and on all queries and keys at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import flax.linen as nn

from jaxconcepts.models import decoder, hf_config, layers, llama, subblocks

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

    amplitude = 1.0
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

    def frequencies(self):
        return layers.inverse_frequencies(self.rope_theta, self.head_dim)

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
        c, norm = self.config, partial(layers.RMSNorm, self.config.eps)
        # The queries of all heads are normalised together, before they are split; so are the keys.
        attended, written = subblocks.self_attention(c, stream, context, head_edits, norm_all=norm)
        stream = context.asked(stream) + norm(name="attn_norm")(attended)
        return stream + norm(name="mlp_norm")(subblocks.gated_mlp(c, stream, nn.silu)), written
