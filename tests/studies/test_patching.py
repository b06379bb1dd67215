"""The patch study against a loop of forward hooks in PyTorch, on Hugging Face's GPT-2 with the same weights."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxconcepts.interventions import patching as edits
from jaxconcepts.models import gpt2
from jaxconcepts.studies.patching import study as patching
from jaxconcepts.tasks import references, regression

TASK = regression.RegressionConfig(num_concepts=2, dim=4, rank=2, num_pairs=4)
MODEL = gpt2.GPT2Config(layers=2, heads=2, width=8, context=8, input_dim=4)
CONFIG = patching.PatchConfig(per_concept=3, mean_per_concept=4, scales=(1.0, 2.5))


@pytest.fixture(scope="module")
def params():
    """Weights with which every part matters."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(partial(gpt2.init, MODEL), jax.random.key(0))
    draw = lambda path, leaf: np.float32((path[-1].key == "scale") + 0.4 * rng.normal(size=leaf.shape))  # noqa: E731
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def program():
    return patching.make_patching(TASK, MODEL, CONFIG)


@pytest.fixture(scope="module")
def prepared(program):
    return program.prepare(regression.hparams(TASK, noise=0.1))


@pytest.fixture(scope="module")
def grid(program, params, prepared):
    return jax.tree.map(np.asarray, program.grid(params, prepared))


@pytest.fixture(scope="module")
def torch_model(params):
    """Hugging Face's model, and predict(batch, hooks) -> (predictions [B, n], {name: hooked tensor}).

    hooks: {module: function of the tensor}; a function returns the tensor that goes on, or None.
    """
    torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
    transformers = pytest.importorskip("transformers", reason="the reference implementation is transformers'")
    model = transformers.GPT2Model(
        transformers.GPT2Config(
            vocab_size=1, n_positions=MODEL.context, n_embd=MODEL.width, n_layer=MODEL.layers, n_head=MODEL.heads,
            attn_implementation="eager",
        )
    ).eval()  # fmt: skip
    names = {
        "ln_1": "ln_1", "attn_qkv": "attn.c_attn", "attn_out": "attn.c_proj",
        "ln_2": "ln_2", "mlp_up": "mlp.c_fc", "mlp_down": "mlp.c_proj",
    }  # fmt: skip
    tensors = {"wte.weight": np.zeros((1, MODEL.width)), "wpe.weight": params["positions"]}
    tensors |= {"ln_f.weight": params["ln_f"]["scale"], "ln_f.bias": params["ln_f"]["bias"]}
    for ours, theirs in names.items():
        for part, leaf in params["blocks"][ours].items():
            for layer in range(MODEL.layers):
                tensors[f"h.{layer}.{theirs}.{'bias' if part == 'bias' else 'weight'}"] = leaf[layer]
    model.load_state_dict({name: torch.tensor(np.asarray(tensor)) for name, tensor in tensors.items()})

    def layer_module(layer):
        """What has the stream after a layer as its output."""
        return model.drop if layer == 0 else model.h[layer - 1]

    def predict(batch, hooks=()):
        handles = []
        for module, change in hooks:
            handles.append(module.register_forward_hook(lambda _, __, output, change=change: change(output)))
        tokens = np.asarray(regression.interleave(batch))
        with torch.no_grad():
            embedded = torch.tensor(tokens @ params["read_in"]["kernel"] + params["read_in"]["bias"])
            final = model(inputs_embeds=embedded).last_hidden_state.numpy()
        for handle in handles:
            handle.remove()
        return (final @ params["read_out"]["kernel"] + params["read_out"]["bias"])[:, ::2, 0]

    return model, layer_module, predict


def of_concepts(array):
    return np.asarray(array).reshape(2, -1, *array.shape[1:])


def losses(out, prepared):
    errors = np.square(of_concepts(out) - of_concepts(prepared.batch.targets)).mean(1)
    return np.stack([errors[:, -1], errors.mean(1)], axis=-1)


