"""The residual stack against a plain Python loop over its blocks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.models import gpt2, residual
from jaxconcepts.models.residual import Edits, HeadEdits

pytestmark = pytest.mark.usefixtures("compiles_fast")

CONFIG = gpt2.GPT2Config(layers=3, heads=2, width=8, context=6, input_dim=4)
LAYERS, BATCH, LENGTH, WIDTH, HEADS = 4, 5, 6, 8, 2
HEAD_OUTPUTS = (LAYERS - 1, BATCH, LENGTH, HEADS)


@pytest.fixture(scope="module")
def blocks():
    shapes = jax.eval_shape(lambda key: gpt2.init(CONFIG, key)["blocks"], jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.5).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def stream():
    return drawn(BATCH, LENGTH, WIDTH, seed=1)


def block(layer_params, stream, layer_input, head_edits):
    stream = gpt2.Block(CONFIG).apply({"params": layer_params}, stream, None, head_edits)[0]
    if layer_input is not None:
        stream = stream * layer_input
    return stream, stream.sum()


one_block = jax.jit(lambda *given: block(*given)[0])


@partial(jax.jit, static_argnames=("capture", "unroll"))
def run(blocks, stream, layer_inputs=None, edits=None, capture=None, unroll=1):
    return residual.run(
        block, blocks, stream, layer_inputs=layer_inputs, edits=Edits(**(edits or {})), capture=capture, unroll=unroll
    )


def plain_loop(
    blocks, stream, mask=None, value=None, add=None, head_scale=None, head_mask=None, head_value=None, layer_inputs=None
):
    """What `run` must equal: all layers [layers + 1, B, T, d], with no scan and no broadcasting."""
    shape = (LAYERS, BATCH, LENGTH, WIDTH)
    mask = None if mask is None else np.broadcast_to(np.asarray(mask, bool)[..., None], shape)
    value = None if value is None else np.broadcast_to(value, shape)
    add = None if add is None else np.broadcast_to(add, shape)

    def edited(layer, stream):
        stream = np.array(stream)
        if mask is not None:
            stream[mask[layer]] = value[layer][mask[layer]]
        return stream if add is None else stream + add[layer]

    captured = [edited(0, stream)]
    for layer in range(LAYERS - 1):
        layer_params = jax.tree.map(lambda a, layer=layer: a[layer], blocks)
        heads = HeadEdits(
            None if head_scale is None else np.broadcast_to(head_scale, (LAYERS - 1, BATCH, HEADS))[layer],
            None if head_mask is None else np.broadcast_to(head_mask, (LAYERS - 1, BATCH, LENGTH, HEADS))[layer],
            None if head_mask is None else np.broadcast_to(head_value, (*HEAD_OUTPUTS, WIDTH // HEADS))[layer],
        )
        layer_input = None if layer_inputs is None else layer_inputs[layer]
        captured.append(edited(layer + 1, one_block(layer_params, captured[-1], layer_input, heads)))
    return np.stack(captured)


def drawn(*shape, seed=2):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def some(*shape):
    return np.random.default_rng(3).random(shape) < 0.3


FULL = (LAYERS, BATCH, LENGTH)
EDITS = {
    "none": {},
    "replace": {"mask": some(*FULL), "value": drawn(*FULL, WIDTH)},
    "replace, one value for the whole batch": {"mask": some(LAYERS, 1, LENGTH), "value": drawn(LAYERS, 1, 1, WIDTH)},
    "replace, one mask for all layers": {"mask": some(1, BATCH, LENGTH), "value": drawn(1, BATCH, LENGTH, WIDTH)},
    "add": {"add": drawn(*FULL, WIDTH)},
    "add, one vector a layer": {"add": drawn(LAYERS, 1, 1, WIDTH)},
    "scale heads": {"head_scale": drawn(LAYERS - 1, BATCH, HEADS)},
    "ablate one head of one block": {"head_scale": np.float32([[[1, 1]], [[0, 1]], [[1, 1]]])},
    "replace heads": {"head_mask": some(*HEAD_OUTPUTS), "head_value": drawn(*HEAD_OUTPUTS, WIDTH // HEADS)},
    "replace one head by its mean": {
        "head_mask": np.float32([[[[0, 0]]], [[[0, 1]]], [[[0, 0]]]]),
        "head_value": drawn(1, 1, LENGTH, HEADS, WIDTH // HEADS),
    },
    "all": {
        "mask": some(*FULL),
        "value": drawn(*FULL, WIDTH),
        "add": drawn(LAYERS, 1, LENGTH, WIDTH, seed=4),
        "head_scale": drawn(1, BATCH, HEADS),
        "head_mask": some(LAYERS - 1, 1, LENGTH, HEADS),
        "head_value": drawn(1, BATCH, LENGTH, HEADS, WIDTH // HEADS),
    },
}


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS.keys())
def test_edits_equal_a_plain_loop(blocks, stream, edits):
    trace = run(blocks, stream, edits=edits, capture="all")
    expected = plain_loop(blocks, stream, **edits)
    np.testing.assert_allclose(trace.captured, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(trace.stream, expected[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("edits", list(EDITS.values())[1:], ids=list(EDITS)[1:])
def test_every_edit_changes_the_output(blocks, stream, edits):
    assert not np.allclose(run(blocks, stream, edits=edits).stream, plain_loop(blocks, stream)[-1])


@pytest.mark.parametrize("edits", [EDITS["none"], EDITS["all"]], ids=["none", "all"])
def test_a_run_from_a_later_layer_ends_as_the_whole_one(blocks, stream, edits):
    """Where nothing is edited before that layer; the layer may be traced."""
    plain = plain_loop(blocks, stream)
    resumed = jax.jit(lambda first, stream: residual.run(block, blocks, stream, first=first, edits=Edits(**edits)))
    for first in range(LAYERS):
        full = {
            name: np.broadcast_to(part, (LAYERS - name.startswith("head"), *part.shape[1:]))
            for name, part in edits.items()
        }
        later = {name: part.copy() for name, part in full.items()}
        for name in later:
            later[name][:first] = {"head_scale": 1.0}.get(name, 0)
        expected = plain_loop(blocks, stream, **later)[-1]
        np.testing.assert_allclose(resumed(first, plain[first]).stream, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"unroll": True, "remat": True}], ids=str)
def test_unroll_and_remat_change_nothing(blocks, stream, options):
    edits = Edits(**EDITS["all"])

    def loss(blocks, **options):
        trace = residual.run(block, blocks, stream, capture="all", edits=edits, **options)
        return jnp.square(trace.captured).mean(), trace.captured

    grads, captured = jax.jit(jax.grad(loss, has_aux=True))(blocks)
    other_grads, other_captured = jax.jit(jax.grad(partial(loss, **options), has_aux=True))(blocks)
    np.testing.assert_allclose(other_captured, captured, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), other_grads, grads)


@pytest.mark.parametrize(
    "positions",
    ["all", [2], [0, 5, 5], [[0, 1], [5, 5], [2, 0], [3, 4], [1, 1]], [[0], [1], [2], [3], [4]]],
    ids=str,
)
def test_capture_positions(blocks, stream, positions):
    expected = plain_loop(blocks, stream)
    if positions == "all":
        trace = run(blocks, stream, capture="all")
    else:
        trace = residual.run(block, blocks, stream, capture=np.array(positions))
    if positions != "all":
        rows = np.broadcast_to(positions, (BATCH, np.shape(positions)[-1]))
        expected = np.stack([expected[:, b, row] for b, row in enumerate(rows)], axis=1)
    np.testing.assert_allclose(trace.captured, expected, rtol=1e-5, atol=1e-5)


def test_nothing_is_captured_unless_asked(blocks, stream):
    assert run(blocks, stream).captured is None


def test_layer_inputs_reach_their_block_and_outputs_are_stacked(blocks, stream):
    factors = np.float32([1.5, -1.0, 0.5])
    expected = plain_loop(blocks, stream, layer_inputs=factors)
    trace = run(blocks, stream, factors)
    np.testing.assert_allclose(trace.stream, expected[-1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(trace.outputs, expected[1:].sum((1, 2, 3)), rtol=1e-4)


def test_a_patch_grid_is_a_vmap_over_masks(blocks, stream):
    masks = np.eye(LAYERS * LENGTH, dtype=bool).reshape(-1, LAYERS, 1, LENGTH)
    value = drawn(LAYERS, 1, LENGTH, WIDTH)
    grid = jax.vmap(lambda mask: run(blocks, stream, edits={"mask": mask, "value": value}).stream)(masks)
    for cell in (0, 7, len(masks) - 1):
        expected = plain_loop(blocks, stream, mask=masks[cell], value=value)[-1]
        np.testing.assert_allclose(grid[cell], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"mask": some(3, BATCH, LENGTH), "value": drawn(*FULL, WIDTH)}, r"edits\.mask .* axis of 4 .*\(3, 5, 6\)"),
        ({"mask": some(*FULL), "value": drawn(3, 1, 1, WIDTH)}, r"edits\.value .* axis of 4 .*\(3, 1, 1, 8\)"),
        ({"add": drawn(2, 1, 1, WIDTH)}, r"edits\.add .* axis of 4 .*\(2, 1, 1, 8\)"),
        ({"add": drawn(LAYERS, WIDTH)}, r"edits\.add must be \[layers \+ 1, batch, positions, width\] .*\(4, 8\)"),
        ({"head_scale": drawn(LAYERS, BATCH, HEADS)}, r"edits\.head_scale .* axis of 3 .*\(4, 5, 2\)"),
        ({"mask": some(*FULL)}, r"edits\.mask is 1 by edits\.value: give both or neither"),
        ({"value": drawn(*FULL, WIDTH)}, "give both or neither"),
        ({"head_mask": some(*HEAD_OUTPUTS)}, r"edits\.head_mask is 1 by edits\.head_value: give both or neither"),
        (
            {"head_mask": some(*FULL, HEADS), "head_value": drawn(*HEAD_OUTPUTS, 4)},
            r"edits\.head_mask .* axis of 3 .*\(4, 5, 6, 2\)",
        ),
    ],
)
def test_ill_fitting_edits_are_refused(blocks, stream, edits, message):
    with pytest.raises(ValueError, match=message):
        residual.run(block, blocks, stream, edits=Edits(**edits))


def test_nothing_is_captured_from_a_later_layer_on(blocks, stream):
    with pytest.raises(ValueError, match="first = 1 leaves layers out"):
        residual.run(block, blocks, stream, first=1, capture="all")


def test_an_unknown_capture_is_refused(blocks, stream):
    with pytest.raises(ValueError, match="\"all\" or an array of positions, got 'last'"):
        residual.run(block, blocks, stream, capture="last")


@pytest.mark.parametrize("depth", [1, 3])
def test_a_last_block_of_its_own_ends_as_the_whole_run(blocks, stream, depth):
    """It is given what earlier blocks leave, its own parameters and input, and its output is stacked with theirs."""
    blocks, places = jax.tree.map(jnp.asarray, blocks), np.array([[4], [0], [5], [2], [2]])
    scales = jnp.arange(1.0, depth + 1)

    def last_block(layer_params, stream, layer_input):
        stream, output = block(layer_params, stream, layer_input, None)
        return residual.select(stream, places), output

    whole = residual.run(block, blocks, stream, layer_inputs=scales, capture=places, depth=depth)
    found = residual.run(block, blocks, stream, layer_inputs=scales, capture=places, depth=depth, last_block=last_block)
    np.testing.assert_array_equal(found.stream, found.captured[-1])
    np.testing.assert_allclose(found.captured, whole.captured, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.outputs, whole.outputs, rtol=1e-5)


def test_a_last_block_of_its_own_takes_no_edits(blocks, stream):
    with pytest.raises(ValueError, match="last_block runs some positions alone"):
        residual.run(block, blocks, stream, capture=[0], edits=Edits(), last_block=block)
