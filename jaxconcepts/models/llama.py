"""Llama 3, 3.1, 3.2 and 3.3 (Grattafiori et al. 2024): pre-norm, grouped queries, rotary positions, SwiGLU.

From 3.1 on the rotary frequencies are scaled for long contexts ("llama3" scaling), which changes short prompts as well.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import flax.linen as nn

from jaxconcepts.models import decoder, hf_config, layers, rotary, subblocks

RopeScaling = rotary.Llama3
# What published checkpoints of the lineage use; vicuna-16k "linear", upstage's "dynamic", Yarn-Llama "yarn".
SCALINGS = ("default", "llama3", "linear", "dynamic", "yarn")


@dataclass(frozen=True)
class LlamaConfig(decoder.Decoder):
    """Llama-3.1-8B by default. Sizes as in `decoder.Decoder`; mlp_width: of the feed-forward part; rope_theta: base of
    the rotary frequencies; rope_scaling: None for Llama 3; tied: the read-out is the embedding table."""

    vocab_size: int = 128256
    width: int = 4096
    layers: int = 32
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    mlp_width: int = 14336
    context: int = 131072
    rope_theta: float = 500000.0
    rope_scaling: rotary.Scaling | None = RopeScaling()
    eps: float = 1e-5
    tied: bool = False
    dtype: str = "float32"
    stop_tokens: tuple[int, ...] = ()

    # What the families built on this block have beside it: biases of queries, keys and values, and norms of each head.
    QKV_BIAS: ClassVar[bool] = False
    HEAD_NORMS: ClassVar[bool] = False
    MODEL_TYPE = "llama"
    CHECKPOINT = {
        "embed": "model.embed_tokens.weight",
        "unembed": "lm_head.weight",
        "final_norm/scale": "model.norm.weight",
        "blocks/attn_norm/scale": "model.layers.{}.input_layernorm.weight",
        "blocks/q/kernel": "model.layers.{}.self_attn.q_proj.weight",
        "blocks/k/kernel": "model.layers.{}.self_attn.k_proj.weight",
        "blocks/v/kernel": "model.layers.{}.self_attn.v_proj.weight",
        "blocks/out/kernel": "model.layers.{}.self_attn.o_proj.weight",
        "blocks/mlp_norm/scale": "model.layers.{}.post_attention_layernorm.weight",
        "blocks/gate/kernel": "model.layers.{}.mlp.gate_proj.weight",
        "blocks/up/kernel": "model.layers.{}.mlp.up_proj.weight",
        "blocks/down/kernel": "model.layers.{}.mlp.down_proj.weight",
    }

    BUFFERS = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)

    def __post_init__(self):
        decoder.check_sizes(self, tuple(hf_config.SIZES))

    def block(self):
        return Block(self)

    def final_norm(self):
        return layers.RMSNorm(self.eps)

    def frequencies(self):
        """Rotary frequencies, radians a token."""
        return rotary.frequencies(self.rope_theta, self.head_dim, self.rope_scaling)

    @property
    def amplitude(self) -> float:
        """What the cosine and sine of rotary positions are multiplied by."""
        return 1.0 if self.rope_scaling is None else self.rope_scaling.amplitude

    def for_lengths(self, lengths):
        if not isinstance(self.rope_scaling, rotary.LongRope):
            return self
        return dataclasses.replace(self, rope_scaling=self.rope_scaling.for_lengths(lengths))

    @classmethod
    def from_hf(cls, fields):
        shared = fields.llama_like(SCALINGS)
        fields.only("mlp_bias", False)
        return cls(**shared, eps=fields.number("rms_norm_eps", 1e-6))

    def to_hf(self):
        return hf_config.llama_like(self, "LlamaForCausalLM") | {"rms_norm_eps": self.eps}


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    config: LlamaConfig

    @nn.compact
    def __call__(self, stream, context: decoder.Context, head_edits=None):
        c, norm = self.config, partial(layers.RMSNorm, self.config.eps)
        attended, written = subblocks.self_attention(
            c, norm(name="attn_norm")(stream), context, head_edits,
            bias=c.QKV_BIAS, norm_each=norm if c.HEAD_NORMS else None,
        )  # fmt: skip
        stream = context.asked(stream) + attended
        return stream + subblocks.gated_mlp(c, norm(name="mlp_norm")(stream), nn.silu), written
