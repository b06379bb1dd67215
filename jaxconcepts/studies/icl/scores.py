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
from jaxtyping import Array, Float, Int

from jaxconcepts.metrics import decodability, statistics

RESAMPLES = 1000


class Decodability(NamedTuple):
    """CD of a cell, in NumPy.

    headline: the layer of the best CD on the prompts set apart for choosing it. chosen_on: [layers] CD there.
    cd: [draws, layers, K]. null: [permutations, layers, K], of one draw with permuted labels.
    low, high: [layers, K + 1] 95 % bootstrap interval over draws, of each concept and, last, of the average.
    p: [layers] one-sided permutation p-value of the average. pairwise: [K, K] at the headline layer, mean over draws.
    """

    headline: int
    chosen_on: Float[np.ndarray, " layers"]
    cd: Float[np.ndarray, "draws layers K"]
    low: Float[np.ndarray, "layers K1"]
    high: Float[np.ndarray, "layers K1"]
    null: Float[np.ndarray, "permutations layers K"]
    p: Float[np.ndarray, " layers"]
    pairwise: Float[np.ndarray, "K K"]


def reduce_states(
    hidden: Float[Array, "layers N d"],
    per_draw: int,
    num_concepts: int,
    averaged: int,
    *,
    k: int,
    draws: int,
    permutations: int,
    seed: int,
) -> Decodability:
    """CD at every layer from the states of N = K * prompts points, concept by concept.

    The first `per_draw` points of each concept choose the headline layer; the scores come from `draws` draws of
    `per_draw` a concept, without replacement, from the others. averaged: how many concepts averages are over: K, or
    K - 1 with Null.
    """
    if not bool(jnp.isfinite(hidden).all()):
        raise ValueError("hidden states must be finite: this checkpoint's are not")
    found = _reduced(hidden, jax.random.key(seed), per_draw, num_concepts, averaged, k, draws, permutations)
    found = [np.asarray(array) for array in found]
    return Decodability(int(found[0]), *(array.astype(np.float64) for array in found[1:]))


@partial(jax.jit, static_argnums=(2, 3, 4, 5, 6, 7))
def _reduced(hidden, key, per_draw, num_concepts, averaged, k, draws, permutations):
    """`Decodability`, in one program for all cells of these sizes."""
    each = hidden.shape[1] // num_concepts
    points = np.arange(num_concepts * each).reshape(num_concepts, each)
    apart, pool = points[:, :per_draw].ravel(), points[:, per_draw:].ravel()
    key_draws, key_null, key_bootstrap = jax.random.split(key, 3)
    settings = {"k": k, "num_concepts": num_concepts}

    labels = np.repeat(np.arange(num_concepts), per_draw)
    apart_cd = decodability.concept_decodability_per_concept(jnp.take(hidden, apart, axis=1), labels, **settings)
    chosen_on = apart_cd[:, :averaged].mean(-1)
    headline = jnp.argmax(chosen_on)

    hidden = jnp.take(hidden, pool, axis=1)
    concepts = np.repeat(np.arange(num_concepts), each - per_draw)
    cd = statistics.decodability_draws(hidden, concepts, key_draws, draws, per_draw, by_concept=True, **settings)
    keys = jax.random.split(key_draws, draws)
    sample = lambda key: statistics.sample_points(key, concepts, num_concepts, per_draw)  # noqa: E731
    shown = jnp.take(hidden, sample(keys[0]), axis=1)
    null = statistics.permutation_null(shown, labels, key_null, permutations, by_concept=True, **settings)
    at_headline = hidden[headline]
    first, second = np.triu_indices(num_concepts, 1)

    def pairwise(key):
        """`decodability.pairwise_decodability`, on the points of each pair alone, which have equal numbers here."""
        own = at_headline[sample(key)].reshape(num_concepts, per_draw, -1)
        both = jnp.concatenate([own[first], own[second]], axis=1)
        score = decodability.concept_decodability(both, np.repeat([0, 1], per_draw), k, num_concepts=2)
        upper = jnp.zeros((num_concepts, num_concepts)).at[first, second].set(score)
        return upper + upper.T + jnp.eye(num_concepts)

    pairs = jax.lax.map(pairwise, keys).mean(0)

    average = jnp.mean(cd[..., :averaged], -1)
    by_draw = jnp.moveaxis(jnp.concatenate([cd, average[..., None]], -1), 1, -1)
    low, high = statistics.bootstrap_interval(by_draw, key_bootstrap, resamples=RESAMPLES)
    p = statistics.p_value(average.mean(-1), jnp.mean(null[..., :averaged], -1))
    return headline, chosen_on, jnp.swapaxes(cd, 0, 1), low, high, jnp.swapaxes(null, 0, 1), p, pairs


def wilson(right: Int[np.ndarray, "*n"], count: int, z: float = 1.959964) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of a share of `count` independent trials (Wilson 1927): (low, high)."""
    share = np.asarray(right) / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


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


class Fit(NamedTuple):
    """How CD predicts accuracy: squared Pearson correlation, Spearman's rank correlation, 95 % intervals of both. NaN
    where there are fewer than three points, or one of the two never varies."""

    r2: float
    r2_low: float
    r2_high: float
    spearman: float
    spearman_low: float
    spearman_high: float


def fit(
    cd: Float[np.ndarray, " n"], accuracy: Float[np.ndarray, " n"], concepts: Int[np.ndarray, " n"], seed: int
) -> Fit:
    """The least-squares line's R² and Spearman's correlation over points, each a concept (at some number of shots).

    The interval is a percentile bootstrap that draws concepts, each with all its points, since the points of one
    concept are not independent; draws in which one of the two does not vary are left out.
    """
    cd, accuracy, concepts = np.asarray(cd, float), np.asarray(accuracy, float), np.asarray(concepts)
    own = [np.flatnonzero(concepts == concept) for concept in np.unique(concepts)]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(own), (RESAMPLES, len(own)))
    found = [_correlations(cd[rows], accuracy[rows]) for rows in (np.concatenate([own[i] for i in d]) for d in drawn)]
    found = np.array([pair for pair in found if np.isfinite(pair).all()]).reshape(-1, 2)
    r2, spearman = _correlations(cd, accuracy)
    if len(found) and np.isfinite(r2):
        (r2_low, spearman_low), (r2_high, spearman_high) = np.quantile(found, [0.025, 0.975], axis=0)
    else:
        r2_low = spearman_low = r2_high = spearman_high = np.nan
    return Fit(r2, r2_low, r2_high, spearman, spearman_low, spearman_high)


def _correlations(x, y) -> tuple[float, float]:
    """(R², Spearman); NaN where undefined."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.nan
    return float(_pearson(x, y) ** 2), float(_pearson(_ranks(x), _ranks(y)))


def _pearson(x, y):
    x, y = x - x.mean(), y - y.mean()
    return np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y))


def _ranks(x):
    """From 1; equal values share the mean of their ranks."""
    _, where, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[where]
