"""Linear probes of many concepts at once: every layer is solved once a fold, whatever the number of concepts.

The classifier is that of `probes` (one-vs-rest ridge regression on targets of -1 and 1, the intercept not penalised, as
scikit-learn's RidgeClassifier). Folds split no group: points of one string, problem or person share what they say of
others of the group, so a probe that had seen some of them would be scored too high.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int


def read_off(
    hidden: Float[Array, "*lead N d"],
    labels: Int[Array, "C N"],
    classes: tuple[int, ...],
    group: Int[Array, " N"],
    folds: int = 5,
    alpha: float = 1.0,
) -> Int[Array, "*lead C N"]:
    """The label of each of C concepts that a probe fitted on the other folds gives each point.

    labels: from 0 to that concept's number of `classes` (static) less one. group: [N], integers; the points of group g
    are in fold g modulo `folds`. alpha: weight of the squared coefficients.
    Raises ValueError for shapes that do not fit, and for fewer than 2 folds.
    """
    scores = decisions(hidden, labels, classes, group, folds, alpha)
    return jnp.stack([jnp.argmax(part, -1) for part in jnp.split(scores, np.cumsum(classes)[:-1], -1)], -2)


def decisions(
    hidden: Float[Array, "*lead N d"],
    labels: Int[Array, "C N"],
    classes: tuple[int, ...],
    group: Int[Array, " N"],
    folds: int = 5,
    alpha: float = 1.0,
) -> Float[Array, "*lead N all_classes"]:
    """The decision values behind `read_off`, those of the C concepts' classes one after another; raises as it does."""
    points = jnp.shape(hidden)[-2]
    if jnp.shape(labels) != (len(classes), points) or jnp.shape(group) != (points,):
        raise ValueError(
            f"labels must be [{len(classes)}, {points}] and group [{points}], for each of classes and points; got "
            f"{jnp.shape(labels)} and {jnp.shape(group)}"
        )
    if folds < 2:
        raise ValueError(f"folds must be an integer of at least 2, got {folds}")
    return _decisions(jnp.asarray(hidden), jnp.asarray(labels), classes, jnp.asarray(group), folds, alpha)


@partial(jax.jit, static_argnums=(2, 4))
def _decisions(hidden, labels, classes, group, folds, alpha):
    fold = group % folds
    each = [jnp.where(row[:, None] == jnp.arange(count), 1.0, -1.0) for row, count in zip(labels, classes, strict=True)]
    targets = jnp.concatenate(each, 1).astype(hidden.dtype)

    def of_layer(states):
        # The shared mean goes first, so that the products of each fold keep their digits.
        states = states - jnp.mean(states, 0)
        scores = lax.map(lambda held_out: _scores(states, targets, fold != held_out, alpha), jnp.arange(folds))
        return scores[fold, jnp.arange(len(fold))]

    flat = hidden.reshape(-1, *hidden.shape[-2:])
    return lax.map(of_layer, flat).reshape(*hidden.shape[:-1], sum(classes))


def _scores(states, targets, fitted, alpha):
    """Decision values [N, all classes] of all points from the points in `fitted`."""
    weight = fitted.astype(states.dtype)[:, None]
    mean, intercept = (jnp.sum(weight * x, 0) / jnp.sum(weight) for x in (states, targets))
    product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    x, y = weight * (states - mean), weight * (targets - intercept)
    gram = product(x.T, x) + alpha * jnp.eye(states.shape[1], dtype=states.dtype)
    coefficients = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(gram), product(x.T, y))
    return product(states - mean, coefficients) + intercept


