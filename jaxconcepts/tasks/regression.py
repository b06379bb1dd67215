"""Mixtures of regressions learned in context: what a sequence is, and how one is drawn on the device.

A sequence is n pairs (x_i, y_i) with x_i ~ N(0, I_D) and y_i = f(x_i) + noise. Its *concept* is the hidden rule that
f is drawn from: for sparse regression a basis B_k, the set of dimensions that w may use (arXiv 2412.12276, section 3;
x, y interleaving as in Garg et al. 2022, arXiv 2208.01066). Everything that changes a shape is in `RegressionConfig`;
everything that is a number is in `RegressionHParams`, so that one compiled program serves every noise, basis or weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxconcepts.fields import field

BASES = ("orthogonal", "overlapping", "given", "random_support", "families")
FAMILIES = ("linear", "sparse_linear", "leaky_relu", "quadratic")
LEAKY_SLOPE = 0.2
_TINY, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class RegressionConfig:
    """The static part of the task.

    num_concepts: K, how many concepts are mixed.
    dim: D, the dimension of x.
    rank: r, how many dimensions a basis holds (and the support size of sparse functions).
    num_pairs: n, the (x, y) pairs of a sequence; the prediction at pair i uses pairs before i only.
    bases: "orthogonal": disjoint runs of r dimensions. "overlapping": two groups of K/2 concepts, one in each half of
        the dimensions; inside a group the bases are distinct and each shares dimensions with its neighbours. "given":
        the masks come in `hparams(masks=...)`. "random_support": Garg et al.'s task, a fresh support of r dimensions in
        each sequence, uniform over the active ones (K = 1). "families": concept k is the function family `families[k]`.
    families: with bases="families", names out of "linear", "sparse_linear", "leaky_relu" (slope 0.2), "quadratic"
        (squared inputs). All are scaled so that the noiseless y has second moment r, as a basis of rank r has.

    Raises ValueError, naming the field, when the parts do not fit together.
    """

    num_concepts: int = field(4, "number of concepts", low=1, high=4096)
    dim: int = field(16, "dimension of x", low=1, high=65536)
    rank: int = field(4, "dimensions of a basis, or size of the support of a sparse function", low=1, high=65536)
    num_pairs: int = field(20, "pairs (x, y) in a sequence", low=1, high=65536)
    bases: str = field("orthogonal", "kind of the bases that are the concepts", choices=BASES)
    families: tuple[str, ...] = field((), "with bases=families: the function family of each concept", choices=FAMILIES)

    def __post_init__(self):
        # A list, as JSON gives it, would not hash.
        object.__setattr__(self, "families", tuple(self.families))
        for name in ("num_concepts", "dim", "rank", "num_pairs"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"task.{name} must be a positive integer, got {value!r}")
        if self.bases not in BASES:
            raise ValueError(f"task.bases must be one of {', '.join(BASES)}, got {self.bases!r}")
        if self.rank > self.dim:
            raise ValueError(f"task.rank must be at most task.dim = {self.dim}, got {self.rank}")
        if self.bases == "orthogonal" and self.rank * self.num_concepts > self.dim:
            raise ValueError(
                f"orthogonal bases need task.rank * task.num_concepts <= task.dim, got {self.rank} * "
                f"{self.num_concepts} = {self.rank * self.num_concepts} > {self.dim}; lower the rank or the number of "
                'concepts, raise the dimension, or use bases="overlapping"'
            )
        if self.bases == "overlapping":
            self._check_overlapping()
        if self.bases == "random_support" and self.num_concepts != 1:
            raise ValueError(f"random_support has one concept: task.num_concepts must be 1, got {self.num_concepts}")
        unknown = [name for name in self.families if name not in FAMILIES]
        if unknown:
            raise ValueError(f"task.families accepts {', '.join(FAMILIES)}; got {', '.join(map(repr, unknown))}")
        expected = self.num_concepts if self.bases == "families" else 0
        if len(self.families) != expected:
            raise ValueError(
                f"task.families must name one family a concept with bases='families' and be empty otherwise: bases is "
                f"{self.bases!r}, num_concepts {self.num_concepts}, families {self.families!r}"
            )

    def _check_overlapping(self):
        half, group = self.dim // 2, self.num_concepts // 2
        if self.dim % 2 or self.num_concepts % 2 or group < 2:
            raise ValueError(
                "overlapping bases need an even task.dim and an even task.num_concepts of at least 4, got dim "
                f"{self.dim} and num_concepts {self.num_concepts}"
            )
        if not half // group < self.rank < half or group > half:
            raise ValueError(
                f"overlapping bases need dim/2 // (num_concepts/2) < task.rank < dim/2 and num_concepts <= dim, so "
                f"that neighbours differ and share dimensions; got dim {self.dim}, num_concepts {self.num_concepts}, "
                f"rank {self.rank}"
            )


@dataclass(frozen=True)
class RegressionFields:
    """`RegressionHParams` as a config has them."""

    noise: float = field(0.1, "standard deviation of the noise on y", low=0)
    masks: tuple[tuple[float, ...], ...] | None = field(
        None,
        "standard deviation of w in each dimension, one tuple for each concept; none for those of `bases`",
        low=0,
    )
    concept_weights: tuple[float, ...] | None = field(
        None, "relative frequency of each concept; none for equal frequencies", low=0
    )


class RegressionHParams(NamedTuple):
    """The numbers of the task, a pytree of float32 arrays; every leaf may be traced.

    noise: [], standard deviation of the noise on y.
    masks: [K, D], 1 where concept k uses dimension d and 0 elsewhere; another value is w's standard deviation there.
    concept_weights: [K], relative frequency of each concept.
    active_dim: [], dimensions of x past this one are zero (Garg et al.'s curriculum; D when there is none).
    active_pairs: [], pairs past this one carry no loss (likewise; n when there is none).
    """

    noise: Float[Array, ""]
    masks: Float[Array, "K D"]
    concept_weights: Float[Array, " K"]
    active_dim: Float[Array, ""]
    active_pairs: Float[Array, ""]


class Batch(NamedTuple):
    """Sequences drawn from the task.

    inputs: [B, n, D], x. targets: [B, n], noisy y. concepts: [B], the label k. weights: [B, D], w (zero off the basis;
    before a family's scale). pair_mask: [n], 1 where a pair carries loss.
    """

    inputs: Float[Array, "B n D"]
    targets: Float[Array, "B n"]
    concepts: Int[Array, " B"]
    weights: Float[Array, "B D"]
    pair_mask: Float[Array, " n"]


def default_masks(config: RegressionConfig) -> np.ndarray:
    """The basis masks [K, D] that `config.bases` names; all ones where the concept is not a fixed basis."""
    masks = np.zeros((config.num_concepts, config.dim), np.float32)
    if config.bases == "orthogonal":
        for k in range(config.num_concepts):
            masks[k, k * config.rank : (k + 1) * config.rank] = 1
    elif config.bases == "overlapping":
        half, group = config.dim // 2, config.num_concepts // 2
        for k in range(config.num_concepts):
            first = (k % group) * (half // group)
            masks[k, (k // group) * half + (first + np.arange(config.rank)) % half] = 1
    else:
        masks[:] = 1
    return masks


def hparams(
    config: RegressionConfig, noise=0.1, masks=None, concept_weights=None, active_dim=None, active_pairs=None
) -> RegressionHParams:
    """The task's numbers, defaults filled in from `config`.

    noise is a standard deviation (0.1 is the paper's N(0, 0.01)). Raises ValueError for masks that are missing with
    bases="given" or have another shape than [K, D], for concept_weights of another length than K, and, where the values
    are known (not traced), for a negative noise and for concept_weights that are negative or all zero.
    """
    if masks is None:
        if config.bases == "given":
            raise ValueError('bases="given" needs masks of shape [num_concepts, dim]; none were given')
        masks = default_masks(config)
    if isinstance(masks, list | tuple) and len({np.shape(row) for row in masks}) > 1:
        lengths = ", ".join(str(np.size(row)) for row in masks)
        raise ValueError(f"masks must have shape {(config.num_concepts, config.dim)}, got rows of {lengths}")
    masks = jnp.asarray(masks, jnp.float32)
    if masks.shape != (config.num_concepts, config.dim):
        raise ValueError(f"masks must have shape {(config.num_concepts, config.dim)}, got {masks.shape}")
    weights = jnp.ones(config.num_concepts) if concept_weights is None else concept_weights
    weights = jnp.asarray(weights, jnp.float32)
    if weights.shape != (config.num_concepts,):
        raise ValueError(f"concept_weights must have shape {(config.num_concepts,)}, got {weights.shape}")
    if _known(weights) and not (np.all(np.asarray(weights) >= 0) and np.any(np.asarray(weights) > 0)):
        raise ValueError(f"concept_weights must be non-negative and not all zero, got {np.asarray(weights).tolist()}")
    if _known(weights):
        known = np.asarray(weights, np.float64)
        if np.any((known > 0) & (known < _TINY)) or known.sum() > _LARGEST:
            raise ValueError(
                f"concept_weights must be 0 or at least {_TINY:.3g} and have a sum in float32, got {known.tolist()}"
            )
    if _known(noise) and not np.all(np.asarray(noise) >= 0):
        raise ValueError(f"noise is a standard deviation and must not be negative, got {noise}")
    return RegressionHParams(
        noise=jnp.asarray(noise, jnp.float32),
        masks=masks,
        concept_weights=weights,
        active_dim=jnp.asarray(config.dim if active_dim is None else active_dim, jnp.float32),
        active_pairs=jnp.asarray(config.num_pairs if active_pairs is None else active_pairs, jnp.float32),
    )


def sample(config: RegressionConfig, hparams: RegressionHParams, key, batch: int) -> Batch:
    """Draws `batch` fresh sequences (a static int) from a PRNG key; concept, w, x and noise are all independent."""
    concept_key, weight_key, input_key, noise_key, support_key = jax.random.split(key, 5)
    n, dim = config.num_pairs, config.dim
    concepts = jax.random.categorical(concept_key, jnp.log(hparams.concept_weights), shape=(batch,))
    weights = jax.random.normal(weight_key, (batch, dim)) * hparams.masks[concepts]
    inputs = jax.random.normal(input_key, (batch, n, dim))
    inputs = jnp.where(jnp.arange(dim) < hparams.active_dim, inputs, 0.0)
    if config.bases == "random_support":
        weights = weights * _random_support(support_key, batch, dim, config.rank, hparams.active_dim)
    if config.bases == "families":
        weights, clean = _families(config, support_key, concepts, weights, inputs, hparams.active_dim)
    else:
        clean = jnp.einsum("bnd,bd->bn", inputs, weights, precision=jax.lax.Precision.HIGHEST)
    targets = clean + hparams.noise * jax.random.normal(noise_key, (batch, n))
    pair_mask = (jnp.arange(n) < hparams.active_pairs).astype(jnp.float32)
    return Batch(inputs, targets, concepts, weights, pair_mask)


def balanced(config: RegressionConfig, hparams: RegressionHParams, key, per_concept: int) -> Batch:
    """A held-out set with exactly `per_concept` sequences of each concept, in label order: B = K * per_concept."""

    def of_concept(k, key):
        only_k = jnp.zeros(config.num_concepts).at[k].set(1.0)
        return sample(config, hparams._replace(concept_weights=only_k), key, per_concept)

    keys = jax.random.split(key, config.num_concepts)
    each = jax.vmap(of_concept)(jnp.arange(config.num_concepts), keys)
    merged = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), each._replace(pair_mask=None))
    return merged._replace(pair_mask=each.pair_mask[0])


def interleave(batch: Batch) -> Float[Array, "B tokens D"]:
    """The model's input tokens x1 y1 x2 y2 ...: y sits in coordinate 0 of a zero vector (Garg et al. 2022)."""
    y = jnp.zeros_like(batch.inputs).at[..., 0].set(batch.targets)
    size, n, dim = batch.inputs.shape
    return jnp.stack([batch.inputs, y], axis=2).reshape(size, 2 * n, dim)


def _known(value):
    return not isinstance(value, jax.core.Tracer)


def _random_support(key, batch, dim, rank, active_dim):
    """[B, D] masks with `rank` ones, uniform over supports in the active dimensions, as in Garg et al.'s curriculum."""
    scores = jax.random.uniform(key, (batch, dim)) + (jnp.arange(dim) >= active_dim)
    return (jnp.argsort(jnp.argsort(scores, axis=-1), axis=-1) < rank).astype(jnp.float32)


def _families(config, key, concepts, weights, inputs, active_dim):
    """Noiseless targets [B, n] of each sequence's family, second moment r; and the weights with their support."""
    support = _random_support(key, concepts.shape[0], config.dim, config.rank, active_dim)
    sparse = jnp.asarray([name == "sparse_linear" for name in config.families])[concepts]
    weights = jnp.where(sparse[:, None], weights * support, weights)
    highest = jax.lax.Precision.HIGHEST
    linear = jnp.einsum("bnd,bd->bn", inputs, weights, precision=highest)
    quadratic = jnp.einsum("bnd,bd->bn", inputs**2, weights, precision=highest)
    dense = (config.rank / config.dim) ** 0.5
    values = {
        "linear": linear * dense,
        "sparse_linear": linear,
        "leaky_relu": jax.nn.leaky_relu(linear, LEAKY_SLOPE) * dense * (2 / (1 + LEAKY_SLOPE**2)) ** 0.5,
        "quadratic": quadratic * dense * 3**-0.5,
    }
    stacked = jnp.stack([values[name] for name in config.families])
    return weights, jnp.take_along_axis(stacked, concepts[None, :, None], axis=0)[0]
