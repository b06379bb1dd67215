"""Neighbour sets of a slice as a matrix, from which scores of many labellings and of random halves are counted."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from jaxconcepts.metrics import deciding, neighbours, votes
from jaxconcepts.metrics.neighbours import Distances

INSIDE, BOUNDARY = 2, 1


def of_distances(states: Float[Array, "N d"], distances: Distances, k: int, ties: str) -> Int[Array, "N N"]:
    """Row i: INSIDE for the points that vote for point i, BOUNDARY for those that share what is left of its k votes.

    distances: of all states to all (`neighbours.all_distances`). With ties="first" there are exactly k, all INSIDE.
    Proved or decided as in `decodability`.
    """
    hidden, points = states[None], len(states)
    last, following = neighbours.nearest_values(distances.squared, k + 1)[k - 1 :]
    open_ = neighbours.unproved(distances, last, following)
    limit = jnp.minimum(last + (following - last) / 2, jnp.finfo(last.dtype).max)
    sets = (distances.squared <= limit[..., None])[0].astype(jnp.int8) * INSIDE
    if ties == "first":
        return deciding.decide(
            hidden, distances, last, open_, k, 0, sets[None], lambda nearest: _marked(nearest, points) * INSIDE
        )[0]

    def entry(_, tied):
        codes = (jnp.where(tied.inside, INSIDE, 0) + jnp.where(tied.boundary, BOUNDARY, 0)).astype(jnp.int8)
        if codes.shape[1] == points > k + deciding.NEAR:
            return codes  # of everyone, in order
        return jnp.max(jnp.where(_is(tied.candidates, points), codes[..., None], 0), 1)

    return deciding.decide_tied(hidden, distances, last, open_, k, 0, sets[None], entry)[0]


def scores(
    sets: Int[Array, "N N"], labels: Int[Array, "P N"], k: int, num_concepts: int, ties: str
) -> Float[Array, "P N"]:
    """What each point scores under each of P labellings; what `decodability` gives, vote for vote.

    NaN for points with fewer than k others that may be neighbours.
    """

    count = partial(_counts, labels=labels.T, num_concepts=num_concepts)
    concepts = jnp.arange(num_concepts)[:, None, None]
    inside = count(sets == INSIDE, most=k)
    if ties == "first":
        right = (jnp.argmax(inside, 0) == labels.T).astype(jnp.float32)
    else:
        tied = jnp.any(sets == BOUNDARY)
        shared = lax.cond(tied, lambda: count(sets == BOUNDARY, most=len(sets)), lambda: jnp.zeros_like(inside))
        given = votes.votes_of_sets(inside, shared, k, axis=0)
        most = given == jnp.max(given, 0)
        right = jnp.any(most & (concepts == labels.T), 0) / jnp.sum(most, 0)
    right = right.T
    return jnp.where(jnp.sum(sets > 0, -1) >= k, right, jnp.nan)


def _counts(chosen: Bool[Array, "N N"], labels: Int[Array, "N P"], num_concepts: int, most: int) -> Int[Array, "K N P"]:
    """How many of each row's chosen points have each concept, by P labellings; no count is above `most`.

    Counts of several concepts are digits of one number that float32 holds exactly, so that one product counts them.
    """
    base = most + 1
    digits = max(1, int(24 / math.log2(base)))
    weights = np.array([float(base ** (concept % digits)) for concept in range(num_concepts)], np.float32)
    groups = np.arange(-(-num_concepts // digits))[:, None, None]
    coded = jnp.where(labels // digits == groups, jnp.asarray(weights)[labels], 0)
    exact = lax.Precision.HIGHEST
    sums = jnp.einsum("nm,gmp->gnp", chosen.astype(jnp.float32), coded, precision=exact).astype(jnp.int32)

    def digit(concept):
        # No sum is negative, so the plain operations will do, which are faster than Python's.
        place = jnp.full(sums.shape[1:], base ** (concept % digits), jnp.int32)
        return lax.rem(lax.div(sums[concept // digits], place), jnp.full(place.shape, base, jnp.int32))

    return jnp.stack([digit(concept) for concept in range(num_concepts)])


def halves(
    key: Key[Array, ""], concepts: Int[Array, " N"], group: Int[Array, " N"] | None, num_concepts: int, number: int
) -> Bool[Array, "number N"]:
    """Random halves of the points of every concept; with groups, of the groups, which stay together."""
    if group is not None:
        # Each group by its first point.
        group = jnp.argmax(group[:, None] == group, -1)
        members = jnp.zeros(len(group)).at[group].set(1)

        def of_groups(key):
            lottery = jnp.where(members > 0, jax.random.uniform(key, group.shape), 2.0)
            return (jnp.argsort(jnp.argsort(lottery)) < jnp.sum(members) / 2)[group]

        return jax.vmap(of_groups)(jax.random.split(key, number))
    own = votes.one_hot(concepts, num_concepts)

    def of_points_(key):
        shuffled = jax.random.permutation(key, len(concepts))
        place = jnp.take_along_axis(jnp.cumsum(own[shuffled], 0), concepts[shuffled][:, None], 1)[:, 0]
        first = place <= jnp.sum(own, 0)[concepts[shuffled]] // 2
        return jnp.zeros(len(concepts), bool).at[shuffled].set(first)

    return jax.vmap(of_points_)(jax.random.split(key, number))


def design_effects(
    squared: Float[Array, "N N"],
    concepts: Int[Array, " N"],
    halved: Bool[Array, "H N"],
    k: int,
    num_concepts: int,
    averaged: int,
    listed: int,
) -> tuple[Float[Array, " K1"], Float[Array, "H K1"]]:
    """How much more CD varies than the share of as many coins: by concept, and last of the average of `averaged`; and
    by how much the CDs of each pair of halves differ.

    The CDs of two halves share no point, so half their squared difference has the variance of either as its mean. It is
    compared with that of independent points at the halves' own CD. Neighbours come from `squared`, approximate
    distances, infinite where points are no neighbours, among the `listed` nearest, ties in random order: what is
    estimated here is a variance.
    """
    # In random order no concept comes first among equals. The matrix is symmetric, and its rows are moved fastest.
    order = jax.random.permutation(jax.random.key(0), len(squared))
    values, nearest = neighbours.nearest_candidates(squared[order].T[None], min(listed, len(squared) - 1))
    values, nearest = values[0], order[nearest[0]]
    side, own = halved.T, votes.one_hot(concepts, num_concepts).astype(jnp.float32)

    def add(place, state):
        """The next nearest votes in the halves that it shares with the point, if they have fewer than k votes."""
        count, voted = state
        other = nearest[:, place]
        same = (side[other] == side) & jnp.isfinite(values[:, place])[:, None]
        return count + same, voted + (same & (count < k))[..., None] * own[other][:, None]

    nothing = jnp.zeros(side.shape, jnp.int32), jnp.zeros((*side.shape, num_concepts), jnp.float32)
    _, voted = lax.fori_loop(0, nearest.shape[1], add, nothing)
    right = votes.share(voted, jnp.broadcast_to(concepts[:, None], side.shape)).T
    parts = jnp.stack([halved, ~halved], 1).astype(jnp.float32)
    cd = (parts * right[:, None]) @ own / jnp.maximum(parts @ own, 1)
    average = jnp.mean(cd[..., :averaged], -1, keepdims=True)
    both = jnp.concatenate([cd, average], -1)
    differences = both[:, 0] - both[:, 1]
    varies = jnp.mean(differences**2 / 2, 0)
    shares = jnp.mean(cd, (0, 1))
    coins = shares * (1 - shares) / (jnp.sum(own, 0) / 2)
    coins = jnp.concatenate([coins, jnp.sum(coins[:averaged], keepdims=True) / averaged**2])
    return jnp.where(coins > 0, varies / jnp.where(coins > 0, coins, 1), 1), differences


def _marked(indices, points):
    """[R, k] indices as [R, points] of 1 and 0."""
    return jnp.any(_is(indices, points), 1).astype(jnp.int8)


def _is(indices, points):
    """[R, C, points]: which point each index is. Comparing beats a scatter, which a CPU does row by row."""
    return indices[..., None] == jnp.arange(points)
