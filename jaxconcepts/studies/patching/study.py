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
from jaxconcepts.models import continuous, language, residual
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


def make_patching(task: regression.RegressionConfig, model: continuous.Model, config: PatchConfig) -> Patching:
    """The patch study of models of one shape: each function compiles once, whatever the checkpoint.

    Raises ValueError for a task with one concept, and for layers and heads that the model does not have.
    """
    if task.num_concepts < 2:
        raise ValueError("patching needs a task with at least two concepts, got task.num_concepts = 1")
    if not model.ATTENDS:
        raise ValueError(f"patching ablates heads, and a {model.MODEL_TYPE} model has none")
    study = _Study(
        task, model, config, config.chosen_layers(model.layers), config.chosen_heads(model.layers, model.heads)
    )
    return Patching(jax.jit(study.prepare), *(jax.jit(study.exactly(what)) for what in (study.grid, study.ablate)))


@dataclass(frozen=True)
class _Study:
    """What is patched in which models; its methods are traced."""

    task: regression.RegressionConfig
    model: continuous.Model
    config: PatchConfig
    layers: tuple[int, ...]
    heads: tuple[tuple[int, int], ...]

    @property
    def keys(self):
        """Of the sequences patched, of those behind the means, of the random directions."""
        return jax.random.split(jax.random.fold_in(jax.random.key(20241213), self.config.seed), 3)

    @property
    def at(self):
        """[at, n]: the weights of x tokens at the places where predictions are scored."""
        n = self.task.num_pairs
        return jnp.stack([jax.nn.one_hot(n - 1, n), jnp.full(n, 1 / n)])

    def exactly(self, function):
        def wrapped(*arguments):
            with language.exact_products(self.model):
                return function(*arguments)

        return wrapped

    def prepare(self, hparams):
        task, config = self.task, self.config
        batch = regression.balanced(task, hparams, self.keys[0], config.per_concept)
        for_means = regression.balanced(task, hparams, self.keys[1], config.mean_per_concept)
        plain = tuple(name for name, concept in reference_names(task) if concept is None)
        stacked, inverse = jnp.stack(list(references.predict(task, hparams, batch, plain).values())), None
        if _has_oracles(task):
            oracles = references.oracles(task, hparams, batch)
            of_source = self.by_source(oracles)
            grams = _dot("kpni,kpnj,an->kaij", of_source, of_source, self.at) / config.per_concept
            inverse = jnp.linalg.pinv(grams, hermitian=True)
            stacked = jnp.concatenate([stacked, jnp.moveaxis(oracles, -1, 0)])
        return Prepared(batch, stacked, inverse, for_means)

    def by_source(self, values):
        return values.reshape(self.task.num_concepts, self.config.per_concept, *values.shape[1:])

    def score(self, out, prepared):
        out, targets = self.by_source(out), self.by_source(prepared.batch.targets)
        guesses = jax.vmap(self.by_source)(prepared.predictions)
        each = self.config.per_concept
        loss = _dot("kpn,an->ka", jnp.square(out - targets), self.at) / each
        distance = _dot("rkpn,an->kar", jnp.square(out - guesses), self.at) / each
        weight = None
        if prepared.inverse is not None:
            moments = _dot("kpn,jkpn,an->kaj", out, guesses[-self.task.num_concepts :], self.at) / each
            weight = _dot("kaij,kaj->kai", prepared.inverse, moments)
        return Scores(loss, distance, weight)

    def means(self, params, batch, **what):
        """The mean of what is captured at every position: [K, ...], one concept at a time."""

        def of_concept(inputs):
            trace = continuous.apply(self.model, params, inputs, capture="all", **what)
            return jax.tree.map(lambda a: a.mean(1), (trace.captured, trace.heads))

        tokens = regression.interleave(batch)
        return jax.lax.map(of_concept, tokens.reshape(self.task.num_concepts, -1, *tokens.shape[1:]))

    def grid(self, params, prepared):
        states = jnp.moveaxis(self.means(params, prepared.for_means)[0], 0, 1)
        clean = predictions(self.model, params, prepared.batch, capture="all")
        axes = (len(patching.POSITIONS), len(self.config.modes), len(PATCHES), self.task.num_concepts)
        cells = tuple(index.ravel() for index in np.indices(axes))
        at_once = self.config.cells_at_once or (1 if jax.default_backend() == "cpu" else 8)

        def at_layer(layer):
            directions = self.directions(states[layer], layer)

            def cell(index):
                edit = self.edit(states[layer], directions, index)
                out = continuous.resume(self.model, params, residual.edited(clean.captured[layer], edit), layer)
                return self.score(out[:, ::2, 0], prepared)

            return jax.lax.map(cell, cells, batch_size=None if at_once == 1 else at_once)

        scores = jax.lax.map(at_layer, jnp.array(self.layers))
        shaped = jax.tree.map(lambda a: a.reshape(len(a), *axes, *a.shape[2:]), scores)
        return self.score(clean.out, prepared), shaped

    def directions(self, states, layer):
        """[patches, target, source, T, d]: from the source's mean to the target's, and random ones as long."""
        concepts = self.task.num_concepts
        directions = states[:, None] - states
        unit_key = jax.random.fold_in(self.keys[2], layer)
        units = steering.random_like(unit_key, jnp.ones((concepts, concepts, 1, self.model.width)))
        units = units / jnp.linalg.norm(units, axis=-1, keepdims=True)
        return jnp.stack([directions, units * jnp.linalg.norm(directions, axis=-1, keepdims=True)])

    def edit(self, states, directions, index) -> residual.Edits:
        """Of one cell of the grid: (positions, mode, patch, target)."""
        place, mode, patch, target = index
        positions = [patching.sequence_positions(self.task.num_pairs, name) for name in patching.POSITIONS]
        positions, adding = jnp.array(positions)[place], mode > 0
        change = jnp.array([1.0, *self.config.scales])[mode] * directions[patch, target]
        value, add = (jnp.repeat(a, self.config.per_concept, axis=0) for a in (states + change, change))
        return residual.Edits(
            mask=(positions & ~adding)[None],
            value=value,
            add=jnp.where((positions & adding)[:, None], add, 0.0),
        )

    def ablate(self, params, prepared):
        model, heads = self.model, self.heads
        outputs = self.means(params, prepared.for_means, with_heads=True)[1].mean(0)[:, None]
        clean = predictions(model, params, prepared.batch, capture="all")
        masks = jnp.stack([jnp.asarray(head_edits.chosen([pair], model.layers, model.heads)) for pair in heads])
        before = jnp.array([block - 1 for block, _ in heads])
        cells = (jnp.repeat(jnp.array([0.0, 1.0]), len(heads)), jnp.tile(masks, (2, 1, 1)), jnp.tile(before, 2))

        def cell(index):
            keep, mask, layer = index
            out = continuous.resume(
                model, params, clean.captured[layer], layer, head_edits.replace(mask, keep * outputs)
            )
            return self.score(out[:, ::2, 0], prepared)

        # One after another: side by side, cells would each start at another layer.
        scores = jax.lax.map(cell, cells)
        shaped = jax.tree.map(lambda a: a.reshape(2, len(heads), *a.shape[1:]), scores)
        return self.score(clean.out, prepared), shaped


_dot = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def _has_oracles(task: regression.RegressionConfig) -> bool:
    return "bayes" in references.names(task)
