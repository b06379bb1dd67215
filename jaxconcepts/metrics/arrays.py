"""Arrays of other libraries: what a metric is given becomes a NumPy or JAX array, without copying where it can."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def as_array(values: Any) -> np.ndarray | jax.Array:
    """A NumPy or JAX array of the values.

    values: such an array; a torch tensor on any device, with or without a gradient (bfloat16 becomes float32); nested
    lists of numbers; or a list of arrays of equal shapes, such as one a layer, which become the leading axis.

    Raises ValueError for a list of arrays of unequal shapes.
    """
    if isinstance(values, np.ndarray | jax.Array):
        return values
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        return (tensor.float() if str(tensor.dtype) in ("torch.bfloat16", "torch.float16") else tensor).numpy()
    if isinstance(values, list | tuple) and any(hasattr(value, "shape") for value in values):
        parts = [as_array(value) for value in values]
        if len({np.shape(part) for part in parts}) > 1:
            shapes = ", ".join(str(np.shape(part)) for part in parts[:4])
            raise ValueError(f"a list of arrays, one a layer, must have arrays of one shape, got {shapes}")
        return jnp.stack(parts) if any(isinstance(part, jax.Array) for part in parts) else np.stack(parts)
    return np.asarray(values)
