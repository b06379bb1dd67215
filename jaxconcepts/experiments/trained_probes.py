"""Probes that are trained through the frozen model, the check of the linear ones (arXiv 2407.20311 and 2309.14316).

A probe is a change of low rank to the embedding of what the model reads, W + b @ a, and a linear read-out of the last
layer, trained together. So it can ask the model for what no fixed direction of its states holds. Each concept has a
change of its own. Training starts at the ridge probe of the model as it is, and its loss weighs classes equally. The
papers start at nothing and train for 100 000 steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxconcepts.experiments.tokens import Tokens
from jaxconcepts.metrics.grouped_probes import agreement, fit
from jaxconcepts.training.experiment import Named

RANK = 8
STEPS = 500
BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.01


class Asked(NamedTuple):
    """What is asked of N rows: K concepts, each of C parameters at P positions.

    rows: [N, T], tokens. at: [K, N, P], positions. labels: [K, C, N, P], below `classes` (static). valid: the same,
    whether a parameter is asked about there. group: [N], rows of one group are on one side of the split.
    """

    rows: Int[Array, "N T"]
    at: Int[Array, "K N P"]
    labels: Int[Array, "K C N P"]
    valid: Bool[Array, "K C N P"]
    group: Int[Array, " N"]
    classes: int


def stack(rows, questions, group) -> Asked:
    """Questions (at [N, P], labels and valid [C, N, P], number of classes), one of each concept, filled up to one shape
    by parameters and positions that are not asked about."""
    parameters, positions = (max(np.shape(labels)[axis] for _, labels, _, _ in questions) for axis in (0, 2))

    def fill(labels):
        missing = (parameters - labels.shape[0], positions - labels.shape[2])
        return jnp.pad(labels, ((0, missing[0]), (0, 0), (0, missing[1])))

    at = [jnp.pad(at, ((0, 0), (0, positions - at.shape[1])), mode="edge") for at, _, _, _ in questions]
    labels, valid = (jnp.stack([fill(jnp.asarray(question[i])) for question in questions]) for i in (1, 2))
    classes = max(question[3] for question in questions)
    return Asked(jnp.asarray(rows), jnp.stack(at), labels.astype(jnp.int32), valid, group, classes)


def scores(experiment: Any, params: PyTree, asked: Asked, folds: int, alpha: float) -> Float[Array, "3 K C"]:
    """Accuracy, balanced accuracy and Matthews' correlation (`grouped_probes.agreement`) of each concept's parameters,
    on the groups that `folds` divides; the probes are trained on the others. alpha: weight of the squared coefficients
    of the ridge probe that training starts at."""
    tested = asked.group % folds == 0
    table = params["embed"]
    training = jnp.argsort(tested, stable=True)  # Rows that are trained on come first.
    fitted = jnp.sum(~tested)

    def of_concept(question):
        at, labels, valid = question
        trained_on = valid & ~tested[:, None]
        weights = _balanced(labels, trained_on, asked.classes)
        classes = jnp.any((labels[..., None] == jnp.arange(asked.classes)) & trained_on[..., None], (1, 2))

        def states(embed, rows, at):
            nothing = lambda logits, _: jnp.zeros(len(logits))  # noqa: E731
            return experiment.by_rows(params | {"embed": embed}, Tokens(rows, None), at, nothing)[1][-1]

        before = states(table, asked.rows, at)
        mean = jnp.mean(before, (0, 1))
        scale = jnp.sqrt(jnp.mean((before - mean) ** 2)) + 1e-20

        def answers(probe, rows, at):
            embed = table + probe["b"] @ probe["a"]
            seen = (states(embed, rows, at) - mean) / scale
            of_classes = jnp.einsum("npd,cdk->cnpk", seen, probe["kernel"]) + probe["bias"][:, None, None]
            return jnp.where(classes[:, None, None], of_classes, -1e9)

        def loss(probe, rows):
            scored = answers(probe, asked.rows[rows], at[rows])
            losses = optax.softmax_cross_entropy_with_integer_labels(scored, labels[:, rows])
            return jnp.sum(losses * weights[:, rows]) / (BATCH * jnp.maximum(jnp.sum(valid.any((1, 2))), 1))

        def start(labels, trained_on):
            flat = ((before - mean) / scale).reshape(-1, before.shape[-1])
            return fit(flat, labels.reshape(-1), trained_on.reshape(-1), asked.classes, alpha)

        kernel, bias = jax.vmap(start)(labels, trained_on)
        a = jax.random.normal(jax.random.key(0), (RANK, table.shape[1]), table.dtype) * table.shape[1] ** -0.5
        probe = {"a": a, "b": jnp.zeros((table.shape[0], RANK), table.dtype), "kernel": kernel, "bias": bias}
        rule = optax.adamw(optax.linear_schedule(LEARNING_RATE, 0.0, STEPS), weight_decay=WEIGHT_DECAY)

        def step(carry, number):
            probe, state = carry
            key = jax.random.fold_in(jax.random.key(1), number)
            rows = training[jax.random.randint(key, (BATCH,), 0, fitted)]
            updates, state = rule.update(jax.grad(loss)(probe, rows), state, probe)
            return (optax.apply_updates(probe, updates), state), None

        (probe, _), _ = jax.lax.scan(step, (probe, rule.init(probe)), jnp.arange(STEPS))
        read = answers(probe, asked.rows, at).argmax(-1).reshape(len(labels), -1)
        shown = (valid & tested[:, None]).reshape(len(labels), -1)
        return jnp.stack(agreement(read, labels.reshape(read.shape), shown, asked.classes))

    return jnp.moveaxis(jax.lax.map(of_concept, (asked.at, asked.labels, asked.valid)), 0, 1)


def _balanced(labels, valid, classes: int) -> Float[Array, "C N P"]:
    """Weights with the mean 1 over the rows by which all classes of a parameter weigh the same; 0 where not valid."""
    of_class = jax.nn.one_hot(labels, classes) * valid[..., None]
    counts = jnp.sum(of_class, (1, 2), keepdims=True)
    shares = of_class / jnp.maximum(counts * jnp.sum(counts > 0, -1, keepdims=True), 1)
    return jnp.sum(shares, -1) * labels.shape[1]


def named(metric: str, scored: Float[Array, "3 K C"], concepts: dict[str, tuple[int, int]]) -> dict[str, Named]:
    """By concept, the means over its parameters of `scores`. concepts: name -> numbers of parameters and classes."""
    measured = {}
    for row, (name, (parameters, classes)) in enumerate(concepts.items()):
        accuracy, balanced, mcc = jnp.mean(scored[:, row, :parameters], -1)
        measured |= {
            f"{metric}/{name}": Named(accuracy, unit="fraction"),
            f"{metric}_balanced/{name}": Named(balanced, unit="fraction", chance=1 / classes),
            f"{metric}_mcc/{name}": Named(mcc, unit="correlation", chance=0.0),
        }
    return measured
