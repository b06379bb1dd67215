"""Draws, intervals and nulls against NumPy, SciPy and scikit-learn."""

import csv
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats
from sklearn.neighbors import KNeighborsClassifier

from jaxconcepts import intervals
from jaxconcepts.metrics import statistics
from jaxconcepts.metrics.decodability import concept_decodability_per_concept
from jaxconcepts.metrics.draws import decodability_draws, key_of_draws, sample_draws

pytestmark = pytest.mark.usefixtures("unoptimized")

SPEC = importlib.util.spec_from_file_location("coverage_of_intervals", Path(__file__).with_name("coverage.py"))
coverage = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(coverage)


def states(points=240, width=5):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, points)
    return (rng.normal(size=(2, points, width)) + 0.7 * labels[:, None]).astype(np.float32), labels


def decodability(hidden, labels, k):
    return (KNeighborsClassifier(k, algorithm="brute").fit(hidden, labels).predict(None) == labels).mean()


def test_draws_are_cd_of_balanced_samples_that_share_no_point():
    hidden, labels = states()
    key = jax.random.key(3)
    codes = np.array([2, 0, 1])[labels]
    scores = decodability_draws(hidden, np.array(list("cab"))[labels], key, draws=3, per_concept=20, k=7)
    assert scores.shape == (2, 3)
    drawn = np.asarray(sample_draws(key, codes, 3, 20, 3))
    assert len(set(drawn.ravel())) == 180
    for draw, chosen in enumerate(drawn):
        assert np.bincount(codes[chosen]).tolist() == [20, 20, 20]
        expected = [decodability(h[chosen], codes[chosen], 7) for h in hidden]
        np.testing.assert_allclose(scores[:, draw], expected, atol=1e-6)
    assert len({tuple(column) for column in np.asarray(scores).T}) > 1


def split_by_concept(hidden, labels, k):
    """Each concept's mean of 1/m where it is among m with the most votes, by scikit-learn."""
    votes = KNeighborsClassifier(k, algorithm="brute").fit(hidden, labels).predict_proba(None)
    most = votes == votes.max(1, keepdims=True)
    scores = most[np.arange(len(labels)), labels] / most.sum(1)
    return np.array([scores[labels == c].mean() for c in range(3)])


def test_statistics_are_those_of_the_draws_and_of_their_permuted_labels():
    hidden, labels = states()
    hidden = np.concatenate([hidden, np.full_like(hidden[:1], 0.3)])
    key = jax.random.key(3)
    result = statistics.decodability_statistics(
        hidden, labels, key, draws=2, per_concept=30, k=7, permutations=19, averaged=2
    )
    assert [part.shape for part in result] == [*[(3, 4)] * 3, (3, 19, 4), (3, 4), (3, 4), (3,), (3, 80, 4)]
    drawn = np.asarray(sample_draws(key_of_draws(key), labels, 3, 30, 2))
    expected = np.array([np.mean([split_by_concept(h[d], labels[d], 7) for d in drawn], 0) for h in hidden[:2]])
    np.testing.assert_allclose(result.cd[:2, :3], expected, atol=1e-6)
    np.testing.assert_allclose(result.cd[:2, 3], expected[:, :2].mean(1), atol=1e-6)
    assert np.all((result.low <= result.cd + 1e-6) & (result.cd <= result.high + 1e-6))
    np.testing.assert_allclose(result.chance, np.mean(result.null, 1), atol=1e-6)
    np.testing.assert_allclose(result.chance[:2].mean(), 1 / 3, atol=0.05)
    reached = (np.asarray(result.null) >= np.asarray(result.cd)[:, None] - 1e-6).sum(1)
    np.testing.assert_allclose(result.p, (1 + reached) / 20, atol=1e-6)
    assert result.p[1, 3] == 0.05 and result.p[2, 3] == 1
    assert result.coincident.tolist() == [False, False, True]


def test_the_interval_of_given_scores_is_that_of_the_statistics_but_for_its_halves():
    hidden, labels = states(120)
    result = statistics.decodability_statistics(hidden, labels, jax.random.key(0), k=5, permutations=1)
    ends = statistics.decodability_interval(hidden, labels, result.cd[:, :3], 5)
    for end, other in zip(ends, (result.low, result.high), strict=True):
        np.testing.assert_allclose(end, other, atol=0.05)


