"""Probes of several concepts at once, against scikit-learn's, one after another."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef

from jaxconcepts.metrics import grouped_probes

CLASSES = (2, 3, 4)


@pytest.fixture(scope="module")
def points():
    """120 points of 24 groups that share an offset, and three concepts of them; two layers."""
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(24), 5)
    labels = np.stack([random.integers(0, count, 120) for count in CLASSES])
    signal = labels.T - labels.mean(1)
    hidden = random.normal(size=(2, 120, 8)) + 3 * random.normal(size=(24, 8))[group]
    hidden[1] += signal @ random.normal(size=(3, 8))
    return hidden.astype(np.float32), labels, group


def test_every_layer_and_concept_is_read_as_scikit_learn_reads_it(points):
    hidden, labels, group = points
    read = np.asarray(grouped_probes.read_off(hidden, labels, CLASSES, group, folds=4, alpha=2.0))
    assert read.shape == (2, 3, 120)
    for layer in range(2):
        for concept in range(3):
            for fold in range(4):
                out = group % 4 == fold
                fitted = RidgeClassifier(alpha=2.0).fit(hidden[layer, ~out].astype(np.float64), labels[concept, ~out])
                np.testing.assert_array_equal(read[layer, concept, out], fitted.predict(hidden[layer, out]))


def test_folds_that_split_groups_would_score_higher():
    """The label is the group's alone, so a probe that has not seen the group knows nothing."""
    random = np.random.default_rng(1)
    group = np.repeat(np.arange(40), 6)
    label = random.integers(0, 2, 40)[group]
    hidden = (random.normal(size=(40, 60))[group] + 0.01 * random.normal(size=(240, 60))).astype(np.float32)
    by_group = grouped_probes.read_off(hidden, label[None], (2,), group)
    by_point = grouped_probes.read_off(hidden, label[None], (2,), np.arange(240))
    assert np.mean(np.asarray(by_group)[0] == label) < 0.7
    assert np.mean(np.asarray(by_point)[0] == label) > 0.95


def test_matthews_correlation_is_scikit_learns():
    random = np.random.default_rng(2)
    read, labels = random.integers(0, 2, (3, 50)), random.integers(0, 2, (3, 50))
    read[2] = 1
    expected = [matthews_corrcoef(a, b) for a, b in zip(labels, read, strict=True)]
    np.testing.assert_allclose(grouped_probes.matthews(read, labels), expected, atol=1e-6)


def test_bad_input_is_named(points):
    hidden, labels, group = points
    with pytest.raises(ValueError, match=r"labels must be \[2, 120\] and group \[120\].*got \(3, 120\)"):
        grouped_probes.read_off(hidden, labels, (2, 3), group)
    with pytest.raises(ValueError, match="folds must be an integer of at least 2, got 1"):
        grouped_probes.read_off(hidden, labels, CLASSES, group, folds=1)


def test_concepts_with_points_of_their_own_and_equal_classes_are_read_as_scikit_learn_reads_them(points):
    hidden, labels, group = points
    random = np.random.default_rng(3)
    three, valid = np.minimum(labels, 2), random.random(labels.shape) < 0.7
    three[0] = (three[0] == 1) & (random.random(120) < 0.4)
    read = np.asarray(grouped_probes.read_masked(hidden, three, valid, 3, group, 4, 2.0))
    scores = [np.asarray(score) for score in grouped_probes.agreement(read, three, valid, 3)]
    for layer, concept in np.ndindex(2, 3):
        label, counts = three[concept], valid[concept]
        for fold in range(4):
            out, fitted = group % 4 == fold, counts & (group % 4 != fold)
            probe = RidgeClassifier(alpha=2.0, class_weight="balanced").fit(
                hidden[layer, fitted].astype(np.float64), label[fitted]
            )
            np.testing.assert_array_equal(read[layer, concept, out], probe.predict(hidden[layer, out]))
        true, given = label[counts], read[layer, concept, counts]
        expected = [np.mean(true == given), balanced_accuracy_score(true, given), matthews_corrcoef(true, given)]
        np.testing.assert_allclose([score[layer, concept] for score in scores], expected, atol=1e-6)
