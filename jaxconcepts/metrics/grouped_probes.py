"""Linear probes of many concepts at once: every layer is solved once a fold, whatever the number of concepts.

The classifier is that of `probes` (one-vs-rest ridge regression on targets of -1 and 1, the intercept not penalised, as
scikit-learn's RidgeClassifier). Folds split no group: points of one string, problem or person share what they say of
others of the group, so a probe that had seen some of them would be scored too high.

Solved and decided in float64. What a probe cannot decide, since the states are not finite or nothing is fitted on, is
-1 or NaN, and its scores are NaN.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxconcepts.float64 import in_double
from jaxconcepts.metrics import probes


def read_off(
    hidden: Float[Array, "*lead N d"],
    labels: Int[Array, "C N"],
    classes: tuple[int, ...],
    group: Int[Array, " N"],
    folds: int = 5,
    alpha: float = 1.0,
) -> Int[Array, "*lead C N"]:
    """The label of each of C concepts that a probe fitted on the other folds gives each point, -1 where it cannot.

    labels: from 0 to that concept's number of `classes` (static) less one. group: [N], integers; the points of group g
    are in fold g modulo `folds`. alpha: weight of the squared coefficients.
    Raises ValueError for shapes that do not fit, and for fewer than 2 folds.
    """

    def read(scores):
        return jnp.stack([probes.decided(part) for part in jnp.split(scores, np.cumsum(classes)[:-1], -1)])

    return _of_layers(read, hidden, labels, classes, group, folds, alpha)


def decisions(
    hidden: Float[Array, "*lead N d"],
    labels: Int[Array, "C N"],
    classes: tuple[int, ...],
    group: Int[Array, " N"],
    folds: int = 5,
    alpha: float = 1.0,
) -> Float[Array, "*lead N all_classes"]:
    """The decision values behind `read_off`, those of the C concepts' classes one after another; raises as it does."""
    return _of_layers(lambda scores: scores, hidden, labels, classes, group, folds, alpha)


def _of_layers(function, hidden, labels, classes, group, folds, alpha):
    """`function(decision values [N, all classes])` of every layer."""
    points = jnp.shape(hidden)[-2]
    if jnp.shape(labels) != (len(classes), points) or jnp.shape(group) != (points,):
        raise ValueError(
            f"labels must be [{len(classes)}, {points}] and group [{points}], for each of classes and points; got "
            f"{jnp.shape(labels)} and {jnp.shape(group)}"
        )
    if folds < 2:
        raise ValueError(f"folds must be an integer of at least 2, got {folds}")

    def of_all(hidden, labels, group, alpha):
        fold, weights = group % folds, group % folds != jnp.arange(folds)[:, None]
        targets = [probes.signs(row, count) for row, count in zip(labels, classes, strict=True)]

        def of_layer(states):
            return function(probes.scores_of_folds(states, jnp.concatenate(targets, 1), weights, fold, alpha))

        made = lax.map(of_layer, hidden.reshape(-1, *hidden.shape[-2:]))
        return made.reshape(*hidden.shape[:-2], *made.shape[1:])

    return in_double(of_all, hidden, labels, group, alpha)


def fit(
    states: Float[Array, "N d"], labels: Int[Array, " N"], fitted: Bool[Array, " N"], classes: int, alpha: float
) -> tuple[Float[Array, "d classes"], Float[Array, " classes"]]:
    """Coefficients and intercepts of a probe on the points in `fitted`, every class with the same weight.

    As scikit-learn's RidgeClassifier(alpha, class_weight="balanced"), whose scores are states @ coefficients +
    intercepts. A class that no point has is never read off. All are 0 where no point is fitted.
    """

    def of_states(states, labels, fitted, alpha):
        centre = jnp.mean(states, 0)
        scaled, unit = probes.to_one(states - centre)
        weight = _balanced(labels, fitted, classes)
        coefficients, mean, intercept = probes.solve(
            scaled, probes.signs(labels, classes), weight, alpha / unit / unit
        )  # fmt: skip
        product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
        made = coefficients / unit, intercept - product(mean + centre / unit, coefficients)
        return jax.tree.map(lambda part: jnp.where(jnp.any(fitted), part, 0), made)

    return in_double(of_states, states, labels, fitted, alpha)


def _balanced(labels, fitted, classes) -> Float[Array, " N"]:
    """Weights of the points in `fitted`: a class' points together weigh as much as another's, and all of them as many
    as there are."""
    of_class = (labels[:, None] == jnp.arange(classes)) & fitted[:, None]
    counts = jnp.sum(of_class, 0)
    each = jnp.sum(counts) / jnp.maximum(jnp.sum(counts > 0) * counts, 1).astype(jnp.float64)
    return jnp.sum(of_class * each, 1)


