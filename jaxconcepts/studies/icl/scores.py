"""The in-context study's numbers: CD of every layer, reduced on the device; CD against accuracy; what is answered.

Concepts are numbered as in `Family.labels`, Null last: it is in every pool and out of every average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxconcepts.metrics import decodability, statistics
from jaxconcepts.metrics.draws import decodability_draws, key_of_draws, sample_draws
from jaxconcepts.studies.icl.config import IclConfig


class Decodability(NamedTuple):
    """CD of a cell, in NumPy. K1 = K + 1: each concept, and last the average without Null.

    headline: the layer of the best CD on the prompts set apart for choosing it. chosen_on: [layers] CD there.
    cd, low, high, p: [layers, K1] mean over draws, its 95 % interval, the one-sided permutation p-value. halved: as in
    `metrics.statistics.Statistics`.
    null: [layers, permutations, K1] with permuted labels. coincident: [layers] whether all states are one point.
    with_query: [layers, K1] CD where prompts of one query may vote for each other.
    pairwise: [K, K] at the headline layer, mean over draws.
    """

    headline: int
    chosen_on: Float[np.ndarray, " layers"]
    cd: Float[np.ndarray, "layers K1"]
    low: Float[np.ndarray, "layers K1"]
    high: Float[np.ndarray, "layers K1"]
    null: Float[np.ndarray, "layers permutations K1"]
    p: Float[np.ndarray, "layers K1"]
    coincident: Bool[np.ndarray, " layers"]
    halved: Float[np.ndarray, "layers halvings K1"]
    with_query: Float[np.ndarray, "layers K1"]
    pairwise: Float[np.ndarray, "K K"]


def reduce_states(
    hidden: Float[Array, "layers N d"],
    query: Int[np.ndarray, " N"],
    settings: IclConfig,
    num_concepts: int,
    averaged: int,
) -> Decodability:
    """CD at every layer from the states of N = K * prompts points, concept by concept.

    settings: its per_draw, k, draws, permutations and seed. The first `per_draw` points of each concept choose the
    headline layer; the scores come from at most `draws` draws of `per_draw` a concept, which share no point, from the
    others. query: prompts of the same query do not vote for each other. averaged: how many concepts averages are over:
    K, or K - 1 with Null.
    """
    if not bool(jnp.isfinite(hidden).all()):
        raise ValueError("hidden states must be finite: this checkpoint's are not")
    per_draw = settings.per_draw
    draws = min(settings.draws, hidden.shape[1] // num_concepts // per_draw - 1)
    sizes = (per_draw, num_concepts, averaged, settings.k, draws, settings.permutations)
    scores = _reduced(hidden, jnp.asarray(query), jax.random.key(settings.seed), sizes)
    headline, chosen_on, measured, with_query, pairwise = jax.tree.map(np.asarray, scores)
    own = (measured.cd, measured.low, measured.high, measured.null, measured.p)
    wide = (array.astype(np.float64) for array in own)
    return Decodability(
        int(headline), chosen_on.astype(np.float64), *wide, measured.coincident, measured.halved.astype(np.float64),
        with_query.astype(np.float64), pairwise,
    )  # fmt: skip


@partial(jax.jit, static_argnums=3)
def _reduced(hidden, query, key, sizes):
    """`Decodability`, in one program for all cells of these sizes."""
    per_draw, num_concepts, averaged, k, draws, permutations = sizes
    each = hidden.shape[1] // num_concepts
    points = np.arange(num_concepts * each).reshape(num_concepts, each)
    apart, pool = points[:, :per_draw].ravel(), points[:, per_draw:].ravel()
    settings = {"k": k, "num_concepts": num_concepts, "ties": "split"}

    labels = np.repeat(np.arange(num_concepts), per_draw)
    apart_cd = decodability.concept_decodability_per_concept(
        jnp.take(hidden, apart, axis=1), labels, group=query[apart], **settings
    )
    chosen_on = apart_cd[:, :averaged].mean(-1)
    headline = jnp.argmax(chosen_on)

    hidden, query = jnp.take(hidden, pool, axis=1), query[pool]
    concepts = jnp.asarray(np.repeat(np.arange(num_concepts), each - per_draw))
    measured = statistics.decodability_statistics(
        hidden, concepts, key, draws=draws, per_concept=per_draw, permutations=permutations, averaged=averaged,
        group=query, **settings,
    )  # fmt: skip
    # The draws that the statistics took.
    key_draws = key_of_draws(key)
    with_query = decodability_draws(hidden, concepts, key_draws, draws, per_draw, by_concept=True, **settings)
    at_headline = hidden[headline]
    first, second = np.triu_indices(num_concepts, 1)

    def pairwise(chosen):
        """`decodability.pairwise_decodability`, on the points of each pair alone, which have equal numbers here."""
        own = chosen.reshape(num_concepts, per_draw)
        both = jnp.concatenate([own[first], own[second]], axis=1)
        score = lambda pair: decodability.concept_decodability(  # noqa: E731
            at_headline[pair], np.repeat([0, 1], per_draw), group=query[pair], **settings | {"num_concepts": 2}
        )
        upper = jnp.zeros((num_concepts, num_concepts)).at[first, second].set(jax.lax.map(score, both))
        return upper + upper.T + jnp.eye(num_concepts)

    drawn = sample_draws(key_draws, concepts, num_concepts, per_draw, draws)
    pairs = jax.lax.map(pairwise, drawn).mean(0)
    with_query = statistics.with_average(jnp.mean(with_query, 1), averaged)
    return headline, chosen_on, measured, with_query, pairs


def confusion(
    texts: Sequence[str],
    right: Sequence[bool],
    concepts: Sequence[int],
    ruled: Sequence[Mapping[str, str]],
    names: Sequence[str],
    num_concepts: int,
) -> Float[np.ndarray, "K C1"]:
    """Which rule do wrong answers follow? The share of each concept's wrong answers that every rule would have given.

    ruled: for each prompt, what each of the concepts `names` (without Null) would answer; {} where that is not known.
    An answer that several rules give counts for each; the last column is the share that no rule gives. NaN for a
    concept without wrong answers of which this is known.
    """
    counts, wrong = np.zeros((num_concepts, len(names) + 1)), np.zeros(num_concepts)
    for text, good, concept, answers in zip(texts, right, concepts, ruled, strict=True):
        if good or not answers:
            continue
        follows = np.array([answers.get(name) == text for name in names])
        wrong[concept] += 1
        counts[concept, :-1] += follows
        counts[concept, -1] += not follows.any()
    with np.errstate(invalid="ignore"):
        return counts / wrong[:, None]
