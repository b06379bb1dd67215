"""The vote of k neighbours: for the smallest of the labels with most votes, or shared among the labels that tie."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Num

from jaxconcepts.metrics import deciding, neighbours
from jaxconcepts.metrics.deciding import Tied
from jaxconcepts.metrics.neighbours import Distances


def majority(labels: Int[Array, "*lead k"], num_concepts: int) -> Int[Array, "*lead"]:
    """The most frequent label along the last axis; of several, the smallest."""
    return jnp.argmax(jnp.sum(one_hot(labels, num_concepts), -2), -1)


def one_hot(labels: Int[Array, "*n"], num_concepts: int) -> Int[Array, "*n K"]:
    """1 at each label and 0 elsewhere; a row of zeros for a label outside 0 ... num_concepts - 1."""
    return (labels[..., None] == jnp.arange(num_concepts)).astype(jnp.int32)


def share(votes: Num[Array, "*lead K"], concepts: Int[Array, "*lead"]) -> Float[Array, "*lead"]:
    """The share of each point's concept in the vote: 1/m if it is one of the m concepts with most votes, else 0."""
    most = (votes == jnp.max(votes, -1, keepdims=True)).astype(jnp.float32)
    return jnp.take_along_axis(most, concepts[..., None], -1)[..., 0] / jnp.sum(most, -1)


def votes_of_sets(inside: Num[Array, "*n"], boundary: Num[Array, "*n"], k: int, axis: int = -1) -> Num[Array, "*n"]:
    """The votes of each concept, times t, if t points at the k-th distance share the remaining votes.

    inside: counts of the s < k nearer points by concept; each has one vote. boundary: counts of the t points at the
    k-th distance by concept; they share k - s votes. axis: the axis of the concepts.
    """
    nearer, tied = jnp.sum(inside, axis, keepdims=True), jnp.sum(boundary, axis, keepdims=True)
    return jnp.maximum(tied, 1) * inside + (k - nearer) * boundary


def decode(
    hidden: Float[Array, "B N d"],
    distances: Distances,
    concepts: Int[Array, " N"],
    k: int,
    num_concepts: int,
    ties: str,
) -> Array:
    """The label that the neighbours of each point vote for [B, N], or with ties="split" the point's `share`.

    distances: symmetric, between all points.
    """
    values = neighbours.nearest_values(distances.squared, k + 1)
    last = values[k - 1]
    # Half way to the next, as the two triangles of the distances may differ by rounding; but short of the infinite.
    limit = jnp.minimum(last + (values[k] - last) / 2, jnp.finfo(last.dtype).max)
    near = (distances.squared <= limit[..., None]).astype(jnp.float32)
    votes = near @ one_hot(concepts, num_concepts).astype(jnp.float32)
    winner = jnp.argmax(votes, -1)
    # The true votes are these less some of the points in question, of which at most `doubtful` are among the k.
    doubtful = neighbours.in_question(distances, values[:k])
    others = jnp.where(winner[..., None] == jnp.arange(num_concepts), -jnp.inf, votes)
    settled = jnp.max(votes, -1) - jnp.max(others, -1) > (jnp.sum(votes, -1) - k + doubtful) + doubtful
    open_ = neighbours.unproved(distances, last, values[k]) & ~settled
    if ties == "first":
        return deciding.decide(
            hidden, distances, last, open_, k, 0, winner, lambda nearest: majority(concepts[nearest], num_concepts)
        )
    scores = share(votes, jnp.broadcast_to(concepts, winner.shape))
    entry = split_entry(concepts, k, num_concepts)
    return deciding.decide_tied(hidden, distances, last, open_, k, 0, scores, entry)


def split_scores(
    hidden: Float[Array, "B N d"], distances: Distances, start, concepts: Int[Array, " N"], k: int, num_concepts: int
) -> Float[Array, "B T"]:
    """The `share` of the T targets of `distances` [B, T, N]. The targets are the points from `start` on."""
    values, indices = neighbours.nearest(distances, k + 1)
    last, targets = values[..., k - 1], lax.dynamic_slice_in_dim(concepts, start, values.shape[1])
    votes = jnp.sum(one_hot(concepts[indices[..., :k]], num_concepts), -2)
    scores = share(votes, jnp.broadcast_to(targets, last.shape))
    open_ = neighbours.unproved(distances, last, values[..., k])
    entry = split_entry(concepts, k, num_concepts)
    return deciding.decide_tied(hidden, distances, last, open_, k, start, scores, entry)


def split_entry(concepts: Int[Array, " N"], k: int, num_concepts: int) -> Callable[[Array, Tied], Array]:
    """A function for `deciding.decide_tied` that gives the share of each target's concept."""

    def entry(targets, tied: Tied):
        hot = one_hot(concepts[tied.candidates], num_concepts)
        inside, boundary = (jnp.sum(hot * part[..., None], 1) for part in (tied.inside, tied.boundary))
        return share(votes_of_sets(inside, boundary, k), concepts.at[targets].get(mode="clip"))

    return entry
