"""Every metric against float64 from the definition, where float32 runs out of range or of digits."""

from functools import partial

import jax
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import silhouette_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from jaxconcepts.metrics import decodability, geometry, probes

N, D, K = 60, 12, 3
LABELS = np.arange(N) % K


def cases():
    """name -> [N, D] float32; 40 % of the spread is between concepts."""
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(N, D)) + 1.2 * rng.normal(size=(K, D))[LABELS]
    dimension, far = plain.copy(), plain.copy()
    dimension[:, 3] = 9000 + 3000 * rng.normal(size=N)
    far[7] *= 3000
    made = {f"scale 1e{e}": plain * 10.0**e for e in (-30, -22, -7, 0, 3, 20, 30)}
    made |= {"a massive dimension": dimension, "a massive point": far}
    made["a constant massive dimension"] = plain + 24_599 * (np.arange(D) == 2)
    made["a large mean"] = 1000 + 0.02 * plain
    made["duplicates"] = plain[np.arange(N) // 2 * 2 + 0 * LABELS]
    made["rank 4"] = plain[:, :4] @ rng.normal(size=(4, D))
    return {name: states.astype(np.float32) for name, states in made.items()}


CASES = cases()
STATES = np.stack(list(CASES.values()))


def over_cases(metric, reference, *more, **tolerance):
    """`metric` of all cases at once, outside jit and inside, against `reference` of each in float64."""
    expected = [reference(states.astype(np.float64)) for states in STATES]
    assert np.isfinite(expected).all()
    for run in (metric, jax.jit(metric)):
        for name, value, right in zip(CASES, np.asarray(run(STATES)), expected, strict=True):
            np.testing.assert_allclose(value, right, err_msg=name, **({"atol": 1e-5} | tolerance))


def test_silhouette():
    over_cases(
        lambda states: geometry.silhouette(states, LABELS, num_concepts=K),
        lambda states: np.mean(silhouettes(states)),
    )


def silhouettes(states):
    distances = np.sqrt(((states[:, None] - states[None]) ** 2).sum(-1))
    means = np.stack([distances[:, c == LABELS].sum(1) for c in range(K)], 1)
    inside = means[np.arange(N), LABELS] / (N // K - 1)
    outside = np.where(np.eye(K)[LABELS] == 1, np.inf, means / (N // K)).min(1)
    return (outside - inside) / np.maximum(inside, outside)


def test_the_reference_is_scikit_learns():
    plain = CASES["scale 1e0"].astype(np.float64)
    assert np.mean(silhouettes(plain)) == pytest.approx(silhouette_score(plain, LABELS))


@pytest.mark.parametrize("width", [D, 5])
def test_linear_cka(width):
    other = np.random.default_rng(1).normal(size=(N, width)) + STATES[3][:, :width]

    def reference(states):
        grams = []
        for x in (states, other):
            x = (x - x.mean(0)) / np.abs(x - x.mean(0)).max()
            grams.append(x @ x.T)
        return (grams[0] * grams[1]).sum() / np.sqrt((grams[0] ** 2).sum() * (grams[1] ** 2).sum())

    def metric(states):
        return geometry.linear_cka(states, np.broadcast_to(other, (len(STATES), N, width)).astype(np.float32))

    other = other.astype(np.float32).astype(np.float64)
    over_cases(metric, reference)


def test_linear_cka_is_not_defined_without_variance():
    assert np.isnan(geometry.linear_cka(np.full((20, 3), 0.1), np.random.default_rng(0).normal(size=(20, 3))))


def test_float64_is_not_cast_down():
    rng = np.random.default_rng(2)
    small = 1e-9 * rng.normal(size=(N, 4))
    assert geometry.linear_cka(1 + small, small) == pytest.approx(1, abs=1e-5)
    assert geometry.silhouette(1 + small, LABELS) == pytest.approx(silhouette_score(small, LABELS), abs=1e-5)


def two_nn(states):
    distances = np.sqrt(((states[:, None] - states[None]) ** 2).sum(-1))
    np.fill_diagonal(distances, np.inf)
    first, second = np.sort(distances, -1)[:, :2].T
    ratio = np.sort((second / np.where(first > 0, first, np.nan))[first > 0])
    kept = min(int(len(ratio) * 0.9), len(ratio) - 1)
    x, y = np.log(ratio[:kept]), -np.log(1 - np.arange(1, kept + 1) / len(ratio))
    return (x @ y) / (x @ x)


def test_two_nn():
    # Without the duplicates, of which none has a ratio.
    used = [name != "duplicates" for name in CASES]
    expected = [two_nn(states.astype(np.float64)) for states in STATES[used]]
    np.testing.assert_allclose(geometry.two_nn(STATES[used]), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(geometry.two_nn)(STATES[used]), expected, rtol=1e-5)


def test_mutual_knn():
    plain = np.broadcast_to(CASES["scale 1e0"], STATES.shape)

    def nearest(states):
        distances = ((states[:, None] - states[None]) ** 2).sum(-1)
        np.fill_diagonal(distances, np.inf)
        return np.argsort(distances, -1, kind="stable")[:, :6]

    def reference(states):
        own, theirs = nearest(states), nearest(plain[0].astype(np.float64))
        return np.mean([len(set(a) & set(b)) / 6 for a, b in zip(own, theirs, strict=True)])

    over_cases(lambda states: geometry.mutual_knn(states, plain, 6), reference)


def test_linear_probe():
    fold = np.asarray(probes.stratified_folds(LABELS, K, 4))

    def reference(states):
        ridge = RidgeClassifier(alpha=1.0, solver="svd")
        return (cross_val_predict(ridge, states, LABELS, cv=PredefinedSplit(fold)) == LABELS).mean()

    over_cases(lambda states: probes.linear_probe(states, LABELS, 4, num_concepts=K), reference)


def test_wider_than_points():
    """The other of the two systems, and one dimension of deviation 1 000 beside .1."""
    rng = np.random.default_rng(3)
    states = 0.1 * (rng.normal(size=(N, 100)) + 1.5 * rng.normal(size=(K, 100))[LABELS])
    states[:, 0] = 1000 * rng.normal(size=N)
    states = states.astype(np.float32)
    fold = np.asarray(probes.stratified_folds(LABELS, K, 4))
    ridge = RidgeClassifier(alpha=0.1, solver="svd")
    expected = (cross_val_predict(ridge, states.astype(np.float64), LABELS, cv=PredefinedSplit(fold)) == LABELS).mean()
    assert expected > 0.6
    np.testing.assert_allclose(probes.linear_probe(states, LABELS, 4, 0.1), expected, atol=1e-6)


WITH_LABELS = {
    "CD": decodability.concept_decodability, "CD by concept": decodability.concept_decodability_per_concept,
    "pairwise CD": decodability.pairwise_decodability,
}  # fmt: skip
SCORES = {
    name: partial(metric, concepts=LABELS, k=4, ties=ties, num_concepts=K)
    for ties in decodability.TIES
    for name, metric in ((f"{name}, {ties}", metric) for name, metric in WITH_LABELS.items())
} | {
    "silhouette": partial(geometry.silhouette, concepts=LABELS, num_concepts=K),
    "mutual kNN": lambda hidden: geometry.mutual_knn(CASES["scale 1e0"], hidden, 4),
    "linear CKA": lambda hidden: geometry.linear_cka(CASES["scale 1e0"], hidden),
    "two NN": geometry.two_nn,
    "probe": partial(probes.linear_probe, concepts=LABELS, folds=4, num_concepts=K),
}


@pytest.mark.parametrize("name", SCORES)
def test_no_nan_becomes_a_score(name):
    """Inside jit, where nobody can refuse it; outside, it is refused."""
    one, score = CASES["scale 1e0"].copy(), jax.jit(SCORES[name])
    assert np.isfinite(score(one)).all()
    for bad in (np.nan, np.inf):
        one[3, 2] = bad
        assert np.isnan(score(one)).all() and np.isnan(score(np.full_like(one, bad))).all()
        with pytest.raises(ValueError, match="hidden must be finite, got 1 values"):
            SCORES[name](one)
