"""Hidden states of all layers at the last token, against transformers' and nnsight's, of a random 128M Llama, and of
SmolLM2-135M's weights where the package that holds them is installed.

The same weights, prompts (64 of 50 to 400 tokens, sorted by length) and batch size on all sides, float32. Speed: all in
one process, in turn, the best of several rounds; compilation and first calls are left out. "bare" is our own forward
pass that captures nothing: what capturing costs. Peak memory: a process for each side that loads the checkpoint, runs
every prompt and reports its largest resident size, libraries included.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from peak_memory import peak_bytes

BATCH = 8
# Batches are as wide as their longest prompt, to 8 tokens; transformers' exactly.
MULTIPLE = 8
SIZES = {"vocab_size": 32000, "width": 768, "layers": 12, "heads": 12, "kv_heads": 4, "head_dim": 64, "mlp_width": 3072}
QUICK = {"vocab_size": 1000, "width": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp_width": 128}
SIDES = ("ours", "transformers", "nnsight")
AIMS = {"bare": 0.97, "transformers": 1.2, "nnsight": 1.2}


def rows(quick: bool = False) -> list[dict]:
    """Rows of seconds for all prompts, by model, then of peak memory in GB."""
    count, rounds = (8, 1) if quick else (64, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = write_checkpoint(folder, QUICK if quick else SIZES)
        shape = f"{count} prompts, {parameters / 1e6:.3g}M parameters"
        speed = speed_rows(folder, count, rounds, shape)
        memory = {side: gigabytes for side in SIDES if (gigabytes := peak_memory(side, folder, count)) is not None}
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(ValueError):
        if not quick:
            write_smollm2(Path(name))
            for dtype in ("float32", "bfloat16"):
                speed += speed_rows(Path(name), count, rounds, f"{count} prompts, SmolLM2-135M's weights", dtype)
    return speed + [
        {"benchmark": "hidden states, peak memory, GB", "shape": shape, "ours_s": memory["ours"], "peer": peer}
        | {"peer_s": memory[peer], "ratio": memory[peer] / memory["ours"], "aim": 1}
        for peer in memory
        if peer != "ours"
    ]


def speed_rows(folder: Path, count: int, rounds: int, shape: str, dtype: str = "float32") -> list[dict]:
    seconds = measure_speed(folder, count, rounds, dtype)
    name = "hidden states" if dtype == "float32" else f"hidden states, {dtype}"
    return [
        {"benchmark": name, "shape": shape, "ours_s": seconds["ours"], "peer": peer, "peer_s": seconds[peer]}
        | {"ratio": seconds[peer] / seconds["ours"], "aim": AIMS[peer]}
        for peer in seconds
        if peer != "ours"
    ]


def measure_speed(folder: Path, count: int, rounds: int, dtype: str = "float32") -> dict[str, float]:
    """Seconds of each side for all prompts, the best round; the sides' states are compared in float32."""
    prompts = make_prompts(count)
    exact = dtype == "float32"
    sides = {"ours": ours(folder, dtype=dtype)} | ({"bare": ours(folder, capture=False)} if exact else {})
    with contextlib.suppress(ImportError):
        sides["transformers"] = transformers(folder, dtype)
    with contextlib.suppress(ImportError):
        sides |= {"nnsight": nnsight(folder)} if exact else {}
    taken, states = {name: [] for name in sides}, {}
    for _ in range(1 + rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            states[name] = run(prompts)
            taken[name].append(time.perf_counter() - start)
    if exact:
        assert_near(states["bare"], states["ours"][-1:])
        for peer in states.keys() & {"transformers", "nnsight"}:
            # transformers gives the last layer after the final norm.
            layers = slice(None, -1 if peer == "transformers" else None)
            assert_near(states["ours"][layers], states[peer][layers])
    return {name: min(times[1:]) for name, times in taken.items()}


def assert_near(found, expected) -> None:
    """Layer by layer, to 1e-4 of the layer's largest entry: those of trained weights reach 25 000."""
    for layer, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(layer, reference, rtol=0, atol=1e-4 * max(1, np.abs(reference).max()))


def peak_memory(side: str, folder: Path, count: int) -> float | None:
    """GB of the largest resident size of a process that does this alone; None where the library is not there."""
    command = [sys.executable, __file__, side, str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if "ModuleNotFoundError" in done.stderr:
        return None
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


def make_prompts(count: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, QUICK["vocab_size"], length).tolist() for length in rng.integers(50, 401, count)]


def write_checkpoint(folder: Path, sizes: dict[str, int]) -> int:
    """A random Llama; returns how many parameters it has."""
    import jax

    from jaxconcepts.models import llama, pretrained

    model = llama.LlamaConfig(context=2048, rope_scaling=None, tied=True, **sizes)
    pretrained.save_pretrained(model, jax.jit(model.init)(jax.random.key(0)), folder)
    return model.num_params()


def write_smollm2(folder: Path) -> None:
    """Its weights, dequantised. Raises ValueError where the package or the library that reads it is not installed."""
    from jaxconcepts.models import pretrained

    pretrained.save_pretrained(*pretrained.load_pretrained("smollm2-135m"), folder)


def ours(folder: Path, capture: bool = True, dtype: str = "float32"):
    """run(prompts) -> [layers + 1, prompts, width], or [1, prompts, width] of the last layer where none is captured."""
    import jax
    import jax.numpy as jnp

    from jaxconcepts.models import language, pretrained

    model, params = pretrained.load_pretrained(folder, dtype)

    @jax.jit
    def bare(params, tokens, lengths):
        stream = language.forward(model, params, tokens, jnp.arange(tokens.shape[1])[None]).stream
        return stream[jnp.arange(tokens.shape[0]), lengths - 1][None]

    def run(prompts):
        states = np.empty((model.layers + 1 if capture else 1, len(prompts), model.width), np.float32)
        for indices, tokens, lengths in language.batches(prompts, BATCH, MULTIPLE):
            if capture:
                found = language.hidden_states(model, params, tokens, lengths)
            else:
                with language.exact_products(model):
                    found = bare(params, tokens, lengths)
            states[:, indices[indices >= 0]] = np.asarray(found)[:, indices >= 0]
        return states

    return run


def transformers(folder: Path, dtype: str = "float32"):
    import torch
    from transformers import AutoModel

    theirs = AutoModel.from_pretrained(folder, attn_implementation="sdpa", dtype=getattr(torch, dtype)).eval()

    @torch.inference_mode()
    def hidden(tokens, mask, last):
        states = theirs(tokens, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
        return torch.stack([layer[range(len(last)), last] for layer in states])

    return partial(_torch_run, hidden)


def nnsight(folder: Path):
    import torch
    from nnsight import NNsight, save
    from transformers import AutoModel

    traced = NNsight(AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval())

    @torch.inference_mode()
    def hidden(tokens, mask, last):
        rows = list(range(len(last)))
        with traced.trace(tokens, attention_mask=mask, use_cache=False):
            layers = [traced.embed_tokens.output, *[layer.output for layer in traced.layers]]
            states = save([layer[rows, last] for layer in layers])
        return torch.stack(list(states))

    return partial(_torch_run, hidden)


def _torch_run(hidden, prompts) -> np.ndarray:
    """[layers + 1, prompts, width] in batches of prompts of like length."""
    import torch

    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    found = []
    for start in range(0, len(prompts), BATCH):
        rows = order[start : start + BATCH]
        lengths = torch.tensor([len(prompts[i]) for i in rows])
        tokens, mask = torch.zeros((2, len(rows), int(lengths.max())), dtype=torch.long)
        for row, i in enumerate(rows):
            tokens[row, : lengths[row]] = torch.tensor(prompts[i])
            mask[row, : lengths[row]] = 1
        found.append(hidden(tokens, mask, lengths - 1).float().numpy())
    return np.concatenate(found, axis=1)[:, np.argsort(order)]


if __name__ == "__main__":
    side, place, number = sys.argv[1:]
    globals()[side](Path(place))(make_prompts(int(number)))
    print(json.dumps(peak_bytes() / 1e9))