@pytest.mark.parametrize("ties", ["first", "split"])
def test_null_by_concept_is_cd_of_permuted_labels(ties):
    hidden, labels = states(60)
    hidden = np.round(hidden)
    query = np.arange(60) // 3
    key = jax.random.key(5)
    options = {"ties": ties, "group": query}
    null = statistics.permutation_null(hidden, labels, key, permutations=4, k=9, by_concept=True, **options)
    together = statistics.permutation_null(hidden, labels, key, permutations=4, k=9, **options)
    assert null.shape == (2, 4, 3)
    for i, one in enumerate(jax.random.split(key, 4)):
        permuted = np.asarray(jax.random.permutation(one, labels))
        expected = concept_decodability_per_concept(hidden, permuted, 9, **options)
        np.testing.assert_allclose(null[:, i], expected, atol=1e-6)
    np.testing.assert_allclose(np.asarray(null) @ np.bincount(labels) / 60, together, atol=1e-5)


@pytest.mark.slow
def test_p_values_are_uniform_without_signal():
    """One statistic on both sides: of 400 layers without signal a tenth have a p-value up to .1, half one up to .5."""
    labels = np.repeat(np.arange(4), 40)
    hidden = np.random.default_rng(7).normal(size=(400, 160, 5)).astype(np.float32)
    settings = {"draws": 2, "per_concept": 20, "k": 5, "permutations": 99}
    p = np.asarray(statistics.decodability_statistics(hidden, labels, jax.random.key(0), **settings).p)[:, -1]
    for level in (0.05, 0.1, 0.5, 0.9):
        assert abs(np.mean(p <= level) - level) < 3 * np.sqrt(level * (1 - level) / 400) + 0.01, level


def test_every_point_is_drawn_equally_often():
    labels = np.repeat([0, 1], [20, 40])
    keys = jax.random.split(jax.random.key(0), 2000)
    chosen = np.asarray(jax.vmap(lambda key: sample_draws(key, labels, 2, 5, 2))(keys))
    rate = np.bincount(chosen.ravel()) / 2000
    np.testing.assert_allclose(rate, np.repeat([0.5, 0.25], [20, 40]), atol=0.05)


def test_wilson_is_scipys():
    low, high = intervals.wilson(np.array([0, 3, 40]) / 40, 40)
    for i, right in enumerate((0, 3, 40)):
        theirs = scipy.stats.binomtest(right, 40).proportion_ci(method="wilson")
        np.testing.assert_allclose((low[i], high[i]), theirs, atol=1e-9)


