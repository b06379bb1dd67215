"""Patches as edits: hidden states of elsewhere written over, or added to, the residual stream at a layer and positions.

A patch is a place, a mask [L + 1, B or 1, T] over layers and positions, and what is put there. Places are data, so a
layer x position grid is a `jax.vmap` (or `jax.lax.map`) over the masks that `grid` gives, in one compiled program.
Layer l is the stream after block l, layer 0 the embeddings.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxconcepts.models.residual import Edits

POSITIONS = ("query", "x", "all")


def sequence_positions(num_pairs: int, positions: str) -> Bool[np.ndarray, " T"]:
    """Which of the 2 n tokens x1 y1 x2 y2 ... of a regression sequence: "query", the last x; "x", every x; "all".

    "all" ends at the query: the y after it is never seen by a prediction, but is patched too, as T tokens are.
    Raises ValueError for another name.
    """
    token = np.arange(2 * num_pairs)
    chosen = {"query": token == 2 * num_pairs - 2, "x": token % 2 == 0, "all": token >= 0}
    if positions not in chosen:
        raise ValueError(f"positions must be one of {', '.join(POSITIONS)}, got {positions!r}")
    return chosen[positions]


def last_tokens(lengths: Int[Array, " B"], width: int) -> Bool[Array, "B T"]:
    """Where each right-padded prompt of a batch `width` tokens wide ends."""
    return jnp.arange(width) == jnp.asarray(lengths)[:, None] - 1


def at_layer(
    layer: int | Int[Array, ""], blocks: int, positions: Bool[Array, "*B T"]
) -> Bool[Array, "layers B positions"]:
    """The place "these positions after block `layer`" (may be traced) of a model of `blocks` blocks.

    positions: [T], the same in every row, or [B, T]. Raises ValueError for a layer that does not exist.
    """
    if isinstance(layer, int | np.integer):
        check_layers([int(layer)], blocks)
    positions = jnp.asarray(positions)
    positions = positions[None] if positions.ndim == 1 else positions
    return (jnp.arange(blocks + 1) == layer)[:, None, None] & positions


def grid(blocks: int, positions: Bool[Array, "P T"]) -> Bool[Array, "layers P layers 1 T"]:
    """The places of a layer x position grid: element [l, p] is `at_layer(l, blocks, positions[p])`.

    positions: a mask a column of the grid; the identity [T, T] patches one token at a time.
    """
    layers = jnp.eye(blocks + 1, dtype=bool)
    return layers[:, None, :, None, None] & jnp.asarray(positions)[None, :, None, None, :]


def replace(place: Bool[Array, "layers #B #T"], states: Float[Array, "*some #B #T d"]) -> Edits:
    """The stream at the place becomes `states`: [B or 1, T or 1, d], or with a leading layer axis (or 1)."""
    states = jnp.asarray(states)
    return Edits(mask=place, value=states if states.ndim == 4 else states[None])


def add(place: Bool[Array, "layers #B #T"], states: Float[Array, "*some #B #T d"]) -> Edits:
    """`states`, shaped as for `replace`, is added to the stream at the place."""
    states = jnp.asarray(states)
    return Edits(add=place[..., None] * (states if states.ndim == 4 else states[None]))


def interchange(place: Bool[Array, "layers #B #T"], clean: Float[Array, "layers #B #T d"]) -> Edits:
    """The stream at the place becomes what it is in another run, `clean`: its hidden states of every layer.

    Interchange patching (Vig et al. 2020; Geiger et al. 2021; Meng et al. 2022): run on the corrupted prompts with the
    states of the clean ones, row by row.
    """
    return Edits(mask=place, value=clean)


def normalised_difference(
    patched: Float[Array, "*any"], clean: Float[Array, "*#any"], corrupted: Float[Array, "*#any"]
) -> Float[Array, "*any"]:
    """How much of the clean run a patch restores: (patched - corrupted) / (clean - corrupted) of a logit difference.

    1: the patched run is as the clean one; 0: as the corrupted one.
    """
    return (patched - corrupted) / (clean - corrupted)


def check_layers(layers, blocks: int) -> None:
    """Raises ValueError for layers (0: embeddings) that a model of `blocks` blocks does not have."""
    if wrong := [layer for layer in layers if not 0 <= layer <= blocks]:
        raise ValueError(f"layer must be from 0 (the embeddings) to {blocks} (the last block), got {wrong[0]}")
