"""GPT-2 against Hugging Face's on the same weights, and its own promises: causality, scales of the initial weights."""

import dataclasses
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.models import gpt2

pytestmark = pytest.mark.usefixtures("compiles_fast")

CONFIG = gpt2.GPT2Config(layers=3, heads=4, width=24, context=20, input_dim=6, output_dim=2, unroll=1)


drawn = jax.jit(lambda config, scales, seed=0: gpt2.init(config, jax.random.key(seed), scales), static_argnums=0)
apply = jax.jit(gpt2.apply, static_argnums=0, static_argnames="capture")


@lru_cache
def scaled_params(config, seed=0):
    """Parameters where every part matters: large weights, and norms and biases away from their initial 1 and 0."""
    rng = np.random.default_rng(seed)
    deviation = {"blocks": 0.4, "positions": 0.7, "read_in": 0.5, "read_out": 0.5, "embed": 0.5, "ln_f": 0.3}
    draw = lambda path, leaf: np.float32(  # noqa: E731
        (path[-1].key == "scale") + rng.normal(size=leaf.shape) * deviation[path[0].key]
    )
    shapes = jax.eval_shape(partial(gpt2.init, config), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def hugging_face(config, params):
    """A transformers GPT2Model with these parameters."""
    torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
    transformers = pytest.importorskip("transformers", reason="the reference implementation is transformers'")
    model = transformers.GPT2Model(
        transformers.GPT2Config(
            vocab_size=1, n_positions=config.context, n_embd=config.width, n_layer=config.layers, n_head=config.heads,
            n_inner=config.mlp_width or None, activation_function=config.activation, layer_norm_epsilon=config.eps,
            attn_implementation="eager",
        )
    )  # fmt: skip
    names = {
        "ln_1": "ln_1", "attn_qkv": "attn.c_attn", "attn_out": "attn.c_proj",
        "ln_2": "ln_2", "mlp_up": "mlp.c_fc", "mlp_down": "mlp.c_proj",
    }  # fmt: skip
    tensors = {"wte.weight": np.zeros((1, config.width)), "wpe.weight": params["positions"].copy()}
    tensors |= {"ln_f.weight": params["ln_f"]["scale"], "ln_f.bias": params["ln_f"]["bias"]}
    for ours, theirs in names.items():
        for part, leaf in params["blocks"][ours].items():
            for layer in range(config.layers):
                tensors[f"h.{layer}.{theirs}.{'bias' if part == 'bias' else 'weight'}"] = leaf[layer]
    model.load_state_dict({name: torch.tensor(np.asarray(tensor)) for name, tensor in tensors.items()})
    return model.eval()


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def layers_of_both(ours: gpt2.GPT2Config, theirs: gpt2.GPT2Config | None = None):
    """Every layer before the final norm, and the output, of `ours` and of Hugging Face's with the config `theirs`."""
    params = scaled_params(ours)
    model = hugging_face(theirs or ours, params)
    import torch

    inputs = np.random.default_rng(0).normal(size=(3, ours.context, ours.input_dim)).astype(np.float32)
    out, captured, _ = apply(ours, params, inputs, capture="all")
    before_norm = []
    model.h[-1].register_forward_hook(lambda _, __, output: before_norm.append(output))
    with torch.no_grad():
        embedded = torch.tensor(
            inputs @ np.asarray(params["read_in"]["kernel"]) + np.asarray(params["read_in"]["bias"])
        )
        result = model(inputs_embeds=embedded, output_hidden_states=True)
    final = result.last_hidden_state.numpy() @ np.asarray(params["read_out"]["kernel"]) + params["read_out"]["bias"]
    states = [state.numpy() for state in result.hidden_states[:-1]] + [before_norm[0].numpy()]
    return [*captured, out], [*states, np.asarray(final)]


@pytest.mark.parametrize("change", [{}, {"mlp_width": 40}, {"activation": "relu"}, {"eps": 0.1}], ids=str)
def test_every_layer_equals_hugging_face(change):
    ours, theirs = layers_of_both(dataclasses.replace(CONFIG, **change))
    assert [relative_error(a, b) < 1e-5 for a, b in zip(ours, theirs, strict=True)] == [True] * (CONFIG.layers + 2)


@pytest.mark.parametrize("change", [{"activation": "relu"}, {"eps": 1e-3}, {"qk_norm": True}], ids=str)
def test_the_comparison_bites(change):
    ours, theirs = layers_of_both(dataclasses.replace(CONFIG, **change), CONFIG)
    assert relative_error(ours[-1], theirs[-1]) > 1e-4


def test_the_comparison_tells_the_tanh_form_of_gelu_from_the_exact_one(monkeypatch):
    monkeypatch.setitem(gpt2.ACTIVATIONS, "gelu_new", lambda x: jax.nn.gelu(x, approximate=False))
    jax.clear_caches()
    ours, theirs = layers_of_both(CONFIG)
    jax.clear_caches()
    assert relative_error(ours[-1], theirs[-1]) > 1e-4


@pytest.mark.parametrize(("vocab_size", "change"), [(0, {"qk_norm": True}), (7, {})])
def test_outputs_do_not_depend_on_later_tokens(vocab_size, change):
    config = dataclasses.replace(CONFIG, layers=2, vocab_size=vocab_size, context=7, **change)
    params = scaled_params(config)
    if vocab_size:
        # The states after the last block, against the embeddings of seven tokens used once each; the logits would
        # not do, for the read-out is the same table.
        vectors, states = params["embed"], partial(apply, config, inputs=jnp.arange(7)[None], capture="all")
        out_of = lambda v: states(params | {"embed": v}).captured[-1, 0]  # noqa: E731
    else:
        vectors = np.random.default_rng(1).normal(size=(7, config.input_dim)).astype(np.float32)
        out_of = lambda v: apply(config, params, v[None]).out[0]  # noqa: E731
    jacobian = np.abs(jax.jit(jax.jacrev(out_of))(vectors)).sum((1, 3))
    assert (jacobian[np.triu_indices(7, 1)] == 0).all()
    assert (jacobian[np.tril_indices(7)] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"unroll": 0}, {"remat": True}], ids=str)
