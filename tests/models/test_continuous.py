"""Any family on sequences of numbers: against the same family on tokens, whose table and logits are readers too."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.interventions import heads
from jaxconcepts.models import continuous, gpt_neox, language, llama, mamba2

SIZES = {"vocab_size": 11, "width": 16, "layers": 2, "heads": 2, "context": 12, "tied": False}
MODELS = {
    "llama": llama.LlamaConfig(**SIZES, kv_heads=1, head_dim=8, mlp_width=24, rope_scaling=None),
    "gpt_neox": gpt_neox.GPTNeoXConfig(**SIZES, mlp_width=24),
    "mamba2": mamba2.Mamba2Config(**SIZES, head_dim=16, state=4, chunk=4, float32_stream=False),
}


def drawn(name):
    """The family on tokens with weights that bite, and the same blocks between readers of one-hot vectors."""
    model = MODELS[name]
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.4).astype(leaf.dtype), shapes)
    numbers = continuous.Continuous(dataclasses.replace(model, vocab_size=1), 11, 11)
    readers = continuous.with_readers(numbers, params, jax.random.key(1))
    readers["read_in"] = {"kernel": params["embed"], "bias": np.zeros(16, np.float32)}
    readers["read_out"] = {"kernel": params["unembed"].T, "bias": np.zeros(11, np.float32)}
    return model, params, numbers, readers, rng.integers(0, 11, (3, 8))


@pytest.mark.parametrize("name", MODELS)
def test_one_hot_vectors_are_tokens(name):
    model, params, numbers, readers, tokens = drawn(name)
    output = jax.jit(continuous.apply, static_argnums=(0, 3))(numbers, readers, jax.nn.one_hot(tokens, 11), "all")
    states, logits = language.hidden_states(model, params, tokens, at="all", with_logits=True)
    np.testing.assert_allclose(output.captured, states, rtol=2e-5, atol=2e-5 * np.abs(states).max())
    np.testing.assert_allclose(output.out, logits, rtol=2e-5, atol=2e-5 * np.abs(logits).max())
    again = jax.jit(continuous.resume, static_argnums=0)(numbers, readers, output.captured[1], 1)
    np.testing.assert_allclose(again, output.out, rtol=2e-5, atol=2e-5 * np.abs(logits).max())


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_a_head_that_is_switched_off_has_no_rows_in_the_projection(name):
    _, _, numbers, readers, tokens = drawn(name)
    inputs = jax.nn.one_hot(tokens, 11)
    edits = heads.zero(heads.chosen([(2, 1)], 2, 2))
    off = continuous.apply(numbers, readers, inputs, edits=edits).out
    blocks = readers["blocks"]
    kernel = jnp.asarray(blocks["out"]["kernel"]).at[1, 8:].set(0)
    without = readers | {"blocks": blocks | {"out": blocks["out"] | {"kernel": kernel}}}
    expected = continuous.apply(numbers, without, inputs).out
    np.testing.assert_allclose(off, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(off - continuous.apply(numbers, readers, inputs).out).max() > 0.01


def test_what_does_not_fit_is_named():
    _, _, numbers, readers, _ = drawn("mamba2")
    with pytest.raises(ValueError, match="context is 12 tokens, got a sequence of 13"):
        continuous.apply(numbers, readers, np.zeros((1, 13, 11), np.float32))
    with pytest.raises(ValueError, match="a mamba2 model has no attention heads"):
        continuous.apply(numbers, readers, np.zeros((1, 4, 11), np.float32), "all", with_heads=True)
