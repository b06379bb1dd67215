"""What every metric accepts: hidden states [..., N, d] and labels [N], checked outside jit, taken as is inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconcepts.float64 import narrow
from jaxconcepts.metrics.arrays import as_array


class Points(NamedTuple):
    """Checked input.

    hidden: [..., N, d], floating. concepts: [N] codes 0 to num_concepts - 1, or None. labels: [num_concepts] what the
    codes stand for, and counts: [num_concepts] points of each; both None inside jit. group: [N] codes, or None.
    """

    hidden: jax.Array | np.ndarray
    concepts: jax.Array | np.ndarray | None
    num_concepts: int | None
    labels: np.ndarray | None
    counts: np.ndarray | None
    group: jax.Array | np.ndarray | None = None

    def run(self, function: Callable, *, concepts: bool = False):
        """`function(hidden[, concepts][, group=])`; in float64 where NumPy float64 came in, the answer in 32 bits."""
        arguments = (self.hidden, self.concepts) if concepts else (self.hidden,)
        group = {} if self.group is None else {"group": jnp.asarray(self.group)}
        if isinstance(self.hidden, np.ndarray) and self.hidden.dtype == np.float64:
            with jax.enable_x64(True):
                return jax.tree.map(narrow, function(*map(jnp.asarray, arguments), **group))
        return function(*map(jnp.asarray, arguments), **group)


def check_points(
    hidden, concepts, k: int | None, num_concepts: int | None, group=None, drop_missing: bool = False
) -> Points:
    """Raises ValueError for shapes that do not fit, hidden states that are no real numbers, k outside 1 to N - 1, and,
    outside jit, values not finite, missing labels (left out with `drop_missing`) and points with fewer than k others
    outside their group."""
    hidden = as_array(hidden, "hidden")
    concepts, group = (
        None if labels is None else _as_labels(name, labels)
        for name, labels in (("concepts", concepts), ("group", group))
    )
    if np.ndim(hidden) < 2 or not np.shape(hidden)[-1]:
        raise ValueError(f"hidden must have shape [..., points, width], got {np.shape(hidden)}")
    if num_concepts is not None and not (_is_whole(num_concepts) and num_concepts >= 1):
        raise ValueError(f"num_concepts must be a positive integer, got {num_concepts!r}")
    for name, labels in (("concepts", concepts), ("group", group)):
        total = np.shape(hidden)[-2]
        if labels is not None and np.shape(labels) != (total,):
            raise ValueError(f"{name} must have one label for each of the {total} points, got shape {np.shape(labels)}")
    if drop_missing and concepts is not None:
        hidden, concepts, group = _without_missing(hidden, concepts, group)
    points = np.shape(hidden)[-2]
    if points < 2:
        raise ValueError(f"hidden must have at least two points with a label, got {points}")
    if k is not None and not (_is_whole(k) and 1 <= k < points):
        raise ValueError(f"k must be an integer from 1 to {points - 1}, one less than the {points} points; got {k!r}")
    hidden = check_hidden(hidden)
    group = _check_group(group, k)
    if concepts is None:
        return Points(hidden, None, None, None, None, group)
    if isinstance(concepts, jax.core.Tracer):
        if num_concepts is None:
            raise ValueError("num_concepts must be given inside jit, where the labels are not known; got None")
        return Points(hidden, concepts, num_concepts, None, None, group)
    concepts = checked_labels("concepts", concepts)
    if num_concepts is None:
        labels, codes, counts = np.unique(concepts, return_inverse=True, return_counts=True)
        return Points(hidden, codes.astype(np.int32), len(labels), labels, counts, group)
    if not np.issubdtype(concepts.dtype, np.integer) or concepts.min() < 0 or concepts.max() >= num_concepts:
        raise ValueError(f"with num_concepts = {num_concepts}, concepts must be integers from 0 to {num_concepts - 1}")
    counts = np.bincount(concepts, minlength=num_concepts)
    return Points(hidden, concepts.astype(np.int32), num_concepts, np.arange(num_concepts), counts, group)


def missing(labels) -> np.ndarray:
    """[N]: which labels are None, NaN, NaT or masked. An array of any kind, outside jit."""
    masked = np.ma.getmaskarray(labels) if np.ma.isMaskedArray(labels) else False
    array = np.asarray(labels)
    if array.dtype.kind in "fc":
        return np.isnan(array) | masked
    if array.dtype.kind in "mM":
        return np.isnat(array) | masked
    if array.dtype.kind != "O":
        return np.zeros(array.shape, bool) | masked
    return np.array([_is_missing(label) for label in array], bool) | masked


def checked_labels(name: str, labels) -> np.ndarray:
    """The labels as an array. Raises ValueError naming the first that are missing, and for texts beside numbers."""
    absent = np.flatnonzero(missing(labels))
    if len(absent):
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        hint = ". concept_decodability's drop_missing=True leaves them out" if name == "concepts" else ""
        raise ValueError(
            f"{name} must have a label for every point; points {', '.join(map(str, absent[:5]))}{more} have none "
            f"(None or NaN){hint}"
        )
    array = np.asarray(labels)
    if _mixed(array):
        raise ValueError(f"{name} must be labels of one kind, got texts and numbers: {array[:5].tolist()}")
    try:
        np.unique(array)
    except TypeError as error:
        raise ValueError(f"{name} must be labels that can be sorted, such as numbers or texts: {error}") from error
    return array


def _as_labels(name, labels):
    """An array; of a list in which labels are missing, or texts beside numbers, one of objects, since NumPy would make
    texts of them all."""
    if not isinstance(labels, list | tuple):
        return as_array(labels, name)
    objects = np.empty(len(labels), object)
    objects[:] = labels
    return objects if missing(objects).any() or _mixed(objects) else as_array(labels, name)


def _mixed(array: np.ndarray) -> bool:
    """Whether texts stand beside other objects."""
    return array.dtype.kind == "O" and len({isinstance(label, str) for label in array}) > 1


def _is_whole(value) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_missing(label) -> bool:
    try:
        return label is None or bool(label != label)
    except TypeError:
        # What pandas calls NA has no truth value.
        return True


def _without_missing(hidden, concepts, group):
    if isinstance(concepts, jax.core.Tracer):
        raise ValueError("drop_missing must be False inside jit, where the labels are not known; got True")
    kept = np.flatnonzero(~missing(concepts))
    labels = np.asarray(np.asarray(concepts)[kept].tolist())
    return hidden[..., kept, :], labels, None if group is None else np.asarray(group)[kept]


def _check_group(group, k):
    if group is None or isinstance(group, jax.core.Tracer):
        return group
    labels, codes, counts = np.unique(checked_labels("group", group), return_inverse=True, return_counts=True)
    if k is not None and len(codes) - counts.max() < k:
        raise ValueError(
            f"k must be at most the number of points outside each group; got k = {k}, and group "
            f"{labels[counts.argmax()]} leaves {len(codes) - counts.max()} of the {len(codes)} points"
        )
    return codes.astype(np.int32)


def check_hidden(hidden):
    """Hidden states as a floating array; NumPy float64 stays, everything narrower becomes float32.

    Raises ValueError for what is not real or is masked, and, outside jit, for values that are not finite.
    """
    hidden = as_array(hidden, "hidden")
    _check_real(hidden)
    if isinstance(hidden, jax.Array):
        hidden = hidden if hidden.dtype == jnp.float64 else hidden.astype(jnp.float32)
        if isinstance(hidden, jax.core.Tracer):
            return hidden
        finite = bool(jnp.all(jnp.isfinite(hidden)))
    else:
        try:
            hidden = np.asarray(hidden)
            hidden = hidden if hidden.dtype == np.float64 else hidden.astype(np.float32)
        except (TypeError, ValueError) as error:  # Of an array of objects.
            raise ValueError(f"hidden must be real numbers, got objects: {error}") from error
        finite = np.isfinite(hidden).all()
    if not finite:
        bad = int(np.size(hidden) - np.isfinite(np.asarray(hidden)).sum())
        raise ValueError(f"hidden must be finite, got {bad} values that are NaN or infinite of {np.size(hidden)}")
    return hidden


def _check_real(hidden) -> None:
    dtype = hidden.dtype
    number = any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
    if not (number or getattr(dtype, "kind", "") == "O") or getattr(dtype, "kind", "") == "m":
        raise ValueError(f"hidden must be real numbers, got an array of {dtype}")
    if np.ma.isMaskedArray(hidden) and np.ma.getmaskarray(hidden).any():
        count = int(np.ma.getmaskarray(hidden).sum())
        raise ValueError(f"hidden must have all its values, got {count} that are masked; leave their points out")
