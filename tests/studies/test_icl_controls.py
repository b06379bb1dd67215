"""The controls of CD against scikit-learn: bags of tokens, their neighbours, and what CD is above them."""

import jax
import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsClassifier

from jaxconcepts.metrics import statistics
from jaxconcepts.studies.icl import controls
from jaxconcepts.studies.icl.config import IclConfig
from jaxconcepts.studies.icl.controls import Score
from jaxconcepts.studies.icl.scores import reduce_states

K, EACH, PER_DRAW = 3, 24, 8
SETTINGS = {"k": 3, "draws": 9, "seed": 5}


def drawn(seed):
    """Indices of the points of each draw, two of which share none."""
    points = np.arange(K * EACH).reshape(K, EACH)[:, PER_DRAW:].ravel()
    concepts = jax.numpy.asarray(np.repeat(np.arange(K), EACH - PER_DRAW))
    key = statistics.key_of_draws(jax.random.key(seed))
    return points[np.asarray(statistics.sample_draws(key, concepts, K, PER_DRAW, 2))]


def expected(counts, query, k, seed):
    """CD by concept, by scikit-learn's distances and votes that points at the k-th distance share."""
    labels, found = np.repeat(np.arange(K), PER_DRAW), []
    for chosen in drawn(seed):
        distances = pairwise_distances(counts[chosen].astype(np.float64), metric="sqeuclidean")
        distances[query[chosen][:, None] == query[chosen]] = np.inf
        score = np.zeros(len(chosen))
        for i, row in enumerate(distances):
            last = np.sort(row)[k - 1]
            inside, boundary = (np.bincount(labels[part], minlength=K) for part in (row < last, row == last))
            votes = inside + (k - inside.sum()) * boundary / boundary.sum()
            most = np.isclose(votes, votes.max())
            score[i] = most[labels[i]] / most.sum()
        found.append(score.reshape(K, -1).mean(1))
    return np.mean(found, 0)


def test_bags_are_scikit_learn_s():
    rng = np.random.default_rng(0)
    texts = [[str(token) for token in rng.integers(0, 30, rng.integers(0, 9))] for _ in range(20)]
    vectorizer = CountVectorizer(analyzer=lambda tokens: tokens, vocabulary=[str(token) for token in range(30)])
    counts = vectorizer.fit_transform(texts).toarray()
    bags = controls.bags([list(map(int, text)) for text in texts])
    np.testing.assert_array_equal(bags, counts[:, counts.any(0)])


def test_cd_of_bags_with_their_ties_is_by_scikit_learn_s_distances():
    rng = np.random.default_rng(1)
    texts = [rng.integers(2 * concept, 2 * concept + 5, 3) for concept in range(K) for _ in range(EACH)]
    query = np.tile(np.arange(EACH) % 11, K)
    counts = controls.bags(texts)
    found = controls.of_bags(counts, query, PER_DRAW, K, K - 1, **SETTINGS)
    by_concept = expected(counts, query, 3, 5)
    np.testing.assert_allclose(found.cd[:-1], by_concept, atol=1e-6)
    np.testing.assert_allclose(found.cd[-1], by_concept[:2].mean(), atol=1e-6)
    assert 0.4 < found.cd[-1] < 0.95 and (found.low < found.cd).all() and (found.cd < found.high).all()


def test_cd_of_features_without_ties_is_scikit_learn_s_classifier():
    rng = np.random.default_rng(2)
    counts = (rng.integers(0, 60, (K * EACH, 5)) + 20 * np.eye(K, 5, dtype=int).repeat(EACH, 0)).astype(np.float32)
    found = controls.of_bags(counts, np.arange(K * EACH), PER_DRAW, K, K, **SETTINGS)
    labels, shares = np.repeat(np.arange(K), PER_DRAW), []
    for chosen in drawn(5):
        votes = KNeighborsClassifier(3, algorithm="brute").fit(counts[chosen], labels).predict_proba(None)
        most = votes == votes.max(1, keepdims=True)
        shares.append((most[np.arange(len(labels)), labels] / most.sum(1)).reshape(K, -1).mean(1))
    np.testing.assert_allclose(found.cd[:-1], np.mean(shares, 0), atol=1e-6)


