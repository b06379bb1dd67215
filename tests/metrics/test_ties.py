"""CD with shared ties, groups, scales and missing labels, against exact rational arithmetic from the definition."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.metrics import decodability, neighbours

MEMORIES = (neighbours.DEFAULT_MEMORY, 40_000, 1)
K = 4


def exact_scores(hidden, concepts, k, group=None):
    """Score of each point [N] by the definition, every distance and vote a fraction."""
    exact = np.vectorize(Fraction, otypes=[object])(np.asarray(hidden, np.float64))
    scores = []
    for i in range(len(exact)):
        others = [j for j in range(len(exact)) if j != i and (group is None or group[j] != group[i])]
        distance = {j: ((exact[i] - exact[j]) ** 2).sum() for j in others}
        kth = sorted(distance.values())[k - 1]
        inside = [j for j in others if distance[j] < kth]
        boundary = [j for j in others if distance[j] == kth]
        votes = {c: Fraction(0) for c in set(concepts)}
        for j in inside:
            votes[concepts[j]] += 1
        for j in boundary:
            votes[concepts[j]] += Fraction(k - len(inside), len(boundary))
        winners = [c for c, vote in votes.items() if vote == max(votes.values())]
        scores.append((concepts[i] in winners) / len(winners))
    return np.array(scores)


def states(case, rng):
    if case == "grid":
        return np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3)
    if case == "duplicates":
        return np.repeat(rng.normal(size=(4, 6)), 16, 0)
    if case == "kinds of many sizes":
        return np.repeat(rng.integers(-3, 3, (8, 4)), [1, 1, 2, 3, 5, 9, 13, 30], 0)
    if case == "identical":
        return np.full((64, 5), 0.1)
    if case == "one-hot":
        return 0.3 * np.eye(16)[rng.integers(0, 16, 64)]
    if case == "bfloat16":
        return np.asarray(jnp.asarray(rng.normal(size=(64, 3)), jnp.bfloat16), np.float64)
    return rng.normal(size=(64, 8))


CASES = ("grid", "duplicates", "kinds of many sizes", "identical", "one-hot", "bfloat16", "continuous")


@pytest.mark.parametrize(("memory", "grouped"), [*((m, False) for m in MEMORIES), (MEMORIES[0], True)])
def test_split_scores_are_the_definition(memory, grouped):
    rng = np.random.default_rng(0)
    # All cases in one batch, so that they share a program; columns of zeros change no distance.
    hidden = [rng.permutation(states(case, rng)) for case in CASES]
    hidden = np.stack([np.pad(h, ((0, 0), (0, 16 - h.shape[1]))) for h in hidden]).astype(np.float32)
    concepts = rng.integers(0, K, 64)
    group = rng.integers(0, 12, 64) if grouped else None
    shares = decodability.concept_decodability_per_concept(
        hidden, concepts, 9, ties="split", group=group, memory=memory
    )
    for case, states_, share in zip(CASES, hidden, np.asarray(shares), strict=True):
        expected = exact_scores(states_, concepts, 9, group)
        np.testing.assert_allclose(
            share, [expected[concepts == c].mean() for c in range(K)], atol=1e-6, err_msg=f"{case}"
        )


@pytest.mark.parametrize("ties", decodability.TIES)
def test_scale_changes_nothing(ties):
    rng = np.random.default_rng(1)
    plain = np.stack([np.pad(rng.permutation(states("grid", rng)), ((0, 0), (0, 5))), states("continuous", rng)])
    concepts = rng.integers(0, K, 64)
    expected = decodability.concept_decodability(plain.astype(np.float32), concepts, 5, ties=ties)
    assert np.all((np.asarray(expected) > 0.1) & (np.asarray(expected) < 0.9))
    for exponent in (-100, -73, 66, 100):
        hidden = (plain * 2.0**exponent).astype(np.float32)
        np.testing.assert_array_equal(decodability.concept_decodability(hidden, concepts, 5, ties=ties), expected)


def test_a_massive_point_and_a_massive_dimension_hide_nothing():
    rng = np.random.default_rng(2)
    hidden = rng.normal(size=(64, 6)).astype(np.float32)
    concepts = rng.integers(0, K, 64)
    hidden[:, 2] = 24_599 + 8 * rng.integers(0, 2, 64)
    hidden[5] *= 1e15
    expected = exact_scores(hidden, concepts, 5)
    np.testing.assert_allclose(decodability.concept_decodability(hidden, concepts, 5, ties="split"), expected.mean())


def test_relabelling_and_reordering_change_nothing():
    rng = np.random.default_rng(3)
    hidden = rng.integers(0, 3, (2, 90, 4)).astype(np.float32)
    concepts, order, names = rng.integers(0, K, 90), rng.permutation(90), rng.permutation(K)
    plain = np.asarray(decodability.concept_decodability_per_concept(hidden, concepts, 5, ties="split"))
    renamed = decodability.concept_decodability_per_concept(hidden, names[concepts], 5, ties="split")
    np.testing.assert_array_equal(np.asarray(renamed)[:, names], plain)
    reordered = decodability.concept_decodability_per_concept(hidden[:, order], concepts[order], 5, ties="split")
    np.testing.assert_allclose(reordered, plain, atol=1e-7)
    first = decodability.concept_decodability_per_concept(hidden, concepts, 5)
    assert np.abs(np.asarray(first) - plain).max() > 0.05


def test_no_concept_is_favoured_without_signal():
    """K = 4 and k = 10: votes that tie go to the first concept with "first" (.335, .270, .217, .179)."""
    hidden = np.random.default_rng(4).normal(size=(30, 400, 3)).astype(np.float32)
    concepts = np.repeat(np.arange(K), 100)
    split = decodability.concept_decodability_per_concept(hidden, concepts, 10, ties="split").mean(0)
    np.testing.assert_allclose(split, 0.247, atol=0.015)
    first = decodability.concept_decodability_per_concept(hidden, concepts, 10).mean(0)
    np.testing.assert_allclose(first, [0.335, 0.270, 0.217, 0.179], atol=0.02)


def test_identical_states_give_no_concept_a_score():
    concepts = np.repeat(np.arange(K), 12)
    same = np.full((48, 5), 0.3, np.float32)
    np.testing.assert_array_equal(decodability.concept_decodability_per_concept(same, concepts, 10)[1:], 0)
    # A point leaves its own concept one vote short: none is right, and none is favoured.
    np.testing.assert_array_equal(
        decodability.concept_decodability_per_concept(same, concepts, 10, ties="split"), np.zeros(K)
    )


def test_coincident_layers_are_those_of_one_state():
    rng = np.random.default_rng(5)
    hidden = np.stack([rng.normal(size=(30, 8)), np.tile(rng.normal(size=8), (30, 1)), np.zeros((30, 8))])
    hidden[1] *= 1 + 1e-7 * rng.normal(size=(30, 8))
    np.testing.assert_array_equal(decodability.coincident(hidden), [False, True, True])
    np.testing.assert_array_equal(decodability.coincident(hidden.astype(np.float32) * 1e30), [False, True, True])
    apart = hidden[1].copy()
    apart[3, 2] += 1e-3
    assert not decodability.coincident(apart)


@pytest.mark.parametrize("ties", decodability.TIES)
def test_a_group_does_not_vote_for_itself(ties):
    rng = np.random.default_rng(6)
    # Every query three times, under three concepts: without groups each finds its copies.
    hidden = np.repeat(rng.normal(size=(40, 5)), 3, 0).astype(np.float32)
    concepts, query = rng.integers(0, 3, 120), np.repeat(np.arange(40), 3)
    others = np.array(
        [
            [j for j in np.lexsort((np.arange(120), ((hidden - hidden[i]) ** 2).sum(-1))) if query[j] != query[i]][:6]
            for i in range(120)
        ]
    )
    np.testing.assert_array_equal(decodability.nearest_neighbours(hidden, 6, group=query), np.sort(others, -1))
    votes = np.stack([(concepts[others] == c).sum(-1) for c in range(3)], -1)
    most = votes == votes.max(-1, keepdims=True)
    share = most[np.arange(120), concepts] / most.sum(-1)
    expected = (votes.argmax(-1) == concepts).mean() if ties == "first" else share.mean()
    assert abs(decodability.concept_decodability(hidden, concepts, 6, ties=ties) - expected) > 0.005
    names = np.array([f"query {i}" for i in range(40)])[query]
    np.testing.assert_allclose(
        decodability.concept_decodability(hidden, concepts, 6, ties=ties, group=names), expected, atol=1e-6
    )
    inside = jax.jit(
        lambda h, c, q: decodability.concept_decodability(h, c, 6, ties=ties, group=q, num_concepts=3, memory=10_000)
    )
    np.testing.assert_allclose(inside(hidden, concepts, query), expected, atol=1e-6)


def test_pairs_split_ties_and_leave_groups_out():
    rng = np.random.default_rng(7)
    hidden = rng.integers(0, 3, (60, 3)).astype(np.float32)
    concepts, group = rng.integers(0, 3, 60), rng.integers(0, 20, 60)
    pairs = decodability.pairwise_decodability(hidden, concepts, 5, ties="split", group=group)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        member = (concepts == a) | (concepts == b)
        expected = exact_scores(hidden[member], concepts[member], 5, group[member]).mean()
        np.testing.assert_allclose(pairs[[a, b], [b, a]], expected, atol=1e-6)


def test_too_few_points_outside_a_group():
    hidden, concepts = np.random.default_rng(8).normal(size=(20, 3)), np.arange(20) % 2
    group = np.repeat(["large", "small"], [15, 5])
    with pytest.raises(ValueError, match="outside each group; got k = 6, and group large leaves 5 of the 20 points"):
        decodability.concept_decodability(hidden, concepts, 6, group=group)
    codes = jnp.asarray(group == "large", jnp.int32)
    inside = jax.jit(lambda h, q: decodability.concept_decodability(h, concepts, 6, group=q))
    assert np.isnan(inside(hidden.astype(np.float32), codes))


@pytest.mark.parametrize(
    ("labels", "points"),
    [
        (["a", None, "b"] * 4, "points 1, 4, 7, 10 have none"),
        (["a", float("nan"), "b"] * 4, "points 1, 4, 7, 10 have none"),
        (np.array([0, 1, np.nan] * 4), "points 2, 5, 8, 11 have none"),
        (np.array([None, "a", "b"] * 8), "points 0, 3, 6, 9, 12 and 3 more have none"),
        (np.ma.masked_array(np.arange(12) % 2, np.arange(12) == 7), "points 7 have none"),
    ],
)
def test_missing_labels_are_refused_by_index(labels, points):
    hidden = np.random.default_rng(9).normal(size=(len(labels), 3))
    with pytest.raises(ValueError, match=f"concepts must have a label for every point; {points}"):
        decodability.concept_decodability(hidden, labels, 3)
    kept = [i for i in range(len(labels)) if not _absent(labels[i])]
    expected = decodability.concept_decodability(hidden[kept], [labels[i] for i in kept], 3)
    np.testing.assert_array_equal(decodability.concept_decodability(hidden, labels, 3, drop_missing=True), expected)


def _absent(label):
    return label is None or label is np.ma.masked or label != label


def test_refusals():
    hidden = np.zeros((20, 3))
    with pytest.raises(ValueError, match='ties must be "first" or "split", got \'random\''):
        decodability.concept_decodability(hidden, np.arange(20) % 2, ties="random")
    with pytest.raises(ValueError, match=r"group must have one label for each of the 20 points, got shape \(19,\)"):
        decodability.concept_decodability(hidden, np.arange(20) % 2, group=np.arange(19))
    with pytest.raises(ValueError, match="labels of one kind, got texts and numbers"):
        decodability.concept_decodability(hidden, np.array(["a", 1] * 10, object))
    with pytest.raises(ValueError, match="drop_missing must be False inside jit"):
        jax.jit(lambda c: decodability.concept_decodability(hidden, c, num_concepts=2, drop_missing=True))(
            np.arange(20) % 2
        )


@pytest.mark.parametrize("case", ["identical", "duplicates", "kinds of many sizes", "grid"])
def test_neighbours_among_duplicates_are_outside_the_group(case):
    """Many points at one place, some of them of the point's own group: the first of the others are its neighbours."""
    rng = np.random.default_rng(6)
    hidden = rng.permutation(states(case, rng)).astype(np.float32)
    group = rng.integers(0, 12, 64)
    ours = decodability.nearest_neighbours(hidden, 9, group=group)
    for i, nearest in enumerate(np.asarray(ours)):
        squared = ((hidden.astype(np.float64) - hidden[i]) ** 2).sum(-1)
        squared[group == group[i]] = np.inf
        np.testing.assert_array_equal(nearest, np.sort(np.lexsort((np.arange(64), squared))[:9]))


def test_pairs_among_duplicates_are_judged_by_their_own_points():
    rng = np.random.default_rng(7)
    hidden, concepts = np.repeat(rng.integers(0, 2, (40, 2)), 3, 0).astype(np.float32), rng.integers(0, 3, 120)
    ours = decodability.pairwise_decodability(hidden, concepts, 5)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        among = (concepts == first) | (concepts == second)
        alone = decodability.concept_decodability(hidden[among], concepts[among], 5)
        np.testing.assert_allclose(ours[first, second], alone, atol=1e-6)
