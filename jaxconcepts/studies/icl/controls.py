"""What CD is held against: how far the prompts' surface and an untrained model of the same shape already tell concepts.

All are leave-one-out kNN as CD is, with prompts of one query kept apart and the same intervals:
    prompt_tokens    on the bag of the prompt's tokens, on the points and draws that CD is of
    shown_answers    on the bag of the demonstrated answers' tokens, likewise
    untrained        on hidden states of a model with random weights, on one draw of prompts, at its own best layer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxconcepts.metrics import decodability, neighbour_sets, statistics

SURFACE = ("prompt_tokens", "shown_answers")


class Score(NamedTuple):
    """CD of a control with its 95 % interval: each concept, and last the average without Null; any axes before that.

    halved: by how much CD differs between random halves, as in `metrics.statistics.Statistics`. None where the points
    are not those that other scores are of.
    """

    cd: Float[np.ndarray, "*lead K1"]
    low: Float[np.ndarray, "*lead K1"]
    high: Float[np.ndarray, "*lead K1"]
    halved: Float[np.ndarray, "*lead halvings K1"] | None = None


def bags(texts: Sequence[Sequence[int]]) -> Float[np.ndarray, "N F"]:
    """How often each text holds each token that any of them holds."""
    tokens, columns = np.unique(np.concatenate([np.asarray(t, np.int64) for t in texts]), return_inverse=True)
    counts = np.zeros((len(texts), len(tokens)), np.float32)
    np.add.at(counts, (np.repeat(np.arange(len(texts)), [len(t) for t in texts]), columns), 1)
    return counts


def of_bags(
    counts: Float[np.ndarray, "N F"], query: Int[np.ndarray, " N"], per_draw: int, num_concepts: int, averaged: int,
    *, k: int, draws: int, seed: int,
) -> Score:  # fmt: skip
    """CD of integer features, points concept by concept as in `scores.reduce_states`, on the draws that it takes.

    Distances of integers are exact, and so are the many ties among them, which share votes. NaN where all points are
    alike.
    """
    each = len(counts) // num_concepts
    draws = min(draws, each // per_draw - 1)
    if not np.ptp(counts, 0).any():
        return Score(*np.full((3, num_concepts + 1), np.nan), np.zeros((draws * statistics.HALVES, num_concepts + 1)))
    pool = np.arange(len(counts)).reshape(num_concepts, each)[:, per_draw:].ravel()
    key = jax.random.key(seed)
    concepts = np.repeat(np.arange(num_concepts), each - per_draw)
    key_draws = statistics.key_of_draws(key)
    drawn = np.array(statistics.sample_draws(key_draws, jnp.asarray(concepts), num_concepts, per_draw, draws))
    squared = np.stack([_squared(counts[pool[chosen]], query[pool[chosen]]) for chosen in drawn])
    score = _of_distances(squared, concepts[drawn], query[pool[drawn]], key, k, num_concepts, averaged)
    return Score(*(np.asarray(part, np.float64) for part in score))


def _squared(points, group):
    """[n, n] squared distances, infinite within a group."""
    products, norms = points @ points.T, (points * points).sum(1)
    return np.where(group[:, None] == group, np.float32(np.inf), norms[:, None] + norms - 2 * products)


@partial(jax.jit, static_argnums=(4, 5, 6))
def _of_distances(squared, concepts, query, key, k, num_concepts, averaged):
    """`Score` from squared distances [draws, n, n] of points [draws, n]."""
    inside, boundary = neighbour_sets.INSIDE, neighbour_sets.BOUNDARY

    def of_draw(arguments):
        squared, labels, own, key = arguments
        last = -lax.top_k(-squared, k)[0][:, -1:]
        sets = jnp.where(squared < last, inside, jnp.where(squared == last, boundary, 0)).astype(jnp.int8)
        scores = neighbour_sets.scores(sets, labels[None], k, num_concepts, "split")[0]
        halves = neighbour_sets.halves(key, labels, own, num_concepts, statistics.HALVES)
        listed = statistics.LISTED * k + 8
        effects, halved = neighbour_sets.design_effects(squared, labels, halves, k, num_concepts, averaged, listed)
        return decodability.mean_by_concept(scores, labels, num_concepts), effects, halved

    keys = statistics.keys_of_halves(key, len(squared))
    *means, halved = lax.map(of_draw, (squared, concepts, query, keys))
    cd, effects = (jnp.mean(part, 0) for part in means)
    low, high = statistics.interval(cd, effects, jnp.bincount(concepts.ravel(), length=num_concepts), averaged)
    return statistics.with_average(cd, averaged), low, high, jnp.concatenate(list(halved))


def of_states(
    hidden: Float[Array, "layers N d"], query: Int[np.ndarray, " N"], num_concepts: int, averaged: int,
    *, k: int, seed: int,
) -> tuple[int, Score]:  # fmt: skip
    """CD by layer [layers, K1] of all points, as many of each concept, in one draw; and the layer of the best average.

    The best is taken on the points themselves: as what CD is held against it is rather too high.
    """
    labels = np.repeat(np.arange(num_concepts), hidden.shape[1] // num_concepts)
    found = statistics.decodability_statistics(
        hidden, labels, jax.random.key(seed), k=k, permutations=1, averaged=averaged, group=query,
        num_concepts=num_concepts,
    )  # fmt: skip
    score = Score(*(np.asarray(part, np.float64) for part in (found.cd, found.low, found.high)))
    return int(score.cd[:, -1].argmax()), score


def above(score: Score, controls: Mapping[str, Score]) -> Score:
    """CD less the highest of the controls [K1], by concept and of the average, with a 95 % interval.

    The interval is that of a difference of two estimates with intervals of their own (Zou 2007, Psychological Methods
    12, eq. 15). CD and a control of the same points rise and fall together: their correlation is that of the
    differences between the same random halves. Where the points are others it is 0.
    """
    stacked = [np.stack(parts) for parts in zip(*(control[:3] for control in controls.values()), strict=True)]
    highest = np.where(np.isnan(stacked[0]), -np.inf, stacked[0]).argmax(0)
    cd, low, high = (np.take_along_axis(part, highest[None], 0)[0] for part in stacked)
    correlation = sum(
        np.where(highest == number, _correlation(score, control), 0) for number, control in enumerate(controls.values())
    )
    difference = score.cd - cd
    below, above = (
        np.sqrt(one**2 + other**2 - 2 * correlation * one * other)
        for one, other in ((score.cd - score.low, high - cd), (score.high - score.cd, cd - low))
    )
    return Score(difference, difference - below, difference + above)


def _correlation(score: Score, control: Score):
    """[..., K1], of the halves' differences, whose mean is 0."""
    if score.halved is None or control.halved is None:
        return np.zeros(score.cd.shape)
    products, first, second = (
        np.sum(one * other, -2)
        for one, other in ((score.halved, control.halved), (score.halved,) * 2, (control.halved,) * 2)
    )
    norms = np.sqrt(first * second)
    return np.divide(products, norms, out=np.zeros(norms.shape), where=norms > 0)
