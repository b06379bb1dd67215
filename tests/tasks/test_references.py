"""References against float64 NumPy from the definitions, scikit-learn, and the published table."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LassoLars, Ridge
from sklearn.neighbors import KNeighborsRegressor

from jaxconcepts.tasks import lasso, references, regression

pytestmark = pytest.mark.usefixtures("compiles_fast")

MIXTURES = {
    "orthogonal": regression.RegressionConfig(num_concepts=3, dim=8, rank=2, num_pairs=12),
    "overlapping": regression.RegressionConfig(num_concepts=4, dim=8, rank=3, num_pairs=12, bases="overlapping"),
}


posterior_over_bases = jax.jit(references.posterior, static_argnums=0)


@functools.partial(jax.jit, static_argnums=(0, 3))
def predict(config, hparams, batch, names=None):
    return references.predict(config, hparams, batch, names)


def drawn(config, size, seed=0, **settings):
    """Sequences drawn by NumPy, which needs no compilation and shares no code with the sampler."""
    hparams = regression.hparams(config, **settings)
    rng = np.random.default_rng(seed)
    prior = np.asarray(hparams.concept_weights, np.float64)
    concepts = rng.choice(config.num_concepts, size, p=prior / prior.sum())
    active = int(hparams.active_dim)
    weights = rng.normal(size=(size, config.dim)) * np.asarray(hparams.masks)[concepts]
    if config.bases == "random_support":
        weights *= rng.permuted(np.tile(np.arange(config.dim) < config.rank, (size, 1)), axis=1)
    x = (rng.normal(size=(size, config.num_pairs, config.dim)) * (np.arange(config.dim) < active)).astype(np.float32)
    y = np.einsum("bnd,bd->bn", x, weights) + float(hparams.noise) * rng.normal(size=x.shape[:2])
    y = y.astype(np.float32)
    ones = np.ones(config.num_pairs, np.float32)
    batch = regression.Batch(*map(jnp.asarray, (x, y, concepts, weights.astype(np.float32), ones)))
    return hparams, batch, x.astype(np.float64), y.astype(np.float64)


def fitted(x, y, estimator):
    """Predictions [B, n] of a scikit-learn regressor fitted afresh before each pair."""
    out = np.zeros(y.shape)
    for b in range(len(y)):
        for i in range(1, y.shape[1]):
            out[b, i] = estimator(i).fit(x[b, :i], y[b, :i]).predict(x[b, i : i + 1])[0]
    return out


def normal_equations(x, y, std, noise):
    """Posterior mean under w ~ N(0, diag(std^2)), on the dimensions that the prior allows."""
    out = np.zeros(len(y))
    used = std > 0
    for i in range(1, len(y)):
        past = x[:i, used]
        precision = past.T @ past / noise**2 + np.diag(1 / std[used] ** 2)
        out[i] = x[i, used] @ np.linalg.solve(precision, past.T @ y[:i] / noise**2)
    return out


def evidence(x, y, std, noise):
    """log p(y_0..y_{i-1} | x, basis) for i = 0..n-1, each from one multivariate normal."""
    covariance = (x * std**2) @ x.T + noise**2 * np.eye(len(y))
    return np.array([0.0] + [multivariate_normal.logpdf(y[:i], cov=covariance[:i, :i]) for i in range(1, len(y))])


def mixture(x, y, masks, prior, noise):
    """Bayes prediction [n] and posterior [n, K] of one sequence."""
    means = np.stack([normal_equations(x, y, mask, noise) for mask in masks], -1)
    logs = np.stack([evidence(x, y, mask, noise) for mask in masks], -1) + np.log(prior)
    weights = np.exp(logs - logs.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights * means).sum(-1), weights


@pytest.mark.parametrize("bases", MIXTURES)
@pytest.mark.parametrize(("noise", "tolerance"), [(0.1, 1e-5), (1.0, 1e-5), (0.0, 1e-3)])
def test_bayes_oracle_and_posterior_are_the_definitions(bases, noise, tolerance):
    config = MIXTURES[bases]
    weights = np.arange(1.0, config.num_concepts + 1)
    hparams, batch, x, y = drawn(config, 24, noise=noise, concept_weights=weights)
    masks, noise = np.asarray(hparams.masks, np.float64), max(noise, references.NOISE_FLOOR)
    got = predict(config, hparams, batch, ("bayes", "oracle"))
    posterior = posterior_over_bases(config, hparams, batch)
    for b in range(len(y)):
        bayes, expected_posterior = mixture(x[b], y[b], masks, weights / weights.sum(), noise)
        oracle = normal_equations(x[b], y[b], masks[batch.concepts[b]], noise)
        np.testing.assert_allclose(got["bayes"][b], bayes, atol=tolerance)
        np.testing.assert_allclose(got["oracle"][b], oracle, atol=tolerance)
        np.testing.assert_allclose(posterior[b], expected_posterior, atol=tolerance)


def test_float32_holds_over_forty_pairs():
    config = regression.RegressionConfig(num_concepts=8, dim=16, rank=4, num_pairs=40, bases="overlapping")
    hparams, batch, x, y = drawn(config, 12, seed=1)
    masks = np.asarray(hparams.masks, np.float64)
    got = predict(config, hparams, batch, ("bayes", "ridge"))
    for b in range(len(y)):
        np.testing.assert_allclose(got["bayes"][b], mixture(x[b], y[b], masks, np.full(8, 1 / 8), 0.1)[0], atol=1e-5)
        np.testing.assert_allclose(got["ridge"][b], normal_equations(x[b], y[b], np.full(16, 0.5), 0.1), atol=1e-5)


def test_noiseless_predictions_interpolate():
    """At noise 0 ridge is the least-norm solution, and the oracle is exact after rank pairs."""
    config = MIXTURES["orthogonal"]
    hparams, batch, x, y = drawn(config, 32, seed=2, noise=0.0)
    got = predict(config, hparams, batch, ("ridge", "oracle", "bayes"))
    expected = np.zeros(y.shape)
    for b in range(len(y)):
        for i in range(1, config.num_pairs):
            expected[b, i] = x[b, i] @ np.linalg.pinv(x[b, :i]) @ y[b, :i]
    # A nearly singular draw would amplify the float32 rounding of y itself.
    sound = np.array([[np.linalg.cond(x[b, :i]) < 30 if i else True for i in range(y.shape[1])] for b in range(len(y))])
    assert sound.mean() > 0.9
    np.testing.assert_allclose(np.where(sound, got["ridge"], 0), np.where(sound, expected, 0), atol=1e-4)
    np.testing.assert_allclose(got["oracle"][:, 4:], y[:, 4:], atol=1e-3)
    np.testing.assert_allclose(got["bayes"][:, 4:], y[:, 4:], atol=1e-3)


@pytest.mark.parametrize(
    ("config", "settings", "variance"),
    [
        # Two of eight dimensions belong to no basis: 3 * 2 / 3 / 8.
        (MIXTURES["orthogonal"], {}, 0.25),
        # Weights and overlaps both enter through the mean over dimensions: every basis has rank 3 of 8.
        (MIXTURES["overlapping"], {"concept_weights": [1, 2, 3, 4], "noise": 0.5}, 3 / 8),
        # Past active_dim x is zero; the mean is over the first three: (p0, p0, p1) = (1/6, 1/6, 2/6).
        (MIXTURES["orthogonal"], {"concept_weights": [1, 2, 3], "active_dim": 3}, (1 + 1 + 2) / 18),
        # A mask that is not 0 or 1 is w's standard deviation.
        (
            regression.RegressionConfig(2, 4, 2, 9, "given"),
            {"masks": [[0.5, 0.5, 0, 0], [0, 0, 2, 2]], "noise": 1.0},
            (0.25 + 4) / 4,
        ),
        (regression.RegressionConfig(1, 6, 2, 9, "random_support"), {}, 2 / 6),
        (regression.RegressionConfig(1, 6, 2, 9, "random_support"), {"active_dim": 4}, 2 / 4),
        (regression.RegressionConfig(2, 6, 2, 9, "families", ("linear", "quadratic")), {}, 2 / 6),
    ],
)
def test_ridge_is_scikit_learns_with_the_priors_variance(config, settings, variance):
    hparams, batch, x, y = drawn(config, 12, **settings)
    alpha = float(hparams.noise) ** 2 / variance
    expected = fitted(x, y, lambda i: Ridge(alpha=alpha, fit_intercept=False, solver="cholesky"))
    np.testing.assert_allclose(predict(config, hparams, batch, ("ridge",))["ridge"], expected, atol=2e-5, rtol=1e-5)


def test_ridges_penalty_is_the_best_one():
    config = regression.RegressionConfig()
    hparams, batch, x, y = drawn(config, 4000, noise=0.5)
    got = predict(config, hparams, batch, ("ridge",))["ridge"]

    @jax.jit
    def loss(factor):
        std = references._ridge_std(config, hparams) * factor
        return jnp.mean((references._linear(batch.inputs, batch.targets, std, hparams.noise)[0] - batch.targets) ** 2)

    best = jnp.mean((got - batch.targets) ** 2)
    assert best < loss(0.7)
    assert best < loss(1.4)


def test_random_supports_oracle_knows_the_support():
    config = regression.RegressionConfig(1, 6, 2, 9, "random_support")
    hparams, batch, x, y = drawn(config, 16)
    got = predict(config, hparams, batch, ("oracle",))
    for b in range(len(y)):
        support = np.asarray(batch.weights[b] != 0, np.float64)
        np.testing.assert_allclose(got["oracle"][b], normal_equations(x[b], y[b], support, 0.1), atol=1e-5)


@pytest.mark.parametrize(("name", "alpha"), [("lasso", 0.01), ("lasso_1", 1.0), ("lasso_0.001", 0.001)])
def test_lasso_is_scikit_learns(name, alpha):
    config = regression.RegressionConfig(1, 12, 3, 20, "random_support")
    hparams, batch, x, y = drawn(config, 12)
    got = predict(config, hparams, batch, (name,))[name]
    assert not np.any(got[:, 0])
    path = fitted(x, y, lambda i: LassoLars(alpha=alpha, fit_intercept=False))
    np.testing.assert_allclose(got, path, atol=1e-5)
    if alpha < 0.01:
        return  # coordinate descent, below, does not converge at all here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        descent = fitted(x[:4], y[:4], lambda i: Lasso(alpha=alpha, fit_intercept=False, tol=1e-9, max_iter=50_000))
    # It crawls while pairs are fewer than dimensions, and is exact afterwards.
    np.testing.assert_allclose(got[:4, 12:], descent[:, 12:], atol=1e-3)
    assert np.mean((got[:4] - descent) ** 2) < 1e-3


@pytest.mark.parametrize("noise", [0.0, 1.0, 3.0, 10.0])
def test_lasso_is_optimal_at_any_noise(noise):
    """4 bases, D 16, 20 pairs, against least angles; its coordinate descent is itself off at its default tolerance."""
    config = regression.RegressionConfig(4, 16, 4, 20)
    hparams, batch, x, y = drawn(config, 12, seed=3, noise=noise)
    got = predict(config, hparams, batch, ("lasso",))["lasso"]
    assert np.isfinite(got).all()
    path = fitted(x, y, lambda i: LassoLars(alpha=0.01, fit_intercept=False))
    np.testing.assert_allclose(got, path, atol=1e-4, rtol=1e-5)


def test_a_lasso_that_is_not_optimal_is_not_there():
    gram, moment = 2 * jnp.eye(3), jnp.array([4.0, -1.0, 0.2])
    right = jnp.array([1.75, -0.25, 0.0])  # |c| less the penalty 0.5, halved
    np.testing.assert_array_equal(lasso.if_optimal(right, gram, moment, 0.5), right)
    for wrong in ([1.74, -0.25, 0.0], [1.75, -0.25, 0.01], [1.75, 0.0, 0.0]):
        assert np.isnan(lasso.if_optimal(jnp.array(wrong), gram, moment, 0.5)).all()


def test_lasso_path_meets_the_optimality_conditions():
    """|x_j . residual| <= m alpha everywhere, with equality and w's sign where w_j is not zero."""
    rng = np.random.default_rng(0)
    for pairs in (3, 8, 30):
        x = rng.normal(size=(pairs, 8))
        y = x @ np.r_[1.0, -2.0, np.zeros(6)] + 0.5 * rng.normal(size=pairs)
        target = 0.05 * pairs
        f32 = functools.partial(jnp.asarray, dtype=jnp.float32)
        w = np.asarray(lasso.path(f32(x.T @ x), f32(x.T @ y), f32(pairs), f32(target)), np.float64)
        correlation = x.T @ (y - x @ w)
        on = w != 0
        assert 0 < on.sum() <= min(pairs, 8)
        np.testing.assert_allclose(correlation[on], target * np.sign(w[on]), atol=1e-4)
        assert np.all(np.abs(correlation) <= target + 1e-4)


