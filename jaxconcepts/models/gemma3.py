"""Gemma 3, its text models (Gemma Team 2025, arXiv 2503.19786): Gemma 2's block with norms of each head's queries and
keys; five layers in six see a window, with rotary frequencies of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxconcepts.models import decoder, gemma2, hf_config, rotary

BLOCK = "model.layers.{}."


@dataclass(frozen=True)
class Gemma3Config(gemma2.Gemma2Config):
    """Gemma-3-1B by default. rope_theta, rope_scaling: of the layers that see everything; local_theta: base of the
    rotary frequencies of the others. local: empty for five layers in six. The rest as in
    `gemma2.Gemma2Config`."""

    vocab_size: int = 262144
    width: int = 1152
    layers: int = 26
    heads: int = 4
    kv_heads: int = 1
    mlp_width: int = 6912
    context: int = 32768
    rope_theta: float = 1000000.0
    window: int = 512
    score_cap: float | None = None
    logit_cap: float | None = None
    rope_scaling: rotary.Scaling | None = None
    local_theta: float = 10000.0

    HEAD_NORMS = True
    MODEL_TYPE = "gemma3_text"
    CHECKPOINT = {
        **gemma2.Gemma2Config.CHECKPOINT,
        **{f"blocks/{name}_norm/scale": BLOCK + f"self_attn.{name}_norm.weight" for name in "qk"},
    }

    def is_local(self):
        return np.array(self.local) if self.local else np.arange(1, self.layers + 1) % 6 != 0

    def layer_inputs(self):
        local = self.is_local()
        everywhere = rotary.frequencies(self.rope_theta, self.head_dim, self.rope_scaling)
        near = rotary.frequencies(self.local_theta, self.head_dim, None)
        return decoder.LayerInputs(
            window=decoder.windows(local, self.window), frequencies=np.where(local[:, None], near, everywhere)
        )

    @classmethod
    def from_hf(cls, fields):
        sizes = fields.sizes(optional=())
        pattern = fields.count("sliding_window_pattern", fields.count("_sliding_window_pattern", 6))
        fields.only("hidden_activation", "gelu_pytorch_tanh", None)
        fields.only("hidden_act", "gelu_pytorch_tanh", None)
        fields.only("attention_bias", False)
        fields.only("use_bidirectional_attention", False, None)
        theta, scaling, local_theta = fields.rope_by_kind(
            ("default", "linear"), 1e6, sizes["context"], sizes["head_dim"], 1e4, "rope_local_base_freq"
        )
        return cls(
            **sizes,
            rope_theta=theta,
            rope_scaling=scaling,
            local_theta=local_theta,
            query_scale=fields.number("query_pre_attn_scalar", 256),
            window=fields.count("sliding_window", 4096, hf_config.MOST["context"]),
            local=fields.local(sizes["layers"])
            or tuple(number % pattern != 0 for number in range(1, sizes["layers"] + 1)),
            score_cap=fields.cap("attn_logit_softcapping", None),
            logit_cap=fields.cap("final_logit_softcapping", None),
            eps=fields.number("rms_norm_eps", 1e-6),
            tied=fields.flag("tie_word_embeddings", True),
        )

    def to_hf(self):
        return super().to_hf() | {"architectures": ["Gemma3ForCausalLM"]}