def test_the_grid_equals_a_loop_of_hooks_in_pytorch(grid, prepared, torch_model):
    _, layer_module, predict = torch_model
    clean, patched = grid
    states = []
    predict(
        prepared.for_means, [(layer_module(layer), lambda s: states.append(s.numpy().copy())) for layer in range(3)]
    )
    means = [of_concepts(state).mean(1) for state in states]  # [K, T, d] of each layer
    np.testing.assert_allclose(clean.loss, losses(predict(prepared.batch), prepared), rtol=1e-4)

    def hook(layer, positions, mode, target):
        import torch

        where = torch.tensor(edits.sequence_positions(4, positions))
        own = torch.tensor(np.repeat(means[layer], 3, axis=0))
        new = torch.tensor(means[layer][target])[None]
        scale = 2.5 if mode == "add x2.5" else 1.0
        changed = lambda s: new.expand_as(s) if mode == "replace" else s + scale * (new - own)  # noqa: E731
        return lambda s: torch.where(where[:, None], changed(s), s)

    for at in np.ndindex(3, 3, 3, 2):
        layer, positions, mode, target = at[0], edits.POSITIONS[at[1]], CONFIG.modes[at[2]], at[3]
        out = predict(prepared.batch, [(layer_module(layer), hook(layer, positions, mode, target))])
        ours = patched.loss[layer, at[1], at[2], 0, target]
        np.testing.assert_allclose(ours, losses(out, prepared), rtol=1e-4, err_msg=f"{layer} {positions} {mode}")
        guesses = np.asarray(prepared.predictions)  # zero, ridge, bayes, oracle of each concept
        for place, guess in enumerate(guesses):
            expected = np.square(of_concepts(out - guess)[:, :, -1]).mean(1)
            found = patched.distance[layer, at[1], at[2], 0, target, :, 0, place]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    # Every patch of another concept's mean matters.
    assert (np.abs(patched.loss - clean.loss)[..., 0, [0, 1], [1, 0], 0] > 1e-4).all()


def test_ablated_heads_equal_a_loop_of_hooks_in_pytorch(program, params, prepared, torch_model):
    model, _, predict = torch_model
    clean, ablated = jax.tree.map(np.asarray, program.heads(params, prepared))
    seen = []
    watch = [block.attn.c_proj.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for block in model.h]
    predict(prepared.for_means)
    for handle in watch:
        handle.remove()
    for kind, cell in np.ndindex(2, 4):
        block, head = divmod(cell, 2)
        piece = slice(4 * head, 4 * head + 4)

        def change(_, given, block=block, piece=piece, kind=kind):
            heads = given[0].clone()
            heads[..., piece] = seen[block].mean(0)[..., piece] if kind else 0.0
            return (heads,)

        handle = model.h[block].attn.c_proj.register_forward_pre_hook(change)
        out = predict(prepared.batch)
        handle.remove()
        np.testing.assert_allclose(ablated.loss[kind, cell], losses(out, prepared), rtol=1e-4)
    assert (np.abs(ablated.loss - clean.loss) > 1e-5).all()


def test_adding_to_the_source_itself_changes_nothing_and_the_controls_are_as_long(grid, program, params, prepared):
    clean, patched = grid
    for patch in range(2):
        own = patched.loss[:, :, 1, patch, [0, 1], [0, 1]]
        np.testing.assert_allclose(own, np.broadcast_to(clean.loss, own.shape), rtol=1e-5)
    assert not np.allclose(patched.loss[..., 0, 0, 1, :], patched.loss[..., 1, 0, 1, :])


def test_the_weights_are_least_squares_on_the_oracles(prepared, torch_model, grid):
    out = of_concepts(torch_model[2](prepared.batch)).astype(np.float64)
    oracles = np.moveaxis(np.asarray(prepared.predictions)[-2:], 0, -1)
    for source, each in enumerate(of_concepts(oracles).astype(np.float64)):
        expected = np.linalg.lstsq(each[:, -1], out[source][:, -1], rcond=None)[0]
        np.testing.assert_allclose(grid[0].weight[source, 0], expected, rtol=1e-3, atol=1e-4)
        expected = np.linalg.lstsq(each.reshape(-1, 2), out[source].ravel(), rcond=None)[0]
        np.testing.assert_allclose(grid[0].weight[source, 1], expected, rtol=1e-3, atol=1e-4)


