"""Does one score predict another over concepts? R², Spearman, and what R² is where there is no relation.

With few concepts R² is large by chance: with six and no relation it is .20 on average. So beside R² stand the adjusted
R², whose mean there is 0, and the p-value of the pairing: how often concepts paired at random do as well.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from jaxconcepts.intervals import LEVEL, Z

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
    concepts. The interval supposes that concepts are drawn from a normal population: then the inverse hyperbolic
    tangent of the correlation is normal with variance 1 / (n - 3) (Fisher 1921). R² does not say the correlation's
    sign, so the interval is that of a normal quantity known up to its sign (`sign_free`), squared.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    names, codes = np.unique(np.asarray(concepts), return_inverse=True)
    n = len(names)
    if n < 3 or not (_varies(x) and _varies(y)):
        return Association(*[math.nan] * len(Association._fields))
    r, rank = np.corrcoef(x, y)[0, 1], np.corrcoef(*(pl.Series(values).rank("average") for values in (x, y)))[0, 1]
    paired = _of_pairings(x, y, codes, n, seed)
    low, high = _of_square(abs(r), n)
    adjusted = 1 - (1 - r**2) * (n - 1) / (n - 2)
    return Association(
        *(r**2, low, high, adjusted, float(np.mean(paired))),
        *(float(np.mean(paired >= r**2 - 1e-9)), rank),
    )


def _varies(values):
    """Whether all are numbers, and differ by more than the rounding of the float32 that they were computed in."""
    return bool(np.isfinite(values).all() and np.ptp(values) > 1e-6 * np.max(np.abs(values)))


def _of_square(size, n):
    """The interval of R² from a correlation without its sign."""
    if n < 4:
        return math.nan, math.nan
    low, high = sign_free(math.atanh(min(size, 1 - 1e-12)) * math.sqrt(n - 3))
    return math.tanh(low / math.sqrt(n - 3)) ** 2, math.tanh(high / math.sqrt(n - 3)) ** 2


def sign_free(size: float) -> tuple[float, float]:
    """95 % interval of |m| where |x| = `size` is known of x, normal with mean m and variance 1.

    A size belongs to a mean's 95 % of sizes that are likely beside the mean which makes them likeliest (Feldman and
    Cousins 1998, Physical Review D 57). The interval holds all means that the size belongs to. It begins at 0 up to a
    size of about 1.96, and it holds |m| in 95 % of samples for every m. Squaring the usual interval would not: where
    that has both signs, it would hold |m| in up to 97.5 %.
    """
    sizes, low, high = _belt()
    if size >= sizes[-1]:
        return size - Z, size + Z
    return float(np.interp(size, sizes, low)), float(np.interp(size, sizes, high))


@functools.cache
def _belt():
    """(sizes, low, high): the intervals of `sign_free` on a grid that ends where the sign is certain."""
    step = 0.01
    sizes, means = np.arange(step / 2, 17, step), np.arange(0, 13, step)
    density = np.exp(-((sizes - means[:, None]) ** 2) / 2) + np.exp(-((sizes + means[:, None]) ** 2) / 2)
    order = np.argsort(-density / density.max(0), 1)
    before = np.cumsum(np.take_along_axis(density, order, 1), 1) * step / math.sqrt(2 * math.pi)
    belongs = np.zeros(density.shape, bool)
    np.put_along_axis(belongs, order, np.pad(before[:, :-1], ((0, 0), (1, 0))) < LEVEL, 1)
    known = sizes < 8
    low, high = belongs.argmax(0), len(means) - 1 - belongs[::-1].argmax(0)
    return sizes[known], means[low[known]], means[high[known]]


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
