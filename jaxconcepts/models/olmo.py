"""OLMo (Groeneveld et al. 2024): Llama's block with a layer norm that has no parameters, and clipped projections."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn

from jaxconcepts.models import decoder, hf_config, layers, llama, subblocks


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

    amplitude = 1.0
    MODEL_TYPE = "olmo"
    CHECKPOINT = {path: name for path, name in llama.LlamaConfig.CHECKPOINT.items() if "norm" not in path}
    BUFFERS = llama.LlamaConfig.BUFFERS

    def __post_init__(self):
        decoder.check_sizes(self, tuple(hf_config.SIZES))

    def frequencies(self):
        return layers.inverse_frequencies(self.rope_theta, self.head_dim)

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
        c, norm = self.config, layers.PlainLayerNorm
        attended, written = subblocks.self_attention(c, norm()(stream), context, head_edits, clip=c.clip_qkv)
        stream = context.asked(stream) + attended
        return stream + subblocks.gated_mlp(c, norm()(stream), nn.silu), written
