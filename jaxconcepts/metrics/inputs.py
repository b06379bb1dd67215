"""What every metric accepts: hidden states [..., N, d] and labels [N], checked outside jit, taken as is inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconcepts.metrics.arrays import as_array


class Points(NamedTuple):
    """Checked input.

    hidden: [..., N, d], floating. concepts: [N] codes 0 to num_concepts - 1, or None. labels: [num_concepts] what the
    codes stand for, and counts: [num_concepts] points of each; both None inside jit.
    """

    hidden: jax.Array | np.ndarray
    concepts: jax.Array | np.ndarray | None
    num_concepts: int | None
    labels: np.ndarray | None
    counts: np.ndarray | None

    def run(self, function: Callable, *, concepts: bool = False):
        """`function(hidden[, concepts])`; in float64 where NumPy float64 came in, the answer in 32 bits again."""
        arguments = (self.hidden, self.concepts) if concepts else (self.hidden,)
        if isinstance(self.hidden, np.ndarray) and self.hidden.dtype == np.float64:
            with jax.enable_x64(True):
                out = function(*map(jnp.asarray, arguments))
                return out.astype(jnp.int32 if jnp.issubdtype(out.dtype, jnp.integer) else jnp.float32)
        return function(*map(jnp.asarray, arguments))


def check_points(hidden, concepts, k: int | None, num_concepts: int | None) -> Points:
    """Raises ValueError for shapes that do not fit, k outside 1 to N - 1, and, outside jit, values not finite."""
    hidden = as_array(hidden)
    if np.ndim(hidden) < 2:
        raise ValueError(f"hidden must have shape [..., points, width], got {np.shape(hidden)}")
    points = np.shape(hidden)[-2]
    if k is not None and (not isinstance(k, (int, np.integer)) or not 1 <= k < points):
        raise ValueError(f"k must be an integer from 1 to {points - 1}, one less than the {points} points; got {k!r}")
    hidden = check_hidden(hidden)
    if concepts is None:
        return Points(hidden, None, None, None, None)
    concepts = as_array(concepts)
    if np.shape(concepts) != (points,):
        raise ValueError(
            f"concepts must have one label for each of the {points} points, got shape {np.shape(concepts)}"
        )
    if isinstance(concepts, jax.core.Tracer):
        if num_concepts is None:
            raise ValueError("num_concepts must be given inside jit, where the labels are not known; got None")
        return Points(hidden, concepts, num_concepts, None, None)
    concepts = np.asarray(concepts)
    if num_concepts is None:
        labels, codes, counts = np.unique(concepts, return_inverse=True, return_counts=True)
        return Points(hidden, codes.astype(np.int32), len(labels), labels, counts)
    if not np.issubdtype(concepts.dtype, np.integer) or concepts.min() < 0 or concepts.max() >= num_concepts:
        raise ValueError(f"with num_concepts = {num_concepts}, concepts must be integers from 0 to {num_concepts - 1}")
    counts = np.bincount(concepts, minlength=num_concepts)
    return Points(hidden, concepts.astype(np.int32), num_concepts, np.arange(num_concepts), counts)


def check_hidden(hidden):
    """Hidden states as a floating array; NumPy float64 stays, everything narrower becomes float32."""
    hidden = as_array(hidden)
    if isinstance(hidden, jax.Array):
        hidden = hidden if hidden.dtype == jnp.float64 else hidden.astype(jnp.float32)
        if isinstance(hidden, jax.core.Tracer):
            return hidden
        finite = bool(jnp.all(jnp.isfinite(hidden)))
    else:
        hidden = np.asarray(hidden)
        hidden = hidden if hidden.dtype == np.float64 else hidden.astype(np.float32)
        finite = np.isfinite(hidden).all()
    if not finite:
        bad = int(np.size(hidden) - np.isfinite(np.asarray(hidden)).sum())
        raise ValueError(f"hidden must be finite, got {bad} values that are NaN or infinite of {np.size(hidden)}")
    return hidden
