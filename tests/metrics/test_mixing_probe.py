"""The position-mixing probe, against its formula in loops and on labels that stand elsewhere."""

import jax
import numpy as np

from jaxconcepts.metrics import mixing_probe


def test_scores_are_those_of_the_formula():
    random = np.random.default_rng(0)
    places, readers, bias = (random.normal(size=shape) for shape in ((5, 2, 3), (2, 4, 6), (6,)))
    hidden, inside = random.normal(size=(2, 5, 4)), np.arange(5) < np.array([5, 3])[:, None]
    expected = np.zeros((2, 5, 6))
    for n, i, r in np.ndindex(2, 5, 2):
        scores = [np.exp(places[i, r] @ places[k, r]) if inside[n, k] else 0.0 for k in range(5)]
        expected[n, i] += sum(scores[k] * hidden[n, k] @ readers[r] for k in range(5)) / sum(scores)
    probe = mixing_probe.MixingProbe(*(np.float32(part) for part in (places, readers, bias)))
    np.testing.assert_allclose(jax.jit(probe.scores)(np.float32(hidden), inside), expected + bias, rtol=1e-4, atol=1e-4)


def test_what_stands_at_the_next_position_is_read_off_sequences_that_were_not_fitted():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, (60, 7))
    hidden = np.eye(3, dtype=np.float32)[labels] + 0.1 * random.normal(size=(60, 7, 3)).astype(np.float32)
    following = np.roll(labels, -1, axis=1)
    inside = np.broadcast_to(np.arange(7) < 6, labels.shape)
    noise = random.integers(0, 2, labels.shape)
    right = mixing_probe.mixing_accuracy(
        np.where(inside[..., None], hidden, 100.0), np.stack([labels, np.where(inside, following, -1), noise]),
        (3, 3, 2), inside & (np.arange(7) < 7), np.arange(60) < 45, width=16, steps=300,
    )  # fmt: skip
    assert right.shape == (3,) and right[0] > 0.95 and 0.3 < right[2] < 0.7
    # The last position inside has its label outside, where nothing is seen.
    assert 0.75 < right[1] < 0.98
