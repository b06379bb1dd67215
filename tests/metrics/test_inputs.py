"""What is no array of hidden states, and what are no labels: refused by name, nothing becomes a number in silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxconcepts as jc

HIDDEN = np.random.default_rng(0).normal(size=(12, 3))
LABELS = np.arange(12) % 2
MEASURES = (jc.concept_decodability, jc.pairwise_decodability)
KEYS = jax.random.split(jax.random.key(0), 12)[:, None]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        (HIDDEN + 1j, "hidden must be real numbers, got an array of complex128"),
        (jnp.asarray(HIDDEN) + 1j, "hidden must be real numbers, got an array of complex64"),
        (HIDDEN.astype("datetime64[s]"), "hidden must be real numbers, got an array of datetime64"),
        (HIDDEN.astype("timedelta64[s]"), "hidden must be real numbers, got an array of timedelta64"),
        (KEYS, "hidden must be real numbers, got an array of key"),
        ([["a", "b"]] * 12, "hidden must be real numbers, got an array of <U1"),
        (np.array([["a"]] * 12, object), "hidden must be real numbers, got objects"),
        (np.ma.array(HIDDEN, mask=HIDDEN > 1), "hidden must have all its values, got .* that are masked"),
        (np.zeros((12, 0)), r"hidden must have shape \[..., points, width\], got \(12, 0\)"),
        ([[1, 2], [3]], "hidden must be an array, or lists of equal lengths"),
    ],
)
def test_hidden_states_that_are_no_real_numbers(measure, hidden, message):
    with pytest.raises(ValueError, match=message):
        measure(hidden, LABELS, 3)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"concepts": None}, "concepts must be labels, one a point, got None"),
        ({"concepts": ["1", 1] * 6}, "concepts must be labels of one kind, got texts and numbers"),
        ({"concepts": [{}] * 12}, "concepts must be labels that can be sorted"),
        ({"concepts": [None, 1] * 6}, "concept_decodability's drop_missing=True leaves them out"),
        ({"group": [None] * 12}, r"group must have a label for every point; .*\(None or NaN\)$"),
        ({"k": True}, "k must be an integer from 1 to 11, .* got True"),
        ({"k": None}, "k must be a positive integer, got None"),
        ({"num_concepts": 2.0}, "num_concepts must be a positive integer, got 2.0"),
        ({"num_concepts": "2"}, "num_concepts must be a positive integer, got '2'"),
        ({"num_concepts": True}, "num_concepts must be a positive integer, got True"),
    ],
)
def test_labels_and_numbers_that_are_none(measure, given, message):
    with pytest.raises(ValueError, match=message):
        measure(HIDDEN, **({"concepts": LABELS, "k": 3} | given))


def test_no_points():
    with pytest.raises(ValueError, match="hidden must have at least two points with a label, got 0"):
        jc.concept_decodability(np.zeros((0, 3)), np.zeros(0), 3)
    with pytest.raises(ValueError, match="hidden must have at least two points with a label, got 0"):
        jc.concept_decodability(HIDDEN, [None] * 12, 3, drop_missing=True)


def test_tensors_that_numpy_cannot_hold():
    torch = pytest.importorskip("torch")
    for tensor in (torch.tensor(HIDDEN).to_sparse(), torch.zeros(12, 3, device="meta")):
        with pytest.raises(ValueError, match="hidden must be a dense tensor of plain numbers with its data, got"):
            jc.concept_decodability(tensor, LABELS, 3)
    halves = torch.tensor(HIDDEN).to(torch.float8_e4m3fn)
    assert jc.concept_decodability(halves, LABELS, 3) == jc.concept_decodability(halves.float(), LABELS, 3)
