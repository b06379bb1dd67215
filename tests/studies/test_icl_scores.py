"""The in-context study's numbers against scikit-learn and counting by hand."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxconcepts.metrics.draws import key_of_draws, sample_draws
from jaxconcepts.studies.icl import scores as icl_scores

CONCEPTS, EACH, PER_DRAW = 3, 24, 8
SIZES = SimpleNamespace(per_draw=PER_DRAW, k=3, draws=9, permutations=30, seed=5)


def shares(hidden, labels, k):
    """Score of each point [N]: 1/m where its concept is among m with the most of its k nearest others."""
    votes = KNeighborsClassifier(k, algorithm="brute").fit(hidden, labels).predict_proba(None)
    most = votes == votes.max(1, keepdims=True)
    return most[np.arange(len(labels)), labels] / most.sum(1)


def test_cd_of_every_layer_is_scikit_learn_s():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CONCEPTS), EACH)
    strength = np.array([0.0, 2.0, 0.7])[:, None, None]
    centres = rng.normal(size=(CONCEPTS, 6))
    hidden = (rng.normal(size=(3, CONCEPTS * EACH, 6)) + strength * centres[labels]).astype(np.float32)
    query = np.arange(len(labels))
    found = icl_scores.reduce_states(jax.numpy.asarray(hidden), query, SIZES, CONCEPTS, CONCEPTS - 1)
    within = np.arange(CONCEPTS * EACH) % EACH
    small = np.repeat(np.arange(CONCEPTS), PER_DRAW)

    apart = hidden[:, within < PER_DRAW]
    chosen_on = [shares(layer, small, 3)[: 2 * PER_DRAW].mean() for layer in apart]
    np.testing.assert_allclose(found.chosen_on, chosen_on, atol=1e-6)
    assert found.headline == int(np.argmax(chosen_on)) == 1

    pool, rest = hidden[:, within >= PER_DRAW], np.repeat(np.arange(CONCEPTS), EACH - PER_DRAW)
    # Of 16 prompts a concept two draws of 8 share none.
    key = key_of_draws(jax.random.key(5))
    draws = np.asarray(sample_draws(key, rest, CONCEPTS, PER_DRAW, 2))
    expected = np.mean(
        [[shares(layer[chosen], small, 3).reshape(CONCEPTS, -1).mean(1) for layer in pool] for chosen in draws], 0
    )
    np.testing.assert_allclose(found.cd[:, :-1], expected, atol=1e-6)
    np.testing.assert_allclose(found.cd[:, -1], expected[:, :2].mean(1), atol=1e-6)
    np.testing.assert_allclose(found.with_query, found.cd, atol=1e-6)
    pairs = np.zeros((CONCEPTS, CONCEPTS))
    for i, j in np.ndindex(CONCEPTS, CONCEPTS):
        own = (small == i) | (small == j)
        codes = (small[own] == j).astype(int)
        pairs[i, j] = 1 if i == j else np.mean([shares(pool[1][chosen][own], codes, 3).mean() for chosen in draws])
    np.testing.assert_allclose(found.pairwise, pairs, atol=1e-6)

    assert (found.low <= found.cd).all() and (found.high >= found.cd).all()
    assert found.low.shape == (3, CONCEPTS + 1) and found.null.shape == (3, 30, CONCEPTS + 1)
    np.testing.assert_allclose(found.null.mean(), 1 / 3, atol=0.06)
    np.testing.assert_allclose(found.p, (1 + (found.null >= found.cd[:, None] - 1e-6).sum(1)) / 31, atol=1e-6)
    assert not found.coincident.any()


def test_prompts_of_one_query_do_not_find_each_other():
    """Layers where a state says the query alone: every query under every concept, so that copies are always wrong."""
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(EACH, 6)).astype(np.float32)
    hidden = jax.numpy.asarray(np.tile(queries, (2, CONCEPTS, 1)) + 1e-3 * rng.normal(size=(2, CONCEPTS * EACH, 6)))
    query = np.tile(np.arange(EACH), CONCEPTS)
    found = icl_scores.reduce_states(hidden, query, SIZES, CONCEPTS, CONCEPTS)
    assert found.cd[:, -1].min() > 0.2
    assert found.with_query[:, -1].max() < found.cd[:, -1].min()


def test_a_checkpoint_that_diverged_is_named():
    hidden = jax.numpy.full((2, CONCEPTS * EACH, 4), np.nan)
    with pytest.raises(ValueError, match="hidden states must be finite"):
        icl_scores.reduce_states(hidden, np.arange(CONCEPTS * EACH), SIZES, CONCEPTS, 2)


def test_wrong_answers_are_counted_by_the_rules_they_follow():
    names = ["a", "b"]
    ruled = [{"a": "1", "b": "0"}, {"a": "1", "b": "0"}, {"a": "1", "b": "1"}, {}, {"a": "0", "b": "1"}]
    texts, correct = ["0", "1", "1", "9", "7"], [False, True, False, False, False]
    found = icl_scores.confusion(texts, correct, [0, 0, 2, 2, 0], ruled, names, 3)
    np.testing.assert_array_equal(found[0], [0, 0.5, 0.5])  # "0" is b's, "7" nobody's, the right one is not counted
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[2], [1, 1, 0])  # both rules give it; where no rule is known nothing is counted
