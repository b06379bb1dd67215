"""Does one score predict another over concepts? R², Spearman, and what R² is where there is no relation.

With few concepts R² is large by chance: with six and no relation it is .20 on average. So beside R² stand the adjusted
R², whose mean there is 0, and the p-value of the pairing: how often concepts paired at random do as well.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from jaxconcepts.intervals import Z

# Pairings that the p-value counts: all, where there are no more, else this many at random.
PAIRINGS = 5040


class Association(NamedTuple):
    """Squared Pearson correlation R² of points with its 95 % interval, and Spearman's rank correlation.

    r2_adjusted: 1 - (1 - R²)(n - 1) / (n - 2), n concepts; below 0 where R² is less than chance gives on average.
    r2_null: mean R² of random pairings of concepts. p: the share of pairings with at least this R².
    NaN where there are fewer than three concepts, a point has no number, or one of the two never varies by more than
    rounding; an interval from four concepts on.
    Spearman's correlation has none: of so few ranks none covers.
    """

    r2: float
    r2_low: float
    r2_high: float
    r2_adjusted: float
    r2_null: float
    p: float
    spearman: float


def associate(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], concepts: Int[np.ndarray, " n"], seed: int = 0
) -> Association:
    """How x predicts y over points, each of a concept (several points a concept: at several numbers of shots).

    Points of one concept are not independent: interval and adjustment count concepts, and random pairings move whole
    concepts. The interval is Fisher's of the correlation (Fisher 1921), squared: it begins at 0 where the correlation's
    holds 0. It supposes that concepts are drawn from a normal population.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    names, codes = np.unique(np.asarray(concepts), return_inverse=True)
    n = len(names)
    if n < 3 or not (_varies(x) and _varies(y)):
        return Association(*[math.nan] * len(Association._fields))
    r, rank = np.corrcoef(x, y)[0, 1], np.corrcoef(*(pl.Series(values).rank("average") for values in (x, y)))[0, 1]
    paired = _of_pairings(x, y, codes, n, seed)
    low, high = _fisher(r, n)
    squares = sorted((low**2, high**2))
    adjusted = 1 - (1 - r**2) * (n - 1) / (n - 2)
    return Association(
        *(r**2, 0.0 if low < 0 < high else squares[0], squares[1], adjusted, float(np.mean(paired))),
        *(float(np.mean(paired >= r**2 - 1e-9)), rank),
    )


def _varies(values):
    """Whether all are numbers, and differ by more than the rounding of the float32 that they were computed in."""
    return bool(np.isfinite(values).all() and np.ptp(values) > 1e-6 * np.max(np.abs(values)))


def _fisher(r, n):
    """The interval of a correlation from its inverse hyperbolic tangent, of variance 1 / (n - 3)."""
    if n < 4:
        return math.nan, math.nan
    at, half = math.atanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), Z * math.sqrt(1 / (n - 3))
    return math.tanh(at - half), math.tanh(at + half)


def _of_pairings(x, y, codes, n, seed):
    """R² with each concept's x beside the y of another, in a random pairing; the identity is among them.

    Where concepts have unequal numbers of points, points are paired instead.
    """
    counts = np.bincount(codes)
    if counts.min() == counts.max():
        order = np.argsort(codes, kind="stable")
        x, y = (part[order].reshape(n, -1) for part in (x, y))
    else:
        x, y = x[:, None], y[:, None]
    n = len(x)
    if math.factorial(min(n, 8)) <= PAIRINGS:
        pairings = np.array(list(itertools.permutations(range(n))))
    else:
        rng = np.random.default_rng(seed)
        pairings = np.array([np.arange(n), *(rng.permutation(n) for _ in range(PAIRINGS - 1))])
    x, y = x - x.mean(), y - y.mean()
    products = np.einsum("nm,pnm->p", x, y[pairings])
    return products**2 / (np.sum(x * x) * np.sum(y * y))
