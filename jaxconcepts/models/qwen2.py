"""Qwen 2 and 2.5 (Qwen Team 2024, arXiv 2412.15115): Llama's block with biases of queries, keys and values; the layers
from some number on may see a window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxconcepts.models import decoder, hf_config, llama, rotary

# The longer contexts of Qwen 2.5 and 3 are turned on by YaRN.
SCALINGS = ("default", "yarn", "linear", "dynamic")


@dataclass(frozen=True)
class Qwen2Config(llama.LlamaConfig):
    """Qwen2.5-7B by default. window: tokens that a local layer looks back, itself included. local: which layers are
    local; empty for none. The rest as in `llama.LlamaConfig`."""

    vocab_size: int = 152064
    width: int = 3584
    layers: int = 28
    heads: int = 28
    kv_heads: int = 4
    mlp_width: int = 18944
    rope_theta: float = 1000000.0
    rope_scaling: rotary.Scaling | None = None
    eps: float = 1e-6
    window: int = 131072
    local: tuple[bool, ...] = ()

    QKV_BIAS = True
    MODEL_TYPE = "qwen2"
    CHECKPOINT = {
        **llama.LlamaConfig.CHECKPOINT,
        **{f"blocks/{name}/bias": f"model.layers.{{}}.self_attn.{name}_proj.bias" for name in "qkv"},
    }
    ROLES = (*decoder.ROLES, (r"blocks/[qkv]/bias", decoder.Role.WHOLE))

    def __post_init__(self):
        decoder.check_sizes(self, (*hf_config.SIZES, "window"))
        if self.local and len(self.local) != self.layers:
            raise ValueError(f"model.local needs {self.layers} entries, one a layer, got {len(self.local)}")

    def layer_inputs(self):
        if not any(self.local):
            return decoder.LayerInputs()
        return decoder.LayerInputs(window=decoder.windows(np.array(self.local), self.window))

    @classmethod
    def from_hf(cls, fields):
        shared = fields.llama_like(SCALINGS)
        return cls(**shared, **local_layers(fields, shared["layers"]), eps=fields.number("rms_norm_eps", 1e-6))

    def to_hf(self):
        local = self.local or (False,) * self.layers
        return hf_config.llama_like(self, f"{type(self).__name__.removesuffix('Config')}ForCausalLM") | {
            "rms_norm_eps": self.eps,
            "use_sliding_window": any(local),
            "sliding_window": self.window,
            "layer_types": hf_config.layer_types(local),
        }


def local_layers(fields: hf_config.Fields, layers: int) -> dict:
    """window and local of a Qwen config: by layer_types, or the layers from max_window_layers on."""
    used, window = fields.flag("use_sliding_window", False), fields.window(4096)
    first = fields.take("max_window_layers", 28)
    if isinstance(first, bool) or not isinstance(first, int) or first < 0:
        fields.wrong("max_window_layers", first, "a whole number from 0 on")
    local = fields.local(layers) or tuple(number >= first for number in range(layers))
    if not used or window is None:
        return {"window": window or 4096}
    return {"window": window, "local": local if any(local) else ()}
