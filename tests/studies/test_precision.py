"""The error of bfloat16: rounding alone at the embeddings, small and growing after, and loud where something is off."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxconcepts.models import language, llama
from jaxconcepts.studies.extraction import precision

MODEL = llama.LlamaConfig(
    vocab_size=30, width=16, layers=3, heads=4, kv_heads=2, head_dim=8, mlp_width=24, context=64
)  # fmt: skip


@pytest.fixture(scope="module")
def setting():
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.4).astype(np.float32), shapes)
    return params, rng.integers(0, 30, (6, 20)), np.array([20, 3, 11, 20, 7, 1])


def test_errors_are_those_of_rounding(setting):
    params, tokens, lengths = setting
    errors = precision.bfloat16_error(MODEL, params, tokens, lengths)
    assert errors.shape == (4,)
    # Rounding to 8 bits: at most 2^-9 relative, uniformly spread within a power of two.
    embedded = params["embed"][tokens[np.arange(6), lengths - 1]].astype(np.float64)
    rounded = np.asarray(jax.numpy.asarray(embedded, "bfloat16"), np.float64)
    by_hand = np.sqrt((np.square(rounded - embedded).sum(-1) / np.square(embedded).sum(-1)).mean())
    assert errors[0] == pytest.approx(by_hand, rel=1e-6) and errors[0] < 2**-9
    # Two to eight roundings a block, so above one rounding and below a few per cent; larger means a float32 part lost.
    assert (errors[1:] > errors[0]).all() and (errors[1:] < 0.04).all()


def test_an_error_in_the_model_shows(setting, monkeypatch):
    params, tokens, lengths = setting
    honest = language.hidden_states

    def wrong(model, params, *arguments):
        if model.dtype == "bfloat16":
            model = dataclasses.replace(model, rope_theta=100.0)
        return honest(model, params, *arguments)

    monkeypatch.setattr(language, "hidden_states", wrong)
    errors = precision.bfloat16_error(MODEL, params, tokens, lengths)
    assert errors[0] < 2**-9 and errors[-1] > 0.1


def test_only_float32_can_be_compared_with(setting):
    with pytest.raises(ValueError, match="model.dtype must be float32, .*got 'bfloat16'"):
        precision.bfloat16_error(dataclasses.replace(MODEL, dtype="bfloat16"), *setting)