def test_the_interval_covers_the_mean_of_further_prompts():
    """The 95 % interval of 16 points a concept holds the mean of 40 samples in at least 36 of them (p = .95)."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(40):
        texts = [rng.integers(2 * concept, 2 * concept + 5, 3) for concept in range(K) for _ in range(EACH)]
        found.append(controls.of_bags(controls.bags(texts), np.arange(K * EACH), PER_DRAW, K, K, **SETTINGS))
    truth = np.mean([score.cd[-1] for score in found])
    assert sum(score.low[-1] <= truth <= score.high[-1] for score in found) >= 36


def test_prompts_that_are_all_alike_have_no_score():
    score = controls.of_bags(np.ones((K * EACH, 2)), np.arange(K * EACH), PER_DRAW, K, K, **SETTINGS)
    assert np.isnan(score[:3]).all() and not score.halved.any()


def test_cd_is_above_the_highest_control_of_each_concept():
    score = Score(*np.array([[[0.9, 0.5]], [[0.8, 0.4]], [[0.95, 0.6]]]))  # one layer, two columns
    lower = Score(*np.array([[0.3, 0.45], [0.2, 0.4], [0.4, 0.5]]))
    mixed = Score(*np.array([[0.6, 0.2], [0.5, 0.1], [0.7, 0.3]]))
    absent = Score(*np.full((3, 2), np.nan))
    found = controls.above(score, {"a": lower, "b": mixed, "c": absent})
    np.testing.assert_allclose(found.cd, [[0.3, 0.05]])
    np.testing.assert_allclose(found.low, [[0.3 - np.hypot(0.1, 0.1), 0.05 - np.hypot(0.1, 0.05)]])
    np.testing.assert_allclose(found.high, [[0.3 + np.hypot(0.05, 0.1), 0.05 + np.hypot(0.1, 0.05)]])


def test_what_rises_and_falls_with_a_control_is_known_better_from_its_difference():
    """Zou's interval with the correlation of the halves' differences: .8 with the control of the same points."""
    rng = np.random.default_rng(6)
    first, second = np.linalg.qr(rng.normal(size=(30, 2)))[0].T
    halved = np.stack([first, first], -1)
    score = Score(*np.array([[[0.7, 0.6]], [[0.6, 0.5]], [[0.75, 0.7]]]), halved[None])
    same = Score(*np.array([[0.4, 0.2], [0.35, 0.1], [0.6, 0.3]]), np.stack([0.8 * first + 0.6 * second, second], -1))
    others = Score(*np.array([[0.3, 0.5], [0.2, 0.45], [0.4, 0.6]]))
    found = controls.above(score, {"same": same, "others": others})
    np.testing.assert_allclose(found.cd, [[0.3, 0.1]])
    low = [0.3 - np.sqrt(0.1**2 + 0.2**2 - 2 * 0.8 * 0.1 * 0.2), 0.1 - np.hypot(0.1, 0.1)]
    high = [0.3 + np.sqrt(0.05**2 + 0.05**2 - 2 * 0.8 * 0.05 * 0.05), 0.1 + np.hypot(0.1, 0.05)]
    np.testing.assert_allclose([found.low, found.high], [[low], [high]])


def test_controls_are_halved_as_the_scores_are():
    """Where the bags are the states, CD and control rise and fall as one. What is left of their interval comes from the
    unequal arms of both."""
    rng = np.random.default_rng(7)
    counts = (rng.integers(0, 90, (K * EACH, 6)) + 20 * np.eye(K, 6, dtype=int).repeat(EACH, 0)).astype(np.float32)
    query = np.tile(np.arange(EACH), K)
    control = controls.of_bags(counts, query, PER_DRAW, K, K, **SETTINGS)
    settings = IclConfig(per_draw=PER_DRAW, prompts=EACH, permutations=1, **SETTINGS)
    scores = reduce_states(jax.numpy.asarray(counts)[None], query, settings, K, K)
    found = controls.above(Score(scores.cd, scores.low, scores.high, scores.halved), {"bag": control})
    np.testing.assert_allclose(scores.halved[0], control.halved, atol=1e-6)
    np.testing.assert_allclose(found.cd, 0, atol=1e-6)
    assert (found.high - found.low < 0.3 * (scores.high - scores.low)).all()


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_states_of_an_untrained_model_are_scored_at_their_best_layer(strength):
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(K), PER_DRAW)
    hidden = rng.normal(size=(2, K * PER_DRAW, 6)).astype(np.float32)
    hidden[1] += strength * np.eye(K, 6)[labels]
    layer, found = controls.of_states(hidden, np.arange(K * PER_DRAW), K, K, k=3, seed=0)
    votes = KNeighborsClassifier(3, algorithm="brute").fit(hidden[1], labels).predict_proba(None)
    most = votes == votes.max(1, keepdims=True)
    np.testing.assert_allclose(
        found.cd[1, :-1], (most[np.arange(len(labels)), labels] / most.sum(1)).reshape(K, -1).mean(1), atol=1e-6
    )
    assert layer == found.cd[:, -1].argmax() and (strength == 0 or layer == 1)
