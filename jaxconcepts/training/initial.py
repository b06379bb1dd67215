"""Initial weights of language models that are trained from nothing."""

from __future__ import annotations

import jax
from jaxtyping import Array, Key, PyTree

from jaxconcepts.models import sharding
from jaxconcepts.models.decoder import Decoder


def fan_in(model: Decoder, key: Key[Array, ""]) -> PyTree:
    """Random parameters whose matrices have deviation 1 / sqrt(inputs), those that write to the stream of each of L
    blocks 1 / sqrt(2 L inputs) (as GPT-2 scales them); tables and norms as `Decoder.init` has them.

    A small model learns far sooner from these than from 0.02 everywhere.
    """
    params = model.init(key)

    def rescale(path, leaf):
        if path[-1].key != "kernel":
            return leaf
        writes = model.role(f"blocks/{sharding.path_of(path)}").writes
        depth = (2 * model.layers) ** -0.5 if writes else 1.0
        return leaf / 0.02 * leaf.shape[-2] ** -0.5 * depth

    return params | {"blocks": jax.tree_util.tree_map_with_path(rescale, params["blocks"])}
