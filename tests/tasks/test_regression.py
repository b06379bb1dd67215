"""The sampler against the distributions it states, the token layout, and what a bad configuration is told."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxconcepts.tasks import regression
from jaxconcepts.tasks.regression import RegressionConfig

pytestmark = pytest.mark.usefixtures("compiles_fast")

sample = jax.jit(regression.sample, static_argnums=(0, 3))
balanced = jax.jit(regression.balanced, static_argnums=(0, 3))


def draw(config, size, seed=0, **settings):
    return sample(config, regression.hparams(config, **settings), jax.random.key(seed), size)


def is_standard_normal(values):
    return stats.kstest(np.asarray(values).ravel(), "norm").pvalue > 1e-3


def test_inputs_weights_and_noise_are_standard_normal_and_independent():
    config = RegressionConfig(num_concepts=2, dim=6, rank=3, num_pairs=5)
    batch = draw(config, 4000, noise=0.3)
    assert batch.inputs.shape == (4000, 5, 6)
    assert batch.targets.shape == (4000, 5)
    assert is_standard_normal(batch.inputs)
    on_basis = regression.default_masks(config)[batch.concepts] == 1
    assert is_standard_normal(batch.weights[on_basis])
    assert not np.any(batch.weights[~on_basis])
    clean = np.einsum("bnd,bd->bn", batch.inputs, batch.weights, dtype=np.float64)
    noise = (batch.targets - clean) / 0.3
    assert is_standard_normal(noise)
    first = np.concatenate([batch.inputs[:, :2].reshape(4000, -1), noise[:, :2], batch.weights], axis=1)
    correlation = np.corrcoef(first, rowvar=False) - np.eye(first.shape[1])
    assert np.abs(correlation).max() < 0.08
    # One key used twice would show in drawing order.
    order = np.stack(
        [np.ravel(drawn)[: noise.size] for drawn in (batch.inputs, noise, np.where(on_basis, batch.weights, 0))]
    )
    assert np.abs(np.corrcoef(order) - np.eye(3)).max() < 0.04


def test_noise_free_targets_are_exactly_linear():
    batch = draw(RegressionConfig(), 8, noise=0.0)
    expected = np.einsum("bnd,bd->bn", batch.inputs, batch.weights, dtype=np.float64)
    np.testing.assert_allclose(batch.targets, expected, atol=1e-5)


def test_concepts_follow_their_weights():
    counts = np.bincount(draw(RegressionConfig(), 8000).concepts, minlength=4)
    assert stats.chisquare(counts).pvalue > 1e-3
    counts = np.bincount(draw(RegressionConfig(), 8000, concept_weights=[1, 0, 2, 5]).concepts, minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2, 3]], 8000 * np.array([1, 2, 5]) / 8).pvalue > 1e-3


def test_orthogonal_bases_are_disjoint_runs():
    masks = regression.default_masks(RegressionConfig(num_concepts=3, dim=8, rank=2))
    expected = [[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]
    np.testing.assert_array_equal(masks, expected)


@pytest.mark.parametrize(("concepts", "dim", "rank"), [(8, 16, 4), (4, 8, 3), (6, 16, 5), (16, 32, 3)])
def test_overlapping_bases_share_dimensions_inside_their_half_only(concepts, dim, rank):
    masks = regression.default_masks(RegressionConfig(concepts, dim, rank, bases="overlapping"))
    np.testing.assert_array_equal(masks.sum(1), rank)
    groups = masks[: concepts // 2], masks[concepts // 2 :]
    assert not groups[0][:, dim // 2 :].any()
    assert not groups[1][:, : dim // 2].any()
    for group in groups:
        assert len({tuple(mask) for mask in group}) == len(group)
        for left, right in itertools.pairwise(group):
            assert 0 < left @ right < rank


def test_given_masks_are_used():
    config = RegressionConfig(num_concepts=2, dim=3, rank=1, bases="given")
    batch = draw(config, 50, masks=[[1, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(batch.weights != 0, np.array([[1, 0, 1], [0, 1, 0]])[batch.concepts] == 1)


def test_random_supports_are_uniform_and_stay_in_the_active_dimensions():
    config = RegressionConfig(1, 6, 2, 4, "random_support")
    support = np.asarray(draw(config, 6000).weights != 0)
    np.testing.assert_array_equal(support.sum(1), 2)
    pairs = [int(np.flatnonzero(row) @ (6, 1)) for row in support]
    counts = np.unique(pairs, return_counts=True)[1]
    assert len(counts) == 15
    assert stats.chisquare(counts).pvalue > 1e-3

    support = np.asarray(draw(config, 600, active_dim=3).weights != 0)
    np.testing.assert_array_equal(support.sum(1), 2)
    assert not support[:, 3:].any()
    assert support[:, :3].any(0).all()


def test_families_are_what_they_say_with_second_moment_rank():
    config = RegressionConfig(4, 12, 3, 10, "families", regression.FAMILIES)
    batch = balanced(config, regression.hparams(config, noise=0.0), jax.random.key(0), 6000)
    x, w = np.asarray(batch.inputs, np.float64), np.asarray(batch.weights, np.float64)
    y, z = np.asarray(batch.targets), np.einsum("bnd,bd->bn", x, w)
    moments = (y.reshape(4, -1) ** 2).mean(1)
    np.testing.assert_allclose(moments, 3.0, rtol=0.05)
    shapes = {
        "linear": z * (3 / 12) ** 0.5,
        "sparse_linear": z,
        "leaky_relu": np.where(z > 0, z, 0.2 * z) * (3 / 12) ** 0.5 * (2 / 1.04) ** 0.5,
        "quadratic": np.einsum("bnd,bd->bn", x**2, w) * (3 / 12 / 3) ** 0.5,
    }
    for k, name in enumerate(config.families):
        own = np.asarray(batch.concepts) == k
        np.testing.assert_allclose(y[own], shapes[name][own], atol=2e-4, err_msg=name)
        assert set(np.unique((w[own] != 0).sum(1))) == ({3} if name == "sparse_linear" else {12})
    assert hash(RegressionConfig(1, 4, 2, 4, "families", ["linear"])) is not None  # a list, as JSON gives it


def test_curriculum_silences_dimensions_and_pairs():
    config = RegressionConfig(num_concepts=2, dim=4, rank=2, num_pairs=5)
    full, part = draw(config, 20), draw(config, 20, active_dim=3, active_pairs=2)
    np.testing.assert_array_equal(full.pair_mask, 1)
    np.testing.assert_array_equal(part.pair_mask, [1, 1, 0, 0, 0])
    assert np.all(np.asarray(full.inputs) != 0)
    np.testing.assert_array_equal(part.inputs[..., :3], full.inputs[..., :3])
    assert not np.any(part.inputs[..., 3:])


def test_balanced_has_every_concept_equally_often_whatever_the_weights():
    config = RegressionConfig()
    hparams = regression.hparams(config, concept_weights=[1, 0, 0, 5])
    batch = balanced(config, hparams, jax.random.key(0), 7)
    np.testing.assert_array_equal(batch.concepts, np.repeat(np.arange(4), 7))
    assert batch.inputs.shape == (28, 20, 16)
    assert batch.targets.shape == (28, 20)
    assert batch.pair_mask.shape == (20,)
    assert len(np.unique(batch.inputs)) > 0.99 * batch.inputs.size  # no sequence is another's copy
    np.testing.assert_array_equal(batch.weights != 0, np.asarray(hparams.masks)[batch.concepts] == 1)


def test_interleave_puts_x_then_y_in_coordinate_0():
    batch = draw(RegressionConfig(num_concepts=1, dim=3, rank=2, num_pairs=4), 5)
    tokens = regression.interleave(batch)
    assert tokens.shape == (5, 8, 3)
    np.testing.assert_array_equal(tokens[:, 0::2], batch.inputs)
    np.testing.assert_array_equal(tokens[:, 1::2, 0], batch.targets)
    assert not np.any(tokens[:, 1::2, 1:])


def test_same_key_same_bits_and_another_key_another_batch():
    first, again, other = draw(RegressionConfig(), 4), draw(RegressionConfig(), 4), draw(RegressionConfig(), 4, seed=1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for name in ("inputs", "targets", "weights"):
        assert not np.any(np.isin(getattr(first, name), np.setdiff1d(getattr(other, name), 0))), name


@pytest.mark.parametrize("bases", ["orthogonal", "families", "random_support"])
def test_one_program_serves_all_hparams(bases):
    families = ("linear", "sparse_linear") if bases == "families" else ()
    config = RegressionConfig(1 if bases == "random_support" else 2, 4, 2, 3, bases, families)
    traces = []

    @jax.jit
    def run(noise, masks, weights, active, key):
        traces.append(1)
        hparams = regression.hparams(config, noise, masks, weights, active, active)
        return regression.sample(config, hparams, key, 6)

    ones = jnp.ones(config.num_concepts)
    masks = regression.default_masks(config)
    one = run(jnp.float32(0.1), masks, ones, jnp.float32(4), jax.random.key(0))
    two = run(jnp.float32(0.5), masks[::-1], ones * 3, jnp.float32(2), jax.random.key(0))
    assert len(traces) == 1
    assert np.any(one.targets != two.targets)
    assert not np.any(two.inputs[..., 2:])


OVERLAPPING = {"bases": "overlapping", "num_concepts": 8}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_concepts": 0}, "task.num_concepts must be a positive integer, got 0"),
        ({"dim": -16}, "task.dim must be a positive integer, got -16"),
        ({"rank": 0}, "task.rank must be a positive integer, got 0"),
        ({"rank": True}, "task.rank must be a positive integer, got True"),
        ({"num_pairs": 2.5}, "task.num_pairs must be a positive integer, got 2.5"),
        (
            {"bases": "sparse"},
            "task.bases must be one of orthogonal, overlapping, given, random_support, families, got",
        ),
        ({"rank": 17, "num_concepts": 1}, "task.rank must be at most task.dim = 16, got 17"),
        ({"rank": 5}, r"orthogonal bases need task.rank \* task.num_concepts <= task.dim, got 5 \* 4 = 20 > 16"),
        ({**OVERLAPPING, "dim": 15}, "even task.dim and an even task.num_concepts of at least 4, got dim 15"),
        ({**OVERLAPPING, "num_concepts": 5}, "at least 4, got dim 16 and num_concepts 5"),
        ({**OVERLAPPING, "num_concepts": 2}, "at least 4, got dim 16 and num_concepts 2"),
        ({**OVERLAPPING, "rank": 2}, "neighbours differ and share dimensions; got dim 16, num_concepts 8, rank 2"),
        ({**OVERLAPPING, "rank": 8}, "neighbours differ and share dimensions; got dim 16, num_concepts 8, rank 8"),
        ({**OVERLAPPING, "num_concepts": 18}, "num_concepts <= dim.*got dim 16, num_concepts 18, rank 4"),
        ({"bases": "random_support"}, "random_support has one concept: task.num_concepts must be 1, got 4"),
        (
            {"bases": "families", "families": ("linear", "cubic", "linear", "linear")},
            "task.families accepts linear, sparse_linear, leaky_relu, quadratic; got 'cubic'",
        ),
        (
            {"bases": "families", "families": ("linear",)},
            r"one family a concept .* num_concepts 4, families \('linear',\)",
        ),
        ({"families": ("linear",)}, "empty otherwise: bases is 'orthogonal'"),
    ],
)
def test_a_configuration_that_does_not_fit_together_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RegressionConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"masks": np.ones((4, 15))}, r"masks must have shape \(4, 16\), got \(4, 15\)"),
        ({"concept_weights": [1, 2]}, r"concept_weights must have shape \(4,\), got \(2,\)"),
        ({"concept_weights": [1, 1, 1, -1]}, r"concept_weights must be non-negative and not all zero, got \[1.0, 1.0"),
        ({"concept_weights": [0, 0, 0, 0]}, "concept_weights must be non-negative and not all zero, got"),
        ({"noise": -0.1}, "noise is a standard deviation and must not be negative, got -0.1"),
        ({"noise": float("nan")}, "noise is a standard deviation and must not be negative, got nan"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        regression.hparams(RegressionConfig(), **settings)


def test_given_bases_need_masks():
    with pytest.raises(ValueError, match=r'bases="given" needs masks of shape \[num_concepts, dim\]; none were given'):
        regression.hparams(RegressionConfig(bases="given"))
