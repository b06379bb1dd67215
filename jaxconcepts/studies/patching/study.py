"""Does changing the encoded concept change the algorithm? Patches and head ablations on a model of the synthetic study.

The mean hidden state of one concept (the target) is written at a layer into sequences of another (the source), arXiv
2412.12276 section 5. Beside the change of loss, K x K, it is measured which predictor the patched predictions are
closest to: the oracle of the source's basis, the oracle of the *target's* basis (which the model would follow if the
patch had switched its algorithm), the Bayes mixture, ridge, or zero (which a model that is merely broken is close to).

Means come from other sequences than those patched, and are taken at every position apart. With m_t, m_s the means of
target and source at a layer and position:

    replace   the state becomes m_t                    (random: m_s + a random direction as long as m_t - m_s)
    add       m_t - m_s is added to the state          (random: that random direction is added)
    add x4    4 times that: steering along the way from source to target

Three settings of positions are patched: the query (the last x token), all x tokens, all tokens. Two more controls are
cells of the same grid: the source's own mean, and a third concept's mean judged by the target's oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxconcepts.experiments.regression import predictions
from jaxconcepts.interventions import heads as head_edits
from jaxconcepts.interventions import patching, steering
from jaxconcepts.models import gpt2, language, residual
from jaxconcepts.tasks import references, regression

PATCHES = ("mean", "random")
AT = ("query", "mean")
"""Where predictions are scored: at the last x token, and as the mean over all x tokens."""


@dataclass(frozen=True)
class PatchConfig:
    """What is patched.

    per_concept: sequences of each concept that are patched. mean_per_concept: other ones, behind each mean state.
    seed: of both sets and of the random directions; all runs and checkpoints share them.
    scales: how many times the difference of the means is added, a mode each: "add", "add x4".
    layers: which layers are patched, 0 for the embeddings; empty for all.
    heads: (block, head) pairs that are ablated, blocks from 1, heads from 0; empty for all.
    cells_at_once: patched copies of the set that run side by side; 0 for the backend's default (1 on a CPU, else 8).
    """

    per_concept: int = 100
    mean_per_concept: int = 500
    seed: int = 0
    scales: tuple[float, ...] = (1.0, 4.0)
    layers: tuple[int, ...] = ()
    heads: tuple[tuple[int, int], ...] = ()
    cells_at_once: int = 0

    def __post_init__(self):
        for name, least in (("per_concept", 2), ("mean_per_concept", 1), ("seed", 0), ("cells_at_once", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"patch.{name} must be an integer of at least {least}, got {value!r}")

    @property
    def modes(self) -> tuple[str, ...]:
        """The names of what is done to the state, in the order of the grid."""
        return ("replace", *("add" if scale == 1 else f"add x{scale:g}" for scale in self.scales))

    def chosen_layers(self, blocks: int) -> tuple[int, ...]:
        """The layers patched in a model of `blocks` blocks. Raises ValueError for one that it does not have."""
        patching.check_layers(self.layers, blocks)
        return self.layers or tuple(range(blocks + 1))

    def chosen_heads(self, blocks: int, heads: int) -> tuple[tuple[int, int], ...]:
        """The (block, head) pairs ablated in such a model. Raises ValueError for one that it does not have."""
        head_edits.chosen(self.heads, blocks, heads)
        return self.heads or tuple((block + 1, head) for block in range(blocks) for head in range(heads))


class Prepared(NamedTuple):
    """The sequences of a task: those patched, in concept order, what the references predict for them [R, B, n], and the
    inverse Gram matrices of the oracles' predictions [source, at, K, K]; and those behind the means."""

    batch: regression.Batch
    predictions: Float[Array, "R B n"]
    inverse: Float[Array, "K at K K"] | None
    for_means: regression.Batch


class Scores(NamedTuple):
    """How predictions do, by source concept and place (`AT`), with any leading axes.

    loss: [..., K, at] against the targets. distance: [..., K, at, R], mean squared, to each of `reference_names`.
    weight: [..., K, at, K], the least-squares coefficients of the predictions on the oracles of all concepts: 1 at the
    source's for an ideal model, 1 at the target's for one whose algorithm was switched, all 0 for one that is broken.
    None where the concepts have no oracle.
    """

    loss: Float[Array, "*lead K at"]
    distance: Float[Array, "*lead K at R"]
    weight: Float[Array, "*lead K at J"] | None


class Patching(NamedTuple):
    """The compiled programs of a task and model, for any parameters and numbers.

    prepare(hparams) -> Prepared.
    grid(params, prepared) -> (clean Scores, Scores [layers, positions, modes, patches, target, source, ...]).
    heads(params, prepared) -> (clean Scores, Scores [ablations, heads, source, ...]).
    """

    prepare: Callable[[regression.RegressionHParams], Prepared]
    grid: Callable[[PyTree, Prepared], tuple[Scores, Scores]]
    heads: Callable[[PyTree, Prepared], tuple[Scores, Scores]]


def reference_names(task: regression.RegressionConfig) -> list[tuple[str, int | None]]:
    """(name, concept) of what predictions are compared with, in the order of `Scores.distance`."""
    plain = [(name, None) for name in ("zero", "ridge", "bayes") if name in references.names(task)]
    return plain + [("oracle", k) for k in range(task.num_concepts if _has_oracles(task) else 0)]


