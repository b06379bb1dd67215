"""Intervals: of shares of independent trials (Wilson), of answers that stand or fall together, of areas under the ROC
curve, and of means. docs/coverage.md says how often each holds what it estimates."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import ndtri, stdtrit
from scipy.stats import rankdata

LEVEL = 0.95
Z = float(ndtri((1 + LEVEL) / 2))
# Fewer groups than these do not say what the variance of an area is.
FEWEST_GROUPS = 5


def wilson(share, count):
    """Wilson's 95 % interval of a share of `count` independent trials (Wilson 1927): (low, high), within [0, 1].

    Arrays of NumPy or JAX; count may be a number of effective trials, no integer.
    """
    centre = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * (share * (1 - share) / count + (Z / (2 * count)) ** 2) ** 0.5
    return (centre - half).clip(0, 1), (centre + half).clip(0, 1)


def share_interval(
    right: Shaped[np.ndarray, " N"], strata: Int[np.ndarray, " N"], group: Shaped[np.ndarray, " N"] | None = None
) -> tuple[Float[np.ndarray, " K1"], Float[np.ndarray, " K1"]]:
    """95 % interval of the share of right answers in each stratum and, last, in all: (low, high), [K + 1] each.

    right: 1 and 0. strata: integers from 0 to K - 1 (concepts, each with its own share). group: answers that stand or
    fall together (prompts of one query); None: all are independent. Their variance is that of sums over groups, and
    Wilson's interval takes as many trials as have it, no more than there are; where all are right or all wrong it takes
    a trial a group. How well few groups say what the variance is follows from their kurtosis; Student's quantile has
    such degrees of freedom (Korn and Graubard 1998, Survey Methodology 24). See docs/coverage.md.
    """
    right, strata = np.asarray(right, np.float64), np.asarray(strata)
    group = np.arange(len(right)) if group is None else np.unique(group, return_inverse=True)[1]
    counts = np.bincount(strata)
    shares = np.bincount(strata, right) / counts
    bounds = [
        _clustered(right[strata == stratum] - shares[stratum], shares[[stratum]], group[strata == stratum])
        for stratum in range(len(counts))
    ]
    bounds.append(_clustered(right - shares[strata], shares[strata], group))
    low, high = np.transpose(bounds)
    return low, high


def _clustered(residuals, shares, group):
    """Wilson's interval of mean(shares) from residuals [n] about the strata's shares [n or 1], by group [n]."""
    sums = np.bincount(group, residuals)[np.unique(group)]
    total, groups = len(residuals), len(sums)
    share = float(np.mean(shares))
    independent = np.mean(np.broadcast_to(shares * (1 - shares), (total,)))
    if groups in (1, total):
        return wilson(np.float64(share), groups)
    effect, freedom, square = 1.0 if independent > 0 else total / groups, groups - 1, np.sum(sums**2)
    if square > 0:
        effect = max(groups / (groups - 1) * square / total / independent, 1)
        freedom = _freedom(sums)
    return wilson(np.float64(share), student(total / effect, freedom))


def _freedom(sums):
    """Degrees of freedom of the variance that sums over groups [..., groups], of mean 0, show.

    Where few groups make up the variance, others drawn instead would give another one: its relative variance is
    (kurtosis - 1) / groups, and 2 over that its degrees of freedom. A sample's kurtosis is too small, hence 1.2.
    """
    groups, square = sums.shape[-1], np.sum(sums**2, -1)
    kurtosis = groups * np.sum(sums**4, -1) / np.where(square > 0, square, 1) ** 2
    return np.clip(1.2 * groups / np.maximum(kurtosis - 1, 1e-9), 2, groups - 1)


def student(trials, freedom):
    """So many fewer trials as make a normal interval as wide as Student's."""
    return trials * (Z / stdtrit(freedom, (1 + LEVEL) / 2)) ** 2


def auc_interval(
    scores: Float[np.ndarray, "*lead M"], positive: Bool[np.ndarray, " M"], group: Shaped[np.ndarray, " M"]
) -> tuple[Float[np.ndarray, "*lead"], Float[np.ndarray, "*lead"], Float[np.ndarray, "*lead"]]:
    """Area under the ROC curve with its 95 % interval: (auc, low, high), each [...].

    auc: how often a positive scores above a negative, ties counting half. group: points that are not independent of one
    another. The variance is that of sums over groups (Obuchowski 1997, Biometrics 53; DeLong's where each point is a
    group), and the interval is Wilson's of as many trials as have it, with Student's quantile as in `share_interval`.
    All are NaN where there is no positive or no negative, and for scores that are not numbers. The interval is NaN
    where either is in fewer than five groups.
    """
    auc = np.full(scores.shape[:-1], np.nan)
    if not positive.any() or positive.all():
        return auc, auc, auc
    # How often a positive beats the negatives, and how often a negative is beaten by the positives.
    ranks, beats = rankdata(scores, axis=-1), np.empty(scores.shape)
    for side in (positive, ~positive):
        share = (ranks[..., side] - rankdata(scores[..., side], axis=-1)) / np.sum(~side)
        beats[..., side] = share if side is positive else 1 - share
    auc = beats[..., positive].mean(-1)
    groups = min(len(np.unique(group[side])) for side in (positive, ~positive))
    if groups < FEWEST_GROUPS:
        return auc, np.full_like(auc, np.nan), np.full_like(auc, np.nan)
    each = (beats - auc[..., None]) / np.where(positive, np.sum(positive), np.sum(~positive))
    order = np.argsort(group, kind="stable")
    sums = np.add.reduceat(each[..., order], np.unique(group[order], return_index=True)[1], -1)
    variance, certain = groups / (groups - 1) * np.sum(sums**2, -1), auc * (1 - auc)
    varies = (variance > 0) & (certain > 0)
    trials = np.where(varies, certain / np.where(varies, variance, 1), groups)
    low, high = wilson(auc, np.where(varies, student(trials, np.minimum(_freedom(sums), groups - 1)), groups))
    return auc, low, high


def mean_interval(values: Float[np.ndarray, " n"], level: float = LEVEL) -> tuple[float, float]:
    """Student's interval (low, high) of the mean; NaN for fewer than two values."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return math.nan, math.nan
    half = float(stdtrit(len(values) - 1, (1 + level) / 2) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean - half, mean + half
