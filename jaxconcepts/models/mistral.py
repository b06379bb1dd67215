"""Mistral 7B (Jiang et al. 2023, arXiv 2310.06825): Llama's block; in version 0.1 every layer sees a window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxconcepts.models import decoder, hf_config, llama


@dataclass(frozen=True)
class MistralConfig(llama.LlamaConfig):
    """Mistral-7B-v0.1 by default. window: tokens that attention looks back, itself included; None for all. The rest as
    in `llama.LlamaConfig`."""

    vocab_size: int = 32000
    rope_theta: float = 10000.0
    rope_scaling: None = None
    window: int | None = 4096

    MODEL_TYPE = "mistral"

    def layer_inputs(self):
        if self.window is None:
            return decoder.LayerInputs()
        return decoder.LayerInputs(window=decoder.windows(np.ones(self.layers, bool), self.window))

    @classmethod
    def from_hf(cls, fields):
        shared = fields.llama_like()
        return cls(**shared, window=fields.window(4096), eps=fields.number("rms_norm_eps", 1e-6))

    def to_hf(self):
        written = hf_config.llama_like(self, "MistralForCausalLM")
        return written | {"rms_norm_eps": self.eps, "sliding_window": self.window}

    def __post_init__(self):
        decoder.check_sizes(self, (*hf_config.SIZES, *(("window",) if self.window is not None else ())))
