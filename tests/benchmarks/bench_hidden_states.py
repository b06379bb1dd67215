"""Hidden states of all layers at the last token of 64 prompts, beside transformers, at a 128 M-parameter Llama shape.

    python tests/benchmarks/run.py --only hidden_states [--quick]

transformers runs with sdpa attention and output_hidden_states=True on right-padded batches of the same prompts, sorted
by length and padded to the longest of each batch; the read-out is left out on both sides. "bare" is our own forward
pass that captures the last layer only: its ratio below 1 is what capturing every layer costs.
"""

from __future__ import annotations

import contextlib
import time

import jax
import numpy as np

from jaxconcepts.models import language, llama

MODEL = llama.LlamaConfig(
    vocab_size=32000, width=768, layers=12, heads=12, kv_heads=4, head_dim=64, mlp_width=3072, context=2048, tied=True
)
BATCH = 8


def rows(quick: bool = False) -> list[dict]:
    count, repeats = (16, 2) if quick else (64, 3)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 32000, length).tolist() for length in rng.integers(50, 401, count)]
    params = jax.jit(MODEL.init)(jax.random.key(0))
    every = range(MODEL.layers + 1)
    candidates = {
        "ours": lambda: _ours(params, prompts, every),
        "bare": lambda: _ours(params, prompts, [MODEL.layers]),
    }
    with contextlib.suppress(ImportError):
        candidates["transformers"] = _transformers(params, prompts)
    seconds, states = {name: [] for name in candidates}, {}
    for _ in range(1 + repeats):
        for name, run in candidates.items():
            start = time.perf_counter()
            states[name] = run()
            seconds[name].append(time.perf_counter() - start)
    best = {name: min(times[1:]) for name, times in seconds.items()}
    if "transformers" in states:
        # The last layer is left out: transformers gives it after the final norm.
        np.testing.assert_allclose(states["ours"][:-1], states["transformers"][:-1], rtol=0, atol=1e-4)
    aims = {"bare": "0.97", "transformers": "1.2"}
    return [
        {
            "benchmark": "hidden states",
            "shape": [count, "prompts", f"{MODEL.num_params() / 1e6:.0f}M"],
            "ours_s": best["ours"],
            "peer": peer,
            "peer_s": best[peer],
            "ratio": best[peer] / best["ours"],
            "aim": aims[peer],
        }
        for peer in best
        if peer != "ours"
    ]


def _ours(params, prompts, layers) -> np.ndarray:
    states = np.empty((len(layers), len(prompts), MODEL.width), np.float32)
    for indices, tokens, lengths in language.batches(prompts, BATCH, multiple=32):
        found = np.asarray(language.hidden_states(MODEL, params, tokens, lengths, layers=layers))
        states[:, indices[indices >= 0]] = found[:, indices >= 0]
    return states


def _transformers(params, prompts):
    import tempfile

    import torch
    import transformers

    from jaxconcepts.models import pretrained

    with tempfile.TemporaryDirectory() as folder:
        pretrained.save_pretrained(MODEL, params, folder)
        theirs = transformers.AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))

    @torch.inference_mode()
    def run():
        states = np.empty((MODEL.layers + 1, len(prompts), MODEL.width), np.float32)
        for start in range(0, len(prompts), BATCH):
            rows = order[start : start + BATCH]
            lengths = torch.tensor([len(prompts[i]) for i in rows])
            tokens, mask = torch.zeros((2, len(rows), int(lengths.max())), dtype=torch.long)
            for row, i in enumerate(rows):
                tokens[row, : lengths[row]] = torch.tensor(prompts[i])
                mask[row, : lengths[row]] = 1
            hidden = theirs(tokens, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
            states[:, rows] = torch.stack(hidden)[:, range(len(rows)), lengths - 1].numpy()
        return states

    return run
