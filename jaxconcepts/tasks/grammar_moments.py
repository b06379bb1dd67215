"""Closed forms of a grammar: how long its strings are, and how much information a derivation holds.

All in float64 NumPy on the host: a length's distribution is a polynomial per symbol, and a rule multiplies them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from jaxconcepts.tasks.grammar_tables import Grammar


def length_distribution(grammar: Grammar) -> Float[np.ndarray, " lengths"]:
    """The probability of each length from 0 to the longest string."""
    return _by_length(grammar)[0].copy()


def mean_length(grammar: Grammar) -> float:
    """The mean length of a string, in tokens."""
    probability = _by_length(grammar)[0]
    return float(np.arange(len(probability)) @ probability)


def length_deviation(grammar: Grammar) -> float:
    """The standard deviation of a string's length, in tokens."""
    probability = _by_length(grammar)[0]
    squares = (np.arange(len(probability)) - mean_length(grammar)) ** 2
    return float(np.sqrt(squares @ probability))


def derivation_entropy(grammar: Grammar) -> float:
    """The entropy of a derivation, in bits: that of a string where no string has two derivations, else above it."""
    return float(_by_length(grammar)[1].sum())


def entropy_per_token(grammar: Grammar) -> float:
    """The derivation's entropy in bits a token, the end being a token too, as in a language model's loss."""
    return derivation_entropy(grammar) / (mean_length(grammar) + 1)


def bits_of_length(grammar: Grammar) -> Float[np.ndarray, " lengths"]:
    """The mean information, in bits, of the derivations of each length; 0 where there are none."""
    probability, information = _by_length(grammar)
    return np.divide(information, probability, out=np.zeros_like(information), where=probability > 0)


@lru_cache(maxsize=64)
def tilts(grammar: Grammar) -> Float[np.ndarray, " lengths"]:
    """The factor a token that keeps the weights of a string of each length in range: 2^(bits a token) at that length.

    Strings longer than the mean have fewer bits a token, by up to a third at the longest. A shorter one may be the
    begin of a long one, so it has the mean's tilt.
    """
    probability = length_distribution(grammar)
    possible = np.flatnonzero(probability > 0)
    rates = bits_of_length(grammar)[possible] / possible
    mean = derivation_entropy(grammar) / mean_length(grammar)
    lengths = np.arange(len(probability))
    rates = np.where(lengths > mean_length(grammar), np.interp(lengths, possible, rates), mean)
    return 2.0**rates


@lru_cache(maxsize=32)
def _by_length(grammar: Grammar):
    """The probability of each length, and the same weighted by the derivation's information in bits."""
    below = [(np.array([0.0, 1.0]), np.zeros(2))] * grammar.terminals
    for rules in reversed(grammar.rules):
        below = [_mixture([_product([below[child] for child in right]) for right in rights]) for rights in rules]
    return below[0]


def _product(factors):
    probability, information = np.ones(1), np.zeros(1)
    for p, s in factors:
        information = np.convolve(information, p) + np.convolve(probability, s)
        probability = np.convolve(probability, p)
    return probability, information


def _mixture(parts):
    size, bits = max(len(p) for p, _ in parts), np.log2(len(parts))
    probability, information = np.zeros(size), np.zeros(size)
    for p, s in parts:
        probability[: len(p)] += p / len(parts)
        information[: len(p)] += (s + bits * p) / len(parts)
    return probability, information
