"""A layer x position patch grid beside TransformerLens, nnsight and a plain loop of PyTorch hooks, on the same weights.

    python tests/benchmarks/run.py --only patching [--quick]

Needs `pip install transformer-lens nnsight` for those peers (they go with torch 2.13 and transformers 5); one that is
not installed is left out. The corrupted prompts are run with the clean ones' state before block l at token t, for every
l and t, and the difference of two logits at the last token is kept. Peers run one cell after another, as their
tutorials do (TransformerLens' own `patching.get_act_patch_resid_pre`); all run without gradients.
"""

from __future__ import annotations

import contextlib
import tempfile
import time

import jax
import numpy as np

from jaxconcepts.models import gpt2, pretrained
from jaxconcepts.studies.causal import interchange

MODEL = gpt2.GPT2Config(vocab_size=512, width=128, layers=6, heads=8, context=64)
QUICK = gpt2.GPT2Config(vocab_size=512, width=32, layers=2, heads=4, context=64)


def rows(quick: bool = False) -> list[dict]:
    model, batch, length, repeats = (QUICK, 2, 8, 1) if quick else (MODEL, 16, 40, 3)
    params = jax.jit(model.init)(jax.random.key(0))
    # At the initial scale all logits are alike.
    params = jax.tree.map(lambda a: a * 5 if a.ndim > 2 else a, params)
    rng = np.random.default_rng(0)
    clean, corrupted = rng.integers(0, 512, (2, batch, length))
    answers = np.stack([np.arange(batch), np.arange(batch) + 1], axis=1)
    lengths, layers = np.full(batch, length), range(model.layers)
    candidates = {"ours": lambda: np.asarray(_ours(model, params, clean, corrupted, lengths, answers, layers))}
    with tempfile.TemporaryDirectory() as folder:
        pretrained.save_pretrained(model, params, folder)
        for name, make in (("PyTorch hooks", _hooks), ("nnsight", _nnsight), ("TransformerLens", _lens)):
            with contextlib.suppress(ImportError):
                candidates[name] = make(model, folder, clean, corrupted, answers)
    seconds, grids = {name: [] for name in candidates}, {}
    for number in range(1 + repeats):
        for name, run in candidates.items():
            if number < 2 or name == "ours":
                start = time.perf_counter()
                grids[name] = run()
                seconds[name].append(time.perf_counter() - start)
    best = {name: min(times[1:]) for name, times in seconds.items()}
    for name, grid in grids.items():
        np.testing.assert_allclose(grid, grids["ours"], rtol=1e-3, atol=1e-3, err_msg=name)
    shape = f"{model.layers} x {model.width}, {len(layers)} layers x {length} tokens, {batch} prompts"
    return [
        {
            "benchmark": "patch grid",
            "shape": shape,
            "ours_s": best["ours"],
            "peer": peer,
            "peer_s": best[peer],
            "ratio": best[peer] / best["ours"],
            "aim": "" if peer == "PyTorch hooks" else "5",
        }
        for peer in best
        if peer != "ours"
    ]


def _ours(model, params, clean, corrupted, lengths, answers, layers):
    return interchange.interchange(model, params, clean, corrupted, lengths, answers, layers).patched.mean(-1)


def _load(folder):
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()


def _difference(logits, answers):
    import torch

    last, (first, second) = logits[:, -1], torch.tensor(answers).T
    rows = torch.arange(len(last))
    return (last[rows, first] - last[rows, second]).mean()


def _hooks(model, folder, clean, corrupted, answers):
    import torch

    theirs, clean, corrupted = _load(folder), torch.tensor(clean), torch.tensor(corrupted)
    modules = [theirs.transformer.drop, *theirs.transformer.h]

    @torch.inference_mode()
    def run():
        states = theirs(clean, output_hidden_states=True, use_cache=False).hidden_states
        grid = np.empty((model.layers, clean.shape[1]))
        for layer, position in np.ndindex(*grid.shape):

            def patch(_, __, output, layer=layer, position=position):
                output = output.clone()
                output[:, position] = states[layer][:, position]
                return output

            handle = modules[layer].register_forward_hook(patch)
            grid[layer, position] = _difference(theirs(corrupted, use_cache=False).logits, answers)
            handle.remove()
        return grid

    return run


def _nnsight(model, folder, clean, corrupted, answers):
    import torch
    from nnsight import NNsight

    theirs, clean, corrupted = NNsight(_load(folder)), torch.tensor(clean), torch.tensor(corrupted)

    @torch.inference_mode()
    def run():
        states = theirs._module(clean, output_hidden_states=True, use_cache=False).hidden_states
        grid = np.empty((model.layers, clean.shape[1]))
        for layer, position in np.ndindex(*grid.shape):
            with theirs.trace(corrupted, use_cache=False):
                where = theirs.transformer.drop if layer == 0 else theirs.transformer.h[layer - 1]
                where.output[:, position] = states[layer][:, position]
                logits = theirs.lm_head.output.save()
            grid[layer, position] = _difference(logits, answers)
        return grid

    return run


def _lens(model, folder, clean, corrupted, answers):
    import torch
    from tokenizers import Tokenizer, models
    from transformer_lens import patching
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

    # It wants a tokenizer, which nothing here uses.
    words = models.WordLevel({str(i): i for i in range(model.vocab_size)}, unk_token="0")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="0", bos_token="0", pad_token="0")
    tokenizer.save_pretrained(folder)
    theirs = TransformerBridge.boot_transformers(folder, hf_model=_load(folder), device="cpu")
    clean, corrupted = torch.tensor(clean), torch.tensor(corrupted)

    @torch.inference_mode()
    def run():
        cache = theirs.run_with_cache(clean)[1]
        metric = lambda logits: _difference(logits, answers)  # noqa: E731
        return patching.get_act_patch_resid_pre(theirs, corrupted, cache, metric).numpy()

    return run
