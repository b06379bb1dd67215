"""Optimisers against loops in float64 NumPy, schedules against their formulas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconcepts.training import optimizers

SHAPES = {"positions": (5, 4), "ln_f": {"scale": (4,)}, "blocks": {"up": {"kernel": (3, 4, 6), "bias": (3, 6)}}}
STEPS = 20
NUMBERS = {"learning_rate": 0.01, "weight_decay": 0.3, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "clip_norm": 2.0}


def draw(seed, deviation=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: rng.normal(0, deviation, s).astype(np.float32), SHAPES, is_leaf=is_shape)


def is_shape(node):
    return isinstance(node, tuple)


# Norms from about 0.5 to 15, so that a clipping norm of 2 binds at some steps only.
GRADS = [draw(100 + i, deviation=0.06 * 1.18**i) for i in range(STEPS)]


@partial(jax.jit, static_argnames=("name", "peak_schedule"))
def run(name, peak_schedule, params, grads, numbers):
    return apply_all(optimizers.optimizer(name, peak_schedule, optimizers.OptimizerNumbers(**numbers)), params, grads)


def apply_all(rule, params, grads):
    def step(carry, each):
        params, state = carry
        updates, state = rule.update(each, state, params)
        return (optax.apply_updates(params, updates), state), None

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)
    return jax.lax.scan(step, (params, rule.init(params)), stacked)[0][0]


def adam_in_numpy(params, grads, rates, learning_rate, weight_decay, b1, b2, eps, clip_norm):
    """Kingma & Ba (2015), algorithm 1; decay decoupled as in Loshchilov & Hutter (2019), algorithm 2."""
    leaves, tree = jax.tree.flatten(jax.tree.map(np.float64, params))
    first, second = [0.0] * len(leaves), [0.0] * len(leaves)
    for t, (each, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        gradient = [np.float64(g) for g in jax.tree.leaves(each)]
        norm = np.sqrt(sum((g**2).sum() for g in gradient))
        gradient = [g * min(1.0, clip_norm / norm) for g in gradient]
        first = [b1 * m + (1 - b1) * g for m, g in zip(first, gradient, strict=True)]
        second = [b2 * v + (1 - b2) * g**2 for v, g in zip(second, gradient, strict=True)]
        for i, leaf in enumerate(leaves):
            step = (first[i] / (1 - b1**t)) / (np.sqrt(second[i] / (1 - b2**t)) + eps)
            leaves[i] = leaf - rate * learning_rate * (step + weight_decay * leaf)
    return jax.tree.unflatten(tree, leaves)


def assert_close(got, expected, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, expected)


@pytest.mark.parametrize("clip_norm", [2.0, np.inf])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_and_adamw_equal_a_numpy_loop(name, clip_norm):
    schedule = optimizers.schedule("linear", STEPS, 4, 0.5)
    numbers = NUMBERS | {"clip_norm": clip_norm}
    got = run(name, schedule, draw(0), GRADS, numbers)
    rates = [min(t / 4, 1, (20 - t) / 10) for t in range(STEPS)]
    decay = NUMBERS["weight_decay"] if name == "adamw" else 0.0
    assert_close(got, adam_in_numpy(draw(0), GRADS, rates, **numbers | {"weight_decay": decay}))


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_numbers_are_traced(name):
    """Other numbers need no other program, and every number that the optimiser has does something."""
    schedule = optimizers.schedule("constant", STEPS, 0, 1.0)
    as_arrays = lambda numbers: {k: np.float32(v) for k, v in numbers.items()}  # noqa: E731
    before = run._cache_size()
    base = run(name, schedule, draw(0), GRADS, as_arrays(NUMBERS))
    for field, value in NUMBERS.items():
        other = run(name, schedule, draw(0), GRADS, as_arrays(NUMBERS | {field: value / 2}))
        same = all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(base), jax.tree.leaves(other), strict=True))
        assert same == (name == "adam" and field == "weight_decay"), field
    assert run._cache_size() == before + 1


def test_muon_treats_each_layer_as_a_matrix_of_its_own():
    """Stacked kernels [L, in, out] are updated as by optax's Muon layer by layer, and vectors as by its Adam."""
    schedule = optimizers.schedule("constant", STEPS, 0, 1.0)
    numbers = NUMBERS | {"clip_norm": np.inf}
    got = run("muon", schedule, draw(0), GRADS, numbers)

    def unstacked(tree):
        layers = {f"kernel{i}": tree["blocks"]["up"]["kernel"][i] for i in range(3)}
        # Optax takes every matrix for one to orthogonalise, so the stacked biases are passed as vectors.
        biases = {f"bias{i}": tree["blocks"]["up"]["bias"][i] for i in range(3)}
        return layers | biases | {"positions": tree["positions"], "scale": tree["ln_f"]["scale"]}

    rule = optax.contrib.muon(
        0.01, eps=1e-3, weight_decay=0.3, adam_b1=0.8, adam_b2=0.95, adam_weight_decay=0.3, consistent_rms=0.2
    )
    expected = jax.jit(partial(apply_all, rule))(unstacked(draw(0)), [unstacked(g) for g in GRADS])
    assert_close(unstacked(got), expected)


def test_muon_updates_have_adams_root_mean_square():
    """The update of a matrix is about 0.2 * learning_rate a number, whatever the size of its gradient."""
    schedule = optimizers.schedule("constant", STEPS, 0, 1.0)
    numbers = NUMBERS | {"weight_decay": 0.0, "clip_norm": np.inf, "eps": 1e-12}
    rng = np.random.default_rng(1)
    params = {"blocks": {"kernel": np.zeros((1, 32, 32), np.float32)}}
    grads = [{"blocks": {"kernel": rng.normal(0, 1e-4, (1, 32, 32)).astype(np.float32)}}]
    update = np.asarray(run("muon", schedule, params, grads, numbers)["blocks"]["kernel"])
    assert 0.15 < np.sqrt((update**2).mean()) / 0.01 < 0.25
    singular = np.linalg.svd(update[0], compute_uv=False)
    assert singular.max() / singular.min() < 4 < np.ptp(np.linalg.svd(grads[0]["blocks"]["kernel"][0])[1]) / 1e-4


@pytest.mark.parametrize(
    ("name", "warmup", "decay_fraction", "expected"),
    [
        ("constant", 0, 1.0, {0: 1, 50: 1, 99: 1}),
        ("constant", 10, 0.5, {0: 0, 5: 0.5, 10: 1, 99: 1}),
        ("linear", 10, 0.4, {0: 0, 1: 0.1, 10: 1, 60: 1, 80: 0.5, 99: 1 / 40, 100: 0}),
        ("linear", 20, 1.0, {10: 0.5, 20: 1, 60: 0.5, 100: 0}),
        ("cosine", 0, 0.5, {0: 1, 50: 1, 62.5: (1 + 0.5**0.5) / 2, 75: 0.5, 100: 0}),
        ("cosine", 10, 1.0, {5: 0.5, 10: 1, 55: 0.5, 100: 0}),
        ("linear", 500, 0.4, {50: 0.5, 99: 0.99}),  # Longer than the run: the warm-up lasts all of it.
    ],
)
def test_schedules(name, warmup, decay_fraction, expected):
    schedule = optimizers.schedule(name, 100, warmup, decay_fraction)
    for step, value in expected.items():
        assert float(schedule(jnp.asarray(step))) == pytest.approx(value, abs=1e-6), step
