"""The algorithms a model's in-context loss is drawn against, at every position, on the device.

All read a sequence left to right: the prediction at pair i uses pairs before i only, and is zero at pair 0. Four are
Bayesian linear regressions under the task's own prior, w ~ N(0, diag(std^2)), y = w.x + N(0, noise^2), and differ in
the prior's standard deviations alone:

    oracle   the sequence's own basis is known (for bases="random_support", its own support).
    bayes    the optimum without labels: sum_k p(k | pairs before i) * (prediction within basis k).
    ridge    one variance for all dimensions: the mean over (active) dimensions of sum_k p(k) masks[k]^2, or r/D where
             the support is random and in families. scikit-learn's Ridge(alpha=noise^2 / variance, fit_intercept=False).
    zero     nothing is learned.

Three are Garg et al.'s baselines (arXiv 2208.01066, section 3): lasso, 3-nearest-neighbour averaging (knn3), and
w = mean(x y) (average). Lasso is scikit-learn's Lasso(alpha=0.01, fit_intercept=False), which minimises
|y - X w|^2 / (2 m) + alpha |w|_1 over the m pairs seen; any other alpha goes by its name, "lasso_0.1".
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxconcepts.tasks import lasso
from jaxconcepts.tasks.regression import Batch, RegressionConfig, RegressionHParams

# A noise below this is taken to be this: the predictive variance of a basis that explains the data exactly would be
# rounding error. With w of order 1 this changes no prediction visibly.
NOISE_FLOOR = 1e-4
LASSO_ALPHA = 0.01
NEIGHBOURS = 3


def names(config: RegressionConfig) -> tuple[str, ...]:
    """The references that apply: "bayes" where the concepts are fixed bases, "oracle" where y is linear in x."""
    if config.bases == "families":
        return ("zero", "ridge", "lasso", "knn3", "average")
    if config.bases == "random_support":
        return ("zero", "ridge", "oracle", "lasso", "knn3", "average")
    return ("zero", "ridge", "oracle", "bayes", "lasso", "knn3", "average")


def predict(
    config: RegressionConfig, hparams: RegressionHParams, batch: Batch, names: tuple[str, ...] | None = None
) -> dict[str, Float[Array, "B n"]]:
    """Every reference's predictions [B, n] of the targets, by name; position i from pairs before i only.

    names: which to compute, out of `names(config)` and "lasso_<alpha>"; all of `names(config)` when None.

    Jit-able with `config` and `names` static, vmappable over the rest. float32: within 1e-5 of float64 at noise 0.1 and
    1e-3 at any noise down to 0; lasso within 1e-5 of the optimum at any noise, and NaN where that is not reached.
    Memory grows as B D^2 + B n^2, however many concepts. Raises ValueError for a name that does not apply.
    """
    chosen = _applicable(config) if names is None else tuple(names)
    alphas = {name: _lasso_alpha(config, name) for name in chosen if name.startswith("lasso")}
    _check_names(config, [name for name in chosen if name not in alphas])
    x, y = batch.inputs, batch.targets
    predictions = {}
    for name in chosen:
        if name in alphas:
            predictions[name] = lasso.predictions(x, y, alphas[name])
        elif name == "zero":
            predictions[name] = jnp.zeros_like(y)
        elif name == "ridge":
            predictions[name] = _linear(x, y, _ridge_std(config, hparams), hparams.noise)[0]
        elif name == "oracle":
            predictions[name] = _linear(x, y, _true_std(config, hparams, batch), hparams.noise)[0]
        elif name == "bayes":
            within, evidence = _within_bases(hparams, batch)
            predictions[name] = jnp.sum(_weigh(hparams, evidence) * within, axis=-1)
        elif name == "knn3":
            predictions[name] = _nearest(x, y, NEIGHBOURS)
        elif name == "average":
            predictions[name] = _average(x, y)
    return predictions


def posterior(config: RegressionConfig, hparams: RegressionHParams, batch: Batch) -> Float[Array, "B n K"]:
    """p(concept | pairs before i) under the Bayes mixture, from the prior `concept_weights` at i = 0; rows sum to 1.

    Raises ValueError where the concepts are not fixed bases.
    """
    _check_fixed_bases(config, "the posterior needs")
    return _weigh(hparams, _within_bases(hparams, batch)[1])


def oracles(config: RegressionConfig, hparams: RegressionHParams, batch: Batch) -> Float[Array, "B n K"]:
    """What the oracle of every concept predicts, also of those that a sequence does not have: [..., k] regresses within
    basis k. At a sequence's own concept it is `predict`'s "oracle".

    Raises ValueError where the concepts are not fixed bases.
    """
    _check_fixed_bases(config, "the oracles of all concepts need")
    return _within_bases(hparams, batch)[0]


# `predict` has an argument of this name.
_applicable = names


def _check_fixed_bases(config, needs):
    if "bayes" not in _applicable(config):
        raise ValueError(
            f"{needs} concepts that are fixed bases: task.bases must be one of orthogonal, overlapping, given; got "
            f"{config.bases!r}"
        )


def _check_names(config, chosen):
    unknown = [name for name in chosen if name not in _applicable(config)]
    if unknown:
        raise ValueError(
            f"names must be out of {', '.join(_applicable(config))} and lasso_<alpha> for task.bases = "
            f"{config.bases!r}; got {', '.join(map(repr, unknown))}"
        )


def _lasso_alpha(config, name):
    if name == "lasso":
        return LASSO_ALPHA
    try:
        alpha = float(name.removeprefix("lasso_"))
    except ValueError:
        alpha = -1.0
    if not 0 < alpha < float("inf"):
        raise ValueError(f'names: a lasso is named "lasso" or "lasso_<alpha>", alpha a positive number; got {name!r}')
    return alpha


def _concept_prior(hparams):
    return hparams.concept_weights / jnp.sum(hparams.concept_weights)


def _ridge_std(config, hparams):
    """[D]: the square root of w's prior variance, averaged over concepts and over the dimensions in use."""
    variance = jnp.einsum("k,kd->d", _concept_prior(hparams), hparams.masks**2, precision=jax.lax.Precision.HIGHEST)
    active = jnp.arange(config.dim) < hparams.active_dim
    mean = jnp.sum(variance * active) / jnp.sum(active)
    if config.bases == "random_support":
        mean *= jnp.minimum(config.rank / jnp.sum(active), 1.0)
    if config.bases == "families":
        mean *= config.rank / config.dim
    return jnp.full(config.dim, jnp.sqrt(mean))


