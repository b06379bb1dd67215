"""Concept Decodability against scikit-learn's brute force and against float64 NumPy from the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxconcepts.metrics import decodability, neighbours

# float32 rows, the insertion route and the partial-sort route: 1 byte of memory leaves room for one target at a time.
MEMORIES = (neighbours.DEFAULT_MEMORY, 100_000, 1)


def sklearn_decoded(hidden, concepts, k):
    # With no queries scikit-learn leaves each point out of its own neighbours.
    return KNeighborsClassifier(k, algorithm="brute").fit(hidden, concepts).predict(None)


def reference_neighbours(hidden, k):
    """Neighbour sets from the definition: (distance, index) order, distances summed from float64 differences."""
    hidden = hidden.astype(np.float64)
    chosen = []
    for i, own in enumerate(hidden):
        squared = ((hidden - own) ** 2).sum(-1)
        squared[i] = np.inf
        chosen.append(np.lexsort((np.arange(len(hidden)), squared))[:k])
    return np.array(chosen)


def reference_decoded(hidden, concepts, k):
    names, codes = np.unique(concepts, return_inverse=True)
    return np.array([names[np.bincount(codes[row]).argmax()] for row in reference_neighbours(hidden, k)])


def clusters(rng, points=200, width=24, concepts=4, spread=1.5, dtype=np.float32):
    labels = rng.integers(0, concepts, points)
    return (rng.normal(size=(concepts, width))[labels] + spread * rng.normal(size=(points, width))).astype(
        dtype
    ), labels


@pytest.mark.parametrize(("k", "memory"), [(1, MEMORIES[0]), (199, MEMORIES[0]), *((10, m) for m in MEMORIES)])
def test_equals_scikit_learn_point_by_point(k, memory):
    hidden, concepts = clusters(np.random.default_rng(k))
    ours = decodability.decoded_concepts(hidden, concepts, k, memory=memory)
    np.testing.assert_array_equal(ours, sklearn_decoded(hidden, concepts, k))


@pytest.mark.parametrize("mean", [0.0, 1e3, -1e5])
@pytest.mark.parametrize(("points", "width"), [(400, 64), (300, 777)])
def test_large_shared_mean(mean, points, width):
    hidden, concepts = clusters(np.random.default_rng(7), points, width, spread=3.0)
    # In float32 the mean costs digits of the input itself; what is left must be used exactly.
    hidden = (hidden + np.float32(mean) * (1 + np.arange(width) % 3)).astype(np.float32)
    ours = decodability.decoded_concepts(hidden, concepts, 10)
    np.testing.assert_array_equal(ours, reference_decoded(hidden, concepts, 10))
    np.testing.assert_array_equal(ours, sklearn_decoded(hidden, concepts, 10))


def tied(case, rng):
    """[216, 16] hidden states with many exactly equal distances; small integers unless the case says otherwise."""
    if case == "grid":
        hidden = np.stack(np.meshgrid(*[np.arange(6)] * 3), -1).reshape(-1, 3)
    elif case == "duplicates":
        hidden = np.repeat(rng.integers(-9, 9, (54, 8)), 4, 0)
    elif case == "many duplicates":
        groups = np.repeat(rng.integers(-9, 9, (4, 8)), [3, 9, 80, 84], 0)
        hidden = np.concatenate([groups, rng.integers(-9, 9, (40, 8))])
    elif case == "all identical":
        hidden = np.full((216, 16), 0.1) + rng.normal(size=16)
    elif case == "identical and one apart":
        hidden = np.concatenate([np.full((215, 16), 0.3), np.full((1, 16), 1e4)])
    elif case == "duplicates, not integers":
        hidden = np.repeat(rng.normal(size=(8, 16)), 27, 0)
    elif case == "equidistant":
        hidden = np.concatenate([7.0 * np.eye(16), np.full((200, 16), 40) + 3 * np.eye(16)[rng.integers(0, 16, 200)]])
    elif case == "signs":
        hidden = rng.choice([-1.0, 1.0], (216, 12))
    elif case == "below float32":
        # 32 places, about 7 points at each, 2e-6 apart: seen from the next place their squared distances differ by
        # parts in 1e12, which float32 sums cannot tell and float64 sums can.
        place = rng.choice([-1.0, 1.0], (216, 5)) * rng.uniform(0.5, 1.5, 5)
        hidden = np.concatenate([place, 2e-6 * rng.normal(size=(216, 11))], -1)
    elif case == "line":
        hidden = np.linspace(0, 1, 216)[:, None] ** 4 * rng.normal(size=16) + 5.0
    else:
        hidden = np.concatenate([rng.integers(0, 3, (215, 5)), np.full((1, 5), 3000)])
    return rng.permutation(np.pad(hidden, ((0, 0), (0, 16 - hidden.shape[1])))).astype(np.float32)


CASES = (
    "grid",
    "duplicates",
    "many duplicates",
    "all identical",
    "identical and one apart",
    "duplicates, not integers",
    "equidistant",
    "signs",
    "below float32",
    "line",
    "far outlier",
)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("k", [1, 10])
def test_ties_in_distance_and_index_order(case, k):
    rng = np.random.default_rng(3)
    hidden = tied(case, rng)
    concepts = rng.integers(0, 5, len(hidden))
    ours = decodability.decoded_concepts(hidden, concepts, k)
    np.testing.assert_array_equal(ours, reference_decoded(hidden, concepts, k))
    found = decodability.nearest_neighbours(hidden, k, memory=100_000)
    np.testing.assert_array_equal(found, np.sort(reference_neighbours(hidden, k), -1))


def test_duplicates_give_scikit_learns_answer_where_its_answer_is_determined():
    # Each point and its copies share a label, so that whichever copies scikit-learn keeps, the votes are the same.
    rng = np.random.default_rng(4)
    hidden = np.repeat(rng.integers(-20, 20, (40, 6)), 4, 0).astype(np.float32)
    concepts = np.repeat(rng.integers(0, 3, 40), 4)
    ours = decodability.decoded_concepts(hidden, concepts, 7)
    np.testing.assert_array_equal(ours, sklearn_decoded(hidden, concepts, 7))


def test_vote_ties_go_to_the_smallest_label():
    hidden = np.array([[0.0], [1.0], [-1.1], [50.0], [52.0]])
    assert decodability.decoded_concepts(hidden, np.array(["z", "c", "b", "a", "a"]), 2)[0] == "b"


@pytest.mark.parametrize("points", [256, 700, 2100])
def test_shapes_around_the_blocks_and_routes(points):
    hidden, concepts = clusters(np.random.default_rng(points), points, 12, spread=2.0)
    ours = decodability.decoded_concepts(hidden, concepts, 10)
    np.testing.assert_array_equal(ours, sklearn_decoded(hidden, concepts, 10))


@pytest.mark.slow
def test_leading_axes_and_slabs():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(5, 3, 90, 6)).astype(np.float32)
    concepts = rng.integers(0, 3, 90)
    expected = [[(sklearn_decoded(h, concepts, 5) == concepts).mean() for h in row] for row in hidden]
    for memory in (4 * 90 * 90 * 4, 90 * 90 * 4):
        ours = decodability.concept_decodability(hidden, concepts, 5, memory=memory)
        assert ours.shape == (5, 3)
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert decodability.concept_decodability(hidden[0, 0], concepts, 5).shape == ()


def test_float64_input_keeps_its_digits():
    rng = np.random.default_rng(1)
    hidden = 1.0 + 1e-9 * rng.normal(size=(150, 10))
    concepts = rng.integers(0, 3, 150)
    ours = decodability.decoded_concepts(hidden, concepts, 6)
    np.testing.assert_array_equal(ours, reference_decoded(hidden, concepts, 6))


def test_half_precision_input_is_not_computed_in_half_precision():
    hidden, concepts = clusters(np.random.default_rng(2))
    half = jnp.asarray(hidden + 30, jnp.bfloat16)
    ours = decodability.decoded_concepts(half, concepts, 5)
    np.testing.assert_array_equal(ours, reference_decoded(np.asarray(half, np.float32), concepts, 5))


def test_inside_jit():
    hidden, concepts = clusters(np.random.default_rng(5))

    @jax.jit
    def scores(hidden, concepts):
        overall = decodability.concept_decodability(hidden, concepts, 10, num_concepts=4)
        return overall, decodability.concept_decodability_per_concept(hidden, concepts, 10, num_concepts=4)

    overall, own = scores(hidden, concepts)
    right = sklearn_decoded(hidden, concepts, 10) == concepts
    np.testing.assert_allclose(overall, right.mean(), atol=1e-6)
    np.testing.assert_allclose(own, [right[concepts == c].mean() for c in range(4)], atol=1e-6)


def test_pairwise_is_cd_on_the_pairs_points_alone():
    rng = np.random.default_rng(8)
    hidden, concepts = clusters(rng, 160, 8, spread=2.0)
    hidden = np.stack([hidden, rng.normal(size=hidden.shape).astype(np.float32)])
    names = np.array(list("dbca"))[concepts]
    pairs = decodability.pairwise_decodability(hidden, names, 7)
    assert pairs.shape == (2, 4, 4)
    for i, a in enumerate("abcd"):
        for j, b in enumerate("abcd"):
            member = (names == a) | (names == b)
            expected = [(sklearn_decoded(h[member], names[member], 7) == names[member]).mean() for h in hidden]
            np.testing.assert_allclose(pairs[:, i, j], expected, atol=1e-6)


def test_grouped_merges_labels():
    hidden, concepts = clusters(np.random.default_rng(9))
    groups = np.array([1, 0, 0, 1])
    grouped = decodability.grouped_decodability(hidden, concepts, groups, 10)
    expected = (sklearn_decoded(hidden, groups[concepts], 10) == groups[concepts]).mean()
    np.testing.assert_allclose(grouped, expected, atol=1e-6)


@pytest.mark.parametrize("k", [0, -1, 20, 21, 2.5])
def test_refuses_k_out_of_range(k):
    with pytest.raises(ValueError, match=r"k must be an integer from 1 to 19, one less than the 20 points; got"):
        decodability.concept_decodability(np.zeros((20, 3)), np.zeros(20, int), k)


def test_refuses_labels_of_another_length():
    with pytest.raises(ValueError, match=r"one label for each of the 20 points, got shape \(19,\)"):
        decodability.concept_decodability(np.zeros((20, 3)), np.zeros(19, int))


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refuses_hidden_states_that_are_not_finite(kind, value):
    hidden = np.zeros((2, 20, 3), np.float32)
    hidden[1, 3, 2] = value
    with pytest.raises(ValueError, match=r"hidden must be finite, got 1 values that are NaN or infinite of 120"):
        decodability.concept_decodability(kind(hidden), np.arange(20) % 2)


def test_refuses_traced_labels_without_their_number():
    with pytest.raises(ValueError, match="num_concepts must be given inside jit"):
        jax.jit(decodability.concept_decodability)(np.zeros((20, 3)), np.zeros(20, int))


def test_refuses_labels_beyond_num_concepts():
    with pytest.raises(ValueError, match="with num_concepts = 2, concepts must be integers from 0 to 1"):
        decodability.concept_decodability(np.zeros((20, 3)), np.arange(20) % 3, num_concepts=2)


def test_refuses_groups_that_do_not_cover_the_concepts():
    with pytest.raises(ValueError, match="concepts must be integers from 0 to 1, one of the 2 groups each"):
        decodability.grouped_decodability(np.zeros((20, 3)), np.arange(20) % 3, np.array([0, 1]))


def test_refuses_pairs_smaller_than_k():
    with pytest.raises(ValueError, match="the smallest pair has 5 points"):
        decodability.pairwise_decodability(np.zeros((20, 3)), np.repeat([0, 1, 2], [15, 3, 2]), 5)


def test_refuses_a_vector():
    with pytest.raises(ValueError, match=r"hidden must have shape \[..., points, width\], got \(20,\)"):
        decodability.concept_decodability(np.zeros(20), np.zeros(20, int))
