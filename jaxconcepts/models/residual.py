"""The one loop over blocks: every architecture runs its residual stream through `run`.

Layer l of a captured stream or of an edit is the residual stream *after* block l; layer 0 is the embeddings. So a model
of L blocks has L + 1 layers. Capturing and editing are data, not hooks: a layer x position patch grid is a `vmap` over
masks, and a head ablation a `vmap` over scales.

Shape letters: L blocks, B batch, T positions, P captured positions, d width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class Edits(NamedTuple):
    """What is changed in the stream. Every part may be left None; all broadcast over the axes that have size 1.

    mask: [L + 1, B, T], 1 where the stream after that layer is replaced by `value`.
    value: [L + 1, B, T, d].
    add: [L + 1, B, T, d], added to the stream after any replacement.
    head_scale: [L, B, H], multiplies each head's output before the output projection (0 ablates the head).
    """

    mask: Float[Array, "layers batch positions"] | None = None
    value: Float[Array, "layers batch positions width"] | None = None
    add: Float[Array, "layers batch positions width"] | None = None
    head_scale: Float[Array, "blocks batch heads"] | None = None


class Trace(NamedTuple):
    """What `run` returns.

    stream: [B, T, d] after the last block, before the final norm.
    captured: [L + 1, B, P, d] at the positions asked for, or None.
    outputs: what the blocks returned beside the stream, stacked over layers.
    """

    stream: Float[Array, "B T d"]
    captured: Float[Array, "layers B P d"] | None
    outputs: PyTree


def run(
    block: Callable[[PyTree, Array, PyTree, Array | None], tuple[Array, Any]],
    params: PyTree,
    stream: Float[Array, "B T d"],
    *,
    layer_inputs: PyTree = None,
    capture=None,
    edits: Edits | None = None,
    depth: int | None = None,
    unroll: int | bool = 1,
    remat: bool = False,
) -> Trace:
    """Runs `stream` through the blocks whose parameters are stacked on the leading axis of `params`.

    block(layer_params, stream, layer_input, head_scale) -> (stream, output): one block. `layer_input` is its slice of
        `layer_inputs` (a local-attention flag, a key-value cache), `head_scale` [B, H] its slice of the edits.
    capture: None; positions [P] or [B, P]; or "all" for every position.
    edits: see `Edits`; captured layers show the stream as edited.
    depth: run only the first `depth` blocks; L is then `depth` in everything else, `layer_inputs` included.
    unroll: blocks unrolled in the scan; True unrolls all (faster on CPU, slower to compile).
    remat: recompute each block in the backward pass instead of keeping its activations.

    Raises ValueError where an edit has another rank or layer axis than `Edits` says, or a mask comes without a value.
    """
    total = jax.tree.leaves(params)[0].shape[0]
    blocks = total if depth is None else min(depth, total)
    edits = _checked(edits or Edits(), blocks)
    at_layer = Edits(mask=edits.mask, value=edits.value, add=edits.add)
    first, later = (jax.tree.map(lambda a, cut=cut: a[cut], at_layer) for cut in (0, slice(1, None)))

    def step(stream, layer):
        layer_params, layer_input, edit, head_scale = layer
        if blocks < total:
            layer_params = jax.tree.map(lambda a: a[layer_params], params)
        stream, output = block(layer_params, stream, layer_input, head_scale)
        stream = _edit(stream, edit)
        return stream, (select(stream, capture), output)

    if remat:
        step = jax.checkpoint(step)
    stream = _edit(stream, first)
    embedded = select(stream, capture)
    # Cutting the stacked parameters would copy them, so a partial run looks each block up by its number.
    scanned = params if blocks == total else jnp.arange(blocks)
    stream, (captured, outputs) = jax.lax.scan(
        step, stream, (scanned, layer_inputs, later, edits.head_scale), length=blocks, unroll=unroll
    )
    if capture is not None and blocks == 0:
        captured = embedded[None]
    elif capture is not None:
        captured = jnp.concatenate([embedded[None], captured])
    return Trace(stream, captured, outputs)


def select(stream: Float[Array, "B T d"], capture) -> Float[Array, "B P d"] | None:
    """The stream at the positions `capture` (None, "all", [P] or [B, P])."""
    if capture is None:
        return None
    if isinstance(capture, str):
        if capture != "all":
            raise ValueError(f'capture must be None, "all" or an array of positions, got {capture!r}')
        return stream
    capture = jnp.asarray(capture)
    if capture.ndim == 1:
        return stream[:, capture]
    return jnp.take_along_axis(stream, capture[..., None], axis=1)


def _edit(stream, edit: Edits):
    if edit.mask is not None:
        stream = jnp.where(edit.mask[..., None] > 0, edit.value.astype(stream.dtype), stream)
    if edit.add is not None:
        stream = stream + edit.add.astype(stream.dtype)
    return stream


def _checked(edits: Edits, blocks: int) -> Edits:
    """The edits with their layer axis broadcast to full size, so that the scan can slice them."""
    if (edits.mask is None) != (edits.value is None):
        raise ValueError("an edit replaces where edits.mask is 1 by edits.value: give both or neither")
    full = {}
    for name, layers, axes in (
        ("mask", blocks + 1, "[layers + 1, batch, positions]"),
        ("value", blocks + 1, "[layers + 1, batch, positions, width]"),
        ("add", blocks + 1, "[layers + 1, batch, positions, width]"),
        ("head_scale", blocks, "[layers, batch, heads]"),
    ):
        if (part := getattr(edits, name)) is None:
            continue
        part = jnp.asarray(part)
        if part.ndim != axes.count(",") + 1 or part.shape[0] not in (layers, 1):
            raise ValueError(
                f"edits.{name} must be {axes} with a leading axis of {layers} (the model has {blocks} blocks) or 1, "
                f"got shape {part.shape}"
            )
        full[name] = jnp.broadcast_to(part, (layers, *part.shape[1:]))
    return edits._replace(**full)
