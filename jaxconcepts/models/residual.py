"""The one loop over blocks: every architecture runs its residual stream through `run`.

Layer l of a captured stream or of an edit is the residual stream *after* block l; layer 0 is the embeddings. So a model
of L blocks has L + 1 layers. Capturing and editing are data, not hooks: a layer x position patch grid is a `vmap` over
masks, and a head ablation a `vmap` over scales.

Shape letters: L blocks, B batch, T positions, P captured positions, d width, H heads, e a head's width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


class Edits(NamedTuple):
    """Changes of the residual stream. Each part can be None. Axes of size 1 broadcast.

    mask: [L + 1, B, T], 1 where `value` replaces the stream after that layer.
    value: [L + 1, B, T, d].
    add: [L + 1, B, T, d], added to the stream after a replacement.
    head_scale: [L, B, H], factor of each head's output before the output projection (0 ablates the head).
    head_mask: [L, B, T, H], 1 where `head_value` replaces a head's output, before the scaling.
    head_value: [L, B, T, H, e].
    """

    mask: Float[Array, "layers batch positions"] | None = None
    value: Float[Array, "layers batch positions width"] | None = None
    add: Float[Array, "layers batch positions width"] | None = None
    head_scale: Float[Array, "blocks batch heads"] | None = None
    head_mask: Float[Array, "blocks batch positions heads"] | None = None
    head_value: Float[Array, "blocks batch positions heads e"] | None = None


class HeadEdits(NamedTuple):
    """One block's part of the edits of its heads; see `Edits`."""

    scale: Float[Array, "batch heads"] | None = None
    mask: Float[Array, "batch positions heads"] | None = None
    value: Float[Array, "batch positions heads e"] | None = None


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
    block: Callable[[PyTree, Array, PyTree, HeadEdits | None], tuple[Array, Any]],
    params: PyTree,
    stream: Float[Array, "B T d"],
    *,
    layer_inputs: PyTree = None,
    capture=None,
    edits: Edits | None = None,
    first: int | Int[Array, ""] | None = None,
    depth: int | None = None,
    unroll: int | bool = 1,
    remat: bool = False,
    last_block: Callable[[PyTree, Array, PyTree], tuple[Array, Any]] | None = None,
) -> Trace:
    """Runs `stream` through the blocks whose parameters are stacked on the leading axis of `params`.

    block(layer_params, stream, layer_input, head_edits) -> (stream, output): one block. `layer_input` is its slice of
        `layer_inputs` (a local-attention flag, a key-value cache), `head_edits` its slice of the edits of heads.
    capture: None; positions [P] or [B, P]; or "all" for every position.
    edits: see `Edits`; captured layers show the stream as edited.
    first: `stream` is the stream after layer `first` of an earlier run, before any edit there, and only the blocks
        after it are run; it may be traced, so that one program serves all layers of a patch grid. Nothing is captured.
    depth: run only the first `depth` blocks; L is then `depth` in everything else, `layer_inputs` included.
    unroll: blocks unrolled in the scan; True unrolls all (faster on CPU, slower to compile).
    remat: recompute each block in the backward pass instead of keeping its activations.
    last_block: run in place of the last block, as last_block(layer_params, stream, layer_input) -> (stream [B, P, d] at
        the captured positions alone, output). The trace's stream is then this one too. Not with edits or `first`.

    Raises ValueError where an edit has another rank or layer axis than `Edits` says, where a mask comes without a
    value, where `first` is given with a capture, and where `last_block` is given with edits.
    """
    total = jax.tree.leaves(params)[0].shape[0]
    blocks = total if depth is None else min(depth, total)
    same, own = _by_layer(_checked(edits or Edits(), blocks))
    in_stream = lambda cut: Edits(*(None if part is None else part[cut] for part in own[:3]))  # noqa: E731
    later = Edits(*in_stream(slice(1, None))[:3], *own[3:])

    def step(stream, layer):
        layer_params, layer_input, layer_edits = layer
        if blocks < total:
            layer_params = jax.tree.map(lambda a: a[layer_params], params)
        edit = _merged(same, layer_edits)
        heads = HeadEdits(edit.head_scale, edit.head_mask, edit.head_value)
        heads = None if all(part is None for part in heads) else heads
        stream, output = block(layer_params, stream, layer_input, heads)
        stream = edited(stream, edit)
        return stream, (select(stream, capture), output)

    # Cutting the stacked parameters would copy them, so a partial run looks each block up by its number.
    scanned = (params if blocks == total else jnp.arange(blocks), layer_inputs, later)
    if first is not None:
        if capture is not None:
            raise ValueError(f"first = {first} leaves layers out, so that nothing can be captured; got {capture!r}")
        stream = edited(stream, _merged(same, in_stream(first)))
        of_block = lambda number: jax.tree.map(lambda a: jnp.asarray(a)[number], scanned)  # noqa: E731
        stream = jax.lax.fori_loop(first, blocks, lambda number, stream: step(stream, of_block(number))[0], stream)
        return Trace(stream, None, None)
    if remat:
        step = jax.checkpoint(step)
    if last_block is not None:
        if edits is not None:
            raise ValueError("last_block runs some positions alone, so that there can be no edits; got both")
        before = run(block, params, stream, layer_inputs=jax.tree.map(lambda a: a[: blocks - 1], layer_inputs),
                     capture=capture, depth=blocks - 1, unroll=unroll, remat=remat)  # fmt: skip
        own_params, own_input = (jax.tree.map(lambda a: a[blocks - 1], part) for part in (params, layer_inputs))
        stream, output = last_block(own_params, before.stream, own_input)
        outputs = jax.tree.map(lambda some, one: jnp.concatenate([some, one[None]]), before.outputs, output)
        return Trace(stream, jnp.concatenate([before.captured, stream[None]]), outputs)
    stream = edited(stream, _merged(same, in_stream(0)))
    embedded = select(stream, capture)
    stream, (captured, outputs) = jax.lax.scan(step, stream, scanned, length=blocks, unroll=unroll)
    if capture is not None and blocks == 0:
        captured = embedded[None]
    elif capture is not None:
        captured = jnp.concatenate([embedded[None], captured])
    return Trace(stream, captured, outputs)


