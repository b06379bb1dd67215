"""Attention heads switched off, set to their mean, or patched: edits of their outputs before the output projection.

Heads are counted from 0, blocks from 1, as layers of the stream are: a head of block l writes into layer l.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxconcepts.models.residual import Edits

ABLATIONS = ("zero", "mean")


def one_at_a_time(blocks: int, heads: int) -> Bool[np.ndarray, "LH blocks heads"]:
    """A mask for every head of every block, in the order of block and head: which head is meant."""
    return np.eye(blocks * heads, dtype=bool).reshape(blocks * heads, blocks, heads)


def chosen(pairs, blocks: int, heads: int) -> Bool[np.ndarray, "blocks heads"]:
    """The mask of (block, head) pairs, blocks from 1, heads from 0. Raises ValueError for one that does not exist."""
    mask = np.zeros((blocks, heads), bool)
    for block, head in pairs:
        if not 1 <= block <= blocks:
            raise ValueError(f"head {block}.{head}: the block must be from 1 to {blocks}, got {block}")
        if not 0 <= head < heads:
            raise ValueError(f"head {block}.{head}: the head must be from 0 to {heads - 1}, got {head}")
        mask[block - 1, head] = True
    return mask


def zero(mask: Bool[Array, "blocks heads"]) -> Edits:
    """The masked heads' outputs become 0 at every position."""
    return Edits(head_scale=1.0 - jnp.asarray(mask, jnp.float32)[:, None, :])


def replace(
    mask: Bool[Array, "blocks heads"],
    outputs: Float[Array, "blocks #B #T heads e"],
    positions: Bool[Array, "#B #T"] | None = None,
) -> Edits:
    """The masked heads' outputs become `outputs` (axes B and T may be 1): at every position, or where `positions` says.

    With the mean outputs over a reference set this is mean ablation; with those of another task's prompts, the patch of
    function vectors (Todd et al. 2024).
    """
    place = jnp.asarray(mask)[:, None, None, :]
    if positions is not None:
        place = place & positions[None, :, :, None]
    return Edits(head_mask=place, head_value=outputs)
