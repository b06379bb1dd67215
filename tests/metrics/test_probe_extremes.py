"""The probes of many concepts and the mixing probe against float64, where float32 runs out of range or of digits."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef

from jaxconcepts.metrics import grouped_probes
from jaxconcepts.metrics.mixing_probe import mixing_accuracy

N, D, K, FOLDS = 200, 8, 3, 5
GROUP = np.arange(N) // 4


def cases():
    """name -> [N, D] float32, and the labels [2, N]."""
    random = np.random.default_rng(0)
    labels = np.stack([random.integers(0, K, N), random.integers(0, K, N)])
    plain = random.normal(size=(N, D)) + sum(random.normal(size=(K, D))[row] for row in labels)
    dimension, constant, far = plain.copy(), plain.copy(), plain.copy()
    dimension[:, 2] = 2e4 + 6000 * random.normal(size=N)
    constant[:, 2] = 2e4
    far[7] *= 3e4
    made = {f"scale 1e{e}": plain * 10.0**e for e in (-30, -5, 0, 15, 20, 30)}
    made |= {"a massive dimension": dimension, "a constant massive dimension": constant, "a massive point": far}
    made |= {"a large mean": 1e4 + 0.02 * plain, "duplicates": plain[np.arange(N) // 2 * 2]}
    made["rank 2"] = plain[:, :2] @ random.normal(size=(2, D))
    return {name: states.astype(np.float32) for name, states in made.items()}, labels


STATES, LABELS = cases()
HIDDEN = np.stack(list(STATES.values()))


def read(states, label, counts, **settings):
    """What scikit-learn reads, fold after fold, in float64."""
    states, given = states.astype(np.float64), np.zeros(N, int)
    states = states - states.mean(0)
    for fold in range(FOLDS):
        out = fold == GROUP % FOLDS
        probe = RidgeClassifier(alpha=1.0, solver="svd", **settings)
        given[out] = probe.fit(states[counts & ~out], label[counts & ~out]).predict(states[out])
    return given


def test_every_concept_is_read_as_scikit_learn_reads_it():
    given = np.asarray(jax.jit(grouped_probes.read_off, static_argnums=2)(HIDDEN, LABELS, (K, K), GROUP))
    for name, states, rows in zip(STATES, HIDDEN, given, strict=True):
        expected = [read(states, label, np.ones(N, bool)) for label in LABELS]
        np.testing.assert_array_equal(rows, expected, err_msg=name)


def test_concepts_of_some_points_are_read_as_scikit_learn_reads_them():
    valid = np.random.default_rng(1).random(LABELS.shape) < 0.7
    # Where states are nothing beside the penalty, equal classes tie, and rounding decides.
    names = [name for name in STATES if "e-" not in name]
    given = grouped_probes.read_masked(np.stack([STATES[name] for name in names]), LABELS, valid, K, GROUP, FOLDS, 1.0)
    for name, rows in zip(names, np.asarray(given), strict=True):
        for row, label, counts in zip(rows, LABELS, valid, strict=True):
            expected = read(STATES[name], label, counts, class_weight="balanced")
            np.testing.assert_array_equal(row[counts], expected[counts], err_msg=name)


@pytest.mark.parametrize("rare", [0.01, 0.001])
def test_agreement_keeps_the_digits_of_a_rare_class(rare):
    random = np.random.default_rng(2)
    labels = (random.random(30_000) < rare).astype(int)
    given = np.where(random.random(30_000) < 0.5, labels, random.random(30_000) < rare).astype(int)
    scores = grouped_probes.agreement(given[None], labels[None], np.ones((1, 30_000), bool), 2)
    expected = [np.mean(given == labels), balanced_accuracy_score(labels, given), matthews_corrcoef(labels, given)]
    np.testing.assert_allclose([score[0] for score in scores], expected, atol=1e-6)


def test_what_cannot_be_decided_is_no_score():
    """Label 0 would be right for a third of the points."""
    broken = STATES["scale 1e0"].copy()
    broken[3, 2] = np.nan
    given = grouped_probes.read_off(broken, LABELS, (K, K), GROUP)
    assert np.isnan(grouped_probes.rightly(given, LABELS)).all()
    assert np.isnan(grouped_probes.matthews(given, LABELS)).all()
    valid = np.ones(LABELS.shape, bool)
    masked = grouped_probes.read_masked(broken, LABELS, valid, K, GROUP, FOLDS, 1.0)
    assert np.isnan(np.array(grouped_probes.agreement(masked, LABELS, valid, K))).all()
    # All points are of one group, so that nothing is left to fit on.
    alone = grouped_probes.read_off(STATES["scale 1e0"], LABELS, (K, K), np.zeros(N, int))
    assert np.isnan(grouped_probes.rightly(alone, LABELS)).all()


def test_a_concept_without_points_has_no_score():
    valid = np.array([np.ones(N, bool), np.zeros(N, bool)])
    scores = np.array(grouped_probes.agreement(LABELS, LABELS, valid, K))
    np.testing.assert_array_equal(scores[:, 0], 1)
    assert np.isnan(scores[:, 1]).all()


def test_the_mixing_probe_sees_states_of_any_scale_and_mean():
    random = np.random.default_rng(3)
    hidden, labels = random.normal(size=(20, 6, 4)), random.integers(0, 3, (1, 20, 6))
    hidden[..., 0] += 3 * labels[0]
    inside, fitted = np.ones((20, 6), bool), np.arange(20) % 5 != 0

    def accuracy(states):
        return mixing_accuracy(states.astype(np.float32), labels, (3,), inside, fitted, width=8, steps=60).item()

    plain = accuracy(hidden)
    assert plain > 0.5
    assert [accuracy(hidden * scale) for scale in (1e-30, 1e25, 1e30)] == [plain] * 3
    assert accuracy(hidden + 1e4) == pytest.approx(plain, abs=0.05)
    assert np.isnan(accuracy(np.where(np.arange(4) == 1, np.nan, hidden)))
