"""Concept Decodability (CD): how well the concept of a sequence can be read off a hidden state, without training.

CD is the fraction of points whose concept is the majority among their k nearest neighbours, the point itself left out
(arXiv 2412.12276, section 3.2; Euclidean distance). Ties are broken as scikit-learn's brute-force
KNeighborsClassifier breaks them: neighbours in (distance, index) order, votes to the smallest label.

Every function takes hidden states with any leading axes (layers, steps, runs) in one program, as NumPy or JAX arrays:

    concept_decodability(hidden[33, 700, 4096], concepts[700])       # [33]

and also inside `jit`, where `num_concepts` must be given and labels must be integers from 0 to num_concepts - 1.
float64 NumPy arrays are computed in float64, everything else in float32. `memory` is the size in bytes that the
distances held at one time may take; less memory costs time, because the symmetry of the distances then goes unused.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Num, Shaped

from jaxconcepts.metrics import neighbours
from jaxconcepts.metrics.inputs import check_points

# Up to here insertion into a sorted list beats a partial sort on a CPU.
INSERTION_MAX_POINTS = 2048
INSERTION_MAX_K = 31


def concept_decodability(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    k: int = 10,
    *,
    num_concepts: int | None = None,
    memory: int = neighbours.DEFAULT_MEMORY,
) -> Float[Array, "*lead"]:
    """The fraction of points whose k nearest other points vote for their own concept.

    hidden: [..., N, d]. concepts: [N], labels of any kind (inside jit: integers, with `num_concepts`). k: 1 to N - 1.
    Raises ValueError for k out of range, labels of another length, and hidden states that are not finite (the last only
    outside jit).
    """
    return _score(hidden, concepts, k, num_concepts, memory, _mean_right)


def concept_decodability_per_concept(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    k: int = 10,
    *,
    num_concepts: int | None = None,
    memory: int = neighbours.DEFAULT_MEMORY,
) -> Float[Array, "*lead K"]:
    """CD of each concept's own points; NaN for a concept without points. Concepts in sorted order."""
    return _score(hidden, concepts, k, num_concepts, memory, _mean_right_per_concept)


def decoded_concepts(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    k: int = 10,
    *,
    num_concepts: int | None = None,
    memory: int = neighbours.DEFAULT_MEMORY,
) -> Shaped[Array, "*lead N"]:
    """The concept that each point's k nearest other points vote for, as labels [..., N]."""
    points = check_points(hidden, concepts, k, num_concepts)
    predicted = points.run(partial(_predict, k=k, num_concepts=points.num_concepts, memory=memory), concepts=True)
    return predicted if points.labels is None else points.labels[np.asarray(predicted)]


def grouped_decodability(
    hidden: Num[Array, "*lead N d"],
    concepts: Int[Array, " N"],
    groups: Shaped[Array, " K"],
    k: int = 10,
    *,
    num_concepts: int | None = None,
    memory: int = neighbours.DEFAULT_MEMORY,
) -> Float[Array, "*lead"]:
    """CD of merged labels: `groups[concept]` takes the place of the concept (the two halves of overlapping bases).

    concepts: integers from 0 to K - 1. groups: [K]. Inside jit `num_concepts` is the number of groups.
    """
    if not isinstance(concepts, jax.core.Tracer):
        codes, size = np.asarray(concepts), np.shape(groups)[0]
        if not np.issubdtype(codes.dtype, np.integer) or codes.min() < 0 or codes.max() >= size:
            raise ValueError(
                f"concepts must be integers from 0 to {size - 1}, one of the {size} groups each; got {codes}"
            )
    merged = groups[concepts] if isinstance(concepts, jax.core.Tracer) else np.asarray(groups)[np.asarray(concepts)]
    return concept_decodability(hidden, merged, k, num_concepts=num_concepts, memory=memory)