def _true_std(config, hparams, batch):
    """[B, D]: the prior's standard deviations in each sequence's own basis."""
    std = hparams.masks[batch.concepts]
    return std * (batch.weights != 0) if config.bases == "random_support" else std


def _within_bases(hparams, batch):
    """Within each basis, predictions and log densities of y_i given the pairs before i: [B, n, K] each."""

    def within(mask):
        return _linear(batch.inputs, batch.targets, mask, hparams.noise)

    # One basis after another: memory does not grow with K.
    means, log_densities = jax.lax.map(within, hparams.masks)
    return jnp.moveaxis(means, 0, -1), jnp.moveaxis(log_densities, 0, -1)


def _weigh(hparams, log_densities):
    """[B, n, K]: posterior over bases before pair i, from predictive log densities [B, n, K]."""
    return jax.nn.softmax(_before(log_densities) + jnp.log(_concept_prior(hparams)), axis=-1)


def _linear(inputs, targets, prior_std, noise):
    """Bayesian linear regression, one pair at a time: mean and log density [B, n] of each y given the pairs before.

    prior_std: [D] or [B, D]. Potter's square-root form of the rank-one update: the posterior covariance P = S S^T never
    loses symmetry or positivity, and float32 resolves sqrt(P) down to the noise floor where it would not resolve P
    (Bierman 1977, Factorization Methods for Discrete Sequential Estimation, chapter V).
    """
    dim = inputs.shape[-1]
    noise_variance = jnp.maximum(noise, NOISE_FLOOR) ** 2

    def sequence(xs, ys, std):
        def observe(state, pair):
            root, weights = state
            x, y = pair
            projected = lasso.times(root.T, x)
            gain = lasso.times(root, projected)
            variance = jnp.sum(projected**2) + noise_variance
            mean = jnp.sum(x * weights)
            error = y - mean
            shrink = 1 / (variance + jnp.sqrt(variance * noise_variance))
            after = root - jnp.outer(gain, projected * shrink), weights + gain * (error / variance)
            return after, (mean, -0.5 * (error**2 / variance + jnp.log(2 * jnp.pi * variance)))

        return jax.lax.scan(observe, (jnp.diag(std), jnp.zeros(dim)), (xs, ys))[1]

    return jax.vmap(sequence)(inputs, targets, jnp.broadcast_to(prior_std, (len(inputs), dim)))


def _before(values):
    """Sums over earlier positions, axis 1. Taking each value off the running sum instead would not do: a basis that is
    ruled out at pair i has a log density of -1e8 there, and float32 would lose all that came before."""
    return jnp.cumsum(jnp.pad(values[:, :-1], [(0, 0), (1, 0)] + [(0, 0)] * (values.ndim - 2)), axis=1)


def _nearest(inputs, targets, neighbours):
    """[B, n]: the mean y of the nearest pairs before (all, where there are fewer), Euclidean, ties to the first."""
    n = inputs.shape[1]
    distance = jnp.sum((inputs[:, :, None] - inputs[:, None]) ** 2, axis=-1)
    before = jnp.arange(n)[None, :] < jnp.arange(n)[:, None]
    ranks = jnp.argsort(jnp.argsort(jnp.where(before, distance, jnp.inf), axis=-1), axis=-1)
    chosen = before & (ranks < neighbours)
    total = jnp.sum(jnp.where(chosen, targets[:, None, :], 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(chosen, axis=-1), 1)


def _average(inputs, targets):
    """[B, n]: x_i . mean_{j<i}(x_j y_j)."""
    moments = inputs * targets[..., None]
    return jnp.sum(inputs * _before(moments), axis=-1) / jnp.maximum(jnp.arange(inputs.shape[1]), 1)
