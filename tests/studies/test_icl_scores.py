"""The in-context study's numbers against SciPy, scikit-learn and counting by hand."""

import jax
import numpy as np
import pytest
import scipy.stats
from sklearn.neighbors import KNeighborsClassifier

from jaxconcepts.metrics import statistics
from jaxconcepts.studies.icl import scores as icl_scores

CONCEPTS, EACH, PER_DRAW = 3, 20, 8


def right(hidden, labels, k):
    return KNeighborsClassifier(k, algorithm="brute").fit(hidden, labels).predict(None) == labels


def test_cd_of_every_layer_is_scikit_learn_s():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CONCEPTS), EACH)
    strength = np.array([0.0, 2.0, 0.7])[:, None, None]
    centres = rng.normal(size=(CONCEPTS, 6))
    hidden = (rng.normal(size=(3, CONCEPTS * EACH, 6)) + strength * centres[labels]).astype(np.float32)
    found = icl_scores.reduce_states(
        jax.numpy.asarray(hidden), PER_DRAW, CONCEPTS, CONCEPTS - 1, k=3, draws=4, permutations=30, seed=5
    )
    within = np.arange(CONCEPTS * EACH) % EACH
    small = np.repeat(np.arange(CONCEPTS), PER_DRAW)

    apart = hidden[:, within < PER_DRAW]
    chosen_on = [right(layer, small, 3)[: 2 * PER_DRAW].mean() for layer in apart]
    np.testing.assert_allclose(found.chosen_on, chosen_on, atol=1e-6)
    assert found.headline == int(np.argmax(chosen_on)) == 1

    pool, rest = hidden[:, within >= PER_DRAW], np.repeat(np.arange(CONCEPTS), EACH - PER_DRAW)
    key_draws = jax.random.split(jax.random.key(5), 3)[0]
    draws = [
        np.asarray(statistics.sample_points(key, rest, CONCEPTS, PER_DRAW)) for key in jax.random.split(key_draws, 4)
    ]
    expected = [[right(layer[chosen], small, 3).reshape(CONCEPTS, -1).mean(1) for layer in pool] for chosen in draws]
    np.testing.assert_allclose(found.cd, expected, atol=1e-6)
    pairs = np.zeros((CONCEPTS, CONCEPTS))
    for i, j in np.ndindex(CONCEPTS, CONCEPTS):
        if i == j:
            pairs[i, j] = 1
            continue
        own = (small == i) | (small == j)
        pairs[i, j] = np.mean([right(pool[1][chosen][own], small[own], 3).mean() for chosen in draws])
    np.testing.assert_allclose(found.pairwise, pairs, atol=1e-6)

    mean = found.cd[..., :2].mean(-1)
    assert (found.low[:, -1] <= mean.mean(0) + 1e-6).all() and (found.high[:, -1] >= mean.mean(0) - 1e-6).all()
    assert found.low.shape == (3, CONCEPTS + 1) and found.null.shape == (30, 3, CONCEPTS)
    np.testing.assert_allclose(found.null.mean(), 1 / 3, atol=0.06)
    reached = (found.null[..., :2].mean(-1) >= mean.mean(0) - 1e-7).sum(0)
    np.testing.assert_allclose(found.p, (1 + reached) / 31, atol=1e-6)


def test_a_checkpoint_that_diverged_is_named():
    hidden = jax.numpy.full((2, CONCEPTS * EACH, 4), np.nan)
    with pytest.raises(ValueError, match="hidden states must be finite"):
        icl_scores.reduce_states(hidden, PER_DRAW, CONCEPTS, 2, k=3, draws=2, permutations=5, seed=0)


@pytest.mark.parametrize("seed", range(3))
def test_fits_are_scipy_s(seed):
    rng = np.random.default_rng(seed)
    cd = rng.uniform(size=18).round(1)  # with ties
    accuracy = 0.5 * cd + rng.normal(0, 0.2, 18)
    concepts = np.arange(18) % 6
    found = icl_scores.fit(cd, accuracy, concepts, seed=0)
    assert found.r2 == pytest.approx(scipy.stats.linregress(cd, accuracy).rvalue ** 2, abs=1e-12)
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(cd, accuracy).statistic, abs=1e-12)
    assert found.r2_low < found.r2 < found.r2_high and found.spearman_low < found.spearman < found.spearman_high


def test_the_interval_draws_concepts_not_points():
    """Copies of each concept's point add nothing to know."""
    rng = np.random.default_rng(1)
    cd, accuracy, concepts = rng.uniform(size=6), rng.uniform(size=6), np.arange(6)
    once = icl_scores.fit(cd, accuracy, concepts, seed=0)
    often = icl_scores.fit(np.tile(cd, 5), np.tile(accuracy, 5), np.tile(concepts, 5), seed=0)
    np.testing.assert_allclose(once, often, atol=1e-9)


@pytest.mark.parametrize("accuracy", [[0.0] * 6, [0.5, 0.2]])
def test_what_is_undefined_is_not_a_number(accuracy):
    count = len(accuracy)
    found = icl_scores.fit(np.linspace(0, 1, count), accuracy, np.arange(count), seed=0)
    assert np.isnan(found).all()


def test_wilson_is_scipy_s():
    low, high = icl_scores.wilson(np.array([0, 3, 40]), 40)
    for i, k in enumerate((0, 3, 40)):
        theirs = scipy.stats.binomtest(k, 40).proportion_ci(method="wilson")
        np.testing.assert_allclose((low[i], high[i]), theirs, atol=1e-6)


def test_wrong_answers_are_counted_by_the_rules_they_follow():
    names = ["a", "b"]
    ruled = [{"a": "1", "b": "0"}, {"a": "1", "b": "0"}, {"a": "1", "b": "1"}, {}, {"a": "0", "b": "1"}]
    texts, correct = ["0", "1", "1", "9", "7"], [False, True, False, False, False]
    found = icl_scores.confusion(texts, correct, [0, 0, 2, 2, 0], ruled, names, 3)
    np.testing.assert_array_equal(found[0], [0, 0.5, 0.5])  # "0" is b's, "7" nobody's, the right one is not counted
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[2], [1, 1, 0])  # both rules give it; where no rule is known nothing is counted