def pairwise_decodability(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    k: int = 10,
    *,
    num_concepts: int | None = None,
    memory: int = neighbours.DEFAULT_MEMORY,
) -> Float[Array, "*lead K K"]:
    """CD within each pair of concepts: only the pair's points are judged and only they vote. Diagonal 1.

    k must be below the number of points of every pair (checked outside jit; inside, scores of smaller pairs are NaN).
    """
    points = check_points(hidden, concepts, k, num_concepts)
    if points.counts is not None:
        smallest = np.sort(points.counts)[:2].sum() if len(points.counts) > 1 else points.counts.sum()
        if k >= smallest:
            raise ValueError(
                f"k must be below the number of points of every pair of concepts; got k = {k}, and the smallest pair "
                f"has {smallest} points"
            )
    return points.run(partial(_pairwise, k=k, num_concepts=points.num_concepts, memory=memory), concepts=True)


def nearest_neighbours(
    hidden: Num[Array, "*lead N d"], k: int = 10, *, memory: int = neighbours.DEFAULT_MEMORY
) -> Int[Array, "*lead N k"]:
    """Indices of each point's k nearest other points, in ascending order of index (not of distance)."""
    return check_points(hidden, None, k, None).run(partial(_indices, k=k, memory=memory))


def majority(labels: Int[Array, "*lead k"], num_concepts: int) -> Int[Array, "*lead"]:
    """The most frequent label along the last axis, the smallest where several are."""
    votes = jnp.sum(labels[..., None] == jnp.arange(num_concepts), -2)
    return jnp.argmax(votes, -1)


def _score(hidden, concepts, k, num_concepts, memory, summary):
    points = check_points(hidden, concepts, k, num_concepts)
    run = partial(_summarised, k=k, num_concepts=points.num_concepts, memory=memory, summary=summary)
    return points.run(run, concepts=True)


@partial(jax.jit, static_argnames=("k", "num_concepts", "memory", "summary"))
def _summarised(hidden, concepts, *, k, num_concepts, memory, summary):
    return summary(_predict(hidden, concepts, k=k, num_concepts=num_concepts, memory=memory), concepts, num_concepts)


def _mean_right(predicted, concepts, num_concepts):
    return jnp.mean((predicted == concepts).astype(jnp.float32), -1)


def _mean_right_per_concept(predicted, concepts, num_concepts):
    own = (concepts[:, None] == jnp.arange(num_concepts)).astype(jnp.float32)
    return (predicted == concepts).astype(jnp.float32) @ own / jnp.sum(own, 0)


@partial(jax.jit, static_argnames=("k", "num_concepts", "memory"))
def _predict(hidden, concepts, *, k, num_concepts, memory):
    points = hidden.shape[-2]
    fits = points**2 * hidden.dtype.itemsize <= memory
    if not (fits and points <= INSERTION_MAX_POINTS and k <= INSERTION_MAX_K and jax.default_backend() == "cpu"):
        return majority(concepts[_indices(hidden, k=k, memory=memory)], num_concepts)

    def predict(states):
        return _vote(states, neighbours.all_distances(states), concepts, k, num_concepts)

    return _by_slabs(predict, hidden, memory)


def _vote(hidden, distances, concepts, k, num_concepts):
    """[B, N] labels from symmetric distances of all points."""
    values = neighbours.nearest_values(distances.squared, k + 1)
    last = values[k - 1]
    # Half way to the next, as the two triangles of the distances may differ by rounding; but short of the infinite.
    limit = jnp.minimum(last + (values[k] - last) / 2, jnp.finfo(last.dtype).max)
    near = (distances.squared <= limit[..., None]).astype(jnp.float32)
    own = (concepts[:, None] == jnp.arange(num_concepts)).astype(jnp.float32)
    votes = near @ own
    predicted = jnp.argmax(votes, -1)
    # The true votes are these less some of the points in question, of which at most `doubtful` are among the k.
    doubtful = neighbours.in_question(distances, values[:k])
    others = jnp.where(predicted[..., None] == jnp.arange(num_concepts), -jnp.inf, votes)
    settled = jnp.max(votes, -1) - jnp.max(others, -1) > (jnp.sum(votes, -1) - k + doubtful) + doubtful
    open_ = neighbours.unproved(distances, last, values[k]) & ~settled
    return neighbours.decide(
        hidden, distances, last, open_, k, 0, predicted, lambda chosen: majority(concepts[chosen], num_concepts)
    )


