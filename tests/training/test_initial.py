"""Weights that training from scratch begins with, for every family: by the role of each matrix."""

import jax
import numpy as np
import pytest

from jaxconcepts.models import gemma3, gpt_neox, llama, mamba2, phi3
from jaxconcepts.training import initial

SIZES = {"vocab_size": 30, "width": 64, "layers": 2, "heads": 4, "context": 32}
LLAMA = SIZES | {"kv_heads": 2, "head_dim": 16, "mlp_width": 96}
MODELS = {
    "llama": llama.LlamaConfig(**LLAMA), "gemma3": gemma3.Gemma3Config(**LLAMA),
    "phi3": phi3.Phi3Config(**LLAMA), "gpt_neox": gpt_neox.GPTNeoXConfig(**SIZES, mlp_width=96),
    "mamba2": mamba2.Mamba2Config(**SIZES | {"heads": 8}, head_dim=16, state=16),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_matrices_that_write_to_the_stream_are_smaller_by_the_depth(model):
    """Deviation 1 / sqrt(inputs), divided by sqrt(2 * layers) where a matrix writes to the stream."""
    blocks = initial.fan_in(model, jax.random.key(0))["blocks"]
    kernels = {name: part["kernel"] for name, part in blocks.items() if isinstance(part, dict) and "kernel" in part}
    assert len(kernels) >= 2
    for name, kernel in kernels.items():
        writes = name in ("out", "down", "out_proj")
        expected = kernel.shape[1] ** -0.5 * (0.5 if writes else 1)
        # Five standard errors of a deviation of 4 000 numbers at least.
        assert np.asarray(kernel).std() == pytest.approx(expected, rel=0.06), name
    assert np.isfinite(jax.tree.reduce(lambda total, leaf: total + float(np.abs(leaf).sum()), blocks, 0.0))