def test_nearest_neighbours_are_scikit_learns():
    config = MIXTURES["orthogonal"]
    hparams, batch, x, y = drawn(config, 16)
    expected = fitted(x, y, lambda i: KNeighborsRegressor(n_neighbors=min(i, 3), algorithm="brute"))
    np.testing.assert_allclose(predict(config, hparams, batch, ("knn3",))["knn3"], expected, atol=1e-5)


def test_averaging_and_zero():
    config = MIXTURES["orthogonal"]
    hparams, batch, x, y = drawn(config, 8)
    expected = np.zeros(y.shape)
    for i in range(1, config.num_pairs):
        expected[:, i] = np.einsum("bd,bd->b", x[:, i], (x[:, :i] * y[:, :i, None]).mean(1))
    got = predict(config, hparams, batch, ("average", "zero"))
    np.testing.assert_allclose(got["average"], expected, atol=1e-5)
    assert got["zero"].shape == y.shape
    assert not np.any(got["zero"])


def test_position_i_reads_earlier_pairs_and_its_own_x_only():
    config = MIXTURES["orthogonal"]
    hparams, batch, _, _ = drawn(config, 3)
    i = 5
    later = batch._replace(inputs=batch.inputs.at[:, i + 1 :].set(7.0), targets=batch.targets.at[:, i:].set(-9.0))
    before, after = predict(config, hparams, batch), predict(config, hparams, later)
    assert set(before) == set(references.names(config))
    for name in before:
        np.testing.assert_array_equal(before[name][:, : i + 1], after[name][:, : i + 1], err_msg=name)
        assert not np.any(before[name][:, 0]), name
        if name != "zero":
            assert np.any(before[name][:, i + 1 :] != after[name][:, i + 1 :]), name


