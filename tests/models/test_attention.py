"""Fused attention: JAX's function computes what ours does, and the kernel is taken only where it does.

The kernel itself needs an NVIDIA GPU and is not run here.
"""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.models import decoder, gemma2, language, layers, llama, olmo2

pytestmark = pytest.mark.usefixtures("compiles_fast")

SIZES = {"vocab_size": 31, "width": 16, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 24, "context": 64}
LLAMA = llama.LlamaConfig(layers=2, dtype="bfloat16", **SIZES)


def attention_by_hand(q, k, v, scale, window, length):
    """In NumPy float64, one query at a time."""
    out = np.zeros(q.shape)
    for b, t, h in np.ndindex(q.shape[:3]):
        if t >= length[b]:
            continue
        seen = slice(max(0, t - window + 1) if window else 0, t + 1)
        scores = scale * k[b, seen, h // (q.shape[2] // k.shape[2])] @ q[b, t, h]
        weights = np.exp(scores - scores.max())
        out[b, t, h] = weights @ v[b, seen, h // (q.shape[2] // k.shape[2])] / weights.sum()
    return out


@pytest.mark.parametrize("window", [None, 1, 5, 40])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_jax_attention_computes_what_ours_does(kv_heads, window):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 33, heads, 8)).astype(np.float32) for heads in (6, kv_heads, kv_heads))
    lengths = np.array([33, 12])
    context = decoder.Context(jnp.arange(33)[None], window=window)
    ours = np.asarray(layers.attend(q, k, v, context, 0.3))
    fused = np.asarray(layers.fused_attention(q, k, v, 0.3, "xla", window))
    expected = attention_by_hand(*(a.astype(np.float64) for a in (q, k, v)), 0.3, window, lengths)
    for row, length in enumerate(lengths):
        # Causal, so what is beyond a prompt's length does not matter; float32 against float64.
        np.testing.assert_allclose(ours[row, :length], expected[row, :length], atol=2e-6, rtol=0)
        np.testing.assert_allclose(fused[row, :length], expected[row, :length], atol=2e-6, rtol=0)


@pytest.mark.slow
def test_a_context_chooses_it(monkeypatch):
    asked = []
    honest = layers.fused_attention

    def spy(q, k, v, scale, implementation):
        asked.append(implementation)
        return honest(q, k, v, scale, "xla")

    monkeypatch.setattr(layers, "fused_attention", spy)
    params = LLAMA.init(jax.random.key(0))
    tokens = np.arange(20).reshape(2, 10)
    everywhere, layer_numbers = None, (0, 1, 2)
    plain = language._states(LLAMA, params, tokens, everywhere, None, layer_numbers, False, "xla")[0]
    assert asked == []
    fused = language._states(LLAMA, params, tokens, everywhere, None, layer_numbers, False, "cudnn")[0]
    assert set(asked) == {"cudnn"}
    # bfloat16: both round, in different places; 2^-8 is a step of its 8 bits.
    np.testing.assert_allclose(fused, plain, rtol=0, atol=4 * 2.0**-8 * float(jnp.abs(plain).max()))


def device(platform, version="cuda 13"):
    return types.SimpleNamespace(platform=platform, client=types.SimpleNamespace(platform_version=version))


GPU = device("gpu")


@pytest.mark.parametrize(
    ("model", "where", "reason"),
    [
        (LLAMA, GPU, None),
        (olmo2.Olmo2Config(dtype="bfloat16"), GPU, None),
        (LLAMA, device("cpu"), "needs an NVIDIA GPU, and the model is on cpu"),
        (LLAMA, device("tpu"), "needs an NVIDIA GPU"),
        (LLAMA, device("gpu", "rocm 7"), "needs an NVIDIA GPU"),
        (dataclasses.replace(LLAMA, dtype="float32"), GPU, "computes in bfloat16, and the model in float32"),
        (gemma2.Gemma2Config(dtype="bfloat16"), GPU, "the model has local layers"),
        (dataclasses.replace(LLAMA, head_dim=12), GPU, "takes heads of 8, 16, ... 128, and the model's are 12"),
        (dataclasses.replace(LLAMA, head_dim=256), GPU, "and the model's are 256"),
    ],
)
def test_the_kernel_is_taken_where_it_computes_the_same(model, where, reason):
    assert language.attention_of(model, where) == ("cudnn" if reason is None else "xla")
    assert language.attention_of(model, where, "xla") == "xla"
    if reason is None:
        assert language.attention_of(model, where, "cudnn") == "cudnn"
    else:
        with pytest.raises(ValueError, match=f"attention cannot be cudnn: .*{reason}"):
            language.attention_of(model, where, "cudnn")


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="attention must be auto, xla or cudnn, got 'flash'"):
        language.hidden_states(LLAMA, LLAMA.init(jax.random.key(0)), np.ones((1, 3), int), attention="flash")