def test_the_interval_of_a_share_counts_groups():
    right, strata = np.tile([1, 1, 0, 1, 0], 40), np.repeat([0, 1], 100)
    alone = intervals.share_interval(right, strata)
    np.testing.assert_allclose(alone[0], intervals.wilson(0.6, np.array([100, 100, 200]))[0], atol=0.005)
    # Ten answers that always stand and fall together are as good as two.
    often = intervals.share_interval(np.repeat(right[:20], 10), strata, np.repeat(np.arange(20), 10))
    twice = intervals.share_interval(np.repeat(right[:20], 2), np.repeat([0, 1], 20), np.repeat(np.arange(20), 2))
    np.testing.assert_allclose(often, twice, atol=1e-9)
    low, high = intervals.share_interval(np.ones(100), np.zeros(100, int), np.arange(100) // 5)
    assert high[0] == 1 and low[0] == pytest.approx(0.8, abs=0.03)  # of 20 groups


def check_coverage(row, repetitions, errors, edge=0.025):
    """Within two points of .95 but for `errors` standard errors; above that within `edge` of 0 or 1, where CD and
    accuracy have few values."""
    error = float(row.get("error") or 0) or np.sqrt(0.95 * 0.05 / repetitions)
    short = 0.95 - float(row["coverage"])
    assert short < 0.02 + errors * error, row
    assert -short < 0.02 + errors * error or not edge < float(row["true"]) < 1 - edge, row


@pytest.mark.slow
@pytest.mark.parametrize("cell", [cell for cell in coverage.CELLS if cell[2] == 20], ids=str)
def test_intervals_of_cd_cover(cell):
    """Of 100 repetitions, whose standard error is up to 2.2 points; the table is of more, and of more cells."""
    *cell, separations = cell
    for separation in separations:
        for row in coverage.of_decodability(*cell, separation, 100):
            check_coverage(row, 100, 3)


def table_of(*names):
    """The rows of docs/coverage.csv that are of these."""
    with coverage.TABLE.open() as file:
        return [row for row in csv.DictReader(file) if row["of"] in names]


def test_the_table_of_coverage_says_that_intervals_of_cd_cover():
    rows = table_of("CD", "CD of a concept")
    cells = sum(len(separations) for *_, separations in coverage.CELLS)
    assert len(rows) == 2 * cells  # The average over concepts and one of them.
    for row in rows:
        # One concept at chance with heavy tails: see docs/coverage.md.
        check_coverage(row, 1000, 2 if row["world"] != "tails" or row["of"] == "CD" else 5)
    assert abs(np.mean([float(row["coverage"]) for row in rows]) - 0.955) < 0.01


@pytest.mark.slow
def test_intervals_of_accuracy_and_association_cover():
    cells = [("thirds", 7, 500, 0.3), ("thirds", 7, 50, 0.95), ("thirds", 4, 50, 0.04)]
    rows = [row for cell in cells for row in coverage.of_accuracy(*cell, 500)]
    for row in [*rows, *coverage.of_association(7, 0.9, 500)]:
        check_coverage(row, 500, 2, edge=0.06)


def test_the_table_of_coverage_says_that_intervals_of_accuracy_cover():
    """Of eight queries that are nearly all right or nearly all wrong they need not."""
    rows = table_of("accuracy", "accuracy of a concept")
    assert {row["world"] for row in rows} == set(coverage.QUERIES) and len(rows) == 2 * len(coverage.ACCURACY_CELLS)
    for row in rows:
        check_coverage(row, 2000, 2 if row["world"] != "poles" else 6, edge=0.11)


def test_the_table_of_coverage_says_what_the_other_intervals_cover():
    """AUC of few steps that are nearly all foreseen need not be covered, nor means of seeds that are not normal."""
    above = table_of("CD above a control", "that of a concept")
    assert len(above) == 2 * len(coverage.DIFFERENCES) * len(coverage.SHARED)
    areas, means, squares = table_of("AUC"), table_of("mean"), table_of("R2")
    assert (len(areas), len(means), len(squares)) == (len(coverage.AREA_CELLS), 3 * len(coverage.SEEDS), 12)
    for row in [*above, *squares, *(row for row in means if row["world"] == "normal")]:
        check_coverage(row, 2000, 2)
    for row in areas:
        if (row["world"], row["true"]) != ("0.03 positive", "0.990"):
            check_coverage(row, 2000, 2, edge=0.06)
    assert all(float(row["coverage"]) > 0.88 for row in [*areas, *means])


@pytest.mark.slow
def test_intervals_of_areas_and_of_what_is_above_a_control_cover():
    for row in [*coverage.of_areas(60, 0.1, 0.8, 400), *coverage.of_areas(60, 0.4, 0.95, 400)]:
        check_coverage(row, 400, 2, edge=0.06)
    for row in coverage.of_differences(3, 60, (3.0, 2.0), 0.9, 100):
        check_coverage(row, 100, 3)


def test_the_variance_of_few_groups_is_known_from_few():
    """Student's quantile has the degrees of freedom of the sums' kurtosis, between 2 and those of all groups."""
    group = np.repeat(np.arange(20), 5)
    right = np.zeros(100)
    right[:5] = 1  # All of one group.
    low, high = intervals.share_interval(right, np.zeros(100, int), group)
    sums = np.bincount(group, right - 0.05)
    effect = 20 / 19 * np.sum(sums**2) / 100 / (0.05 * 0.95)
    freedom = 1.2 * 20 / (20 * np.sum(sums**4) / np.sum(sums**2) ** 2 - 1)
    assert 1 < freedom < 2
    trials = 100 / effect * (intervals.Z / scipy.stats.t.ppf(0.975, 2)) ** 2
    np.testing.assert_allclose((low[0], high[0]), intervals.wilson(np.float64(0.05), trials), atol=1e-12)
    # Answers that stand alone are a binomial's.
    alone = intervals.share_interval(right, np.zeros(100, int))
    np.testing.assert_allclose(alone[1], intervals.wilson(np.float64(0.05), 100)[1], atol=1e-12)


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
    with pytest.raises(ValueError, match=r"since draws share none; got 2 \* 3, and concept few has 5"):
        decodability_draws(hidden, labels, key, draws=2, per_concept=3, k=3)
    with pytest.raises(ValueError, match="draws must be a positive integer, got 0"):
        decodability_draws(hidden, labels, key, 0, 5, 3)
    with pytest.raises(ValueError, match="k must be an integer from 1 to 9, one less than the 10 points; got 10"):
        decodability_draws(hidden, labels, key, per_concept=5, k=10)
    with pytest.raises(ValueError, match="permutations must be a positive integer, got 0"):
        statistics.decodability_statistics(hidden, labels, key, k=3, permutations=0)
    with pytest.raises(ValueError, match="averaged must be an integer from 1 to the 2 concepts, got 3"):
        statistics.decodability_statistics(hidden, labels, key, k=3, averaged=3)
    with pytest.raises(ValueError, match="per_concept must be given for more than one draw"):
        statistics.decodability_statistics(hidden, labels, key, k=3, draws=2)
