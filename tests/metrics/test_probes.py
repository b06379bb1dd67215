"""The linear probe against scikit-learn's RidgeClassifier on the same folds."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from jaxconcepts.metrics import probes


def reference(hidden, labels, fold, alpha):
    return cross_val_predict(RidgeClassifier(alpha=alpha), hidden.astype(np.float64), labels, cv=PredefinedSplit(fold))


@pytest.mark.parametrize("concepts", [2, 5])
@pytest.mark.parametrize("width", [6, 150])
@pytest.mark.parametrize("alpha", [0.1, 10.0])
def test_equals_ridge_classifier(concepts, width, alpha):
    rng = np.random.default_rng(width + concepts)
    labels = rng.integers(0, concepts, 90)
    hidden = rng.normal(size=(2, 90, width)) + 2.5 / width**0.5 * rng.normal(size=(concepts, width))[labels] + 50.0
    fold = np.asarray(probes.stratified_folds(labels, concepts, 4))
    expected = np.stack([reference(h, labels, fold, alpha) for h in hidden])
    assert 0.2 < (expected == labels).mean() < 1
    np.testing.assert_array_equal(probes.probed_concepts(hidden, labels, 4, alpha), expected)
    accuracy = (expected == labels).mean(-1)
    np.testing.assert_allclose(probes.linear_probe(hidden, labels, 4, alpha), accuracy, atol=1e-6)
    inside = jax.jit(lambda h, c: probes.linear_probe(h, c, 4, alpha, num_concepts=concepts))
    np.testing.assert_allclose(inside(hidden.astype(np.float32), labels), accuracy, atol=1e-6)


def test_a_group_is_in_one_fold():
    """Ten persons with a state each, near which their points lie: left in other folds, they would give their label."""
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(10), 9))
    labels = rng.permutation([0, 1] * 5)[group]
    hidden = rng.normal(size=(10, 30))[group] + 0.1 * rng.normal(size=(90, 30))
    expected = reference(hidden, labels, group % 5, 1.0)
    np.testing.assert_array_equal(probes.probed_concepts(hidden, labels, group=group), expected)
    assert probes.linear_probe(hidden, labels) > 0.95 > 0.8 > (expected == labels).mean()
    with pytest.raises(ValueError, match=r"group must have one number for each of the 90 points, got shape \(9,\)"):
        probes.linear_probe(hidden, labels, group=group[:9])


def test_folds_hold_every_concept_evenly():
    labels = np.repeat([0, 1, 2], [10, 20, 35])
    fold = np.asarray(probes.stratified_folds(np.random.default_rng(0).permutation(labels), 3, 5))
    assert np.bincount(fold).tolist() == [13] * 5


def test_refuses_folds():
    with pytest.raises(ValueError, match="folds must be an integer from 2 to the 20 points, got 1"):
        probes.linear_probe(np.zeros((20, 3)), np.arange(20) % 2, 1)


@pytest.mark.parametrize("kind", ["a shared divisor", "texts", "halves"])
def test_groups_of_any_name_are_dealt_out_to_the_folds(kind):
    """By their numbers' remainders all points would be in one fold, and nothing would be left to fit on."""
    random, number = np.random.default_rng(4), np.arange(60) // 2
    concepts = np.arange(60) % 3
    hidden = random.normal(size=(60, 4)) + 2 * random.normal(size=(3, 4))[concepts]
    expected = probes.linear_probe(hidden, concepts, group=number)
    group = {"a shared divisor": 5 * number, "texts": np.char.mod("%03d", number), "halves": number / 2}[kind]
    assert probes.linear_probe(hidden, concepts, group=group) == expected
    if kind == "a shared divisor":
        inside = jax.jit(lambda hidden, group: probes.linear_probe(hidden, concepts, num_concepts=3, group=group))
        assert inside(hidden.astype(np.float32), group) == expected
