"""The shapes of published models by name, for planning and for tests without their weights.

Sizes are those of the checkpoints' config.json; tests compare the parameter counts with the published ones.
"""

from __future__ import annotations

import dataclasses

from jaxconcepts.models import gemma2, gpt2, llama, olmo, olmo2
from jaxconcepts.models.decoder import Decoder

_LLAMA_70B = {"width": 8192, "layers": 80, "heads": 64, "mlp_width": 28672}
_LLAMA_32 = {"tied": True, "rope_scaling": llama.RopeScaling(factor=32.0)}

PRESETS: dict[str, Decoder] = {
    "llama-3-8b": llama.LlamaConfig(rope_scaling=None, context=8192),
    "llama-3-70b": llama.LlamaConfig(rope_scaling=None, context=8192, **_LLAMA_70B),
    "llama-3.1-8b": llama.LlamaConfig(),
    "llama-3.1-70b": llama.LlamaConfig(**_LLAMA_70B),
    "llama-3.2-1b": llama.LlamaConfig(width=2048, layers=16, head_dim=64, mlp_width=8192, **_LLAMA_32),
    "llama-3.2-3b": llama.LlamaConfig(width=3072, layers=28, heads=24, mlp_width=8192, **_LLAMA_32),
    "llama-3.3-70b": llama.LlamaConfig(**_LLAMA_70B),
    "gemma-2-2b": gemma2.Gemma2Config(width=2304, layers=26, heads=8, kv_heads=4, mlp_width=9216),
    "gemma-2-9b": gemma2.Gemma2Config(),
    "gemma-2-27b": gemma2.Gemma2Config(
        width=4608, layers=46, heads=32, kv_heads=16, head_dim=128, mlp_width=36864, query_scale=144
    ),
    "olmo-7b": olmo.OlmoConfig(),
    "olmo-2-7b": olmo2.Olmo2Config(),
    "gpt-2": gpt2.GPT2Config(layers=12, heads=12, width=768, context=1024, vocab_size=50257),
}


def preset(name: str, dtype: str = "float32") -> Decoder:
    """The published model `name`, computing in `dtype`. Raises ValueError for a name that is not in PRESETS."""
    if name.lower() not in PRESETS:
        raise ValueError(f"model must be a checkpoint folder or one of {', '.join(PRESETS)}, got {name!r}")
    return dataclasses.replace(PRESETS[name.lower()], dtype=dtype)