def test_one_program_serves_every_noise_mask_and_weight_and_vmaps():
    config = regression.RegressionConfig(num_concepts=2, dim=4, rank=2, num_pairs=6, bases="given")
    traces = []

    @jax.jit
    def run(hparams, batch):
        traces.append(1)
        return references.predict(config, hparams, batch, ("ridge", "bayes", "lasso"))

    settings = [
        {"noise": 0.1, "masks": [[1, 1, 0, 0], [0, 0, 1, 1]], "concept_weights": [1, 1]},
        {"noise": 0.7, "masks": [[1, 0, 1, 0], [0, 1, 1, 1]], "concept_weights": [1, 5], "active_dim": 3},
    ]
    points = [drawn(config, 5, seed=s, **settings[s])[:2] for s in range(2)]
    alone = [run(*point) for point in points]
    assert len(traces) == 1
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)
    together = jax.jit(jax.vmap(run))(*stacked)
    for s in range(2):
        picked = jax.tree.map(lambda leaf, s=s: leaf[s], together)
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), picked, alone[s])


def test_names_and_their_errors():
    families = regression.RegressionConfig(2, 6, 2, 9, "families", ("linear", "quadratic"))
    assert references.names(families) == ("zero", "ridge", "lasso", "knn3", "average")
    mixture_names = ("zero", "ridge", "oracle", "bayes", "lasso", "knn3", "average")
    assert all(references.names(config) == mixture_names for config in MIXTURES.values())
    hparams, batch, _, _ = drawn(families, 2)
    supports = regression.RegressionConfig(1, 6, 2, 9, "random_support")
    assert references.names(supports) == ("zero", "ridge", "oracle", "lasso", "knn3", "average")
    for config in (families, supports, MIXTURES["orthogonal"]):
        shapes = jax.eval_shape(functools.partial(references.predict, config), *drawn(config, 2)[:2])
        assert set(shapes) == set(references.names(config))
        assert {got.shape for got in shapes.values()} == {(2, config.num_pairs)}
    with pytest.raises(ValueError, match=r"names must be out of zero, ridge, .* got 'bayes', 'nearest'"):
        references.predict(families, hparams, batch, ("zero", "bayes", "nearest"))
    for name in ("lasso_x", "lasso_-1", "lasso_0", "lasso_inf"):
        with pytest.raises(ValueError, match=f'"lasso_<alpha>".*got {name!r}'):
            references.predict(families, hparams, batch, (name,))
    with pytest.raises(ValueError, match="orthogonal, overlapping, given; got 'families'"):
        references.posterior(families, hparams, batch)


