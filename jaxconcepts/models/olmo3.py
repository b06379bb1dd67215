"""OLMo 3 (OLMo Team 2025): OLMo 2's block; three layers in four see a window, and YaRN takes the others to longer
contexts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxconcepts.models import decoder, hf_config, olmo2, rotary


@dataclass(frozen=True)
class Olmo3Config(olmo2.Olmo2Config):
    """OLMo-3-7B by default. window: tokens that a local layer looks back, itself included. local: which layers are
    local; empty for three in four. rope_scaling: of the layers that see everything. local_theta: base of the others'
    rotary frequencies. The rest as in `olmo2.Olmo2Config`."""

    vocab_size: int = 100278
    context: int = 65536
    window: int = 4096
    local: tuple[bool, ...] = ()
    rope_scaling: rotary.Scaling | None = rotary.Yarn(8.0, 8192, 1.2079441541679836)
    local_theta: float = 500000.0

    MODEL_TYPE = "olmo3"

    def __post_init__(self):
        decoder.check_sizes(self, (*hf_config.SIZES, "window"))
        if self.local and len(self.local) != self.layers:
            raise ValueError(f"model.local needs {self.layers} entries, one a layer, got {len(self.local)}")

    def is_local(self):
        """[layers], which see a window alone."""
        return np.array(self.local) if self.local else np.arange(1, self.layers + 1) % 4 != 0

    def layer_inputs(self):
        local = self.is_local()
        everywhere = rotary.frequencies(self.rope_theta, self.head_dim, self.rope_scaling)
        near = rotary.frequencies(self.local_theta, self.head_dim, None)
        amplitude = 1.0 if self.rope_scaling is None else self.rope_scaling.amplitude
        return decoder.LayerInputs(
            window=decoder.windows(local, self.window),
            frequencies=np.where(local[:, None], near, everywhere),
            amplitude=np.where(local, 1.0, amplitude).astype(np.float32),
        )

    @classmethod
    def from_hf(cls, fields):
        sizes = fields.sizes()
        fields.only("hidden_act", "silu")
        fields.only("attention_bias", False)
        # The base that a config gives outside its rotary object is that of the layers that see everything alone.
        theta, scaling, local_theta = fields.rope_by_kind(
            ("default", "yarn"), 5e5, sizes["context"], sizes["head_dim"], 5e5
        )
        return cls(
            **sizes,
            rope_theta=theta,
            rope_scaling=scaling,
            local_theta=local_theta,
            window=fields.count("sliding_window", 4096, hf_config.MOST["context"]),
            local=fields.local(sizes["layers"]),
            eps=fields.number("rms_norm_eps", 1e-5),
            tied=fields.flag("tie_word_embeddings", False),
        )

    def to_hf(self):
        written = hf_config.llama_like(self, "Olmo3ForCausalLM") | {"rms_norm_eps": self.eps}
        return written | {"sliding_window": self.window, "layer_types": hf_config.layer_types(self.is_local())}
