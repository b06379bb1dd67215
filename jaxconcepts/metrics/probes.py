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
    group: Int[Array, " N"] | None = None,
) -> Float[Array, "*lead"]:
    """Cross-validated accuracy: the fraction of points that a probe fitted on the other folds classifies right.

    Folds are `stratified_folds`; with `group` (whole numbers, best 0, 1, ...) the points of one group, such as those of
    a person or a problem, are in one fold, `group` modulo `folds`. alpha: weight of the squared coefficients, may be
    traced.

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
    group: Int[Array, " N"] | None = None,
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
    if not 2 <= folds <= total:
        raise ValueError(f"folds must be an integer from 2 to the {total} points, got {folds}")
    if group is None:
        fold = stratified_folds(jnp.asarray(points.concepts), points.num_concepts, folds)
    elif np.shape(group) != (total,):
        raise ValueError(f"group must have one number for each of the {total} points, got shape {np.shape(group)}")
    else:
        fold = jnp.asarray(group) % folds
    run = partial(_predict, folds=folds, num_concepts=points.num_concepts)
    return points, in_double(run, points.hidden, points.concepts, fold, alpha)


@partial(jax.jit, static_argnames=("folds", "num_concepts"))
def _predict(hidden, concepts, fold, alpha, *, folds, num_concepts):
    targets = jnp.where(concepts[:, None] == jnp.arange(num_concepts), 1.0, -1.0).astype(hidden.dtype)

    def predict(states):
        # The shared mean goes first, so that the products of each fold keep their digits; to one, so that no square
        # leaves the floats' range: the penalty follows.
        states = states - jnp.mean(states, 0)
        largest = jnp.max(jnp.abs(states))
        unit = jnp.where(largest > 0, largest, 1)
        penalty = alpha / unit / unit
        scores = lax.map(
            lambda held_out: _scores(states / unit, targets, fold != held_out, penalty), jnp.arange(folds)
        )[fold, jnp.arange(len(fold))]
        # XLA's argmax of float64 does not lower where float64 is off outside.
        most = jnp.where(scores == jnp.max(scores, -1, keepdims=True), jnp.arange(num_concepts), num_concepts)
        return jnp.where(jnp.all(jnp.isfinite(scores), -1), jnp.min(most, -1), -1).astype(jnp.int32)

    flat = hidden.reshape(-1, *hidden.shape[-2:])
    return lax.map(predict, flat).reshape(hidden.shape[:-1])


def _scores(states, targets, fitted, alpha):
    """Decision values [N, K] of all points from the points in `fitted`; the smaller of the two systems is solved."""
    weight = fitted.astype(states.dtype)[:, None]
    mean, intercept = (jnp.sum(weight * x, 0) / jnp.sum(weight) for x in (states, targets))
    x, y = weight * (states - mean), weight * (targets - intercept)
    points, width = x.shape
    product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    if width <= points:
        coefficients = _solve(product(x.T, x), product(x.T, y), alpha)
    else:
        coefficients = product(x.T, _solve(product(x, x.T), y, alpha))
    return product(states - mean, coefficients) + intercept


def _solve(gram, right, alpha):
    # A penalty below rounding leaves directions without variance to chance: the least that still decides them.
    least = len(gram) * jnp.finfo(gram.dtype).eps * jnp.max(jnp.diagonal(gram))
    factor = jax.scipy.linalg.cho_factor(gram + jnp.maximum(alpha, least) * jnp.eye(len(gram), dtype=gram.dtype))
    return jax.scipy.linalg.cho_solve(factor, right)
