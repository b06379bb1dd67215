"""Arrays of other libraries: what a metric is given becomes a NumPy or JAX array, without copying where it can."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def as_array(values: Any, name: str = "values") -> np.ndarray | jax.Array:
    """A NumPy or JAX array of the values. name: what an error calls them.

    values: such an array; a torch tensor on any device, with or without a gradient (bfloat16 becomes float32); nested
    lists of numbers; or a list of arrays of equal shapes, such as one a layer, which become the leading axis.

    Raises ValueError for a list of arrays or rows of unequal shapes, and a tensor that NumPy cannot hold (sparse,
    quantised, without data).
    """
    if isinstance(values, np.ndarray | jax.Array):
        return values
    if hasattr(values, "detach"):
        return _of_tensor(values, name)
    if isinstance(values, list | tuple) and any(hasattr(value, "shape") for value in values):
        parts = [as_array(value, name) for value in values]
        if len({np.shape(part) for part in parts}) > 1:
            shapes = ", ".join(str(np.shape(part)) for part in parts[:4])
            raise ValueError(f"{name}: a list of arrays, one a layer, must have arrays of one shape, got {shapes}")
        return jnp.stack(parts) if any(isinstance(part, jax.Array) for part in parts) else np.stack(parts)
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be an array, or lists of equal lengths: {error}") from error


def _of_tensor(values, name):
    try:
        tensor = values.detach().cpu()
        narrow = tensor.is_floating_point() and tensor.element_size() < 4
        return (tensor.float() if narrow else tensor).numpy()
    except (TypeError, NotImplementedError, RuntimeError) as error:
        kind = f"{values.layout} tensor of {values.dtype} on {values.device}"
        raise ValueError(f"{name} must be a dense tensor of plain numbers with its data, got a {kind}") from error
