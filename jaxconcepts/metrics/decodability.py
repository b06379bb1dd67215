"""Concept Decodability (CD): how well the concept of a sequence can be read from a hidden state, without training.

CD is the fraction of points whose concept is the majority among their k nearest neighbours. A point is not its own
neighbour, and distance is Euclidean (arXiv 2412.12276, section 3.2). `ties` is the rule for ties:

    first   neighbours at equal distance are taken in order of index, and votes that tie go to the smallest label. The
            votes are those of scikit-learn's brute-force KNeighborsClassifier. It may keep other neighbours at exactly
            equal distance, so single points can differ on grids and among duplicates.
    split   all points at the k-th distance share the remaining votes, and a concept that ties with m - 1 others scores
            1/m. No concept is favoured, and neither the order of points nor the names of concepts matter.

`group` [N] leaves neighbours of a point's own group out of its vote. Otherwise points that share a string, a query or a
person would find each other.

Every function takes hidden states with any leading axes (layers, steps, runs), as NumPy, JAX or PyTorch arrays:

    concept_decodability(hidden[33, 700, 4096], concepts[700])       # [33]

They also work inside `jit`. There `num_concepts` is required, groups are integers, and labels are integers from 0 to
num_concepts - 1. float64 NumPy arrays are computed in float64, all others in float32, at any scale. `memory` is the
largest size in bytes of the distances held at one time. Less memory costs time, because the symmetry of the distances
is then not used. Labels that are None or NaN are an error that names their index; `drop_missing` leaves them out.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from jaxconcepts.metrics import deciding, neighbours, slabs, votes
from jaxconcepts.metrics.inputs import Points, check_hidden, check_points
from jaxconcepts.metrics.votes import majority

# Up to here insertion into a sorted list beats a partial sort on a CPU.
INSERTION_MAX_POINTS = 2048
INSERTION_MAX_K = 31
TIES = ("first", "split")
# Roundings of float32 within which all states of a slice count as one.
COINCIDENT_ROUNDINGS = 8


class Vote(NamedTuple):
    """How neighbours vote: what a program of CD is compiled for."""

    k: int
    num_concepts: int
    ties: str
    memory: int = neighbours.DEFAULT_MEMORY


def concept_decodability(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    k: int = 10,
    *,
    ties: str = "first",
    group: Shaped[Array, " N"] | None = None,
    num_concepts: int | None = None,
    drop_missing: bool = False,
    memory: int = neighbours.DEFAULT_MEMORY,
) -> Float[Array, "*lead"]:
    """CD: the fraction of points whose k nearest other points vote for their own concept, [...] in [0, 1].

    hidden: [..., N, d]. concepts: [N], labels of any kind (inside jit: integers, with `num_concepts`).
    k: number of neighbours, 1 to N - 1. ties: "first" or "split". group: [N]; points of one group do not vote for each
        other. drop_missing, memory: see the module.

    Raises ValueError for k out of range, a wrong number of labels, and, outside jit, for missing labels, states that
    are not finite, and k above the number of points outside a group (inside jit the last two give NaN)."""
    points = checked(hidden, concepts, k, ties, group, num_concepts, drop_missing)
    return _score(points, k, _mean, ties, memory)


def concept_decodability_per_concept(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    k: int = 10,
    *,
    ties: str = "first",
    group: Shaped[Array, " N"] | None = None,
    num_concepts: int | None = None,
    drop_missing: bool = False,
    memory: int = neighbours.DEFAULT_MEMORY,
) -> Float[Array, "*lead K"]:
    """CD of the points of each concept, [..., K], in sorted order of the labels; NaN for a concept without points.

    Arguments and errors: see `concept_decodability`.
    """
    points = checked(hidden, concepts, k, ties, group, num_concepts, drop_missing)
    return _score(points, k, mean_by_concept, ties, memory)


def decoded_concepts(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    k: int = 10,
    *,
    group: Shaped[Array, " N"] | None = None,
    num_concepts: int | None = None,
    memory: int = neighbours.DEFAULT_MEMORY,
) -> Shaped[Array, "*lead N"]:
    """The concept that the k nearest other points of each point vote for, as labels [..., N], with ties="first"."""
    points = checked(hidden, concepts, k, "first", group, num_concepts)
    predicted = points.run(partial(_predict, k=k, num_concepts=points.num_concepts, memory=memory), concepts=True)
    return predicted if points.labels is None else points.labels[np.asarray(predicted)]


def grouped_decodability(
    hidden: Num[Array, "*lead N d"],
    concepts: Int[Array, " N"],
    groups: Shaped[Array, " K"],
    k: int = 10,
    *,
    ties: str = "first",
    group: Shaped[Array, " N"] | None = None,
    num_concepts: int | None = None,
    memory: int = neighbours.DEFAULT_MEMORY,
) -> Float[Array, "*lead"]:
    """CD of merged labels: `groups[concept]` replaces the concept, such as for the two halves of overlapping bases.

    concepts: integers from 0 to K - 1. groups: [K]. Inside jit `num_concepts` is the number of groups.
    """
    if not isinstance(concepts, jax.core.Tracer):
        codes, size = np.asarray(concepts), np.shape(groups)[0]
        if not np.issubdtype(codes.dtype, np.integer) or codes.min() < 0 or codes.max() >= size:
            raise ValueError(
                f"concepts must be integers from 0 to {size - 1}, one of the {size} groups each; got {codes}"
            )
    merged = groups[concepts] if isinstance(concepts, jax.core.Tracer) else np.asarray(groups)[np.asarray(concepts)]
    options = {"ties": ties, "group": group, "num_concepts": num_concepts}
    return concept_decodability(hidden, merged, k, memory=memory, **options)


def pairwise_decodability(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    k: int = 10,
    *,
    ties: str = "first",
    group: Shaped[Array, " N"] | None = None,
    num_concepts: int | None = None,
    memory: int = neighbours.DEFAULT_MEMORY,
) -> Float[Array, "*lead K K"]:
    """CD within each pair of concepts, [..., K, K]: only the points of the pair are scored, and only they vote.

    The diagonal is 1. Raises ValueError, outside jit, unless k is below the number of points of every pair. Inside jit
    the scores of smaller pairs are NaN. A pair is NaN if one of its points has fewer than k others outside its group.
    Other arguments and errors: see `concept_decodability`.
    """
    points = checked(hidden, concepts, k, ties, group, num_concepts)
    if points.counts is not None:
        smallest = np.sort(points.counts)[:2].sum() if len(points.counts) > 1 else points.counts.sum()
        if k >= smallest:
            raise ValueError(
                f"k must be below the number of points of every pair of concepts; got k = {k}, and the smallest pair "
                f"has {smallest} points"
            )
    run = partial(_pairwise, k=k, num_concepts=points.num_concepts, memory=memory, ties=ties)
    return points.run(run, concepts=True)


def nearest_neighbours(
    hidden: Num[Array, "*lead N d"],
    k: int = 10,
    *,
    group: Shaped[Array, " N"] | None = None,
    memory: int = neighbours.DEFAULT_MEMORY,
) -> Int[Array, "*lead N k"]:
    """Indices of the k nearest other points of each point, outside its group, in ascending order, [..., N, k]."""
    return check_points(hidden, None, k, None, group).run(partial(_indices, k=k, memory=memory))


def coincident(hidden: Num[Array, "*lead N d"]) -> Bool[Array, "*lead"]:
    """Whether all states of a slice are equal, up to the rounding of float32.

    CD of such a layer says nothing. An example is the embedding of a token that all prompts end with.
    """
    states = jnp.asarray(check_hidden(hidden), jnp.float32)
    spread = jnp.max(states, -2) - jnp.min(states, -2)
    largest = jnp.max(jnp.abs(states), (-2, -1))
    return jnp.max(spread, -1) <= COINCIDENT_ROUNDINGS * float(jnp.finfo(jnp.float32).eps) * largest


def mean_by_concept(
    scores: Float[Array, "*lead N"], concepts: Int[Array, " N"], num_concepts: int
) -> Float[Array, "*lead K"]:
    """The mean score of the points of each concept, [..., K]; NaN for a concept without points."""
    own = votes.one_hot(concepts, num_concepts).astype(scores.dtype)
    return jnp.matmul(scores, own, precision=lax.Precision.HIGHEST) / jnp.sum(own, 0)


def all_finite(hidden: Float[Array, "*lead N d"]) -> Bool[Array, "*lead"]:
    """Whether the states of a slice are numbers, all of them: else it has no score."""
    return jnp.all(jnp.isfinite(hidden), (-2, -1))


def _mean(scores, concepts, num_concepts):
    return jnp.mean(scores, -1)


def checked(hidden, concepts, k, ties, group, num_concepts, drop_missing=False) -> Points:
    """`check_points`, and that ties are "first" or "split", and neither the concepts nor k None."""
    if ties not in TIES:
        raise ValueError(f'ties must be "first" or "split", got {ties!r}')
    for name, value, what in (("concepts", concepts, "labels, one a point"), ("k", k, "a positive integer")):
        if value is None:
            raise ValueError(f"{name} must be {what}, got None")
    points = check_points(hidden, concepts, k, num_concepts, group, drop_missing)
    if ties == "split" and k * np.shape(points.hidden)[-2] >= 2**31:
        raise ValueError(f"k times the number of points must be below 2**31 to split ties, got {k} neighbours")
    return points


def _score(points: Points, k, summary, ties, memory):
    run = partial(_summarised, k=k, num_concepts=points.num_concepts, memory=memory, summary=summary, ties=ties)
    return points.run(run, concepts=True)


@partial(jax.jit, static_argnames=("k", "num_concepts", "memory", "summary", "ties"))
def _summarised(hidden, concepts, *, k, num_concepts, memory, summary, ties, group=None):
    scores = point_scores(hidden, concepts, k, num_concepts, ties=ties, group=group, memory=memory)
    return summary(scores, concepts, num_concepts)


def point_scores(hidden, concepts, k, num_concepts, *, ties, group=None, memory=neighbours.DEFAULT_MEMORY):
    """The score of each point, [..., N] in [0, 1]; the arguments must be checked or traced. NaN for points with fewer
    than k others outside their group, and for all points of a slice whose states are not finite."""
    scores = _predict(hidden, concepts, k=k, num_concepts=num_concepts, memory=memory, group=group, ties=ties)
    if ties == "first":
        scores = (scores == concepts).astype(jnp.float32)
    scores = jnp.where(all_finite(hidden)[..., None], scores, jnp.nan)
    if group is None:
        return scores
    return jnp.where(jnp.sum(group[:, None] != group, -1) >= k, scores, jnp.nan)


@partial(jax.jit, static_argnames=("k", "num_concepts", "memory", "ties"))
def _predict(hidden, concepts, *, k, num_concepts, memory, group=None, ties="first"):
    """Labels [..., N] that the neighbours vote for, or with ties="split" scores."""
    points = hidden.shape[-2]
    fits = points**2 * hidden.dtype.itemsize <= memory
    if fits and points <= INSERTION_MAX_POINTS and k <= INSERTION_MAX_K and jax.default_backend() == "cpu":

        def predict(states):
            distances = neighbours.all_distances(states, group)
            return votes.decode(states, distances, concepts, k, num_concepts, ties)

        return slabs.by_slabs(predict, hidden, memory)
    if ties == "first":
        return majority(concepts[_indices(hidden, k=k, memory=memory, group=group)], num_concepts)

    def score(states, distances, start):
        return votes.split_scores(states, distances, start, concepts, k, num_concepts)

    return slabs.by_targets(score, jnp.zeros((points,)), hidden, memory, group, k + 1)


@partial(jax.jit, static_argnames=("k", "memory"))
def _indices(hidden, *, k, memory, group=None):
    def choose(states, distances, start):
        """[B, T, k] indices of the targets' neighbours, ascending."""
        values, indices = neighbours.nearest(distances, k + 1)
        last, nearest = values[..., k - 1], jnp.sort(indices[..., :k], -1)
        open_ = neighbours.unproved(distances, last, values[..., k])
        return deciding.decide(states, distances, last, open_, k, start, nearest, lambda neighbours: neighbours)

    return slabs.by_targets(choose, jnp.zeros((hidden.shape[-2], k), jnp.int32), hidden, memory, group, k + 1)


