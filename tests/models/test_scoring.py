"""One pass that gives states, answers and log-probabilities: each as the functions that give it alone."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxconcepts.models import gemma2, gpt2, language, llama, mamba2, scoring

pytestmark = pytest.mark.usefixtures("compiles_fast")

SIZES = {"vocab_size": 31, "width": 16, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 24, "context": 64}
MODELS = {
    "llama": llama.LlamaConfig(layers=2, **SIZES),
    "gemma2": gemma2.Gemma2Config(layers=2, window=5, query_scale=8, **SIZES),
    "gpt2": gpt2.GPT2Config(vocab_size=31, width=16, layers=2, heads=4, context=64),
    "relative": gpt2.GPT2Config(vocab_size=31, width=16, layers=2, heads=4, context=64, positions="relative"),
    "mamba2": mamba2.Mamba2Config(
        vocab_size=31, width=16, layers=2, heads=4, head_dim=8, state=8, groups=2, chunk=8, context=64
    ),
}
LENGTHS = np.array([3, 17, 9])


def setting(model):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.4).astype(leaf.dtype), shapes)
    tokens = np.where(np.arange(20) < LENGTHS[:, None], rng.integers(0, 31, (3, 20)), 0)
    return params, tokens, rng.integers(0, 31, (3, 4, 5)), rng.integers(0, 6, (3, 4))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_all_at_once_is_each_alone(name):
    model = MODELS[name]
    params, tokens, continuations, counts = setting(model)
    counts[0, 0], counts[1, 1] = 5, 1
    found = scoring.score(
        model, params, tokens, LENGTHS, max_new_tokens=6, stop_tokens=(3, 4), continuations=(continuations, counts)
    )  # fmt: skip
    states = language.hidden_states(model, params, tokens, LENGTHS)
    np.testing.assert_allclose(found.states, states, rtol=1e-5, atol=1e-5 * np.abs(states).max())
    answers = language.generate(model, params, tokens, LENGTHS, max_new_tokens=6, stop_tokens=(3, 4))
    np.testing.assert_array_equal(found.answers, answers)

    # Teacher-forced the plain way: prompt and continuation in one text, all logits.
    whole = np.zeros((12, 32), int)
    for row, (i, c) in enumerate(np.ndindex(3, 4)):
        whole[row, : LENGTHS[i]] = tokens[i, : LENGTHS[i]]
        whole[row, LENGTHS[i] : LENGTHS[i] + 5] = continuations[i, c]
    lengths = np.repeat(LENGTHS, 4) + 5
    logits = np.asarray(language.logits(model, params, whole, lengths), np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for row, (i, c) in enumerate(np.ndindex(3, 4)):
        expected = sum(log_probs[row, LENGTHS[i] - 1 + j, continuations[i, c, j]] for j in range(counts[i, c]))
        assert abs(float(found.log_probs[i, c]) - expected) < 1e-3 + 1e-4 * abs(expected)


def test_only_what_is_asked_for_is_computed():
    model = MODELS["llama"]
    params, tokens, continuations, _ = setting(model)
    found = scoring.score(model, params, tokens, LENGTHS)
    assert found.states.shape == (3, 3, 16) and found.answers is None and found.log_probs is None
    one = np.ones((3, 4), int)
    found = scoring.score(model, params, tokens, LENGTHS, states=False, continuations=(continuations[:, :, :1], one))
    assert found.states is None and found.log_probs.shape == (3, 4)


def test_what_exceeds_the_context_is_named():
    model = dataclasses.replace(MODELS["llama"], context=20)
    params, tokens, _, _ = setting(model)
    with pytest.raises(ValueError, match="prompt and answer take 21 tokens, the model's context is 20"):
        scoring.score(model, params, tokens, LENGTHS, max_new_tokens=4)
