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

from jaxconcepts.intervals import Z, student, wilson
from jaxconcepts.metrics import decodability, neighbour_sets, neighbours
from jaxconcepts.metrics.draws import check_draws, key_of_draws, sample_draws

# Random halves of a draw that the design effect is estimated from.
HALVES = 40
# Degrees of freedom that their estimate has, about: 2 over its squared coefficient of variation, a quarter.
FREEDOM = 30
# Nearest points listed for a half, whose k nearest are among them with near certainty.
LISTED = 3
# Votes of permuted labels held at once.
NULL_ELEMENTS = 1 << 23


class Statistics(NamedTuple):
    """CD of a slice of hidden states with what it takes to read it. K1 = K + 1: each concept, and last their average.

    cd: mean over draws. low, high: 95 % interval. null: CD of permuted labels. p: one-sided permutation p-value.
    chance: mean of the null. coincident: whether all states are one point. halved: by how much CD differs between
    random halves of a draw, for every halving (`keys_of_halves`): scores of the same points vary together as these do.
    """

    cd: Float[Array, "*lead K1"]
    low: Float[Array, "*lead K1"]
    high: Float[Array, "*lead K1"]
    null: Float[Array, "*lead permutations K1"]
    p: Float[Array, "*lead K1"]
    chance: Float[Array, "*lead K1"]
    coincident: Bool[Array, "*lead"]
    halved: Float[Array, "*lead halvings K1"]


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
    check_draws(points, draws, per_concept)
    own = points.num_concepts if averaged is None else averaged
    if not 1 <= own <= points.num_concepts:
        raise ValueError(f"averaged must be an integer from 1 to the {points.num_concepts} concepts, got {averaged}")
    vote = decodability.Vote(k, points.num_concepts, ties)
    sizes = (draws, per_concept, permutations)
    return points.run(partial(_statistics, key=key, sizes=sizes, averaged=own, vote=vote), concepts=True)


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
) -> Float[Array, "..."]:
    """CD of randomly permuted labels: what the score is when hidden states say nothing about concepts.

    Returns [..., permutations], or with by_concept each concept's own share, [..., permutations, K].
    The neighbours are taken once; only the votes are counted again. Raises ValueError as `concept_decodability`.
    """
    points = decodability.checked(hidden, concepts, k, ties, group, num_concepts)
    vote = decodability.Vote(k, points.num_concepts, ties)
    run = partial(_null, key=key, permutations=permutations, by_concept=by_concept, vote=vote)
    return points.run(run, concepts=True)


def p_value(score: Float[Array, "*lead"], null: Float[Array, "*lead permutations"]) -> Float[Array, "*lead"]:
    """One-sided permutation p-value, (1 + #{null >= score}) / (1 + permutations) (Phipson and Smyth 2010).

    Scores that differ by less than float32's rounding of a mean count as equal.
    """
    reached = jnp.sum(jnp.asarray(null) >= jnp.asarray(score)[..., None] - 1e-6, -1)
    return (1 + reached) / (1 + np.shape(null)[-1])


@partial(jax.jit, static_argnames=("permutations", "by_concept", "vote"))
def _null(hidden, concepts, *, key, permutations, by_concept, vote, group=None):
    permuted = _permuted(key, concepts, permutations)

    def of_slice(states):
        distances = neighbours.all_distances(states[None], group)
        sets = neighbour_sets.of_distances(states, distances, vote.k, vote.ties)
        return _scores_by_concept(sets, permuted, vote)

    null = lax.map(of_slice, hidden.reshape(-1, *hidden.shape[-2:]))
    if not by_concept:
        null = null @ (jnp.bincount(concepts, length=vote.num_concepts) / len(concepts))
    return null.reshape(*hidden.shape[:-2], *null.shape[1:])


def keys_of_halves(key: Key[Array, ""], draws: int) -> Key[Array, " draws"]:
    """The keys of each draw's random halves where `decodability_statistics` is given `key`."""
    return jax.random.split(jax.random.split(key, 3)[1], draws)


def _permuted(key, concepts, permutations):
    return jax.vmap(lambda key: jax.random.permutation(key, concepts))(jax.random.split(key, permutations))


