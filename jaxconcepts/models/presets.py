"""The shapes of published models by name, for planning and for tests without their weights.

Sizes are those of the checkpoints' config.json; tests compare the parameter counts with the published ones.
"""

from __future__ import annotations

import dataclasses

from jaxconcepts.models import (
    gemma2,
    gemma3,
    gpt2,
    gpt_neox,
    llama,
    mamba2,
    mistral,
    olmo,
    olmo2,
    olmo3,
    phi3,
    qwen2,
    qwen3,
)
from jaxconcepts.models.decoder import Decoder

_LLAMA_70B = {"width": 8192, "layers": 80, "heads": 64, "mlp_width": 28672}
_LLAMA_32 = {"tied": True, "rope_scaling": llama.RopeScaling(factor=32.0)}

# Pythia's sizes (Biderman et al. 2023, table 1): width, layers, heads; the table's rows are padded.
_PYTHIA = {
    "70m": (512, 6, 8, 50304), "160m": (768, 12, 12, 50304), "410m": (1024, 24, 16, 50304),
    "1b": (2048, 16, 8, 50304), "1.4b": (2048, 24, 16, 50304), "2.8b": (2560, 32, 32, 50304),
    "6.9b": (4096, 32, 32, 50432), "12b": (5120, 36, 40, 50688),
}  # fmt: skip


def _pythia(width: int, layers: int, heads: int, vocab_size: int) -> gpt_neox.GPTNeoXConfig:
    sizes = {"width": width, "layers": layers, "heads": heads, "vocab_size": vocab_size}
    return gpt_neox.GPTNeoXConfig(**sizes, mlp_width=4 * width)


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
    "olmo-3-7b": olmo3.Olmo3Config(),
    "mistral-7b": mistral.MistralConfig(),
    "qwen-2.5-0.5b": qwen2.Qwen2Config(
        width=896, layers=24, heads=14, kv_heads=2, head_dim=64, mlp_width=4864, vocab_size=151936, tied=True
    ),
    "qwen-2.5-7b": qwen2.Qwen2Config(),
    "qwen-3-0.6b": qwen3.Qwen3Config(width=1024, layers=28, heads=16, mlp_width=3072, tied=True),
    "qwen-3-8b": qwen3.Qwen3Config(),
    "phi-3-mini": phi3.Phi3Config(),
    "gemma-3-270m": gemma3.Gemma3Config(width=640, layers=18, mlp_width=2048),
    "gemma-3-1b": gemma3.Gemma3Config(),
    "mamba-2-130m": mamba2.Mamba2Config(),
    **{f"pythia-{name}": _pythia(*sizes) for name, sizes in _PYTHIA.items()},
    "gpt-2": gpt2.GPT2Config(layers=12, heads=12, width=768, context=1024, vocab_size=50257),
}


def preset(name: str, dtype: str = "float32") -> Decoder:
    """The published model `name`, computing in `dtype`. Raises ValueError for a name that is not in PRESETS."""
    if name.lower() not in PRESETS:
        raise ValueError(f"model must be a checkpoint folder, a GGUF file or one of {', '.join(PRESETS)}, got {name!r}")
    return dataclasses.replace(PRESETS[name.lower()], dtype=dtype)
