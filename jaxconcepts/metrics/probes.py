"""A linear probe beside CD: how well a ridge classifier, fitted in closed form, reads the concept off hidden states.

One-vs-rest regression on targets of -1 and 1 with an intercept that is not penalised, as scikit-learn's
RidgeClassifier, cross-validated, batched over every leading axis of hidden [..., N, d].
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Num, Shaped

from jaxconcepts.metrics.inputs import check_points


def linear_probe(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    folds: int = 5,
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
    return jnp.mean((predicted == points.concepts).astype(jnp.float32), -1)


def probed_concepts(
    hidden: Num[Array, "*lead N d"],
    concepts: Shaped[Array, " N"],
    folds: int = 5,
    alpha: float = 1.0,
    *,
    num_concepts: int | None = None,
    group: Int[Array, " N"] | None = None,
) -> Int[Array, "*lead N"]:
    """The concept that the probe fitted on the other folds gives each point, as an index into the sorted labels."""
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
    if group is not None and np.shape(group) != (total,):
        raise ValueError(f"group must have one number for each of the {total} points, got shape {np.shape(group)}")
    fold = None if group is None else jnp.asarray(group) % folds
    run = partial(_predict, alpha=alpha, folds=folds, num_concepts=points.num_concepts, fold=fold)
    return points, points.run(run, concepts=True)


@partial(jax.jit, static_argnames=("folds", "num_concepts"))
def _predict(hidden, concepts, *, alpha, folds, num_concepts, fold=None):
    fold = stratified_folds(concepts, num_concepts, folds) if fold is None else fold
    targets = jnp.where(concepts[:, None] == jnp.arange(num_concepts), 1.0, -1.0).astype(hidden.dtype)

    def predict(states):
        # The shared mean goes first, so that the products of each fold keep their digits.
        states = states - jnp.mean(states, 0)
        scores = lax.map(lambda held_out: _scores(states, targets, fold != held_out, alpha), jnp.arange(folds))
        return jnp.argmax(scores[fold, jnp.arange(len(fold))], -1)

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
    factor = jax.scipy.linalg.cho_factor(gram + alpha * jnp.eye(len(gram), dtype=gram.dtype))
    return jax.scipy.linalg.cho_solve(factor, right)
