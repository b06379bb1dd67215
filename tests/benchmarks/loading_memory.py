"""Peak host memory of load_pretrained on a made-up 2 GB checkpoint, Llama-3.2-1B with fewer layers.

python tests/benchmarks/loading_memory.py [GB]

On CPU the parameters themselves lie in host memory, so what counts is the peak beyond them, against the largest tensor.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

LOAD = """
import sys, jax
from jaxconcepts.models import pretrained
from peak_memory import peak_bytes
pretrained.load_pretrained(sys.argv[2])
before = peak_bytes()
model, params = pretrained.load_pretrained(sys.argv[1], dtype=sys.argv[3])
jax.block_until_ready(params)
print(before, peak_bytes(), sum(leaf.nbytes for leaf in jax.tree.leaves(params)))
"""


def write_checkpoint(folder: Path, layers: int, width: int, vocab_size: int, dtype: str) -> int:
    """A random Llama; returns the bytes of its largest tensor. Values are zero: only sizes matter here."""
    import jax
    import ml_dtypes

    from jaxconcepts.models import llama, pretrained, safetensors_io

    model = llama.LlamaConfig(
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        heads=32,
        head_dim=width // 32,
        mlp_width=4 * width,
        tied=True,
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    stored = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    tensors = []
    for name, path, layer in pretrained.tensor_names(model):
        leaf = shapes
        for key in path.split("/"):
            leaf = leaf[key]
        shape = leaf.shape[layer is not None :]
        shape = shape[::-1] if path.endswith("/kernel") else shape
        tensors.append((name, shape, stored, lambda shape=shape: np.zeros(shape, stored)))
    folder.mkdir(parents=True)
    safetensors_io.write(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "tie_word_embeddings": True} | model.to_hf())
    )
    return max(int(np.prod(shape)) * stored.itemsize for _, shape, _, _ in tensors)


def main(gigabytes: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), []
        write_checkpoint(folder / "tiny", 1, 64, 100, "bfloat16")
        for stored, loaded in (("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "float32")):
            size = 2 if stored == "bfloat16" else 4
            layers = round((gigabytes * 1e9 / size - 128256 * 2048) / 60.8e6)
            path = folder / f"{stored}-{loaded}"
            largest = write_checkpoint(path, layers, 2048, 128256, stored)
            command = [sys.executable, "-c", LOAD, str(path), str(folder / "tiny"), loaded]
            # Where this file is run from is not where peak_memory is.
            found = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": found})
            before, peak, params = map(int, done.stdout.split())
            (path / "model.safetensors").unlink()
            rows.append((stored, loaded, params / 1e9, (peak - before) / 1e9, (peak - before - params) / largest))
    print(
        f"{'stored':10}{'loaded':10}{'params GB':>10}{'peak GB':>10}{'peak beyond the parameters / largest tensor':>46}"
    )
    for row in rows:
        print(f"{row[0]:10}{row[1]:10}{row[2]:10.2f}{row[3]:10.2f}{row[4]:46.2f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