def test_means_come_from_other_sequences(prepared):
    patched, others = np.asarray(prepared.batch.targets), np.asarray(prepared.for_means.targets)
    assert not np.isin(patched, others).any()
    assert prepared.batch.concepts.tolist() == [0] * 3 + [1] * 3


def test_every_checkpoint_shares_one_program(program, params, grid):
    other = jax.tree.map(lambda a: a * np.float32(1.1), params)
    noisier = program.prepare(regression.hparams(TASK, noise=0.3))
    program.grid(other, noisier), program.heads(other, noisier)
    assert [function._cache_size() for function in program] == [1, 1, 1]


def test_chosen_layers_and_heads_and_cells_side_by_side(params, prepared, grid):
    config = patching.PatchConfig(
        per_concept=3, mean_per_concept=4, scales=(1.0, 2.5), layers=(1,), heads=((2, 1),), cells_at_once=5
    )
    some = patching.make_patching(TASK, MODEL, config)
    _, patched = some.grid(params, prepared)
    np.testing.assert_allclose(patched.loss[0], grid[1].loss[1], rtol=1e-4)
    assert some.heads(params, prepared)[1].loss.shape == (2, 1, 2, 2)


@pytest.mark.parametrize(
    ("task", "config", "message"),
    [
        ({}, {"layers": (3,)}, r"layer must be from 0 \(the embeddings\) to 2 \(the last block\), got 3"),
        ({}, {"heads": ((3, 0),)}, r"head 3\.0: the block must be from 1 to 2, got 3"),
        ({}, {"heads": ((1, 2),)}, r"head 1\.2: the head must be from 0 to 1, got 2"),
        ({}, {"heads": ((0, 0),)}, r"head 0\.0: the block must be from 1 to 2, got 0"),
        ({"num_concepts": 1}, {}, r"at least two concepts, got task\.num_concepts = 1"),
    ],
)
def test_what_the_model_does_not_have_is_named(task, config, message):
    sizes = {"num_concepts": 2, "dim": 4, "rank": 2, "num_pairs": 4} | task
    with pytest.raises(ValueError, match=message):
        patching.make_patching(regression.RegressionConfig(**sizes), MODEL, patching.PatchConfig(**config))


@pytest.mark.parametrize("field", ["per_concept", "mean_per_concept", "seed", "cells_at_once"])
def test_bad_settings_are_named(field):
    with pytest.raises(ValueError, match=rf"patch\.{field} must be an integer of at least \d, got -1"):
        patching.PatchConfig(**{field: -1})


def test_the_oracle_of_the_own_concept_is_the_oracle(prepared):
    hparams = regression.hparams(TASK, noise=0.1)
    every = np.asarray(references.oracles(TASK, hparams, prepared.batch))
    own = references.predict(TASK, hparams, prepared.batch, ("oracle",))["oracle"]
    np.testing.assert_allclose(
        np.take_along_axis(every, np.asarray(prepared.batch.concepts)[:, None, None], -1)[..., 0],
        own,
        rtol=1e-5,
        atol=1e-6,
    )
    assert np.abs(every[..., 0] - every[..., 1]).max() > 0.1
    # Regression within the other basis sees only its dimensions.
    x, y = np.asarray(prepared.batch.inputs, np.float64)[0], np.asarray(prepared.batch.targets, np.float64)[0]
    seen, gram = x[:3, 2:], x[:3, 2:].T @ x[:3, 2:] + 0.01 * np.eye(2)
    np.testing.assert_allclose(every[0, 3, 1], x[3, 2:] @ np.linalg.solve(gram, seen.T @ y[:3]), rtol=1e-4)