def read_masked(
    hidden: Float[Array, "*lead N d"],
    labels: Int[Array, "C N"],
    valid: Bool[Array, "C N"],
    classes: int,
    group: Int[Array, " N"],
    folds: int,
    alpha: float,
) -> Int[Array, "*lead C N"]:
    """As `read_off`, of concepts that are each defined at the `valid` points alone, with classes of equal weight
    (`fit`). What stands at other points means nothing."""

    def of_all(hidden, labels, valid, group, alpha):
        fold = group % folds

        def of_concept(states, label, counts):
            weights = lax.map(lambda number: _balanced(label, counts & (fold != number), classes), jnp.arange(folds))
            return probes.decided(probes.scores_of_folds(states, probes.signs(label, classes), weights, fold, alpha))

        of_layer = lambda states: lax.map(lambda one: of_concept(states, *one), (labels, valid))  # noqa: E731
        made = lax.map(of_layer, hidden.reshape(-1, *hidden.shape[-2:]))
        return made.reshape(*hidden.shape[:-2], *labels.shape)

    return in_double(of_all, hidden, labels, valid, group, alpha)


def rightly(read: Int[Array, "*lead N"], labels: Int[Array, "*#lead N"]) -> Float[Array, "*lead"]:
    """How often what is read is the label; NaN where a probe could not decide (-1)."""
    return jnp.where(jnp.all(read >= 0, -1), jnp.mean(read == labels, -1, dtype=jnp.float32), jnp.nan)


def agreement(
    predicted: Int[Array, "*lead C N"], labels: Int[Array, "C N"], valid: Bool[Array, "C N"], classes: int
) -> tuple[Float[Array, "*lead C"], Float[Array, "*lead C"], Float[Array, "*lead C"]]:
    """Accuracy, balanced accuracy (the mean recall of the classes that there are) and Matthews' correlation of any
    number of classes (0 where either side is always the same), over the `valid` points of each concept.

    NaN for a concept without such points, and where a probe could not decide (-1) at one of them.
    """
    one_hot = lambda a: jax.nn.one_hot(a, classes) * valid[..., None]  # noqa: E731
    counts = jnp.einsum("...cnt,...cnp->...ctp", one_hot(labels), one_hot(predicted))
    known = jnp.any(valid, -1) & jnp.all((predicted >= 0) | ~valid, -1)
    # Squares of many points leave float32 no digits of a rare class.
    return jax.tree.map(lambda score: jnp.where(known, score, jnp.nan), in_double(_agreement, counts))


def _agreement(counts):
    true, read, total = counts.sum(-1), counts.sum(-2), counts.sum((-1, -2))
    right = jnp.trace(counts, axis1=-2, axis2=-1)
    hits = jnp.diagonal(counts, axis1=-2, axis2=-1)
    recall = jnp.sum(hits / jnp.maximum(true, 1), -1) / jnp.maximum(jnp.sum(true > 0, -1), 1)
    spread = jnp.sqrt((total**2 - jnp.sum(true**2, -1)) * (total**2 - jnp.sum(read**2, -1)))
    covariance = right * total - jnp.sum(true * read, -1)
    correlation = jnp.where(spread > 0, covariance / jnp.where(spread > 0, spread, 1), 0.0)
    return right / jnp.maximum(total, 1), recall, correlation


def matthews(predicted: Int[Array, "*lead N"], labels: Int[Array, "*#lead N"]) -> Float[Array, "*lead"]:
    """Matthews' correlation of predictions with labels that are 0 or 1; 0 where either is always the same, NaN where a
    probe could not decide (-1)."""
    a, b = (x.astype(jnp.float32) - jnp.mean(x, -1, keepdims=True) for x in (predicted, labels))
    spread = jnp.sqrt(jnp.mean(a * a, -1) * jnp.mean(b * b, -1))
    correlation = jnp.where(spread > 0, jnp.mean(a * b, -1) / jnp.where(spread > 0, spread, 1.0), 0.0)
    return jnp.where(jnp.all(predicted >= 0, -1), correlation, jnp.nan)


def area_under_curve(scores: Float[Array, "*lead N"], labels: Int[Array, " N"]) -> Float[Array, "*lead"]:
    """How often a point of label 1 scores above one of label 0, ties counting half: the area under the ROC curve. NaN
    where all labels are the same."""
    pairs = ((labels == 1)[:, None] & (labels == 0)).astype(jnp.float32)

    def of_one(score):
        above = jnp.sign(score[:, None] - score) * 0.5 + 0.5
        return jnp.sum(above * pairs) / jnp.sum(pairs)

    return lax.map(of_one, scores.reshape(-1, scores.shape[-1])).reshape(scores.shape[:-1])
