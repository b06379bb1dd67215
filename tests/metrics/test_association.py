"""R² and Spearman against SciPy, their null by enumeration."""

import itertools

import numpy as np
import pytest
import scipy.stats

from jaxconcepts.metrics.association import associate, sign_free


@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_scipys(seed):
    rng = np.random.default_rng(seed)
    cd = rng.uniform(size=18).round(1)  # with ties
    accuracy = 0.5 * cd + rng.normal(0, 0.2, 18)
    fit = associate(cd, accuracy, np.arange(18))
    theirs = scipy.stats.pearsonr(cd, accuracy)
    assert fit.r2 == pytest.approx(theirs.statistic**2, abs=1e-12)
    assert fit.spearman == pytest.approx(scipy.stats.spearmanr(cd, accuracy).statistic, abs=1e-12)
    assert fit.p == pytest.approx(theirs.pvalue, abs=0.02)


def test_the_interval_of_r2_is_scipy_s_squared_where_the_sign_is_known():
    cd = np.random.default_rng(0).uniform(size=18)
    for sign in (1, -1):
        accuracy = sign * cd + np.random.default_rng(1).normal(0, 0.1, 18)
        fit = associate(cd, accuracy, np.arange(18))
        low, high = sorted(np.square(scipy.stats.pearsonr(cd, accuracy).confidence_interval(0.95)))
        np.testing.assert_allclose([fit.r2_low, fit.r2_high], [low, high], atol=2e-3)


@pytest.mark.parametrize("mean", [0, 0.3, 1, 1.96, 2.2, 3, 5, 7.5, 9])
def test_the_interval_without_a_sign_holds_the_mean_in_95_samples_of_100(mean):
    """By SciPy's folded normal: the probability of the sizes whose interval holds the mean."""
    edges = np.linspace(0, 14, 2801)
    ends = np.array([sign_free(size) for size in (edges[:-1] + edges[1:]) / 2])
    held = (ends[:, 0] <= mean + 1e-9) & (mean <= ends[:, 1] + 1e-9)
    assert np.diff(scipy.stats.foldnorm.cdf(edges, mean))[held].sum() == pytest.approx(0.95, abs=0.006)
    assert (np.diff(ends, axis=0) >= -1e-9).all() and (ends[:, 0] <= ends[:, 1]).all()


def test_the_null_is_every_pairing_of_concepts():
    rng = np.random.default_rng(3)
    x, y = rng.uniform(size=(2, 5, 2))
    fit = associate(x.ravel(), y.ravel(), np.repeat(np.arange(5), 2))
    null = [np.corrcoef(x.ravel(), y[list(order)].ravel())[0, 1] ** 2 for order in itertools.permutations(range(5))]
    assert fit.r2_null == pytest.approx(np.mean(null), abs=1e-12)
    assert fit.p == pytest.approx(np.mean(np.array(null) >= fit.r2 - 1e-9))


def test_adjusted_r2_is_0_on_average_without_a_relation():
    rng = np.random.default_rng(4)
    fits = [associate(*rng.normal(size=(2, 6)), np.arange(6)) for _ in range(1000)]
    assert np.mean([fit.r2 for fit in fits]) == pytest.approx(0.2, abs=0.02)
    assert np.mean([fit.r2_null for fit in fits]) == pytest.approx(0.2, abs=0.02)
    assert np.mean([fit.r2_adjusted for fit in fits]) == pytest.approx(0, abs=0.025)
    assert np.mean([fit.r2_low == 0 for fit in fits]) == pytest.approx(0.95, abs=0.02)


def test_copies_of_a_concepts_points_add_nothing_to_know():
    rng = np.random.default_rng(1)
    cd, accuracy, concepts = rng.uniform(size=6), rng.uniform(size=6), np.arange(6)
    once = associate(cd, accuracy, concepts)
    often = associate(np.tile(cd, 5), np.tile(accuracy, 5), np.tile(concepts, 5))
    np.testing.assert_allclose(once, often, atol=1e-9)


@pytest.mark.parametrize("accuracy", [[0.0] * 6, [0.5, 0.2]])
def test_what_is_undefined_is_not_a_number(accuracy):
    count = len(accuracy)
    assert np.isnan(associate(np.linspace(0, 1, count), accuracy, np.arange(count))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, None])
def test_numbers_that_are_none_or_rounding_relate_to_nothing(bad):
    """They had a p of 0 and a rank."""
    accuracy, concepts = np.array([0.1, 0.3, 0.2, 0.5, 0.4, 0.6]), np.arange(6)
    cd = np.full(6, 0.3, np.float32).astype(np.float64)
    cd[2] = np.nextafter(np.float32(0.3), np.float32(1)) if bad is None else bad
    assert np.isnan(associate(cd, accuracy, concepts)).all()
    assert np.isnan(associate(accuracy, cd, concepts)).all()