def fit(
    states: Float[Array, "N d"], labels: Int[Array, " N"], fitted: Bool[Array, " N"], classes: int, alpha: float
) -> tuple[Float[Array, "d classes"], Float[Array, " classes"]]:
    """Coefficients and intercepts of a probe on the points in `fitted`, every class with the same weight.

    As scikit-learn's RidgeClassifier(alpha, class_weight="balanced"), whose scores are states @ coefficients +
    intercepts. A class that no point has is never read off.
    """
    of_class = (labels[:, None] == jnp.arange(classes)) & fitted[:, None]
    counts = jnp.sum(of_class, 0)
    # A class' points together weigh as much as another's, and all of them as many as there are.
    each = jnp.sum(counts) / jnp.maximum(jnp.sum(counts > 0) * counts, 1)
    weight = jnp.sum(of_class * each, 1, keepdims=True).astype(states.dtype)
    targets = jnp.where(of_class, 1.0, -1.0).astype(states.dtype)
    mean, centre = (jnp.sum(weight * x, 0) / jnp.maximum(jnp.sum(weight), 1) for x in (states, targets))
    product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    x = states - mean
    gram = product((weight * x).T, x) + alpha * jnp.eye(states.shape[1], dtype=states.dtype)
    right = product((weight * x).T, targets - centre)
    coefficients = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(gram), right)
    return coefficients, centre - product(mean, coefficients)


@partial(jax.jit, static_argnums=(3, 5))
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

    def of_concept(states, label, counts):
        def scores(fold):
            coefficients, intercepts = fit(states, label, counts & (group % folds != fold), classes, alpha)
            return jnp.matmul(states, coefficients, precision=lax.Precision.HIGHEST) + intercepts

        of_folds = lax.map(scores, jnp.arange(folds))
        return jnp.argmax(of_folds[group % folds, jnp.arange(len(label))], -1)

    flat = hidden.reshape(-1, *hidden.shape[-2:])
    of_layer = lambda states: lax.map(lambda one: of_concept(states, *one), (labels, valid))  # noqa: E731
    return lax.map(of_layer, flat).reshape(*hidden.shape[:-2], *labels.shape)


def agreement(
    predicted: Int[Array, "*lead C N"], labels: Int[Array, "C N"], valid: Bool[Array, "C N"], classes: int
) -> tuple[Float[Array, "*lead C"], Float[Array, "*lead C"], Float[Array, "*lead C"]]:
    """Accuracy, balanced accuracy (the mean recall of the classes that there are) and Matthews' correlation of any
    number of classes (0 where either side is always the same), over the `valid` points of each concept."""
    one_hot = lambda a: jax.nn.one_hot(a, classes) * valid[..., None]  # noqa: E731
    counts = jnp.einsum("...cnt,...cnp->...ctp", one_hot(labels), one_hot(predicted))
    true, read, total = counts.sum(-1), counts.sum(-2), counts.sum((-1, -2))
    right = jnp.trace(counts, axis1=-2, axis2=-1)
    hits = jnp.diagonal(counts, axis1=-2, axis2=-1)
    recall = jnp.sum(hits / jnp.maximum(true, 1), -1) / jnp.maximum(jnp.sum(true > 0, -1), 1)
    spread = jnp.sqrt((total**2 - jnp.sum(true**2, -1)) * (total**2 - jnp.sum(read**2, -1)))
    covariance = right * total - jnp.sum(true * read, -1)
    correlation = jnp.where(spread > 0, covariance / jnp.where(spread > 0, spread, 1), 0.0)
    return right / jnp.maximum(total, 1), recall, correlation


def matthews(predicted: Int[Array, "*lead N"], labels: Int[Array, "*#lead N"]) -> Float[Array, "*lead"]:
    """Matthews' correlation of predictions with labels that are 0 or 1; 0 where either is always the same."""
    a, b = (x.astype(jnp.float32) - jnp.mean(x, -1, keepdims=True) for x in (predicted, labels))
    spread = jnp.sqrt(jnp.mean(a * a, -1) * jnp.mean(b * b, -1))
    return jnp.where(spread > 0, jnp.mean(a * b, -1) / jnp.where(spread > 0, spread, 1.0), 0.0)


def area_under_curve(scores: Float[Array, "*lead N"], labels: Int[Array, " N"]) -> Float[Array, "*lead"]:
    """How often a point of label 1 scores above one of label 0, ties counting half: the area under the ROC curve. NaN
    where all labels are the same."""
    pairs = ((labels == 1)[:, None] & (labels == 0)).astype(jnp.float32)

    def of_one(score):
        above = jnp.sign(score[:, None] - score) * 0.5 + 0.5
        return jnp.sum(above * pairs) / jnp.sum(pairs)

    return lax.map(of_one, scores.reshape(-1, scores.shape[-1])).reshape(scores.shape[:-1])