def test_unroll_and_remat_are_only_speed(change):
    params = scaled_params(CONFIG)
    inputs = jax.random.normal(jax.random.key(5), (2, 20, 6))
    loss = lambda p, config: jnp.square(gpt2.apply(config, p, inputs).out).mean()  # noqa: E731
    value_and_grad = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    value, grads = value_and_grad(params, CONFIG)
    other_value, other_grads = value_and_grad(params, dataclasses.replace(CONFIG, **change))
    np.testing.assert_allclose(other_value, value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), other_grads, grads)


def test_bfloat16_products_stay_near_float32_and_leave_the_stream_in_float32():
    params = jax.tree.map(lambda leaf: leaf / 2, scaled_params(CONFIG))
    inputs = jax.random.normal(jax.random.key(5), (4, 20, 6))
    exact = apply(CONFIG, params, inputs, capture="all")
    mixed = apply(dataclasses.replace(CONFIG, dtype="bfloat16"), params, inputs, capture="all")
    assert mixed.out.dtype == mixed.captured.dtype == jnp.float32
    # bfloat16 rounds to 2^-9 relative; a few roundings a block add up to about a percent.
    errors = [relative_error(a, np.asarray(b)) for a, b in zip(mixed.captured, exact.captured, strict=True)]
    assert 1e-4 < max(errors) < 2e-2


def test_initial_weights_have_the_scales_asked_for():
    config = gpt2.GPT2Config(layers=3, heads=4, width=128, context=300, input_dim=200, output_dim=100)
    # Traced scales: the sweep's case.
    params = drawn(config, gpt2.InitScales(0.05, 0.5, 0.3, 0.1))
    blocks, branch = params["blocks"], 0.05 / 6**0.5
    found = {
        "positions": (params["positions"], 0.5),
        "read_in": (params["read_in"]["kernel"], 0.3),
        "read_out": (params["read_out"]["kernel"], 0.1),
        "attn_qkv": (blocks["attn_qkv"]["kernel"], 0.05),
        "mlp_up": (blocks["mlp_up"]["kernel"], 0.05),
        "attn_out": (blocks["attn_out"]["kernel"], branch),
        "mlp_down": (blocks["mlp_down"]["kernel"], branch),
    }
    for name, (leaf, deviation) in found.items():
        # Relative standard error of a deviation over n draws is 1 / sqrt(2 n) < 0.7 %.
        assert abs(float(leaf.std()) / deviation - 1) < 0.03, name
        assert abs(float(leaf.mean())) < 0.03 * deviation, name
    for name in ("attn_qkv", "attn_out", "mlp_up", "mlp_down"):
        assert not blocks[name]["bias"].any()
    assert float(jnp.abs(blocks["attn_qkv"]["kernel"][0] - blocks["attn_qkv"]["kernel"][1]).max()) > 0.01


def test_zero_weight_scale_means_one_over_the_square_root_of_the_inputs():
    config = gpt2.GPT2Config(layers=2, heads=4, width=256)
    blocks = drawn(config, gpt2.InitScales(weights=0.0))["blocks"]
    assert abs(float(blocks["attn_qkv"]["kernel"].std()) * 16 - 1) < 0.02
    assert abs(float(blocks["mlp_down"]["kernel"].std()) * 32 * 2 - 1) < 0.02


def test_the_paper_model_has_9_49_million_parameters():
    params = jax.eval_shape(lambda key: gpt2.init(gpt2.GPT2Config(), key), jax.random.key(0))
    assert round(sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6, 2) == 9.49


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, r"model\.heads must divide model\.width = 24, got 5"),
        ({"width": 0}, r"model\.width must be a positive integer, got 0"),
        ({"layers": -1}, r"model\.layers must be a positive integer, got -1"),
        ({"context": 2.5}, r"model\.context must be a positive integer, got 2\.5"),
        ({"mlp_width": -4}, r"model\.mlp_width must be a positive integer or 0, got -4"),
        ({"activation": "gelu"}, r"model\.activation must be one of gelu_new, relu, got 'gelu'"),
        ({"dtype": "float16"}, r"model\.dtype must be \"float32\" or \"bfloat16\", got 'float16'"),
    ],
)
def test_bad_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_a_sequence_beyond_the_context_is_refused():
    with pytest.raises(ValueError, match="context is 20 tokens, got a sequence of 21"):
        gpt2.apply(CONFIG, scaled_params(CONFIG), jnp.zeros((1, 21, 6)))
