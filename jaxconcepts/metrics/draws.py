"""Disjoint random draws of points, some of each concept, and the CD of each."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, Num, Shaped

from jaxconcepts.metrics import decodability, neighbours


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
) -> Float[Array, "..."]:
    """CD of disjoint random draws, each of `per_concept` points of every concept.

    Returns [..., draws], or with by_concept each concept's own share, [..., draws, K]. Raises ValueError as
    `sample_draws` (outside jit).
    """
    points = decodability.checked(hidden, concepts, k, ties, group, num_concepts)
    check_draws(points, draws, per_concept)
    vote = decodability.Vote(k, points.num_concepts, ties, memory)
    run = partial(_draws, key=key, draws=draws, per_concept=per_concept, by_concept=by_concept, vote=vote)
    return points.run(run, concepts=True)


def sample_draws(
    key: Key[Array, ""], concepts: Int[Array, " N"], num_concepts: int, per_concept: int, draws: int = 1
) -> Int[Array, "draws points"]:
    """Indices of disjoint draws of `per_concept` points of every concept, uniformly, concept by concept.

    A concept must have draws * per_concept points; the callers check that.
    """
    lottery = jax.random.uniform(key, concepts.shape)
    tickets = jnp.where(concepts == jnp.arange(num_concepts)[:, None], lottery, -1.0)
    drawn = lax.top_k(tickets, draws * per_concept)[1].reshape(num_concepts, draws, per_concept)
    return jnp.swapaxes(drawn, 0, 1).reshape(draws, -1)


def check_draws(points, draws, per_concept):
    """Raises ValueError for a number of draws below 1, and where a concept has too few points for them."""
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


@partial(jax.jit, static_argnames=("draws", "per_concept", "by_concept", "vote"))
def _draws(hidden, concepts, *, key, draws, per_concept, by_concept, vote, group=None):
    labels = jnp.repeat(jnp.arange(vote.num_concepts), per_concept)

    def score(chosen):
        options = vote._asdict() | {"group": None if group is None else group[chosen]}
        measure = decodability.concept_decodability_per_concept if by_concept else decodability.concept_decodability
        return measure(jnp.take(hidden, chosen, axis=-2), labels, **options)

    scores = lax.map(score, sample_draws(key, concepts, vote.num_concepts, per_concept, draws))
    return jnp.moveaxis(scores, 0, -2 if by_concept else -1)
