"""Qwen 3 (Qwen Team 2025, arXiv 2505.09388): Qwen 2's block without biases, with norms of each head's queries and
keys."""

from __future__ import annotations

from dataclasses import dataclass

from jaxconcepts.models import decoder, llama, qwen2


@dataclass(frozen=True)
class Qwen3Config(qwen2.Qwen2Config):
    """Qwen3-8B by default; fields as in `qwen2.Qwen2Config`."""

    vocab_size: int = 151936
    width: int = 4096
    layers: int = 36
    heads: int = 32
    kv_heads: int = 8
    mlp_width: int = 12288
    context: int = 40960

    QKV_BIAS = False
    HEAD_NORMS = True
    MODEL_TYPE = "qwen3"
    CHECKPOINT = {
        **llama.LlamaConfig.CHECKPOINT,
        **{f"blocks/{name}_norm/scale": f"model.layers.{{}}.self_attn.{name}_norm.weight" for name in "qk"},
    }
    ROLES = decoder.ROLES

    @classmethod
    def from_hf(cls, fields):
        # The one family whose heads are not width / heads where the config is silent.
        fields.default("head_dim", 128)
        return super().from_hf(fields)
