"""Silhouette and neighbours against scikit-learn, CKA against its kernel form, TwoNN against scikit-dimension."""

import jax
import numpy as np
import pytest
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from jaxconcepts.metrics import geometry


def states(seed=0, lead=(2,), points=120, width=7, mean=100.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, points)
    return (mean + labels[:, None] + rng.normal(size=(*lead, points, width))).astype(np.float32), labels


@pytest.mark.parametrize("points", [60, 300])
def test_silhouette_equals_scikit_learn(points):
    hidden, labels = states(points=points)
    labels[0] = 9  # the only point of its concept
    expected = [silhouette_score(h.astype(np.float64), labels) for h in hidden]
    np.testing.assert_allclose(geometry.silhouette(hidden, labels), expected, atol=1e-5)


def test_silhouette_inside_jit():
    hidden, labels = states()
    score = jax.jit(lambda h, c: geometry.silhouette(h, c, num_concepts=3))(hidden, labels)
    np.testing.assert_allclose(score, [silhouette_score(h.astype(np.float64), labels) for h in hidden], atol=1e-5)


def test_silhouette_needs_two_concepts():
    with pytest.raises(ValueError, match="at least two different labels, got 1"):
        geometry.silhouette(np.zeros((20, 3)), np.zeros(20, int))


def test_mutual_knn_is_the_mean_overlap_of_neighbour_sets():
    first, _ = states(1)
    second = first[..., :4] + np.random.default_rng(2).normal(size=first[..., :4].shape).astype(np.float32)
    expected = []
    for a, b in zip(first, second, strict=True):
        found = [NearestNeighbors(n_neighbors=6).fit(x).kneighbors(return_distance=False) for x in (a, b)]
        expected.append(np.mean([len(set(p) & set(q)) / 6 for p, q in zip(*found, strict=True)]))
    np.testing.assert_allclose(geometry.mutual_knn(first, second, 6), expected, atol=1e-6)
    np.testing.assert_allclose(geometry.mutual_knn(first, first * 2, 6), 1)


@pytest.mark.parametrize("width", [7, 200])
def test_linear_cka_equals_its_kernel_form(width):
    first, _ = states(3, width=width)
    second, _ = states(4, width=max(width // 2, 130) if width > 100 else 5)
    expected = []
    for a, b in zip(first.astype(np.float64), second.astype(np.float64), strict=True):
        centring = np.eye(len(a)) - 1 / len(a)
        k, m = (centring @ x @ x.T @ centring for x in (a, b))
        expected.append((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))
    np.testing.assert_allclose(geometry.linear_cka(first, second), expected, rtol=1e-4)
    np.testing.assert_allclose(geometry.linear_cka(first, 3 * first[..., ::-1]), 1, rtol=1e-5)


def test_representations_of_other_points_are_refused():
    for metric in (geometry.mutual_knn, geometry.linear_cka):
        with pytest.raises(ValueError, match=r"of the same points; got \(20, 3\) and \(21, 3\)"):
            metric(np.zeros((20, 3)), np.zeros((21, 3)))


def reference_two_nn(hidden, discard):
    """Facco et al.'s fit in float64; points with a duplicate carry no ratio."""
    distances = np.sqrt(((hidden[:, None].astype(np.float64) - hidden[None]) ** 2).sum(-1))
    np.fill_diagonal(distances, np.inf)
    first, second = np.sort(distances, -1)[:, :2].T
    ratio = np.sort((second / np.where(first > 0, first, np.nan))[first > 0])
    kept = int(len(ratio) * (1 - discard))
    x, y = np.log(ratio[:kept]), -np.log(1 - np.arange(1, kept + 1) / len(ratio))
    return (x @ y) / (x @ x)


def test_two_nn_equals_its_definition():
    hidden, _ = states(5, points=200)
    hidden[:, 3] = hidden[:, 11]
    expected = [reference_two_nn(h, 0.1) for h in hidden]
    np.testing.assert_allclose(geometry.two_nn(hidden), expected, rtol=1e-4)


def test_two_nn_equals_scikit_dimension():
    skdim = pytest.importorskip("skdim", reason="scikit-dimension is not installed")
    hidden, _ = states(6, (), 300, 30, mean=0.0)
    np.testing.assert_allclose(geometry.two_nn(hidden), skdim.id.TwoNN().fit(hidden).dimension_, rtol=1e-4)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_two_nn_finds_a_known_dimension(dimension):
    rng = np.random.default_rng(dimension)
    flat = rng.uniform(size=(1500, dimension)) @ rng.normal(size=(dimension, 12))
    assert abs(geometry.two_nn(flat) - dimension) < 0.1 * dimension


def test_two_nn_refuses_discard():
    with pytest.raises(ValueError, match="discard must be at least 0 and below 1, got 1"):
        geometry.two_nn(np.zeros((20, 3)), 1)