def test_the_published_table():
    """K = 4, D = 16, r = 4, 20 pairs, noise 0.1: position-averaged squared error of each reference, within 2 %.

    The table is printed with two decimals: half of the last one comes on top.
    """
    close = functools.partial(np.testing.assert_allclose, rtol=0.02, atol=0.005)
    config = regression.RegressionConfig()
    hparams, batch, _, _ = drawn(config, 20_000)
    error = {
        name: (got - batch.targets) ** 2
        for name, got in predict(config, hparams, batch, ("zero", "ridge", "bayes", "oracle")).items()
    }
    for name, published in {"zero": 3.98, "ridge": 1.74, "bayes": 0.73, "oracle": 0.53}.items():
        close(jnp.mean(error[name]), published, err_msg=name)
    # The part that is known exactly, |w|^2 + noise^2; three standard errors.
    np.testing.assert_allclose(jnp.mean(error["zero"]), 4.01, rtol=0.017)

    posterior = posterior_over_bases(config, hparams, batch)
    on_true = jnp.take_along_axis(posterior, batch.concepts[:, None, None], axis=-1)[..., 0].mean(0)
    close(on_true[:8], [0.25, 0.29, 0.37, 0.54, 0.76, 0.94, 0.99, 1.0])

    # A learner that separates only B1: a mixture of B1 and of the other twelve dimensions, each at a third of the
    # variance, since one of three bases is in use.
    two = regression.RegressionConfig(num_concepts=2, bases="given")
    merged = np.stack([hparams.masks[0], (1 - hparams.masks[0]) * 3**-0.5])
    partial = regression.hparams(two, masks=merged, concept_weights=[1, 3])
    error = ((predict(two, partial, batch, ("bayes",))["bayes"] - batch.targets) ** 2).mean(-1)
    close(error[batch.concepts == 0].mean(), 0.73)
    close(error[batch.concepts != 0].mean(), 1.38)
