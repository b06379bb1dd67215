"""How sure a decodability score is: disjoint draws of points, an interval that covers, and the score without meaning.

CD of n points a concept is estimated from draws that share no point, and so are independent. Points of one draw share
neighbours, so that their scores are not independent: how much more CD varies than the share of as many coins (the
design effect) is estimated from random halves of a draw, whose CDs are independent, and Wilson's interval takes that
many fewer points (Wilson 1927; Kish 1965, "Survey Sampling"). docs/coverage.md shows how often it holds the true CD.
The null permutes the labels within each draw and passes through the same votes and the same mean over draws.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, Num, Shaped
from scipy.stats import norm, t

from jaxconcepts.metrics import decodability, neighbour_sets, neighbours

LEVEL = 0.95
Z = float(norm.ppf((1 + LEVEL) / 2))
# Random halves of a draw that the design effect is estimated from.
HALVES = 40
# Degrees of freedom that their estimate has, about: of a concept (its spread in the simulation is a third), of the
# average (a quarter).
FREEDOM = (16, 32)
# Nearest points listed for a half, whose k nearest are among them with near certainty.
LISTED = 3
# Votes of permuted labels held at once.
NULL_ELEMENTS = 1 << 23


class Statistics(NamedTuple):
    """CD of a slice of hidden states with what it takes to read it. K1 = K + 1: each concept, and last their average.

    cd: mean over draws. low, high: 95 % interval. null: CD of permuted labels. p: one-sided permutation p-value.
    chance: mean of the null. coincident: whether all states are one point.
    """

    cd: Float[Array, "*lead K1"]
    low: Float[Array, "*lead K1"]
    high: Float[Array, "*lead K1"]
    null: Float[Array, "*lead permutations K1"]
    p: Float[Array, "*lead K1"]
    chance: Float[Array, "*lead K1"]
    coincident: Bool[Array, "*lead"]


def decodability_statistics(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    key: Key[Array, ""],
    *,
    draws: int = 1,
    per_concept: int | None = None,
    k: int = 10,
    permutations: int = 200,
    averaged: int | None = None,
    ties: str = "split",
    group: Shaped[Array, " N"] | None = None,
    num_concepts: int | None = None,
) -> Statistics:
    """CD by concept over disjoint draws of `per_concept` points of each concept, its interval and its null.

    hidden: [..., N, d]. per_concept: None for all points in one draw. averaged: how many of the concepts, the first in
    sorted order, the average is over (None: all). group: points that do not vote for each other, and that are kept
    together in the halves that the interval comes from. Distances take N^2 floats. Raises ValueError as
    `sample_draws`, and for permutations below 1.
    """
    if permutations < 1:
        raise ValueError(f"permutations must be a positive integer, got {permutations}")
    points = decodability.checked(hidden, concepts, k, ties, group, num_concepts)
    _check_draws(points, draws, per_concept)
    own = points.num_concepts if averaged is None else averaged
    if not 1 <= own <= points.num_concepts:
        raise ValueError(f"averaged must be an integer from 1 to the {points.num_concepts} concepts, got {averaged}")
    settings = {"k": k, "num_concepts": points.num_concepts, "averaged": own, "ties": ties}
    run = partial(_statistics, key=key, draws=draws, per_concept=per_concept, permutations=permutations, **settings)
    return points.run(run, concepts=True)


def decodability_interval(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    cd: Float[Array, "*lead K"],
    k: int = 10,
    *,
    group: Shaped[Array, " N"] | None = None,
    num_concepts: int | None = None,
) -> tuple[Float[Array, "*lead K1"], Float[Array, "*lead K1"]]:
    """95 % interval (low, high) of CD by concept, `cd`, and last of its average, as in `decodability_statistics`.

    The random halves are the same at every call.
    """
    points = decodability.checked(hidden, concepts, k, "split", group, num_concepts)
    run = partial(_interval, cd=jnp.asarray(cd), k=k, num_concepts=points.num_concepts)
    return points.run(run, concepts=True)


def key_of_draws(key: Key[Array, ""]) -> Key[Array, ""]:
    """The key with which `sample_draws` gives the draws of `decodability_statistics`."""
    return jax.random.split(key, 3)[0]


def decodability_draws(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    key: Key[Array, ""],
    draws: int = 1,
    per_concept: int = 100,
    k: int = 10,
    *,
    ties: str = "first",
    group: Shaped[Array, " N"] | None = None,
    num_concepts: int | None = None,
    memory: int = neighbours.DEFAULT_MEMORY,
    by_concept: bool = False,
) -> Float[Array, "*lead draws"]:
    """CD of disjoint random draws, each of `per_concept` points of every concept.

    by_concept: each concept's own share, [..., draws, K]. Raises ValueError as `sample_draws` (outside jit).
    """
    points = decodability.checked(hidden, concepts, None, ties, group, num_concepts)
    _check_draws(points, draws, per_concept)
    settings = {"draws": draws, "per_concept": per_concept, "k": k, "num_concepts": points.num_concepts}
    run = partial(_draws, key=key, memory=memory, by_concept=by_concept, ties=ties, **settings)
    return points.run(run, concepts=True)


def sample_draws(
    key: Key[Array, ""], concepts: Int[Array, " N"], num_concepts: int, per_concept: int, draws: int = 1
) -> Int[Array, "draws K*per_concept"]:
    """Indices of disjoint draws of `per_concept` points of every concept, uniformly, concept by concept.

    A concept must have draws * per_concept points; the callers check that.
    """
    lottery = jax.random.uniform(key, concepts.shape)
    tickets = jnp.where(concepts == jnp.arange(num_concepts)[:, None], lottery, -1.0)
    drawn = lax.top_k(tickets, draws * per_concept)[1].reshape(num_concepts, draws, per_concept)
    return jnp.swapaxes(drawn, 0, 1).reshape(draws, -1)


def permutation_null(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    key: Key[Array, ""],
    permutations: int = 200,
    k: int = 10,
    *,
    ties: str = "first",
    group: Shaped[Array, " N"] | None = None,
    num_concepts: int | None = None,
    by_concept: bool = False,
) -> Float[Array, "*lead permutations"]:
    """CD of randomly permuted labels: what the score is when hidden states say nothing about concepts.

    by_concept: each concept's own share, [..., permutations, K].
    The neighbours are taken once; only the votes are counted again. Raises ValueError as `concept_decodability`.
    """
    points = decodability.checked(hidden, concepts, k, ties, group, num_concepts)
    settings = {"permutations": permutations, "k": k, "num_concepts": points.num_concepts, "ties": ties}
    return points.run(partial(_null, key=key, by_concept=by_concept, **settings), concepts=True)


def p_value(score: Float[Array, "*lead"], null: Float[Array, "*lead permutations"]) -> Float[Array, "*lead"]:
    """One-sided permutation p-value, (1 + #{null >= score}) / (1 + permutations) (Phipson and Smyth 2010).

    Scores that differ by less than float32's rounding of a mean count as equal.
    """
    reached = jnp.sum(jnp.asarray(null) >= jnp.asarray(score)[..., None] - 1e-6, -1)
    return (1 + reached) / (1 + np.shape(null)[-1])


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
    fall together (prompts of one query). Their variance is that of sums over groups, and Wilson's interval takes as
    many trials as have it, no more than there are; where all are right or all wrong it takes a trial a group.
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
    if groups == 1:
        return wilson(np.float64(share), 1)
    effect = total / groups
    if independent > 0:
        effect = max(groups / (groups - 1) * np.sum(sums**2) / total / independent, 1)
    # The variance is itself estimated, from so many groups (Korn and Graubard 1998, Survey Methodology 24).
    return wilson(np.float64(share), total / effect * (Z / t.ppf((1 + LEVEL) / 2, groups - 1)) ** 2)


def _check_draws(points, draws, per_concept):
    if draws < 1:
        raise ValueError(f"draws must be a positive integer, got {draws}")
    if per_concept is None:
        if draws > 1:
            raise ValueError(f"per_concept must be given for more than one draw, got None and draws = {draws}")
        return
    if points.counts is not None and points.counts.min() < draws * per_concept:
        raise ValueError(
            f"draws * per_concept must be at most the number of points of every concept, since draws share none; got "
            f"{draws} * {per_concept}, and concept {points.labels[points.counts.argmin()]} has {points.counts.min()}"
        )


@partial(jax.jit, static_argnames=("draws", "per_concept", "k", "num_concepts", "memory", "by_concept", "ties"))
def _draws(hidden, concepts, *, key, draws, per_concept, k, num_concepts, memory, by_concept, ties, group=None):
    labels = jnp.repeat(jnp.arange(num_concepts), per_concept)

    def score(chosen):
        own = None if group is None else group[chosen]
        options = {"ties": ties, "group": own, "num_concepts": num_concepts, "memory": memory}
        measure = decodability.concept_decodability_per_concept if by_concept else decodability.concept_decodability
        return measure(jnp.take(hidden, chosen, axis=-2), labels, k, **options)

    scores = lax.map(score, sample_draws(key, concepts, num_concepts, per_concept, draws))
    return jnp.moveaxis(scores, 0, -2 if by_concept else -1)


@partial(jax.jit, static_argnames=("permutations", "k", "num_concepts", "by_concept", "ties"))
def _null(hidden, concepts, *, key, permutations, k, num_concepts, by_concept, ties, group=None):
    permuted = _permuted(key, concepts, permutations)

    def of_slice(states):
        sets = neighbour_sets.of_points(states, k, ties, group)
        return _scores_by_concept(sets, permuted, k, num_concepts, ties)

    null = lax.map(of_slice, hidden.reshape(-1, *hidden.shape[-2:]))
    if not by_concept:
        null = null @ (jnp.bincount(concepts, length=num_concepts) / len(concepts))
    return null.reshape(*hidden.shape[:-2], *null.shape[1:])


def _permuted(key, concepts, permutations):
    return jax.vmap(lambda key: jax.random.permutation(key, concepts))(jax.random.split(key, permutations))


def _scores_by_concept(sets, labels, k, num_concepts, ties):
    """[P, K]: CD by concept of labels [P, N] with the neighbours `sets` [N, N]."""

    def of_labels(labels):
        scores = neighbour_sets.scores(sets, labels, k, num_concepts, ties)
        return jax.vmap(partial(decodability.mean_by_concept, num_concepts=num_concepts))(scores, labels)

    # As many labellings at once as the memory allows; the last ones overlap those before.
    at_once = max(1, min(len(labels), NULL_ELEMENTS // (len(sets) * max(num_concepts, k))))
    starts = np.minimum(np.arange(0, len(labels), at_once), len(labels) - at_once)
    parts = lax.map(lambda start: of_labels(lax.dynamic_slice_in_dim(labels, start, at_once)), jnp.asarray(starts))
    rows = (starts[:, None] + np.arange(at_once)).ravel()
    return parts.reshape(-1, num_concepts)[np.unique(rows, return_index=True)[1]]


@partial(jax.jit, static_argnames=("draws", "per_concept", "k", "permutations", "num_concepts", "averaged", "ties"))
def _statistics(
    hidden, concepts, *, key, draws, per_concept, k, permutations, num_concepts, averaged, ties, group=None
):
    _, key_halves, key_null = jax.random.split(key, 3)
    if per_concept is None:
        drawn = jnp.arange(len(concepts))[None]
    else:
        drawn = sample_draws(key_of_draws(key), concepts, num_concepts, per_concept, draws)

    def of_draw(arguments):
        """Of one draw: CD [layers, K], its null [layers, permutations, K] and design effects [layers, K + 1]."""
        chosen, key_halves, key_null = arguments
        labels, own = concepts[chosen], None if group is None else group[chosen]
        candidates = jnp.concatenate([labels[None], _permuted(key_null, labels, permutations)])
        halves = neighbour_sets.halves(key_halves, labels, own, num_concepts, HALVES)

        def of_slice(states):
            sets = neighbour_sets.of_points(states[chosen], k, ties, own)
            both = _scores_by_concept(sets, candidates, k, num_concepts, ties)
            effects = neighbour_sets.design_effects(
                states[chosen], labels, halves, k, num_concepts, averaged, own, LISTED * k + 8
            )
            return both[0], both[1:], effects

        return lax.map(of_slice, hidden.reshape(-1, *hidden.shape[-2:]))

    keys = (jax.random.split(one, len(drawn)) for one in (key_halves, key_null))
    cd, null, effects = (jnp.mean(part, 0) for part in lax.map(of_draw, (drawn, *keys)))
    sizes = jnp.bincount(concepts[drawn.reshape(-1)], length=num_concepts)
    low, high = interval(cd, effects, sizes, averaged)
    cd, null = (with_average(part, averaged) for part in (cd, null))
    p = p_value(cd, jnp.swapaxes(null, -1, -2))
    lead = hidden.shape[:-2]
    parts = (part.reshape(*lead, *part.shape[1:]) for part in (cd, low, high, null, p, jnp.mean(null, -2)))
    return Statistics(*parts, decodability.coincident(hidden))


@partial(jax.jit, static_argnames=("k", "num_concepts"))
def _interval(hidden, concepts, *, cd, k, num_concepts, group=None):
    halves = neighbour_sets.halves(jax.random.key(0), concepts, group, num_concepts, HALVES)

    def of_slice(states):
        listed = LISTED * k + 8
        return neighbour_sets.design_effects(states, concepts, halves, k, num_concepts, num_concepts, group, listed)

    effects = lax.map(of_slice, hidden.reshape(-1, *hidden.shape[-2:])).reshape(*hidden.shape[:-2], -1)
    return interval(cd, effects, jnp.bincount(concepts, length=num_concepts), num_concepts)


def with_average(by_concept: Float[Array, "*lead K"], averaged: int) -> Float[Array, "*lead K1"]:
    """The scores, and behind them the mean of the first `averaged`."""
    return jnp.concatenate([by_concept, jnp.mean(by_concept[..., :averaged], -1, keepdims=True)], -1)


def interval(cd: Float[Array, "*lead K"], effects: Float[Array, "*lead K1"], sizes: Int[Array, " K"], averaged: int):
    """Wilson's 95 % intervals [..., K + 1] of CD by concept and of the average, from their design effects.

    sizes: [K] points of each concept, in all draws. An effect below 1 counts as 1. Effects are themselves estimates:
    Student's quantile takes the place of the normal one (Korn and Graubard 1998, Survey Methodology 24).
    """
    effects = jnp.maximum(effects, 1)
    # A share of 0 or 1 of few points does not mean that CD does not vary (Agresti and Coull 1998).
    smoothed = (cd * sizes + Z * Z / 2) / (sizes + Z * Z)
    varies = smoothed * (1 - smoothed) / sizes
    mean = jnp.mean(smoothed[..., :averaged], -1)
    together = mean * (1 - mean) / (jnp.sum(varies[..., :averaged], -1) / averaged**2)
    trials = jnp.concatenate([jnp.broadcast_to(sizes, cd.shape), together[..., None]], -1)
    freedom = np.repeat(FREEDOM, (cd.shape[-1], 1))
    return wilson(with_average(cd, averaged), trials / effects * (Z / t.ppf((1 + LEVEL) / 2, freedom)) ** 2)
