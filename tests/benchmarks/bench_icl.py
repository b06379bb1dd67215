"""The in-context study beside the same study written with transformers and scikit-learn, on the same checkpoint.

    python tests/benchmarks/run.py --only icl [--quick]

Bitwise prompts of four shots, a random Llama with a tokenizer of its own. CD: hidden states of all layers at the last
token, then ten draws of points scored at every layer; theirs with output_hidden_states=True on padded batches sorted by
length, without the read-out, and a brute-force KNeighborsClassifier a layer and draw. Accuracy: greedy answers in
batches; theirs by `generate` on left-padded batches with its key-value cache. Both: ours in one pass, theirs in two.
Theirs runs with sdpa under inference_mode; answers and scores of the two are compared.
"""

from __future__ import annotations

import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxconcepts.metrics.draws import decodability_draws, sample_draws
from jaxconcepts.models import language, llama, pretrained, scoring
from jaxconcepts.prompts import bitwise, render

# The shape that configs/icl_from_scratch.py trains, and a larger one; with the prompts a concept.
SHAPES = (
    ({"layers": 4, "width": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "mlp_width": 192, "context": 512}, 60),
    ({"layers": 6, "width": 256, "heads": 8, "kv_heads": 4, "head_dim": 32, "mlp_width": 768, "context": 512}, 30),
)
BATCH, MULTIPLE, NEW, K, DRAWS, SEED = 32, 16, 8, 10, 3, 0


def rows(quick: bool = False) -> list[dict]:
    try:
        import sklearn  # noqa: F401
        import torch
        import transformers
    except ImportError:
        return []
    shapes = [(SHAPES[0][0], 24)] if quick else SHAPES
    return [row for sizes, each in shapes for row in _rows(torch, transformers, sizes, each, 1 if quick else 3)]


def _rows(torch, transformers, sizes, each, repeats):
    family = bitwise.family(train=1000, test=100)
    prompts = [p for concept in family.labels for p in render.prompts(family, concept, 4, each, seed=SEED)]
    concepts = np.repeat(np.arange(7), each)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = _tokenizer(folder, [prompt.whole + "\n" for prompt in prompts])
        model = llama.LlamaConfig(vocab_size=len(tokenizer), rope_scaling=None, tied=True, **sizes)
        params = jax.jit(model.init)(jax.random.key(0))
        pretrained.save_pretrained(model, params, folder)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    ids, _ = render.encode(tokenizer, prompts, bos=True)
    per_draw = each // DRAWS
    samples = list(np.asarray(sample_draws(jax.random.key(SEED), concepts, 7, per_draw, DRAWS)))
    ours = {
        "CD": lambda: (_cd(_pass(model, params, ids, 0)[0], concepts, per_draw), None),
        "accuracy": lambda: (None, _pass(model, params, ids, NEW, states=False)[1]),
        "both": lambda: _both(model, params, ids, concepts, per_draw),
    }
    peers = {
        "CD": lambda: (_their_cd(torch, theirs, ids, concepts, samples), None),
        "accuracy": lambda: (None, _their_answers(torch, theirs, ids)),
    }
    peers["both"] = lambda: (peers["CD"]()[0], peers["accuracy"]()[1])
    found = []
    for name in ours:
        seconds = {"ours": [], "theirs": []}
        for _ in range(1 + repeats):
            for who, run in (("ours", ours[name]), ("theirs", peers[name])):
                start = time.perf_counter()
                result = run()
                seconds[who].append(time.perf_counter() - start)
                cd, answers = result
                if who == "ours":
                    our_cd, our_answers = cd, answers
        if cd is not None:
            # Neighbours that float32 cannot tell apart may differ.
            np.testing.assert_allclose(our_cd, cd, atol=0.02)
        if answers is not None:
            assert (our_answers == answers).all(1).mean() > 0.98
        best = {who: min(times[1:]) for who, times in seconds.items()}
        rates = " / ".join(f"{len(prompts) / best[who]:.0f}" for who in ("ours", "theirs"))
        found.append({
            "benchmark": f"in-context {name}",
            "shape": f"{sizes['layers']} x {sizes['width']}, {len(prompts)} prompts, {rates} a second",
            "ours_s": best["ours"], "peer": "transformers, scikit-learn", "peer_s": best["theirs"],
            "ratio": best["theirs"] / best["ours"], "aim": "3",
        })  # fmt: skip
    return found


def _pass(model, params, ids, new, states=True):
    kept, answers = [], []
    order = []
    for indices, tokens, lengths in language.batches(ids, BATCH, MULTIPLE):
        found = scoring.score(model, params, tokens, lengths, states=states, max_new_tokens=new)
        real = indices >= 0
        order += indices[real].tolist()
        kept.append(found.states[:, : real.sum()] if states else None)
        answers.append(found.answers[: real.sum()] if new else None)
    place = np.argsort(order)
    return (
        jnp.concatenate(kept, axis=1)[:, place] if states else None,
        np.concatenate([np.asarray(a) for a in answers])[place] if new else None,
    )


def _cd(states, concepts, per_draw):
    key = jax.random.key(SEED)
    return np.asarray(decodability_draws(states, concepts, key, DRAWS, per_draw, K, by_concept=True)).mean(1)


def _both(model, params, ids, concepts, per_draw):
    states, answers = _pass(model, params, ids, NEW)
    return _cd(states, concepts, per_draw), answers


def _their_cd(torch, theirs, ids, concepts, samples):
    from sklearn.neighbors import KNeighborsClassifier

    base, last = theirs.model, []
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    states = np.empty((base.config.num_hidden_layers + 1, len(ids), base.config.hidden_size), np.float32)
    hook = base.layers[-1].register_forward_hook(lambda _, __, output: last.append(output))  # before the final norm
    with torch.inference_mode():
        for start in range(0, len(ids), BATCH):
            chosen = order[start : start + BATCH]
            tokens, mask = _padded(torch, [ids[i] for i in chosen], left=False)
            hidden = base(tokens, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
            hidden = torch.stack([*hidden[:-1], last.pop()])
            states[:, chosen] = hidden[:, range(len(chosen)), mask.sum(1) - 1].numpy()
    hook.remove()
    scores = np.empty((len(samples), len(states), 7))
    for draw, sample in enumerate(samples):
        own = concepts[sample]
        for layer, points in enumerate(states[:, sample]):
            right = KNeighborsClassifier(K, algorithm="brute").fit(points, own).predict(None) == own
            scores[draw, layer] = [right[own == concept].mean() for concept in range(7)]
    return scores.mean(0)


def _their_answers(torch, theirs, ids):
    order, answers = sorted(range(len(ids)), key=lambda i: len(ids[i])), np.empty((len(ids), NEW), np.int64)
    with torch.inference_mode():
        for start in range(0, len(ids), BATCH):
            chosen = order[start : start + BATCH]
            tokens, mask = _padded(torch, [ids[i] for i in chosen], left=True)
            written = theirs.generate(
                tokens, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0, eos_token_id=None
            )
            answers[chosen] = written[:, tokens.shape[1] :].numpy()
    return answers


def _padded(torch, prompts, left):
    width = max(map(len, prompts))
    tokens, mask = torch.zeros((2, len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        place = slice(width - len(prompt), width) if left else slice(0, len(prompt))
        tokens[row, place], mask[row, place] = torch.tensor(prompt), 1
    return tokens, mask


def _tokenizer(folder, texts):
    import tokenizers
    import transformers

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=120, special_tokens=["<s>", "</s>"], show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    return fast