def unrolls(platform: str | None = None) -> bool:
    """Whether blocks are all unrolled where nothing is said, on a platform (the default backend's if None): on a CPU
    that is faster, on an accelerator it only takes longer to compile."""
    return (jax.default_backend() if platform is None else platform) == "cpu"


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


def edited(stream: Float[Array, "B T d"], edit: Edits) -> Float[Array, "B T d"]:
    """The stream as one layer's edits say: `mask`, `value` and `add` without their layer axis."""
    if edit.mask is not None:
        stream = jnp.where(edit.mask[..., None] > 0, edit.value.astype(stream.dtype), stream)
    if edit.add is not None:
        stream = stream + edit.add.astype(stream.dtype)
    return stream


def edit_heads(heads: Float[Array, "B T H e"], edits: HeadEdits | None) -> Float[Array, "B T H e"]:
    """A block's head outputs, before the output projection, as its edits say."""
    if edits is None:
        return heads
    if edits.mask is not None:
        heads = jnp.where(edits.mask[..., None] > 0, edits.value.astype(heads.dtype), heads)
    return heads if edits.scale is None else heads * edits.scale[:, None, :, None].astype(heads.dtype)


def _checked(edits: Edits, blocks: int) -> Edits:
    """The edits as arrays, each with a layer axis of full size or 1."""
    for mask, value in (("mask", "value"), ("head_mask", "head_value")):
        if (getattr(edits, mask) is None) != (getattr(edits, value) is None):
            raise ValueError(f"an edit replaces where edits.{mask} is 1 by edits.{value}: give both or neither")
    checked = {}
    for name, layers, axes in (
        ("mask", blocks + 1, "[layers + 1, batch, positions]"),
        ("value", blocks + 1, "[layers + 1, batch, positions, width]"),
        ("add", blocks + 1, "[layers + 1, batch, positions, width]"),
        ("head_scale", blocks, "[layers, batch, heads]"),
        ("head_mask", blocks, "[layers, batch, positions, heads]"),
        ("head_value", blocks, "[layers, batch, positions, heads, head width]"),
    ):
        if (part := getattr(edits, name)) is None:
            continue
        part = jnp.asarray(part)
        if part.ndim != axes.count(",") + 1 or part.shape[0] not in (layers, 1):
            raise ValueError(
                f"edits.{name} must be {axes} with a leading axis of {layers} (the model has {blocks} blocks) or 1, "
                f"got shape {part.shape}"
            )
        checked[name] = part
    return Edits(**checked)


def _by_layer(edits: Edits) -> tuple[Edits, Edits]:
    """What is the same in every layer, which then needs no copies along the layer axis, and what has that axis."""
    same = Edits(*(None if part is None or part.shape[0] > 1 else part[0] for part in edits))
    own = Edits(*(None if part is None or part.shape[0] == 1 else part for part in edits))
    return same, own


def _merged(first: Edits, second: Edits) -> Edits:
    """The parts of either."""
    return Edits(*(b if a is None else a for a, b in zip(first, second, strict=True)))