def _scores_by_concept(sets, labels, vote):
    """[P, K]: CD by concept of labels [P, N] with the neighbours `sets` [N, N]."""

    k, num_concepts, ties, _ = vote

    def of_labels(labels):
        scores = neighbour_sets.scores(sets, labels, k, num_concepts, ties)
        return jax.vmap(partial(decodability.mean_by_concept, num_concepts=num_concepts))(scores, labels)

    # As many labellings at once as the memory allows; the last ones overlap those before.
    at_once = max(1, min(len(labels), NULL_ELEMENTS // (len(sets) * max(num_concepts, k))))
    starts = np.minimum(np.arange(0, len(labels), at_once), len(labels) - at_once)
    parts = lax.map(lambda start: of_labels(lax.dynamic_slice_in_dim(labels, start, at_once)), jnp.asarray(starts))
    rows = (starts[:, None] + np.arange(at_once)).ravel()
    return parts.reshape(-1, num_concepts)[np.unique(rows, return_index=True)[1]]


@partial(jax.jit, static_argnames=("sizes", "averaged", "vote"))
def _statistics(hidden, concepts, *, key, sizes, averaged, vote, group=None):
    k, num_concepts, ties, _ = vote
    draws, per_concept, permutations = sizes
    if per_concept is None:
        drawn = jnp.arange(len(concepts))[None]
    else:
        drawn = sample_draws(key_of_draws(key), concepts, num_concepts, per_concept, draws)

    def of_draw(arguments):
        """Of one draw: CD [layers, K], its null [layers, permutations, K], design effects [layers, K + 1] and the
        halves' differences [layers, HALVES, K + 1]."""
        chosen, key_halves, key_null = arguments
        labels, own = concepts[chosen], None if group is None else group[chosen]
        candidates = jnp.concatenate([labels[None], _permuted(key_null, labels, permutations)])
        halves = neighbour_sets.halves(key_halves, labels, own, num_concepts, HALVES)

        def of_slice(states):
            states = states[chosen]
            distances = neighbours.all_distances(states[None], own)
            sets = neighbour_sets.of_distances(states, distances, k, ties)
            both = _scores_by_concept(sets, candidates, vote)
            effects, differences = neighbour_sets.design_effects(
                distances.squared[0], labels, halves, k, num_concepts, averaged, LISTED * k + 8
            )
            return both[0], both[1:], effects, differences

        return lax.map(of_slice, hidden.reshape(-1, *hidden.shape[-2:]))

    keys = keys_of_halves(key, len(drawn)), jax.random.split(jax.random.split(key, 3)[2], len(drawn))
    *means, differences = lax.map(of_draw, (drawn, *keys))
    cd, null, effects = (jnp.mean(part, 0) for part in means)
    halved = jnp.concatenate(list(differences), 1)
    sizes = jnp.bincount(concepts[drawn.reshape(-1)], length=num_concepts)
    low, high = interval(cd, effects, sizes, averaged)
    cd, null = (with_average(part, averaged) for part in (cd, null))
    p = p_value(cd, jnp.swapaxes(null, -1, -2))
    lead = hidden.shape[:-2]
    parts = (part.reshape(*lead, *part.shape[1:]) for part in (cd, low, high, null, p, jnp.mean(null, -2)))
    return Statistics(*parts, decodability.coincident(hidden), halved.reshape(*lead, *halved.shape[1:]))


@partial(jax.jit, static_argnames=("k", "num_concepts"))
def _interval(hidden, concepts, *, cd, k, num_concepts, group=None):
    halves = neighbour_sets.halves(jax.random.key(0), concepts, group, num_concepts, HALVES)

    def of_slice(states):
        squared = neighbours.all_distances(states[None], group).squared[0]
        return neighbour_sets.design_effects(squared, concepts, halves, k, num_concepts, num_concepts, LISTED * k + 8)[
            0
        ]

    effects = lax.map(of_slice, hidden.reshape(-1, *hidden.shape[-2:])).reshape(*hidden.shape[:-2], -1)
    return interval(cd, effects, jnp.bincount(concepts, length=num_concepts), num_concepts)


def with_average(by_concept: Float[Array, "*lead K"], averaged: int) -> Float[Array, "*lead K1"]:
    """The scores, and behind them the mean of the first `averaged`."""
    return jnp.concatenate([by_concept, jnp.mean(by_concept[..., :averaged], -1, keepdims=True)], -1)


def interval(
    cd: Float[Array, "*lead K"], effects: Float[Array, "*lead K1"], sizes: Int[Array, " K"], averaged: int
) -> tuple[Float[Array, "*lead K1"], Float[Array, "*lead K1"]]:
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
    return few_corrected(with_average(cd, averaged), student(trials / effects, FREEDOM))


def few_corrected(share, count):
    """`wilson`, with the end toward 0 or 1 moved by a quarter of a trial where one trial or less is missing from there.

    Of 20 trials that fail once in 150, one in eight samples has a failure, and Wilson's interval of it ends below the
    true share (Brown, Cai and DasGupta 2001, Statistical Science 16). The move ends where two trials are missing.
    """
    moved_down, moved_up = (0.25 * (2 - part * count).clip(0, 1) / count for part in (share, 1 - share))
    return wilson((share - moved_down).clip(0, 1), count)[0], wilson((share + moved_up).clip(0, 1), count)[1]
