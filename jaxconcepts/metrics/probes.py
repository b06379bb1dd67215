"""A linear probe beside CD: how well a ridge classifier, fitted in closed form, reads the concept off hidden states.

One-vs-rest regression on targets of -1 and 1 with an intercept that is not penalised, as scikit-learn's
RidgeClassifier, cross-validated, batched over every leading axis of hidden [..., N, d]. Solved in float64, since the
squares of one massive dimension leave float32 no digits of the others.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Num, Shaped

from jaxconcepts.float64 import in_double
from jaxconcepts.metrics.inputs import check_points

FOLDS = 5


def linear_probe(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    folds: int = FOLDS,
    alpha: float = 1.0,
    *,
    num_concepts: int | None = None,
    group: Shaped[Array, " N"] | None = None,
) -> Float[Array, "*lead"]:
    """Cross-validated accuracy: the fraction of points that a probe fitted on the other folds classifies right.

    Folds are `stratified_folds`; with `group` (labels of any kind, inside jit integers) the points of one group, such
    as those of a person or a problem, are in one fold: groups are dealt out to the folds in their sorted order. alpha:
    weight of the squared coefficients, may be traced.

    Raises ValueError for folds outside 2 to N, labels or groups of another length, and (outside jit) hidden states that
    are not finite.
    """
    points, predicted = _probe(hidden, concepts, folds, alpha, num_concepts, group)
    right = (predicted == points.concepts).astype(jnp.float32)
    # No number that is not one passes for a decision.
    return jnp.mean(jnp.where(predicted >= 0, right, jnp.nan), -1)


def probed_concepts(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    folds: int = 5,
    alpha: float = 1.0,
    *,
    num_concepts: int | None = None,
    group: Shaped[Array, " N"] | None = None,
) -> Int[Array, "*lead N"]:
    """The concept that the probe fitted on the other folds gives each point, as an index into the sorted labels.

    -1 where the decision is not a number (only inside jit, of states that are not finite).
    """
    return _probe(hidden, concepts, folds, alpha, num_concepts, group)[1]


def stratified_folds(concepts: Int[Array, " N"], num_concepts: int, folds: int) -> Int[Array, " N"]:
    """The fold of each point: the i-th point of every concept goes to fold i modulo `folds`."""
    own = concepts[:, None] == jnp.arange(num_concepts)
    place = jnp.sum(jnp.where(own, jnp.cumsum(own, 0) - 1, 0), -1)
    return place % folds


def _probe(hidden, concepts, folds, alpha, num_concepts, group=None):
    points = check_points(hidden, concepts, None, num_concepts)
    total = points.hidden.shape[-2]
    if group is not None and np.shape(group) != (total,):
        raise ValueError(f"group must have one number for each of the {total} points, got shape {np.shape(group)}")
    if not 2 <= folds <= total:
        raise ValueError(f"folds must be an integer from 2 to the {total} points, got {folds}")
    if group is None:
        fold = stratified_folds(jnp.asarray(points.concepts), points.num_concepts, folds)
    else:
        # By number from 0 on: those that come here may all share a divisor.
        numbers = check_points(points.hidden, None, None, None, group).group
        fold = jnp.unique(jnp.asarray(numbers), size=total, return_inverse=True)[1] % folds
    run = partial(_predict, folds=folds, num_concepts=points.num_concepts)
    return points, in_double(run, points.hidden, points.concepts, fold, alpha)


@partial(jax.jit, static_argnames=("folds", "num_concepts"))
def _predict(hidden, concepts, fold, alpha, *, folds, num_concepts):
    targets = signs(concepts, num_concepts)
    weights = fold != jnp.arange(folds)[:, None]

    def predict(states):
        return decided(scores_of_folds(states, targets, weights, fold, alpha))

    flat = hidden.reshape(-1, *hidden.shape[-2:])
    return lax.map(predict, flat).reshape(hidden.shape[:-1])


def signs(labels: Int[Array, " N"], classes: int) -> Float[Array, "N K"]:
    """The targets of the classes: 1 at the points that have it, else -1; float64, as what follows."""
    return jnp.where(labels[:, None] == jnp.arange(classes), 1.0, -1.0).astype(jnp.float64)


def decided(scores: Float[Array, "N K"]) -> Int[Array, " N"]:
    """The class of the largest score, the smallest of equals; -1 where one is not a number."""
    # XLA's argmax of float64 does not lower where float64 is off outside.
    most = jnp.where(scores == jnp.max(scores, -1, keepdims=True), jnp.arange(scores.shape[-1]), scores.shape[-1])
    return jnp.where(jnp.all(jnp.isfinite(scores), -1), jnp.min(most, -1), -1).astype(jnp.int32)


def scores_of_folds(
    states: Float[Array, "N d"],
    targets: Float[Array, "N K"],
    weights: Shaped[Array, "folds N"],
    fold: Int[Array, " N"],
    alpha: Float[Array, ""],
) -> Float[Array, "N K"]:
    """The decision values of each point by the probe of its fold, which is fitted on all points with that fold's
    weights. In float64 (`in_double`); NaN where a fold has no weight."""
    # The shared mean goes first, so that the products of each fold keep their digits.
    states, unit = to_one(states - jnp.mean(states, 0))

    def of_fold(weight):
        coefficients, mean, intercept = solve(states, targets, weight.astype(states.dtype), alpha / unit / unit)
        return jnp.matmul(states - mean, coefficients, precision=lax.Precision.HIGHEST) + intercept

    return lax.map(of_fold, weights)[fold, jnp.arange(len(fold))]


def to_one(states: Float[Array, "N d"]) -> tuple[Float[Array, "N d"], Float[Array, ""]]:
    """The states over their largest entry, so that no square leaves the floats' range, and this entry."""
    largest = jnp.max(jnp.abs(states))
    unit = jnp.where(largest > 0, largest, 1)
    return states / unit, unit


def solve(
    states: Float[Array, "N d"], targets: Float[Array, "N K"], weight: Float[Array, " N"], alpha: Float[Array, ""]
) -> tuple[Float[Array, "d K"], Float[Array, " d"], Float[Array, " K"]]:
    """Coefficients of the weighted ridge regression, the states' mean and the targets' there: a point's decision values
    are (state - mean) @ coefficients + intercept. The smaller of the two systems is solved."""
    weight = weight[:, None]
    mean, intercept = (jnp.sum(weight * x, 0) / jnp.sum(weight) for x in (states, targets))
    x, y = (jnp.sqrt(weight) * part for part in (states - mean, targets - intercept))
    points, width = x.shape
    product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    if width <= points:
        return _solve(product(x.T, x), product(x.T, y), alpha), mean, intercept
    return product(x.T, _solve(product(x, x.T), y, alpha)), mean, intercept


def _solve(gram, right, alpha):
    # A penalty below rounding leaves directions without variance to chance: the least that still decides them.
    least = len(gram) * jnp.finfo(gram.dtype).eps * jnp.max(jnp.diagonal(gram))
    factor = jax.scipy.linalg.cho_factor(gram + jnp.maximum(alpha, least) * jnp.eye(len(gram), dtype=gram.dtype))
    return jax.scipy.linalg.cho_solve(factor, right)
