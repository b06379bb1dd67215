"""Masks of whole words and of answers, against their definitions."""

import numpy as np
import pytest
from scipy.stats import binom

from jaxconcepts.tasks import masking

# Rows: padding at the end, words of one to three tokens, numbers with gaps; and a row of no words.
WORDS = np.array([[-1, 1, 1, 3, 4, 4, 4, -1, 9, -1, -1, -1]] * 2000 + [[-1] * 12])


def test_words_are_masked_whole_and_at_the_rate():
    masked = masking.whole_words(WORDS, 0.15, np.random.default_rng(0))
    assert not masked[WORDS < 0].any()
    assert not masked[-1].any()
    for word in (1, 3, 4, 9):
        tokens = masked[:-1][:, WORDS[0] == word]
        assert (tokens.all(axis=1) == tokens.any(axis=1)).all()
    assert masked[:-1].any(axis=1).all()
    # A row has one of its four words drawn where none came: the rate of a word is .15 + .85^4 / 4.
    rate = 0.15 + 0.85**4 / 4
    low, high = binom.interval(0.999, 8000, rate)
    starts = masked[:-1][:, [1, 3, 4, 8]]
    assert low <= starts.sum() <= high


def test_all_words_are_masked_at_rate_one():
    assert (masking.whole_words(WORDS, 1.0, np.random.default_rng(0)) == (WORDS >= 0)).all()


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_a_rate_outside_is_refused(rate):
    with pytest.raises(ValueError, match=r"rate must be in \(0, 1\], got"):
        masking.whole_words(WORDS, rate, np.random.default_rng(0))


def test_answers_are_masked_without_the_end():
    tokens = np.array([[1, 9, 8, 7, 2, 0]])
    targets = np.array([[False, False, True, True, True, False]])
    assert masking.answers(tokens, targets, eos=2).tolist() == [[False, False, True, True, False, False]]
