"""Lasso after every pair of a sequence, exactly, in float64: the path of its solutions from event to event."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxconcepts.float64 import double_inside

PATH_EVENTS = 8  # at most this many per dimension; about one is usual
# How far from the optimality conditions a lasso may be, relative to the largest correlation and the penalty.
OPTIMAL = 1e-7


def predictions(inputs, targets, alpha):
    """[B, n]: lasso fitted on the pairs before. With fewer pairs than dimensions coordinate descent needs thousands of
    sweeps, so the solution is followed exactly, from the penalty at which it is zero down to alpha; in float64, since
    with much noise the weights are large and nearly cancel."""

    def sequences(inputs, targets):
        with jax.enable_x64(True):
            wide = (part.astype(jnp.float64) for part in (inputs, targets))
            return _sequences(*wide, alpha).astype(jnp.float32)

    return double_inside(sequences)(inputs, targets)


def _sequences(inputs, targets, alpha):
    dim = inputs.shape[-1]

    def sequence(xs, ys):
        def observe(state, pair):
            gram, moment, count, weights = state
            x, y = pair
            mean = jnp.sum(x * weights)
            gram, moment, count = gram + jnp.outer(x, x), moment + x * y, count + 1
            after = path(gram, moment, count, alpha * count)
            return (gram, moment, count, if_optimal(after, gram, moment, alpha * count)), mean

        start = jnp.zeros((dim, dim)), jnp.zeros(dim), jnp.zeros(()), jnp.zeros(dim)
        return jax.lax.scan(observe, start, (xs, ys))[1]

    return jax.vmap(sequence)(inputs, targets)


def path(gram, moment, count, target):
    """[D]: argmin_w w.G w / 2 - c.w + target |w|_1 for G = X^T X [D, D], c = X^T y [D] of `count` pairs.

    The homotopy of Osborne, Presnell and Turlach (2000; LARS with the lasso change, Efron et al. 2004): between events
    w is linear in the penalty; at an event one dimension joins the active set A (its correlation with the residual
    reaches the penalty) or leaves it (its weight reaches zero), a rank-one update of inverse = (G_AA)^-1.
    """

    def unfinished(state):
        events, penalty, *_ = state
        return (penalty > target) & (events < PATH_EVENTS * gram.shape[0])

    def advance(state):
        events, penalty, weights, signs, inverse = state
        active = signs != 0
        # On A the correlation is penalty * sign; what rounding took from that is given back.
        weights += times(inverse, jnp.where(active, moment - times(gram, weights) - penalty * signs, 0.0))
        weights = jnp.where(active, weights, 0.0)
        correlation = moment - times(gram, weights)
        direction = times(inverse, signs)
        decrease = times(gram, direction)

        # How far the penalty can fall before each dimension joins with sign +, with sign -, or leaves. A dimension that
        # has just left moves away from the penalty, one that has just joined away from zero: neither event repeats.
        free = ~active & (jnp.sum(active) < count)
        joins_plus = _until(penalty - correlation, 1 - decrease, free)
        joins_minus = _until(penalty + correlation, 1 + decrease, free)
        leaves = _until(jnp.abs(weights), -direction * signs, active)
        falls = jnp.stack([joins_plus, joins_minus, leaves])
        fall = jnp.minimum(jnp.min(falls), penalty - target)
        # The first of the least; XLA's argmin of float64 does not lower where float64 is off outside.
        place = jnp.where(falls == jnp.min(falls), jnp.arange(falls.size).reshape(falls.shape), falls.size - 1)
        kind, chosen = jnp.divmod(jnp.min(place), gram.shape[0])
        one_hot = jnp.arange(gram.shape[0]) == chosen
        event = jnp.where(jnp.min(falls) < penalty - target, kind, -1)
        leaving = event == 2

        column = times(gram, one_hot)
        edge = jnp.where(leaving, times(inverse, one_hot), one_hot - times(inverse, column))
        pivot = jnp.where(leaving, -jnp.sum(edge * one_hot), jnp.sum(edge * column))
        scale = jnp.where(event >= 0, 1 / jnp.where(pivot == 0, 1.0, pivot), 0.0)
        sign = jnp.asarray([1.0, -1.0, 0.0])[event]
        return (
            events + 1,
            jnp.where(event >= 0, penalty - fall, target),
            jnp.where(active & ~(one_hot & leaving), weights + fall * direction, 0.0),
            jnp.where(one_hot & (event >= 0), sign, signs),
            inverse + jnp.outer(edge, edge * scale),
        )

    dim = gram.shape[0]
    start = (0, jnp.max(jnp.abs(moment)), jnp.zeros(dim), jnp.zeros(dim), jnp.zeros((dim, dim)))
    return jax.lax.while_loop(unfinished, advance, start)[2]


def if_optimal(weights, gram, moment, penalty):
    """The weights, NaN where they do not meet the lasso's optimality conditions |c - G w| <= penalty, with equality and
    w's sign where w is not zero: a prediction is right or it is not there."""
    residual = moment - times(gram, weights)
    tolerance = OPTIMAL * (penalty + jnp.max(jnp.abs(moment)))
    off = jnp.where(weights != 0, jnp.abs(residual - penalty * jnp.sign(weights)), jnp.abs(residual) - penalty)
    return jnp.where(jnp.max(off) <= tolerance, weights, jnp.nan)


def _until(distance, speed, possible):
    return jnp.where(possible & (speed > 0), jnp.maximum(distance, 0) / jnp.where(speed > 0, speed, 1), jnp.inf)


def times(matrix, vector):
    """matrix @ vector in full float32 on every backend."""
    return jnp.sum(matrix * vector, axis=-1)
