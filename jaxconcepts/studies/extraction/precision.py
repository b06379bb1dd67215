"""What bfloat16 costs at every layer: the hidden states of a language model in bfloat16 against those in float32."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxconcepts.models import language
from jaxconcepts.models.decoder import Decoder


def bfloat16_error(
    model: Decoder, params: PyTree, tokens: Int[Array, "B T"], lengths: Int[Array, " B"] | None = None
) -> Float[np.ndarray, " layers"]:
    """The relative error |h' - h| / |h| (Euclidean, root mean square over prompts) of every layer at the last token.

    h: in float32. h': the same model in bfloat16, its parameters rounded, norms, softmax and rotations in float32 as
    always. model, params: a float32 model; tokens, lengths as in `language.hidden_states`. Layer 0, the embeddings, has
    the error of rounding alone, at most 2^-9 = 0.002 relative an entry.

    Raises ValueError where the model is not in float32, and as `language.hidden_states` does.
    """
    if model.dtype != "float32":
        raise ValueError(f"model.dtype must be float32, to compare bfloat16 with, got {model.dtype!r}")
    rounded = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    coarse = dataclasses.replace(model, dtype="bfloat16")
    exact = np.asarray(language.hidden_states(model, params, tokens, lengths), np.float64)
    states = np.asarray(language.hidden_states(coarse, rounded, tokens, lengths), np.float64)
    squares = np.square(states - exact).sum(-1) / np.square(exact).sum(-1)
    return np.sqrt(squares.mean(-1))
