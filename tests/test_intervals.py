"""The interval of an area under the ROC curve against scikit-learn's area and DeLong's variance, pair by pair."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from jaxconcepts import intervals


@pytest.fixture(scope="module")
def steps():
    """Scores of two layers with ties, which of 60 steps are positive, and each step's group."""
    rng = np.random.default_rng(0)
    positive = rng.random(60) < 0.4
    return np.round(rng.normal(size=(2, 60)) + positive * [[0.5], [1.5]], 1), positive, np.arange(60) // 3


def test_the_variance_of_points_that_stand_alone_is_de_longs(steps):
    scores, positive, _ = steps
    auc, low, high = intervals.auc_interval(scores, positive, np.arange(60))
    np.testing.assert_allclose(auc, [roc_auc_score(positive, layer) for layer in scores])
    for layer in range(2):
        wins = scores[layer, positive][:, None] - scores[layer, ~positive]
        wins = (wins > 0) + 0.5 * (wins == 0)
        of_positives, of_negatives = wins.mean(1) - auc[layer], wins.mean(0) - auc[layer]
        sums = np.concatenate([of_positives / len(of_positives), of_negatives / len(of_negatives)])
        groups = min(wins.shape)
        variance = groups / (groups - 1) * np.sum(sums**2)
        of_each = np.var(of_positives) / len(of_positives) + np.var(of_negatives) / len(of_negatives)
        assert variance == pytest.approx(groups / (groups - 1) * of_each)
        freedom = min(1.2 * 60 / (60 * np.sum(sums**4) / np.sum(sums**2) ** 2 - 1), groups - 1)
        trials = auc[layer] * (1 - auc[layer]) / variance * (intervals.Z / scipy.stats.t.ppf(0.975, freedom)) ** 2
        np.testing.assert_allclose((low[layer], high[layer]), intervals.wilson(auc[layer], trials))


def test_copies_within_a_group_add_nothing_to_know(steps):
    scores, positive, group = steps
    once = intervals.auc_interval(scores, positive, group)
    order = np.random.default_rng(1).permutation(180)
    often = (np.tile(part, 3)[..., order] for part in (scores, positive, group))
    np.testing.assert_allclose(intervals.auc_interval(*often), once)
    alone = intervals.auc_interval(scores, positive, np.arange(60))
    assert not np.allclose(alone[1], once[1], atol=1e-3)


def test_too_few_groups_have_an_area_and_no_interval(steps):
    scores, positive, group = steps
    few = positive & (group < 4)
    auc, low, high = intervals.auc_interval(scores, few, group)
    assert auc[0] == pytest.approx(roc_auc_score(few, scores[0])) and np.isnan([low, high]).all()
    assert np.isnan(intervals.auc_interval(scores, np.zeros(60, bool), group)).all()
    missing = np.where(np.arange(60) == 7, np.nan, scores[1])
    assert np.isnan(intervals.auc_interval(np.stack([scores[0], missing]), positive, group)).tolist() == [[0, 1]] * 3
    low, high = (end[0] for end in intervals.auc_interval(positive[None] * 1.0, positive, group)[1:])
    assert high == 1 and 0.75 < low < 0.9  # Without an error, of at most 20 groups.
