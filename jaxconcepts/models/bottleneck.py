"""An explicit latent: a code of a few numbers is all that takes the examples to the prediction of a query.

Tokens alternate x_0 y_0 x_1 y_1 ... In all blocks but the last the tokens of x attend to themselves alone, so that
their stream is a function of that x and its position, and the tokens of y to all tokens before them and themselves.
Before the last block the stream of y_(i-1) is compressed to a code, which scales and shifts the stream of x_i (FiLM,
Perez et al. 2018, arXiv 1709.07871; x_0 gets none). In the last block every token attends to itself alone: what is
predicted for x_i is a function of x_i and the code. The standard transformer has no such restriction; does it lose or
gain by one (Mittal et al. 2024, arXiv 2405.19162)? At the x tokens nothing of the concept can be read up to the layer
at which the code enters.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxconcepts.models import layers
from jaxconcepts.models.decoder import EVERYWHERE


def entry(blocks: int) -> int:
    """The number of the block before which the code enters, which is also the last layer without it."""
    return blocks - 1


def init(width: int, size: int, key, scale) -> PyTree:
    """The code's projections: kernels of deviation `scale`, or 1 / sqrt(inputs) where it is 0."""
    down, up = jax.random.split(key)
    kernel = lambda key, inputs, outputs: (  # noqa: E731
        jax.random.normal(key, (inputs, outputs)) * jnp.where(jnp.asarray(scale) > 0, scale, inputs**-0.5)
    )
    return {
        "norm": {"scale": jnp.ones(width), "bias": jnp.zeros(width)},
        "down": {"kernel": kernel(down, width, size), "bias": jnp.zeros(size)},
        "up": {"kernel": kernel(up, size, 2 * width), "bias": jnp.zeros(2 * width)},
    }


def layer_inputs(blocks: int, length: int) -> tuple[Int[np.ndarray, "L T 1"], Bool[np.ndarray, " L"]]:
    """For every block: how far back each token attends, itself included; and whether the code enters before it."""
    of_y = np.arange(length) % 2 == 1
    reads = (np.arange(blocks) < entry(blocks))[:, None] & of_y
    return np.where(reads, EVERYWHERE, 1).astype(np.int32)[..., None], np.arange(blocks) == entry(blocks)


def code(params: PyTree, stream: Float[Array, "B T d"], eps: float, dtype: str) -> Float[Array, "B T code"]:
    """The code of every token; that of y_(i-1) is what x_i gets."""
    normed = layers.LayerNorm(eps).apply({"params": params["norm"]}, stream)
    return _dense(params["down"], dtype)(normed)


def with_code(params: PyTree, stream: Float[Array, "B T d"], eps: float, dtype: str) -> Float[Array, "B T d"]:
    """The stream s, made (1 + scale) * s + shift at every token of x but the first: both expanded from the code of the
    token before it."""
    expanded = _dense(params["up"], dtype)(code(params, stream, eps, dtype)).astype(stream.dtype)
    place = np.arange(stream.shape[1])
    shifted = jnp.pad(expanded[:, :-1], ((0, 0), (1, 0), (0, 0))) * ((place % 2 == 0) & (place > 0))[:, None]
    scale, shift = jnp.split(shifted, 2, axis=-1)
    return (1 + scale) * stream + shift


def _dense(params: PyTree, dtype: str):
    return lambda x: layers.Dense(params["kernel"].shape[1], dtype).apply({"params": params}, x)
