"""How sure a decodability score is: draws of points, bootstrap intervals, and the score of labels without meaning.

The paper's CD is the mean over 10 draws of 100 sequences a concept, here with a percentile bootstrap interval over the
draws and a null distribution from permuted labels. All take hidden states with any leading axes [..., N, d].
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, Num, Shaped

from jaxconcepts.metrics import neighbours
from jaxconcepts.metrics.decodability import (
    concept_decodability,
    concept_decodability_per_concept,
    majority,
    nearest_neighbours,
)
from jaxconcepts.metrics.inputs import check_points


def decodability_draws(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    key: Key[Array, ""],
    draws: int = 10,
    per_concept: int = 100,
    k: int = 10,
    *,
    num_concepts: int | None = None,
    memory: int = neighbours.DEFAULT_MEMORY,
    by_concept: bool = False,
) -> Float[Array, "*lead draws"]:
    """CD of `draws` random samples, each of `per_concept` points of every concept without replacement.

    by_concept: each concept's own share, [..., draws, K] (the mean over concepts is the score).
    Raises ValueError where a concept has fewer points than `per_concept` (outside jit), or draws is not positive.
    """
    points = check_points(hidden, concepts, None, num_concepts)
    if draws < 1:
        raise ValueError(f"draws must be a positive integer, got {draws}")
    if points.counts is not None and points.counts.min() < per_concept:
        raise ValueError(
            f"per_concept must be at most the number of points of every concept; got {per_concept}, and concept "
            f"{points.labels[points.counts.argmin()]} has {points.counts.min()}"
        )
    settings = {"draws": draws, "per_concept": per_concept, "k": k, "num_concepts": points.num_concepts}
    run = partial(_draws, key=key, memory=memory, by_concept=by_concept, **settings)
    return points.run(run, concepts=True)


def sample_points(
    key: Key[Array, ""], concepts: Int[Array, " N"], num_concepts: int, per_concept: int
) -> Int[Array, " K*per_concept"]:
    """Indices of `per_concept` points of every concept, uniformly without replacement, concept by concept."""
    lottery = jax.random.uniform(key, concepts.shape)
    tickets = jnp.where(concepts == jnp.arange(num_concepts)[:, None], lottery, -1.0)
    return lax.top_k(tickets, per_concept)[1].reshape(-1)


def bootstrap_interval(
    values: Float[Array, "*lead n"], key: Key[Array, ""], level: float = 0.95, resamples: int = 1000
) -> tuple[Float[Array, "*lead"], Float[Array, "*lead"]]:
    """Percentile bootstrap interval of the mean over the last axis: (lower, upper) ends (Efron 1979).

    values: scores of draws, or 1 and 0 for points decoded right and wrong. The same resamples serve all leading axes.
    Raises ValueError for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    values = jnp.asarray(values)
    count = values.shape[-1]
    chosen = jax.random.randint(key, (resamples, count), 0, count)
    weights = jax.vmap(lambda row: jnp.zeros(count, values.dtype).at[row].add(1))(chosen) / count
    means = jnp.einsum("...n,rn->...r", values, weights, precision=lax.Precision.HIGHEST)
    lower, upper = jnp.quantile(means, jnp.array([(1 - level) / 2, (1 + level) / 2]), axis=-1)
    return lower, upper


def permutation_null(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    key: Key[Array, ""],
    permutations: int = 200,
    k: int = 10,
    *,
    num_concepts: int | None = None,
    memory: int = neighbours.DEFAULT_MEMORY,
    by_concept: bool = False,
) -> Float[Array, "*lead permutations"]:
    """CD of randomly permuted labels: what the score is when hidden states say nothing about concepts.

    by_concept: each concept's own share, [..., permutations, K].
    The neighbours are found once; only the votes are counted again. Raises ValueError as `concept_decodability`.
    """
    points = check_points(hidden, concepts, k, num_concepts)

    settings = {"permutations": permutations, "k": k, "num_concepts": points.num_concepts}
    run = partial(_null, key=key, memory=memory, by_concept=by_concept, **settings)
    return points.run(run, concepts=True)


def p_value(score: Float[Array, "*lead"], null: Float[Array, "*lead permutations"]) -> Float[Array, "*lead"]:
    """One-sided permutation p-value, (1 + #{null >= score}) / (1 + permutations) (Phipson and Smyth 2010)."""
    reached = jnp.sum(jnp.asarray(null) >= jnp.asarray(score)[..., None], -1)
    return (1 + reached) / (1 + np.shape(null)[-1])


@partial(jax.jit, static_argnames=("draws", "per_concept", "k", "num_concepts", "memory", "by_concept"))
def _draws(hidden, concepts, *, key, draws, per_concept, k, num_concepts, memory, by_concept):
    labels = jnp.repeat(jnp.arange(num_concepts), per_concept)

    def score(key):
        chosen = sample_points(key, concepts, num_concepts, per_concept)
        sample = jnp.take(hidden, chosen, axis=-2)
        measure = concept_decodability_per_concept if by_concept else concept_decodability
        return measure(sample, labels, k, num_concepts=num_concepts, memory=memory)

    return jnp.moveaxis(lax.map(score, jax.random.split(key, draws)), 0, -2 if by_concept else -1)


@partial(jax.jit, static_argnames=("permutations", "k", "num_concepts", "memory", "by_concept"))
def _null(hidden, concepts, *, key, permutations, k, num_concepts, memory, by_concept):
    found = nearest_neighbours(hidden, k, memory=memory)

    def score(key):
        permuted = jax.random.permutation(key, concepts)
        right = (majority(permuted[found], num_concepts) == permuted).astype(jnp.float32)
        if not by_concept:
            return jnp.mean(right, -1)
        own = (permuted[:, None] == jnp.arange(num_concepts)).astype(jnp.float32)
        return right @ own / jnp.sum(own, 0)

    return jnp.moveaxis(lax.map(score, jax.random.split(key, permutations)), 0, -2 if by_concept else -1)
