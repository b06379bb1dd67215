"""Packs: a run's numbers do not depend on what is beside it, on how runs are batched, or on how they are sharded."""

import re

import jax
import numpy as np
import pytest

from jaxconcepts.experiments.regression import Regression
from jaxconcepts.runs import packs, points

pytestmark = pytest.mark.usefixtures("unoptimized")

STEPS = 100
SEEDS = 3


def config(seed, **train):
    made = Regression.default_config()
    made["seed"] = seed
    made["task"].update(num_concepts=2, dim=4, rank=2, num_pairs=3)
    made["model"].update(layers=2, heads=2, width=16)
    made["init"].update(positions=0.5, read_in=0.2)
    made["train"].update(steps=STEPS, batch_size=16, learning_rate=1e-3, b2=0.99)
    made["train"].update(train)
    made["measure"].update(per_concept=8, cd_per_concept=8, neighbours=3)
    return made


POINTS = [points.make_point(config(seed)) for seed in range(SEEDS)]


def program(runs, how="map", data=1, devices=1):
    return packs.make_program(POINTS[0].experiment, runs, packs.Layout(how, data), jax.devices()[:devices])


def train(made, chosen, steps=STEPS):
    """The final state and the losses [steps / 20, runs] of the points, padding included."""
    numbers = packs.stack_numbers(made, [point.numbers for point in chosen])
    state, losses = made.init(numbers, None), []
    for _ in range(steps // 20):
        state, result = made.chunk(state, numbers, None, packs.step_count(20))
        losses.append(np.asarray(result["train_loss"]))
    return state, np.stack(losses)


def only(tree, place):
    return jax.tree.map(lambda a: np.asarray(a)[place], tree)


def assert_same_bits(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(got, expected, tolerance=1e-5):
    """Losses to 1e-5 relative; parameters to 1e-5 of each array's largest entry.

    Not the keys' biases: they add the same to all of a query's scores, so their gradient is zero but for rounding, and
    Adam scales that up.
    """
    np.testing.assert_allclose(got[1], expected[1], rtol=tolerance)
    parameters = [jax.tree.map(np.array, state.params) for state, _ in (got, expected)]
    for tree in parameters:
        tree["blocks"]["attn_qkv"]["bias"][..., 16:32] = 0
    for a, b in zip(*map(jax.tree.leaves, parameters), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.fixture(scope="module")
def mapped():
    return program(SEEDS)


@pytest.fixture(scope="module")
def side_by_side():
    """Three runs on two devices, two on each: padded to four."""
    return program(SEEDS, "vmap", devices=2)


@pytest.fixture(scope="module")
def reference(mapped):
    state, losses = train(mapped, POINTS)
    return jax.device_get(state), losses


@pytest.mark.slow
def test_alone_or_among_others_under_map_a_run_has_the_same_bits(mapped, reference):
    alone, losses = train(program(1), POINTS[1:2])
    assert_same_bits((only(alone, 0), losses[:, 0]), (only(reference[0], 1), reference[1][:, 1]))
    turned, losses = train(mapped, POINTS[::-1])
    assert_same_bits((only(turned, 0), losses[:, 0]), (only(reference[0], 2), reference[1][:, 2]))
    assert not np.array_equal(losses[:, 0], losses[:, 1])


@pytest.mark.slow
def test_vmap_sharded_and_padded_gives_what_map_gives(side_by_side, reference):
    made = side_by_side
    assert (made.size, dict(made.mesh.shape)) == (4, {"runs": 2, "data": 1})
    state, losses = train(made, POINTS)
    assert len(state.step.sharding.device_set) == 2
    assert_close((only(state, slice(3)), losses[:, :3]), reference)
    assert_same_bits(only(state, 3), only(state, 2))


@pytest.mark.slow
def test_eight_devices_train_one_run_on_shards_of_its_batch(reference):
    made, collectives = compiled(program(1, data=8, devices=8), 1)
    assert (made.size, dict(made.mesh.shape)) == (1, {"runs": 1, "data": 8})
    state, losses = train(made, POINTS[1:2])
    expected = jax.tree.map(lambda a: a[1:2], reference[0])
    assert_close((jax.device_get(state), losses), (expected, reference[1][:, 1:2]))
    assert "all-reduce" in collectives


@pytest.mark.slow
def test_a_run_on_each_of_eight_devices(reference):
    chosen = [POINTS[i % SEEDS] for i in range(8)]
    made, collectives = compiled(program(8, devices=8), 8)
    state, losses = train(made, chosen)
    order = np.arange(8) % SEEDS
    expected = jax.tree.map(lambda a: a[order], reference[0])
    assert_close((jax.device_get(state), losses), (expected, reference[1][:, order]))
    assert collectives == []


def compiled(made, runs):
    """The program with its training compiled, and the kinds of communication in it."""
    numbers = packs.stack_numbers(made, [POINTS[0].numbers] * runs)
    state = packs.abstract_state(made, numbers, None)
    chunk = made.chunk.lower(state, numbers, None, packs.step_count(1)).compile()
    kinds = r"all-reduce|all-gather|reduce-scatter|collective-permute|collective-broadcast|all-to-all"
    return made._replace(chunk=chunk), sorted(set(re.findall(rf"\b({kinds})(?:-start)?\(", chunk.as_text())))


@pytest.mark.parametrize("how", ["map", "vmap"])
def test_a_diverging_run_leaves_its_neighbours_bits_alone(how, mapped, side_by_side):
    made = {"map": mapped, "vmap": side_by_side}[how]
    healthy, usual = train(made, POINTS, steps=40)
    bad = points.make_point(config(1, learning_rate=1e38))
    state, losses = train(made, [POINTS[0], bad, POINTS[2]], steps=40)
    assert state.diverged_at.tolist()[:3] == [-1, 0, -1]
    for place in (0, 2):
        assert_same_bits(only(state, place), only(healthy, place))
    np.testing.assert_array_equal(losses[:, [0, 2]], usual[:, [0, 2]])


def test_one_program_serves_a_run_from_start_to_end(mapped, reference):
    """Fresh states, states that a chunk returned and states restored from a checkpoint have one layout."""
    numbers = packs.stack_numbers(mapped, [point.numbers for point in POINTS])
    like = packs.abstract_state(mapped, numbers, None)
    state = mapped.init(numbers, None)
    assert jax.tree.structure(like) == jax.tree.structure(state)
    for array, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
        assert (array.shape, array.dtype, array.sharding) == (wanted.shape, wanted.dtype, wanted.sharding)
    restored = jax.tree.map(lambda a, w: jax.device_put(np.asarray(a), w.sharding), state, like)
    mapped.chunk(restored, numbers, None, packs.step_count(3))
    assert mapped.chunk._cache_size() == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: packs.Layout("pmap"), "run.how must be one of auto, vmap, map, got 'pmap'"),
        (lambda: packs.Layout("map", 0), "run.data must be a positive integer, got 0"),
        (lambda: packs.Layout(unroll=2), "run.unroll must be one of auto, all, none, got 2"),
        (lambda: packs.make_mesh(1, 3), "run.data must divide the number of devices, 8, got 3"),
        (lambda: program(1, data=32, devices=8), "run.data must divide"),
    ],
)
def test_bad_layouts_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_batch_that_cannot_be_shared_out_is_named():
    odd = points.make_point(config(0, batch_size=6)).experiment
    with pytest.raises(ValueError, match="run.data must divide train.batch_size = 6, got 4"):
        packs.make_program(odd, 1, packs.Layout("map", 4))


def test_auto_is_map_on_a_cpu_and_vmap_elsewhere():
    numbers = packs.stack_numbers(program(2), [POINTS[0].numbers] * 2)
    texts = {how: program(2, how).init.lower(numbers, None).as_text() for how in packs.HOW}
    on_cpu = jax.default_backend() == "cpu"
    assert texts["auto"] == texts["map" if on_cpu else "vmap"] and texts["map"] != texts["vmap"]
