"""Every kind of positions against the same attention in float64 NumPy, token by token, and decoding with a cache."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.models import gpt2, language, positions

pytestmark = pytest.mark.usefixtures("compiles_fast")

CONFIG = gpt2.GPT2Config(
    layers=2, heads=3, width=24, context=12, vocab_size=11, rotary_fraction=0.5, rope_theta=30.0, mlp_width=16
)
KINDS = [(kind, causal) for kind in positions.KINDS for causal in (True, False)]
TOLERANCE = 1e-5
"""Relative to the largest: float32 against float64."""


def scaled_params(config):
    """Large weights, and tables and norms away from their initial values, so that every part matters."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(partial(gpt2.init, config), jax.random.key(0))
    draw = lambda path, leaf: np.float32((path[-1].key == "scale") + 0.5 * rng.normal(size=leaf.shape))  # noqa: E731
    return jax.tree_util.tree_map_with_path(draw, shapes)


def norm(x, parameters):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
    return scaled * parameters["scale"] + parameters["bias"]


def dense(x, parameters):
    return x @ parameters["kernel"].astype(np.float64) + parameters["bias"]


def turned(x, position, fraction, theta):
    """A head's vector with its first dimensions rotated, as complex numbers."""
    count = round(len(x) * fraction)
    half = count // 2
    angles = position * theta ** (-2.0 * np.arange(half) / count)
    rotated = (x[:half] + 1j * x[half:count]) * np.exp(1j * angles)
    return np.concatenate([rotated.real, rotated.imag, x[count:]])


def score(config, block, head, q, k, i, j):
    """What token i's head gives token j before the softmax; -inf where it does not see it."""
    kind, distance = config.positions, i - j
    if (config.causal and distance < 0) or (kind == "uniform" and distance >= 2 ** (head + 1) - 1):
        return -np.inf
    row = distance if config.causal else distance + config.context - 1
    if kind == "uniform":
        return 0.0
    if kind == "position_only":
        return block["distance_scores"][row, head]
    query, key = q[i, head], k[j, head]
    if kind == "rotary":
        turn = partial(turned, fraction=config.rotary_fraction, theta=config.rope_theta)
        return turn(query, i) @ turn(key, j) / np.sqrt(len(query))
    if kind == "relative":
        by_distance = query @ block["distance_keys"][row, head] + key @ block["distance_queries"][row, head]
        return (query @ key + by_distance) / np.sqrt(3 * len(query))
    return query @ key / np.sqrt(len(query))


def reference(config, params, tokens):
    """The stream after every block and the logits, of one sequence."""
    x = params["embed"][tokens].astype(np.float64)
    if config.positions == "learned":
        x = x + params["positions"][: len(tokens)]
    stream = [x]
    for layer in range(config.layers):
        block = jax.tree.map(lambda a, layer=layer: np.asarray(a[layer], np.float64), params["blocks"])
        normed, heads = norm(x, block["ln_1"]), (len(tokens), config.heads, config.head_dim)
        if config.positions in positions.WITHOUT_QUERIES:
            q = k = None
            v = dense(normed, block["attn_v"]).reshape(heads)
        else:
            q, k, v = (part.reshape(heads) for part in np.split(dense(normed, block["attn_qkv"]), 3, axis=-1))
        out = np.zeros(heads)
        for head in range(config.heads):
            for i in range(len(tokens)):
                scores = np.array([score(config, block, head, q, k, i, j) for j in range(len(tokens))])
                weights = np.exp(scores - scores.max())
                out[i, head] = weights / weights.sum() @ v[:, head]
        x = x + dense(out.reshape(len(tokens), -1), block["attn_out"])
        up = dense(norm(x, block["ln_2"]), block["mlp_up"])
        gelu = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
        x = x + dense(gelu, block["mlp_down"])
        stream.append(x)
    return np.stack(stream), norm(x, params["ln_f"]) @ params["embed"].T


def with_kind(kind, causal=True):
    return dataclasses.replace(CONFIG, positions=kind, causal=causal)


@pytest.mark.parametrize(("kind", "causal"), KINDS)
def test_stream_and_logits_equal_float64_token_by_token(kind, causal):
    config = with_kind(kind, causal)
    params, tokens = scaled_params(config), np.array([3, 1, 4, 1, 5, 9, 2])
    output = jax.jit(partial(gpt2.apply, config, capture="all"))(params, tokens[None])
    stream, logits = reference(config, params, tokens)
    for ours, theirs in ((output.captured[:, 0], stream), (output.out[0], logits)):
        assert np.abs(ours - theirs).max() < TOLERANCE * np.abs(theirs).max()


