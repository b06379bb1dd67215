"""Gemma 2 (Gemma Team 2024): every other layer sees a window only, soft-capped scores and logits, norms on both sides.

Norms scale by 1 + w, embeddings are multiplied by sqrt(d), and the scores' scale is set apart from the head's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxconcepts.models import decoder, hf_config, layers, llama, subblocks

BLOCK = "model.layers.{}."


@dataclass(frozen=True)
class Gemma2Config(decoder.Decoder):
    """Gemma-2-9B by default. Sizes as in `llama.LlamaConfig`.

    query_scale: scores are multiplied by query_scale ** -0.5 (query_pre_attn_scalar).
    window: tokens that a local layer looks back, itself included.
    local: which layers are local; empty means every other one, beginning with the first.
    score_cap, logit_cap: the soft-caps, None for none.
    """

    vocab_size: int = 256000
    width: int = 3584
    layers: int = 42
    heads: int = 16
    kv_heads: int = 8
    head_dim: int = 256
    mlp_width: int = 14336
    context: int = 8192
    rope_theta: float = 10000.0
    query_scale: int | float = 256
    window: int = 4096
    local: tuple[bool, ...] = ()
    score_cap: float | None = 50.0
    logit_cap: float | None = 30.0
    eps: float = 1e-6
    tied: bool = True
    dtype: str = "float32"
    stop_tokens: tuple[int, ...] = ()

    HEAD_NORMS: ClassVar[bool] = False
    amplitude = 1.0
    MODEL_TYPE = "gemma2"
    CHECKPOINT = {
        **llama.LlamaConfig.CHECKPOINT,
        "blocks/attn_out_norm/scale": BLOCK + "post_attention_layernorm.weight",
        "blocks/mlp_norm/scale": BLOCK + "pre_feedforward_layernorm.weight",
        "blocks/mlp_out_norm/scale": BLOCK + "post_feedforward_layernorm.weight",
    }
    BUFFERS = llama.LlamaConfig.BUFFERS

    def __post_init__(self):
        decoder.check_sizes(self, (*hf_config.SIZES, "window"))
        if self.local and len(self.local) != self.layers:
            raise ValueError(f"model.local needs {self.layers} entries, one a layer, got {len(self.local)}")

    def frequencies(self):
        return layers.inverse_frequencies(self.rope_theta, self.head_dim)

    def block(self):
        return Block(self)

    def final_norm(self):
        return layers.RMSNorm(self.eps, offset=1.0)

    def is_local(self):
        """[layers], which see a window alone."""
        return np.array(self.local) if self.local else np.arange(self.layers) % 2 == 0

    def layer_inputs(self):
        return decoder.LayerInputs(window=decoder.windows(self.is_local(), self.window))

    def embed(self, params, tokens, positions):
        # The factor is rounded to the table's type, as in training: 55.5 for sqrt(3072) in bfloat16.
        return params["embed"][tokens] * jnp.asarray(self.width**0.5, params["embed"].dtype)

    def unembed(self, params, stream):
        return layers.soft_cap(super().unembed(params, stream), self.logit_cap)

    @classmethod
    def from_hf(cls, fields):
        sizes = fields.sizes(optional=())
        fields.only("hidden_activation", "gelu_pytorch_tanh", None)
        # Configs of the first release say "gelu" here or nothing; hidden_activation is what counts.
        fields.only("hidden_act", "gelu_pytorch_tanh", "gelu", None)
        fields.only("attention_bias", False)
        fields.only("use_bidirectional_attention", None, False)
        theta, _ = fields.rope(("default",), 10000.0, sizes["context"], sizes["head_dim"])
        window = fields.count("sliding_window", 4096, hf_config.MOST["context"])
        fields.same("sliding_window_size", window)
        return cls(
            **sizes,
            rope_theta=theta,
            query_scale=fields.number("query_pre_attn_scalar", 256),
            window=window,
            local=fields.local(sizes["layers"]),
            score_cap=fields.cap("attn_logit_softcapping", 50.0),
            logit_cap=fields.cap("final_logit_softcapping", 30.0),
            eps=fields.number("rms_norm_eps", 1e-6),
            tied=fields.flag("tie_word_embeddings", True),
        )

    def to_hf(self):
        return hf_config.llama_like(self, "Gemma2ForCausalLM") | {
            "hidden_activation": "gelu_pytorch_tanh",
            "rms_norm_eps": self.eps,
            "query_pre_attn_scalar": self.query_scale,
            "sliding_window": self.window,
            "layer_types": hf_config.layer_types(self.is_local()),
            "attn_logit_softcapping": self.score_cap,
            "final_logit_softcapping": self.logit_cap,
        }


class Block(nn.Module):
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x)))."""

    config: Gemma2Config

    @nn.compact
    def __call__(self, stream, context: decoder.Context, head_edits=None):
        c, norm = self.config, partial(layers.RMSNorm, self.config.eps, offset=1.0)
        attended, written = subblocks.self_attention(
            c, norm(name="attn_norm")(stream), context, head_edits,
            scale=c.query_scale**-0.5, cap=c.score_cap, norm_each=norm if c.HEAD_NORMS else None,
        )  # fmt: skip
        stream = context.asked(stream) + norm(name="attn_out_norm")(attended)
        down = subblocks.gated_mlp(c, norm(name="mlp_norm")(stream), partial(nn.gelu, approximate=True))
        return stream + norm(name="mlp_out_norm")(down), written
