"""Draws, intervals and nulls against NumPy, SciPy and scikit-learn."""

import jax
import numpy as np
import pytest
import scipy.stats
from sklearn.neighbors import KNeighborsClassifier

from jaxconcepts.metrics import statistics


def states(points=240, width=5):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, points)
    return (rng.normal(size=(2, points, width)) + 0.7 * labels[:, None]).astype(np.float32), labels


def decodability(hidden, labels, k):
    return (KNeighborsClassifier(k, algorithm="brute").fit(hidden, labels).predict(None) == labels).mean()


def test_draws_are_cd_of_balanced_samples_without_replacement():
    hidden, labels = states()
    key = jax.random.key(3)
    scores = statistics.decodability_draws(hidden, np.array(list("cab"))[labels], key, draws=4, per_concept=50, k=7)
    assert scores.shape == (2, 4)
    codes = np.array([2, 0, 1])[labels]
    for draw, draw_key in enumerate(jax.random.split(key, 4)):
        chosen = np.asarray(statistics.sample_points(draw_key, codes, 3, 50))
        assert len(set(chosen)) == 150
        assert np.bincount(codes[chosen]).tolist() == [50, 50, 50]
        expected = [decodability(h[chosen], codes[chosen], 7) for h in hidden]
        np.testing.assert_allclose(scores[:, draw], expected, atol=1e-6)
    assert len({tuple(column) for column in np.asarray(scores).T}) > 1


@pytest.mark.slow
def test_scores_by_concept_are_scikit_learn_s_of_each_concept_s_points():
    hidden, labels = states()
    key = jax.random.key(3)
    scores = statistics.decodability_draws(hidden, labels, key, draws=3, per_concept=50, k=7, by_concept=True)
    assert scores.shape == (2, 3, 3)
    for draw, draw_key in enumerate(jax.random.split(key, 3)):
        chosen = np.asarray(statistics.sample_points(draw_key, labels, 3, 50))
        own = labels[chosen]
        for layer, h in enumerate(hidden):
            right = KNeighborsClassifier(7, algorithm="brute").fit(h[chosen], own).predict(None) == own
            np.testing.assert_allclose(scores[layer, draw], [right[own == c].mean() for c in range(3)], atol=1e-6)
    null = statistics.permutation_null(hidden, labels, key, permutations=20, k=7, by_concept=True)
    assert null.shape == (2, 20, 3)
    together = statistics.permutation_null(hidden, labels, key, permutations=20, k=7)
    shares = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(np.asarray(null) @ shares, together, atol=1e-5)


def test_every_point_is_drawn_equally_often():
    labels = np.repeat([0, 1], [20, 40])
    keys = jax.random.split(jax.random.key(0), 2000)
    chosen = np.asarray(jax.vmap(lambda key: statistics.sample_points(key, labels, 2, 10))(keys))
    rate = np.bincount(chosen.ravel()) / 2000
    np.testing.assert_allclose(rate, np.repeat([0.5, 0.25], [20, 40]), atol=0.05)


def test_bootstrap_interval_agrees_with_scipy():
    values = np.random.default_rng(1).gamma(2.0, size=(2, 60)).astype(np.float32)
    lower, upper = statistics.bootstrap_interval(values, jax.random.key(0), 0.9, 4000)
    for row, low, high in zip(values, lower, upper, strict=True):
        theirs = scipy.stats.bootstrap(
            (row,), np.mean, confidence_level=0.9, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        # The ends of two independent sets of 4 000 resamples differ by about 3 % of the interval's width.
        np.testing.assert_allclose([low, high], theirs, atol=0.06 * (theirs.high - theirs.low))


def test_null_is_cd_of_permuted_labels():
    hidden, labels = states()
    key = jax.random.key(5)
    null = statistics.permutation_null(hidden, labels, key, permutations=6, k=9)
    assert null.shape == (2, 6)
    for i, one in enumerate(jax.random.split(key, 6)):
        permuted = np.asarray(jax.random.permutation(one, labels))
        assert sorted(permuted) == sorted(labels)
        np.testing.assert_allclose(null[:, i], [decodability(h, permuted, 9) for h in hidden], atol=1e-6)


def test_p_value_counts_the_null_that_reaches_the_score():
    np.testing.assert_allclose(statistics.p_value(np.array([0.5, 0.9]), np.array([[0.1, 0.5, 0.6]] * 2)), [0.75, 0.25])


def test_refusals():
    hidden, labels = np.zeros((20, 3)), np.repeat(["many", "few"], [15, 5])
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="every concept; got 6, and concept few has 5"):
        statistics.decodability_draws(hidden, labels, key, per_concept=6, k=3)
    with pytest.raises(ValueError, match="draws must be a positive integer, got 0"):
        statistics.decodability_draws(hidden, labels, key, 0, 5, 3)
    with pytest.raises(ValueError, match="k must be an integer from 1 to 9, one less than the 10 points; got 10"):
        statistics.decodability_draws(hidden, labels, key, per_concept=5, k=10)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
        statistics.bootstrap_interval(np.zeros(5), key, 95)