@partial(jax.jit, static_argnames=("k", "memory"))
def _indices(hidden, *, k, memory):
    points = hidden.shape[-2]
    at_once = min(points, memory // (points * hidden.dtype.itemsize))
    at_once = max(at_once, 1)

    def find(states):
        if at_once == points:
            return _choose(states, neighbours.all_distances(states), k, 0)
        centred, norms = neighbours.centre(states)

        def find_some(step, table):
            start = jnp.minimum(step * at_once, points - at_once)
            some = _choose(states, neighbours.some_distances(centred, norms, start, at_once), k, start)
            return lax.dynamic_update_slice_in_dim(table, some, start, 1)

        steps = -(-points // at_once)
        return lax.fori_loop(0, steps, find_some, jnp.zeros((*states.shape[:2], k), jnp.int32))

    return _by_slabs(find, hidden, memory)


def _choose(hidden, distances, k, start):
    """[B, T, k] indices of the targets' neighbours, ascending."""
    values, indices = neighbours.nearest_candidates(distances.squared, k + 1)
    chosen = jnp.sort(indices[..., :k], -1)
    open_ = neighbours.unproved(distances, values[..., k - 1], values[..., k])
    return neighbours.decide(hidden, distances, values[..., k - 1], open_, k, start, chosen, lambda found: found)


@partial(jax.jit, static_argnames=("k", "num_concepts", "memory"))
def _pairwise(hidden, concepts, *, k, num_concepts, memory):
    first, second = np.triu_indices(num_concepts, 1)

    def scores(states):
        distances = neighbours.all_distances(states)

        def score(pair):
            member = (concepts == pair[0]) | (concepts == pair[1])
            within = jnp.where(member[:, None] & member, distances.squared, jnp.inf)
            predicted = _vote(states, distances._replace(squared=within), concepts, k, num_concepts)
            right = jnp.sum((predicted == concepts) & member, -1) / jnp.sum(member)
            return jnp.where(jnp.sum(member) > k, right, jnp.nan)

        upper = jnp.zeros((states.shape[0], num_concepts, num_concepts))
        if len(first):
            upper = upper.at[:, first, second].set(lax.map(score, (jnp.array(first), jnp.array(second))).T)
        return upper + jnp.swapaxes(upper, 1, 2) + jnp.eye(num_concepts)

    return _by_slabs(scores, hidden, memory)


def _by_slabs(function, hidden, memory):
    """`function([B, N, d]) -> [B, ...]` over all leading axes, as many slices at once as the memory allows."""
    flat = hidden.reshape(-1, *hidden.shape[-2:])
    slices, points = flat.shape[:2]
    at_once = int(np.clip(memory // (points**2 * flat.dtype.itemsize), 1, slices))
    steps = -(-slices // at_once)
    if steps == 1:
        out = function(flat)
    elif at_once == 1:
        out = lax.map(lambda one: function(one[None])[0], flat)
    else:
        # The last slab overlaps the one before it instead of being padded.
        starts = jnp.minimum(jnp.arange(steps) * at_once, slices - at_once)
        slabs = lax.map(lambda start: function(lax.dynamic_slice_in_dim(flat, start, at_once)), starts)
        whole = slabs[:-1].reshape(-1, *slabs.shape[2:])
        out = jnp.concatenate([whole, slabs[-1, steps * at_once - slices :]])
    return out.reshape(*hidden.shape[:-2], *out.shape[1:])
