"""Neighbour sets of a slice as a matrix, from which scores of many labellings and of random halves are counted."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from jaxconcepts.metrics import deciding, neighbours, votes

INSIDE, BOUNDARY = 2, 1


def of_points(
    states: Float[Array, "N d"], k: int, ties: str, group: Int[Array, " N"] | None = None
) -> Int[Array, "N N"]:
    """Row i: INSIDE for the points that vote for point i, BOUNDARY for those that share what is left of its k votes.

    With ties="first" there are exactly k, all INSIDE. Proved or decided as in `decodability`.
    """
    hidden, points = states[None], len(states)
    distances = neighbours.all_distances(hidden, group)
    values, _ = neighbours.nearest_candidates(distances.squared, k + 1)
    last, following = values[..., k - 1], values[..., k]
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

    def of_lists():
        nearest = lax.top_k(sets.astype(jnp.float32), k)[1]
        counts = jnp.sum(votes.one_hot(labels[:, nearest], num_concepts), -2)
        if ties == "first":
            return (jnp.argmax(counts, -1) == labels).astype(jnp.float32)
        return votes.share(counts, labels)

    def of_products():
        hot = votes.one_hot(labels, num_concepts).astype(jnp.float32)
        count = partial(jnp.einsum, "nm,pmk->pnk", precision=lax.Precision.HIGHEST)
        inside, boundary = (count((sets == code).astype(jnp.float32), hot) for code in (INSIDE, BOUNDARY))
        return votes.share(votes.votes_of_sets(inside, boundary, k), labels)

    right = of_lists() if ties == "first" else lax.cond(jnp.any(sets == BOUNDARY), of_products, of_lists)
    return jnp.where(jnp.sum(sets > 0, -1) >= k, right, jnp.nan)


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
    states: Float[Array, "N d"],
    concepts: Int[Array, " N"],
    halved: Bool[Array, "H N"],
    k: int,
    num_concepts: int,
    averaged: int,
    group: Int[Array, " N"] | None,
    listed: int,
) -> Float[Array, " K1"]:
    """How much more CD varies than the share of as many coins: by concept, and last of the average of `averaged`.

    The CDs of two halves share no point, so half their squared difference has the variance of either as its mean. It is
    compared with that of independent points at the halves' own CD. Neighbours come from approximate distances, among
    the `listed` nearest, near-ties in random order: what is estimated here is a variance.
    """
    points = len(states)
    # In random order, so that no concept comes first among equals.
    shuffled = jax.random.permutation(jax.random.key(0), points)
    states, concepts, halved = states[shuffled], concepts[shuffled], halved[:, shuffled]
    squared = neighbours.all_distances(states[None], None if group is None else group[shuffled]).squared[0]
    return effects_of_distances(squared, concepts, halved, k, num_concepts, averaged, listed)


def effects_of_distances(
    squared: Float[Array, "N N"],
    concepts: Int[Array, " N"],
    halved: Bool[Array, "H N"],
    k: int,
    num_concepts: int,
    averaged: int,
    listed: int,
) -> Float[Array, " K1"]:
    """`design_effects` from squared distances, infinite where points are no neighbours, of points in random order."""
    values, nearest = (part[0] for part in neighbours.nearest_candidates(squared[None], min(listed, len(squared) - 1)))
    hot = (votes.one_hot(concepts[nearest], num_concepts) * jnp.isfinite(values)[..., None]).astype(jnp.float32)
    own = votes.one_hot(concepts, num_concepts).astype(jnp.float32)
    # A product with it counts those up to each: several times faster on a CPU than a running sum.
    up_to = jnp.triu(jnp.ones((nearest.shape[1],) * 2))

    def of_half(half):
        same = (half[nearest] == half[:, None]).astype(jnp.float32)
        used = same * (same @ up_to <= k)
        right = votes.share(jnp.sum(hot * used[..., None], 1), concepts)
        parts = jnp.stack([half, ~half]).astype(jnp.float32)
        return (parts * right) @ own / jnp.maximum(parts @ own, 1)

    cd = lax.map(of_half, halved)
    average = jnp.mean(cd[..., :averaged], -1, keepdims=True)
    both = jnp.concatenate([cd, average], -1)
    varies = jnp.mean((both[:, 0] - both[:, 1]) ** 2 / 2, 0)
    shares = jnp.mean(cd, (0, 1))
    coins = shares * (1 - shares) / (jnp.sum(own, 0) / 2)
    coins = jnp.concatenate([coins, jnp.sum(coins[:averaged], keepdims=True) / averaged**2])
    return jnp.where(coins > 0, varies / jnp.where(coins > 0, coins, 1), 1)


def _marked(indices, points):
    """[R, k] indices as [R, points] of 1 and 0."""
    return jnp.any(_is(indices, points), 1).astype(jnp.int8)


def _is(indices, points):
    """[R, C, points]: which point each index is. Comparing beats a scatter, which a CPU does row by row."""
    return indices[..., None] == jnp.arange(points)
