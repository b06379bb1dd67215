"""Phi-3, Phi-3.5 and Phi-4 (Abdin et al. 2024, arXiv 2404.14219): Llama's block with fused projections; a part of each
head may be turned by rotary positions, LongRoPE takes the context to 128k tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxconcepts.models import decoder, layers, llama, mistral, rotary, subblocks

BLOCK = "model.layers.{}."
FUSED = {
    "blocks/attn_qkv/kernel": BLOCK + "self_attn.qkv_proj.weight",
    "blocks/gate_up/kernel": BLOCK + "mlp.gate_up_proj.weight",
}
APART = ("blocks/q/", "blocks/k/", "blocks/v/", "blocks/gate/", "blocks/up/")


@dataclass(frozen=True)
class Phi3Config(mistral.MistralConfig):
    """Phi-3-mini-4k by default. rotary_share: of each head's dimensions, the part that is turned. The rest as in
    `mistral.MistralConfig`."""

    vocab_size: int = 32064
    width: int = 3072
    kv_heads: int = 32
    head_dim: int = 96
    mlp_width: int = 8192
    context: int = 4096
    rope_scaling: rotary.Scaling | None = None
    window: int | None = 2047
    rotary_share: float = 1.0

    MODEL_TYPE = "phi3"
    CHECKPOINT = FUSED | {
        path: name for path, name in llama.LlamaConfig.CHECKPOINT.items() if not path.startswith(APART)
    }
    ROLES = ((r"blocks/(attn_qkv|gate_up)/kernel", decoder.Role.READS), *decoder.ROLES)
    ADAPTED = ("attn_qkv",)

    def block(self):
        return Block(self)

    def frequencies(self):
        return rotary.frequencies(self.rope_theta, int(self.head_dim * self.rotary_share), self.rope_scaling)

    @classmethod
    def from_hf(cls, fields):
        sizes = fields.sizes()
        fields.only("hidden_act", "silu")
        fields.only("attention_bias", False)
        turned = fields.turned(sizes["head_dim"], 1.0)
        theta, scaling = fields.rope(("default", "longrope"), 10000.0, sizes["context"], turned, original=4096)
        return cls(
            **sizes,
            rope_theta=theta,
            rope_scaling=scaling,
            rotary_share=turned / sizes["head_dim"],
            window=fields.window(None),
            eps=fields.number("rms_norm_eps", 1e-5),
            tied=fields.flag("tie_word_embeddings", False),
        )

    def to_hf(self):
        written = super().to_hf() | {"architectures": ["Phi3ForCausalLM"]}
        written["rope_parameters"]["partial_rotary_factor"] = self.rotary_share
        if self.rope_scaling is not None:
            written["original_max_position_embeddings"] = self.rope_scaling.context
        return written


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    config: Phi3Config

    @nn.compact
    def __call__(self, stream, context: decoder.Context, head_edits=None):
        c, norm = self.config, partial(layers.RMSNorm, self.config.eps)

        def split(x):
            ends = [c.heads * c.head_dim, (c.heads + c.kv_heads) * c.head_dim]
            return [part.reshape(*part.shape[:2], -1, c.head_dim) for part in jnp.split(x, ends, axis=-1)]

        attended, written = subblocks.self_attention(
            c, norm(name="attn_norm")(stream), context, head_edits, fused=split
        )
        stream = context.asked(stream) + attended
        return stream + subblocks.gated_mlp(c, norm(name="mlp_norm")(stream), nn.silu, fused=True), written