@pytest.mark.parametrize("kind", positions.KINDS)
def test_decoding_with_a_cache_equals_decoding_without(kind):
    config = with_kind(kind)
    params = scaled_params(config)
    prompts, lengths = np.array([[3, 1, 4, 1], [5, 9, 0, 0]]), np.array([4, 2])
    answer = language.generate(config, params, prompts, lengths, max_new_tokens=6)
    logits = jax.jit(partial(gpt2.apply, config))
    for row, length in enumerate(lengths):
        tokens = np.zeros((1, config.context), np.int64)
        tokens[0, :length] = prompts[row, :length]
        for new in range(6):
            tokens[0, length + new] = np.argmax(logits(params, tokens).out[0, length + new - 1])
        np.testing.assert_array_equal(answer[row], tokens[0, length : length + 6])


@pytest.mark.parametrize("kind", [kind for kind in positions.KINDS if kind != "relative"])
def test_one_block_of_an_encoder_agrees_with_a_decoder_at_the_last_token(kind):
    """There both see everything. Relative tables of an encoder have other rows, so they are given the decoder's."""
    tokens = np.array([[3, 1, 4, 1, 5]])
    config = dataclasses.replace(with_kind(kind), layers=1)
    params = scaled_params(config)
    both = params
    if kind == "position_only":
        table = params["blocks"]["distance_scores"]
        both = params | {"blocks": params["blocks"] | {"distance_scores": np.concatenate([table[:, :0:-1], table], 1)}}
    decoder = gpt2.apply(config, params, tokens).out[0, -1]
    encoder = gpt2.apply(dataclasses.replace(config, causal=False), both, tokens).out[0]
    np.testing.assert_allclose(encoder[-1], decoder, rtol=1e-5, atol=1e-5)
    assert np.abs(encoder[0] - gpt2.apply(config, params, tokens).out[0, 0]).max() > 1e-2


def test_other_kinds_leave_the_initial_weights_of_all_other_parts_alone():
    learned = gpt2.init(CONFIG, jax.random.key(1))
    rotary = gpt2.init(with_kind("rotary"), jax.random.key(1))
    learned.pop("positions")
    jax.tree.map(np.testing.assert_array_equal, learned, rotary)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "sinusoidal"}, "model.positions must be one of learned, rotary, .*, got 'sinusoidal'"),
        ({"positions": "rotary", "rotary_fraction": 0.4}, "rotate an even number of each head's 8 dimensions"),
        ({"positions": "rotary", "rotary_fraction": 0.0}, "model.rotary_fraction must be above 0"),
        ({"positions": "rotary", "rotary_fraction": 1.5}, "model.rotary_fraction must be above 0 and at most 1"),
        ({"rope_theta": 0.0}, "model.rope_theta must be a positive number, got 0.0"),
        ({"causal": 1}, "model.causal must be True or False, got 1"),
        ({"bottleneck": 4, "vocab_size": 0, "positions": "uniform"}, "model.bottleneck needs causal attention"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_no_checkpoint_folder_and_no_fused_kernel_for_other_kinds():
    with pytest.raises(ValueError, match="GPT-2 checkpoints have learned positions"):
        with_kind("rotary").to_hf()
    with pytest.raises(ValueError, match="attention cannot be cudnn"):
        language.attention_of(with_kind("uniform"), jax.devices()[0], "cudnn")
    assert not with_kind("relative").plain_attention
    assert with_kind("rotary").plain_attention


def test_gradients_reach_every_table():
    for kind, names in (("relative", ("distance_keys", "distance_queries")), ("position_only", ("distance_scores",))):
        config = with_kind(kind)
        loss = lambda params, config=config: jnp.square(gpt2.apply(config, params, np.array([[1, 2, 3]])).out).sum()  # noqa: E731
        grads = jax.jit(jax.grad(loss))(scaled_params(config))
        for name in names:
            assert np.abs(grads["blocks"][name][:, :3]).min() > 0 or kind == "relative"
            assert np.abs(grads["blocks"][name]).max() > 0
