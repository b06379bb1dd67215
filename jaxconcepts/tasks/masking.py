"""Masked tokens for encoders: whole words at random, and answers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int


def whole_words(words: Int[np.ndarray, "B T"], rate: float, rng: np.random.Generator) -> Bool[np.ndarray, "B T"]:
    """Which tokens to mask: each word with probability `rate`, with all its tokens (15 % in arXiv 2309.14316).

    words: [B, T], the number of the word that a token is part of, -1 where it is never masked. A row in which no word
    was drawn has one masked, so that each has a target; a row without words has none.

    Raises ValueError for a rate outside (0, 1].
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be in (0, 1], got {rate!r}")
    drawn = rng.random((len(words), int(words.max(initial=-1)) + 1)) < rate
    empty = np.flatnonzero(~np.take_along_axis(drawn, np.maximum(words, 0), 1).any(axis=1, where=words >= 0))
    for row in empty:
        choices = np.unique(words[row][words[row] >= 0])
        if len(choices):
            drawn[row, rng.choice(choices)] = True
    return (words >= 0) & np.take_along_axis(drawn, np.maximum(words, 0), 1)


def answers(tokens: Int[np.ndarray, "B T"], loss_mask: Bool[np.ndarray, "B T"], eos: int) -> Bool[np.ndarray, "B T"]:
    """Which tokens to mask in questions for an encoder: those of the answers, as many as there are, and not the end."""
    return loss_mask & (tokens != eos)
