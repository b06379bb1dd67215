"""The host's search for neighbours: the same answers as from the definition, for whatever its thresholds leave."""

import jax
import numpy as np
import pytest

from jaxconcepts.metrics import decodability, host_neighbours
from tests.metrics import test_decodability as plain
from tests.metrics import test_ties as split

MEMORY = 1 << 29
"""Of no other test, so that no program is shared with them."""


@pytest.fixture
def small(monkeypatch):
    """The host's route for few points too, with tiles and samples in proportion."""
    monkeypatch.setattr(host_neighbours, "MIN_POINTS", 2)
    monkeypatch.setattr(decodability, "INSERTION_MAX_POINTS", 0)
    monkeypatch.setattr(host_neighbours, "SAMPLED", 24)
    monkeypatch.setattr(host_neighbours, "TILE_ELEMENTS", 4000)
    searched = []
    counted = host_neighbours._nearest
    monkeypatch.setattr(host_neighbours, "_nearest", lambda *given: searched.append(1) or counted(*given))
    yield
    assert searched


@pytest.mark.parametrize("k", [1, 10])
def test_neighbours_are_those_of_the_definition(small, k):
    rng = np.random.default_rng(k)
    hidden = np.stack([plain.tied(case, rng) for case in plain.CASES])
    ours = decodability.nearest_neighbours(hidden, k, memory=MEMORY)
    for case, states, nearest in zip(plain.CASES, hidden, np.asarray(ours), strict=True):
        np.testing.assert_array_equal(nearest, np.sort(plain.reference_neighbours(states, k)), err_msg=case)


@pytest.mark.parametrize("grouped", [False, True])
def test_split_scores_are_the_definition(small, grouped):
    rng = np.random.default_rng(0)
    hidden = [rng.permutation(split.states(case, rng)) for case in split.CASES]
    hidden = np.stack([np.pad(h, ((0, 0), (0, 16 - h.shape[1]))) for h in hidden]).astype(np.float32)
    concepts = rng.integers(0, split.K, 64)
    group = rng.integers(0, 12, 64) if grouped else None
    ours = decodability.concept_decodability(hidden, concepts, 9, ties="split", group=group, memory=MEMORY)
    expected = [split.exact_scores(states, concepts, 9, group).mean() for states in hidden]
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("exponent", [-100, 0, 100])
def test_scales_and_massive_dimensions(small, exponent):
    rng = np.random.default_rng(2)
    hidden = rng.normal(size=(90, 6))
    hidden[:, 2] = 24_599 + 8 * rng.integers(0, 2, 90)
    hidden = (hidden.astype(np.float32) * 2.0**exponent).astype(np.float32)
    ours = decodability.nearest_neighbours(hidden, 5, memory=MEMORY)
    np.testing.assert_array_equal(ours, np.sort(plain.reference_neighbours(hidden, 5)))


def test_it_runs_under_vmap_and_on_two_devices(small):
    hidden, concepts = plain.clusters(np.random.default_rng(3), 120)
    both = np.stack([hidden, hidden[::-1]])
    score = lambda states: decodability.concept_decodability(  # noqa: E731
        states, jax.numpy.asarray(concepts), 7, num_concepts=4, memory=MEMORY
    )
    expected = [np.mean(plain.sklearn_decoded(states, concepts, 7) == concepts) for states in both]
    np.testing.assert_allclose(jax.jit(jax.vmap(score))(both), expected, atol=1e-6)
    devices = jax.devices()[:2]
    if len(devices) == 2:
        mesh = jax.sharding.Mesh(np.array(devices), ("runs",))
        spec = jax.sharding.PartitionSpec("runs")
        split_up = jax.shard_map(jax.vmap(score), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
        np.testing.assert_allclose(jax.jit(split_up)(both), expected, atol=1e-6)


def test_thousands_of_points_take_this_route_and_equal_brute_force():
    rng = np.random.default_rng(4)
    hidden = np.concatenate([rng.normal(size=(2500, 8)), np.repeat(rng.normal(size=(3, 8)), 200, 0)])
    hidden = rng.permutation(hidden).astype(np.float32)
    assert len(hidden) >= host_neighbours.MIN_POINTS
    norms = (hidden**2).sum(1)
    values, indices = host_neighbours._nearest(11, hidden, norms)
    squared = ((hidden[:, None].astype(np.float64) - hidden) ** 2).sum(-1)
    np.fill_diagonal(squared, np.inf)
    # Rounding of 8 products and of the norms, which are at most 40.
    np.testing.assert_allclose(values, np.sort(squared)[:, :11], atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(squared, indices, 1), values, atol=1e-4)
    assert all(len(set(row)) == 11 for row in indices.tolist())
    lowered = jax.jit(lambda x: decodability.nearest_neighbours(x, 10)).lower(hidden).as_text()
    assert "callback" in lowered


def test_no_program_for_an_accelerator_calls_the_host():
    lowered = jax.jit(lambda x: decodability.nearest_neighbours(x, 10)).trace(np.zeros((2500, 8), np.float32))
    assert "callback" not in lowered.lower(lowering_platforms=("tpu",)).as_text()


def test_points_without_neighbours_end_no_search():
    """All in one group, or not a number: infinite distances, or none."""
    hidden = np.random.default_rng(5).normal(size=(300, 4)).astype(np.float32)
    values, indices = host_neighbours._nearest(3, hidden, (hidden**2).sum(1), np.zeros(300, int))
    assert np.all(np.isinf(values)) and indices.shape == (300, 3)
    values, _ = host_neighbours._nearest(3, hidden * np.float32(np.nan), (hidden**2).sum(1))
    assert not np.isfinite(values).any()
