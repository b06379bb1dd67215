"""The shape of representations: silhouette, mutual nearest neighbours, linear CKA, intrinsic dimension.

All take hidden states [..., N, d] as NumPy or JAX arrays, also inside `jit`, batched over the leading axes. Sums are in
float64 (neighbours are exact as they are), answers in float32; NaN where a number is not defined.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num, Shaped

from jaxconcepts.float64 import in_double
from jaxconcepts.metrics import neighbours
from jaxconcepts.metrics.arrays import as_array
from jaxconcepts.metrics.decodability import all_finite, nearest_neighbours
from jaxconcepts.metrics.inputs import check_hidden, check_points


def silhouette(
    hidden: Num[Array, "*lead N d"], concepts: Shaped[Array, " N"], *, num_concepts: int | None = None
) -> Float[Array, "*lead"]:
    """Mean silhouette of the concepts as clusters, (b - a) / max(a, b), in [-1, 1] (Rousseeuw 1987).

    a: mean Euclidean distance to the other points of the concept; b: to those of the nearest other concept. A concept's
    only point counts 0. Raises ValueError for fewer than two concepts.
    """
    points = check_points(hidden, concepts, None, num_concepts)
    if points.num_concepts < 2:
        raise ValueError(f"concepts must hold at least two different labels, got {points.num_concepts}")
    return in_double(partial(_silhouette, num_concepts=points.num_concepts), points.hidden, points.concepts)


def mutual_knn(first: Num[Array, "*lead N d"], second: Num[Array, "*lead N e"], k: int = 10) -> Float[Array, "*lead"]:
    """Mean share of the k nearest neighbours that a point has in common in two representations of the same points.

    Huh et al. 2024, "The Platonic Representation Hypothesis" (arXiv 2405.07987), here with Euclidean distance.
    """
    first, second = _same_points(first, second)
    ours, theirs = nearest_neighbours(first, k), nearest_neighbours(second, k)
    shared = jnp.sum(ours[..., :, None] == theirs[..., None, :], (-1, -2))
    return jnp.where(all_finite(first) & all_finite(second), jnp.mean(shared / k, -1), jnp.nan)


def linear_cka(first: Num[Array, "*lead N d"], second: Num[Array, "*lead N e"]) -> Float[Array, "*lead"]:
    """Linear centred kernel alignment, |Y'X|^2 / (|X'X| |Y'Y|) in Frobenius norms of centred columns, in [0, 1].

    Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited" (arXiv 1905.00414), equation 3. NaN
    where all points of one representation coincide.
    """
    first, second = _same_points(first, second)
    return in_double(_linear_cka, (check_hidden(first), check_hidden(second)))


def two_nn(hidden: Num[Array, "*lead N d"], discard: float = 0.1) -> Float[Array, "*lead"]:
    """Intrinsic dimension from the ratio of each point's second to first neighbour distance.

    Facco et al. 2017, "Estimating the intrinsic dimension of datasets by a minimal neighborhood information" (Sci. Rep.
    7): the slope, through the origin, of -log(1 - F(mu)) against log(mu), the largest `discard` of the ratios left out.
    Points with an exact duplicate have no ratio and are left out, as all their like; NaN where fewer than three are
    left. Raises ValueError for a `discard` outside [0, 1).
    """
    if not 0 <= discard < 1:
        raise ValueError(f"discard must be at least 0 and below 1, got {discard}")
    points = check_points(hidden, None, 2, None)
    nearest = nearest_neighbours(points.hidden, 2)
    return in_double(partial(_two_nn, discard=discard), points.hidden, nearest)


@partial(jax.jit, static_argnames="num_concepts")
def _silhouette(hidden, concepts, *, num_concepts):
    own = (concepts[:, None] == jnp.arange(num_concepts)).astype(hidden.dtype)
    sizes = jnp.sum(own, 0)

    def score(states):
        squared = neighbours.all_distances((states - _middle(states))[None]).squared[0]
        distances = jnp.sqrt(jnp.where(jnp.isfinite(squared), squared, 0))
        totals = jnp.matmul(distances, own, precision=lax.Precision.HIGHEST)
        inside = jnp.take_along_axis(totals, concepts[:, None], 1)[:, 0] / jnp.maximum(sizes[concepts] - 1, 1)
        other = (own == 0) & (sizes > 0)
        outside = jnp.min(jnp.where(other, totals / jnp.maximum(sizes, 1), jnp.inf), -1)
        largest = jnp.maximum(inside, outside)
        value = jnp.where(largest > 0, (outside - inside) / jnp.where(largest > 0, largest, 1), 0)
        return jnp.where(all_finite(states), jnp.mean(jnp.where(sizes[concepts] > 1, value, 0)), jnp.nan)

    return lax.map(score, hidden.reshape(-1, *hidden.shape[-2:])).reshape(hidden.shape[:-2])


def _middle(states):
    """[d]: a centre that single massive points do not move: the mean, twice with what lies far off weighed down."""
    centre = jnp.mean(states, 0)
    for _ in range(2):
        distance = jnp.linalg.norm(states - centre, axis=-1)
        usual = jnp.median(distance)
        weight = jnp.where(distance > usual, (usual / jnp.where(distance > usual, distance, 1)) ** 2, 1)
        centre = jnp.sum(states * weight[:, None], 0) / jnp.sum(weight)
    return centre


@jax.jit
def _linear_cka(both):
    first, second = (_centred_to_one(states) for states in both)
    if first.shape[-2] <= min(first.shape[-1], second.shape[-1]):
        grams = [jnp.einsum("...nd,...md->...nm", x, x) for x in (first, second)]
        cross, ours, theirs = (jnp.sum(grams[a] * grams[b], (-1, -2)) for a, b in ((0, 1), (0, 0), (1, 1)))
    else:
        cross, ours, theirs = (
            jnp.sum(jnp.einsum("...nd,...ne->...de", a, b) ** 2, (-1, -2))
            for a, b in ((second, first), (first, first), (second, second))
        )
    return cross / (jnp.sqrt(ours) * jnp.sqrt(theirs))


def _centred_to_one(states):
    """Without their mean, and divided by the largest entry that is left; zero where that is rounding."""
    centred = states - jnp.mean(states, -2, keepdims=True)
    size, left = (jnp.max(jnp.abs(x), (-2, -1), keepdims=True) for x in (states, centred))
    real = left > 1e-14 * size
    return jnp.where(real, centred / jnp.where(real, left, 1), 0)


@partial(jax.jit, static_argnames="discard")
def _two_nn(hidden, nearest, *, discard):
    def slope(states, nearest):
        apart = states[:, None] - states[nearest]
        # To one, so that no square leaves the floats' range.
        largest = jnp.max(jnp.abs(apart), (-2, -1), keepdims=True)
        squared = jnp.sort(jnp.sum((apart / jnp.where(largest > 0, largest, 1)) ** 2, -1), -1)
        valid = squared[:, 0] > 0
        ratio = jnp.where(valid, 0.5 * (jnp.log(squared[:, 1]) - jnp.log(jnp.where(valid, squared[:, 0], 1))), jnp.inf)
        ratio, count = jnp.sort(ratio), jnp.sum(valid)
        place = jnp.arange(len(ratio))
        # At least the largest ratio is left out: its F is 1, where the logarithm ends.
        used = place < jnp.minimum(jnp.floor(count * (1 - discard) + 1e-4), count - 1)
        x = jnp.where(used, ratio, 0)
        y = jnp.where(used, -jnp.log1p(-jnp.where(used, (place + 1) / count, 0)), 0)
        return jnp.where(all_finite(states), jnp.sum(x * y) / jnp.sum(x * x), jnp.nan)

    flat = hidden.reshape(-1, *hidden.shape[-2:])
    slopes = lax.map(lambda pair: slope(*pair), (flat, nearest.reshape(-1, *nearest.shape[-2:])))
    return slopes.reshape(hidden.shape[:-2])


def _same_points(first, second):
    first, second = as_array(first), as_array(second)
    if np.shape(first)[:-1] != np.shape(second)[:-1] or np.ndim(first) < 2:
        raise ValueError(
            f"both representations must have shape [..., points, width] of the same points; got {np.shape(first)} and "
            f"{np.shape(second)}"
        )
    return first, second
