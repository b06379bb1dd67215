"""The explicit latent: what reaches a prediction, and by which way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.experiments.regression import Regression
from jaxconcepts.models import bottleneck, gpt2, residual

pytestmark = pytest.mark.usefixtures("compiles_fast")

CONFIG = gpt2.GPT2Config(layers=4, heads=2, width=16, context=8, input_dim=3, bottleneck=2)
SCALES = gpt2.InitScales(0.0, 0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def params():
    return gpt2.init(CONFIG, jax.random.key(0), SCALES)


@jax.jit
def outputs(params, inputs):
    return gpt2.apply(CONFIG, params, inputs, capture="all")


@pytest.fixture(scope="module")
def inputs():
    return jax.random.normal(jax.random.key(1), (5, 8, 3))


def changed_at(params, inputs, token):
    """Which tokens' outputs, and which states [layer, token], a change of one input token changes."""
    before, after = outputs(params, inputs), outputs(params, inputs.at[:, token].add(1.0))
    return (
        np.asarray((before.out != after.out).any((0, 2))),
        np.asarray((before.captured != after.captured).any((1, 3))),
    )


def test_an_x_reaches_later_predictions_through_codes_alone(params, inputs):
    """x_1 is token 2, y_1 token 3: x_1's own prediction, and from x_2 (token 4) on."""
    out, states = changed_at(params, inputs, 2)
    assert out[[0, 1, 2, 3, 4, 6]].tolist() == [False, False, True, True, True, True]
    # Before the code enters, of the x tokens only x_1 itself; after it also the later ones.
    assert states[:4, ::2].any(0).tolist() == [False, True, False, False]
    assert states[4, ::2].tolist() == [False, True, True, True]


def test_a_query_is_predicted_from_the_code_and_itself(params, inputs):
    """With the code cut off by zero expansion, nothing of the examples is left."""
    cut = params | {"code": params["code"] | {"up": jax.tree.map(jnp.zeros_like, params["code"]["up"])}}
    assert not changed_at(cut, inputs, 3)[0][4::2].any()
    assert changed_at(params, inputs, 3)[0][4::2].all()


def test_equal_codes_give_equal_predictions(params, inputs):
    """Other examples that happen to have the code of these: the prediction of x_3 is the same."""
    other = inputs.at[:, :6].set(jax.random.normal(jax.random.key(2), (5, 6, 3)))
    border = bottleneck.entry(CONFIG.layers)
    here, there = outputs(params, inputs), outputs(params, other)
    assert not np.allclose(here.out[:, 6], there.out[:, 6], atol=1e-3)
    # y_2's stream before the code is taken, written over that of the other examples.
    mask = np.zeros((5, 1, 8), np.float32)
    mask[border, 0, 5] = 1
    edits = residual.Edits(mask, jnp.broadcast_to(here.captured[border][None], (5, 5, 8, 16)))
    patched = gpt2.apply(CONFIG, params, other, edits=edits)
    np.testing.assert_allclose(patched.out[:, 6], here.out[:, 6], atol=1e-5)
    assert bottleneck.code(params["code"], here.captured[border], 1e-5, "float32").shape == (5, 8, 2)


def test_the_code_scales_and_shifts(params):
    """Written out: (scale, shift) = W_up (W_down norm(y_(i-1)) + b_down) + b_up for x_i; x_0 and every y stay."""
    stream = np.asarray(jax.random.normal(jax.random.key(3), (2, 8, 16)), np.float64)
    params = jax.tree.map(lambda a: a + 0.1, params["code"])
    found = np.asarray(bottleneck.with_code(params, jnp.asarray(stream, jnp.float32), 1e-5, "float32"))
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    centred = stream - stream.mean(-1, keepdims=True)
    normed = centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
    expanded = (normed @ p["down"]["kernel"] + p["down"]["bias"]) @ p["up"]["kernel"] + p["up"]["bias"]
    expected = stream.copy()
    for x in (2, 4, 6):
        scale, shift = np.split(expanded[:, x - 1], 2, axis=-1)
        expected[:, x] = (1 + scale) * stream[:, x] + shift
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_all_other_weights_are_those_of_the_model_without(params):
    standard = gpt2.GPT2Config(**{**vars(CONFIG), "bottleneck": 0})
    plain = gpt2.init(standard, jax.random.key(0), SCALES)
    assert set(params) - set(plain) == {"code"}
    jax.tree.map(np.testing.assert_array_equal, {name: params[name] for name in plain}, plain)


def test_running_on_from_a_layer_is_the_whole_run(params, inputs):
    whole = outputs(params, inputs)
    for layer in range(4):
        np.testing.assert_allclose(
            gpt2.resume(CONFIG, params, whole.captured[layer], layer), whole.out, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    "fields", [{"layers": 1, "bottleneck": 2}, {"vocab_size": 5, "bottleneck": 2}, {"bottleneck": -1}]
)
def test_what_has_no_bottleneck_says_so(fields):
    with pytest.raises(ValueError, match="model.bottleneck"):
        gpt2.GPT2Config(**fields)


def test_a_config_may_leave_the_bottleneck_out_and_keeps_its_name_then():
    from jaxconcepts.runs import points

    config = Regression.default_config()
    assert "bottleneck" not in config["model"] and Regression.from_config(config).model.bottleneck == 0
    with_field = config | {"model": config["model"] | {"bottleneck": 4}}
    assert Regression.from_config(with_field).model.bottleneck == 4
    assert points.make_point(config).hash != points.make_point(with_field).hash
