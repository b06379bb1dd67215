"""Interventions as edits: which places they name, and what is put there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.interventions import heads, patching, steering


def drawn(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_positions_of_a_regression_sequence():
    named = {name: np.flatnonzero(patching.sequence_positions(3, name)).tolist() for name in patching.POSITIONS}
    assert named == {"query": [4], "x": [0, 2, 4], "all": [0, 1, 2, 3, 4, 5]}
    with pytest.raises(ValueError, match="positions must be one of query, x, all, got 'y'"):
        patching.sequence_positions(3, "y")


def test_a_place_is_one_layer_and_the_last_token_of_each_prompt():
    place = np.asarray(patching.at_layer(1, 2, patching.last_tokens(np.array([2, 4]), 4)))
    assert np.argwhere(place).tolist() == [[1, 0, 1], [1, 1, 3]]
    traced = jax.jit(lambda layer: patching.at_layer(layer, 2, np.array([True, False])))(2)
    assert np.argwhere(np.asarray(traced)).tolist() == [[2, 0, 0]]
    with pytest.raises(ValueError, match="layer must be from 0 .* to 2 .*, got -1"):
        patching.at_layer(-1, 2, np.array([True]))


def test_a_grid_is_every_layer_with_every_mask():
    positions = np.eye(3, dtype=bool)
    grid = patching.grid(1, positions)
    assert grid.shape == (2, 3, 2, 1, 3)
    for layer, position in np.ndindex(2, 3):
        np.testing.assert_array_equal(grid[layer, position], patching.at_layer(layer, 1, positions[position]))


def test_replacing_adding_and_interchange_are_masks_and_values():
    place, states = np.asarray(patching.at_layer(1, 2, np.array([True, False]))), drawn(5, 2, 3)
    replaced = patching.replace(place, states)
    np.testing.assert_array_equal(replaced.mask, place)
    np.testing.assert_array_equal(replaced.value, states[None])
    added = patching.add(place, states).add
    np.testing.assert_allclose(added[1, :, 0], states[:, 0])
    assert np.count_nonzero(np.asarray(added).any(-1)) == 5
    clean = drawn(3, 5, 2, 3)
    np.testing.assert_array_equal(patching.interchange(place, clean).value, clean)
    np.testing.assert_allclose(patching.normalised_difference(drawn(4) * 0 + 3.0, 5.0, 1.0), 0.5)


def test_steering_is_scaled_and_each_layer_has_its_own_direction():
    place, directions = patching.grid(2, np.ones((1, 2), bool))[:, 0].any(0), drawn(3, 4)
    added = steering.steer(place, directions, jnp.float32(-2.0)).add
    np.testing.assert_allclose(added, np.broadcast_to(-2 * directions[:, None, None], (3, 1, 2, 4)))
    np.testing.assert_allclose(steering.steer(place, directions[0]).add[2, 0, 1], directions[0])


def test_means_of_concepts_and_random_directions_of_their_length():
    states, concepts = drawn(2, 6, 3), np.array([0, 1, 1, 0, 1, 0])
    means = np.asarray(steering.concept_means(states, concepts, 3))
    np.testing.assert_allclose(means[:, 1], states[:, concepts == 1].mean(1), rtol=1e-5, atol=1e-6)
    assert np.isnan(means[:, 2]).all()
    random = np.asarray(steering.random_like(jax.random.key(0), means[:, :2]))
    np.testing.assert_allclose(np.linalg.norm(random, axis=-1), np.linalg.norm(means[:, :2], axis=-1), rtol=1e-5)
    assert np.abs(random - means[:, :2]).max() > 0.1


def test_heads_one_at_a_time_and_chosen():
    masks = heads.one_at_a_time(2, 3)
    assert masks.sum() == 6 and masks[4, 1, 1]
    np.testing.assert_array_equal(heads.chosen([(1, 2), (2, 0)], 2, 3), masks[2] | masks[3])
    np.testing.assert_array_equal(heads.zero(masks[4]).head_scale[:, 0], 1 - masks[4])
    outputs, last = drawn(2, 1, 1, 3, 4), patching.last_tokens(np.array([1, 2]), 2)
    edits = heads.replace(masks[4], outputs, last)
    assert np.argwhere(np.asarray(edits.head_mask)).tolist() == [[1, 0, 0, 1], [1, 1, 1, 1]]
    assert heads.replace(masks[4], outputs).head_mask.shape == (2, 1, 1, 3)
    with pytest.raises(ValueError, match=r"head 3\.0: the block must be from 1 to 2, got 3"):
        heads.chosen([(3, 0)], 2, 3)
