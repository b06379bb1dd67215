"""Error of bfloat16 hidden states against float32 ones at every layer, for random models of two sizes.

python tests/benchmarks/bfloat16_error.py

Random weights at GPT-2's scale (deviation 0.02). A trained model's massive activations make other errors: measure yours
with `jaxconcepts.studies.extraction.precision.bfloat16_error`.
"""

import jax
import numpy as np

from jaxconcepts.models import gemma2, llama
from jaxconcepts.studies.extraction import precision

MODELS = {
    "Llama, 4 x 64": llama.LlamaConfig(
        vocab_size=512, width=64, layers=4, heads=4, kv_heads=2, head_dim=16, mlp_width=256, context=512
    ),
    "Gemma 2, 4 x 64": gemma2.Gemma2Config(
        vocab_size=512, width=64, layers=4, heads=4, kv_heads=2, head_dim=32, mlp_width=256, context=512, window=64
    ),
    "Llama, 12 x 768 (128M)": llama.LlamaConfig(
        vocab_size=32000, width=768, layers=12, heads=12, kv_heads=4, head_dim=64, mlp_width=3072, tied=True
    ),
}


def main() -> None:
    rng = np.random.default_rng(0)
    for name, model in MODELS.items():
        params = jax.jit(model.init)(jax.random.key(0))
        tokens, lengths = rng.integers(0, model.vocab_size, (8, 64)), rng.integers(16, 65, 8)
        errors = precision.bfloat16_error(model, params, tokens, lengths)
        print(f"{name}: " + " ".join(f"{100 * error:.2f}" for error in errors) + " % by layer from 0 on")


if __name__ == "__main__":
    main()