def make_patching(task: regression.RegressionConfig, model: gpt2.GPT2Config, config: PatchConfig) -> Patching:
    """The patch study of models of one shape: each function compiles once, whatever the checkpoint.

    Raises ValueError for a task with one concept, and for layers and heads that the model does not have.
    """
    if task.num_concepts < 2:
        raise ValueError("patching needs a task with at least two concepts, got task.num_concepts = 1")
    layers = jnp.array(config.chosen_layers(model.layers))
    concepts, n = task.num_concepts, task.num_pairs
    heads = config.chosen_heads(model.layers, model.heads)
    at = jnp.stack([jax.nn.one_hot(n - 1, n), jnp.full(n, 1 / n)])
    at_once = config.cells_at_once or (1 if jax.default_backend() == "cpu" else 8)
    key = jax.random.fold_in(jax.random.key(20241213), config.seed)
    dot = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

    def by_source(values):
        return values.reshape(concepts, config.per_concept, *values.shape[1:])

    def prepare(hparams):
        patched_key, mean_key, _ = jax.random.split(key, 3)
        batch = regression.balanced(task, hparams, patched_key, config.per_concept)
        for_means = regression.balanced(task, hparams, mean_key, config.mean_per_concept)
        plain = references.predict(
            task, hparams, batch, tuple(name for name, concept in reference_names(task) if concept is None)
        )
        stacked, inverse = jnp.stack(list(plain.values())), None
        if _has_oracles(task):
            oracles = references.oracles(task, hparams, batch)
            grams = dot("kpni,kpnj,an->kaij", by_source(oracles), by_source(oracles), at) / config.per_concept
            inverse = jnp.linalg.pinv(grams, hermitian=True)
            stacked = jnp.concatenate([stacked, jnp.moveaxis(oracles, -1, 0)])
        return Prepared(batch, stacked, inverse, for_means)

    def score(out, prepared):
        out, targets = by_source(out), by_source(prepared.batch.targets)
        guesses = jax.vmap(by_source)(prepared.predictions)
        loss = dot("kpn,an->ka", jnp.square(out - targets), at) / config.per_concept
        distance = dot("rkpn,an->kar", jnp.square(out - guesses), at) / config.per_concept
        weight = None
        if prepared.inverse is not None:
            moments = dot("kpn,jkpn,an->kaj", out, guesses[-concepts:], at) / config.per_concept
            weight = dot("kaij,kaj->kai", prepared.inverse, moments)
        return Scores(loss, distance, weight)

    def means(params, batch, **what):
        """The mean of what is captured at every position: [K, ...], one concept at a time."""

        def of_concept(inputs):
            found = gpt2.apply(model, params, inputs, capture="all", **what)
            return jax.tree.map(lambda a: a.mean(1), (found.captured, found.heads))

        tokens = regression.interleave(batch)
        return jax.lax.map(of_concept, tokens.reshape(concepts, -1, *tokens.shape[1:]))

    def grid(params, prepared):
        states = jnp.moveaxis(means(params, prepared.for_means)[0], 0, 1)
        clean = predictions(model, params, prepared.batch, capture="all")
        places = jnp.array([patching.sequence_positions(n, name) for name in patching.POSITIONS])
        axes = (len(places), len(config.modes), len(PATCHES), concepts)
        scales = jnp.array([1.0, *config.scales])
        cells = tuple(index.ravel() for index in np.indices(axes))

        def at_layer(layer):
            own = states[layer]
            directions = own[:, None] - own  # [target, source, T, d]
            unit_key = jax.random.fold_in(jax.random.split(key, 3)[2], layer)
            units = steering.random_like(unit_key, jnp.ones((concepts, concepts, 1, model.width)))
            units = units / jnp.linalg.norm(units, axis=-1, keepdims=True)
            lengths = jnp.linalg.norm(directions, axis=-1, keepdims=True)
            choices = jnp.stack([directions, units * lengths])
            stream = clean.captured[layer]

            def cell(index):
                place, mode, patch, target = index
                adding = mode > 0
                change = scales[mode] * choices[patch, target]
                of_sequences = lambda a: jnp.repeat(a, config.per_concept, axis=0)  # noqa: E731
                edit = residual.Edits(
                    mask=(places[place] & ~adding)[None],
                    value=of_sequences(own + change),
                    add=jnp.where((places[place] & adding)[:, None], of_sequences(change), 0.0),
                )
                out = gpt2.resume(model, params, residual.edited(stream, edit), layer)
                return score(out[:, ::2, 0], prepared)

            return jax.lax.map(cell, cells, batch_size=None if at_once == 1 else at_once)

        found = jax.lax.map(at_layer, layers)
        return score(clean.out, prepared), jax.tree.map(lambda a: a.reshape(len(a), *axes, *a.shape[2:]), found)

    def ablate(params, prepared):
        outputs = means(params, prepared.for_means, with_heads=True)[1].mean(0)[:, None]
        clean = predictions(model, params, prepared.batch, capture="all")
        masks = jnp.stack([jnp.asarray(head_edits.chosen([pair], model.layers, model.heads)) for pair in heads])
        before = jnp.array([block - 1 for block, _ in heads])
        cells = (jnp.repeat(jnp.array([0.0, 1.0]), len(heads)), jnp.tile(masks, (2, 1, 1)), jnp.tile(before, 2))

        def cell(index):
            keep, mask, layer = index
            out = gpt2.resume(model, params, clean.captured[layer], layer, head_edits.replace(mask, keep * outputs))
            return score(out[:, ::2, 0], prepared)

        # One after another: side by side, cells would each start at another layer.
        found = jax.lax.map(cell, cells)
        return score(clean.out, prepared), jax.tree.map(lambda a: a.reshape(2, len(heads), *a.shape[1:]), found)

    exact = lambda function: _in_full_precision(model, function)  # noqa: E731
    return Patching(jax.jit(prepare), jax.jit(exact(grid)), jax.jit(exact(ablate)))


def _in_full_precision(model, function):
    def wrapped(*arguments):
        with language.exact_products(model):
            return function(*arguments)

    return wrapped


def _has_oracles(task: regression.RegressionConfig) -> bool:
    return "bayes" in references.names(task)