@partial(jax.jit, static_argnames=("k", "num_concepts", "memory", "ties"))
def _pairwise(hidden, concepts, *, k, num_concepts, memory, ties, group=None):
    first, second = np.triu_indices(num_concepts, 1)
    # Without groups each point is its own.
    group = jnp.arange(len(concepts)) if group is None else group

    def scores(states):
        distances = neighbours.all_distances(states, group)

        def score(pair):
            member = (concepts == pair[0]) | (concepts == pair[1])
            both = member[:, None] & member
            within = distances._replace(squared=jnp.where(both, distances.squared, jnp.inf))
            decoded = votes.decode(states, within, concepts, k, num_concepts, ties)
            right = decoded if ties == "split" else decoded == concepts
            enough = jnp.sum(both & (group[:, None] != group), -1) >= k
            mean = jnp.sum(right * member, -1) / jnp.sum(member)
            return jnp.where(jnp.all(enough | ~member), mean, jnp.nan)

        upper = jnp.where(all_finite(states)[:, None, None], jnp.zeros((num_concepts, num_concepts)), jnp.nan)
        if len(first):
            upper = upper.at[:, first, second].add(lax.map(score, (jnp.array(first), jnp.array(second))).T)
        return upper + jnp.swapaxes(upper, 1, 2) + jnp.eye(num_concepts)

    return slabs.by_slabs(scores, hidden, memory)
