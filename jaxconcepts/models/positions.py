"""How a transformer knows where its tokens stand: kinds of positions, and attention whose scores depend on distance.

"learned" adds a table to the embeddings and "rotary" turns queries and keys; both then attend as any model does
(`layers.attend`). The other kinds change the scores themselves and attend by `attend` here. "Physics of Language
Models: Part 1" (arXiv 2305.13673) compares them on grammars.

Shape letters: B batch, P queries, S keys, H heads, e a head's width, D distances.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxconcepts.models import layers
from jaxconcepts.models.decoder import Context

KINDS = ("learned", "rotary", "relative", "position_only", "uniform", "none")
WITHOUT_QUERIES = ("position_only", "uniform")
"""Kinds whose weights depend on no token, so that there are no queries and keys."""


def rotate(
    x: Float[Array, "B T H e"], at: Int[Array, "#B T"], theta: float, fraction: float
) -> Float[Array, "B T H e"]:
    """Rotary positions (Su et al. 2021) on the first `fraction` of each head's dimensions, as GPT-NeoX has them."""
    turned = rotated_width(x.shape[-1], fraction)
    head, rest = x[..., :turned], x[..., turned:]
    return jnp.concatenate([layers.rope(head, at, layers.inverse_frequencies(theta, turned)), rest], axis=-1)


def rotated_width(head_dim: int, fraction: float) -> int:
    """How many of a head's dimensions are rotated."""
    return round(head_dim * fraction)


def spans(heads: int) -> tuple[int, ...]:
    """How many tokens, itself included, each head of "uniform" averages: 1, 3, 7, ... 2^h - 1."""
    return tuple(2**head - 1 for head in range(1, heads + 1))


def relative_scores(
    q: Float[Array, "B P H e"],
    k: Float[Array, "B S H e"],
    keys: Float[Array, "D H e"],
    queries: Float[Array, "D H e"],
    row: Int[Array, "b P S"],
) -> Float[Array, "B H P S"]:
    """Content-to-distance and distance-to-content scores (DeBERTa; He et al. 2021, equation 4), with the tables' row of
    each distance: q_i . keys[row] + k_j . queries[row]."""
    to_distance = jnp.einsum("bphe,dhe->bhpd", q, keys, preferred_element_type=jnp.float32)
    to_content = jnp.einsum("bshe,dhe->bhsd", k, queries, preferred_element_type=jnp.float32)
    row = row[:, None]
    of_keys = jnp.take_along_axis(to_content, row.swapaxes(-1, -2), axis=-1).swapaxes(-1, -2)
    return jnp.take_along_axis(to_distance, row, axis=-1) + of_keys


def attend(
    q: Float[Array, "B P H e"] | None,
    k: Float[Array, "B S H e"],
    v: Float[Array, "B S H f"],
    context: Context | None,
    *,
    scale: float,
    causal: bool = True,
    added: Callable[[Array, Array], Float[Array, "B H P S"]] | None = None,
    heads_reach: tuple[int, ...] | None = None,
) -> Float[Array, "B P H f"]:
    """Attention over the new tokens and the context's past with scores scale * (q . k + added), in float32.

    q: None for scores without content.
    added(distance [b, P, S], keys [B, S, H, e]) -> what is added to q . k; the keys are past and new.
    heads_reach: how many tokens back each head attends, itself included; None for all.
    causal: False lets every token attend to every other; there is no past then.
    """
    at = jnp.arange(v.shape[1])[None] if context is None else context.positions
    here = at if context is None else context.asked(at)
    there = at
    seen = (here[:, :, None] >= at[:, None, :]) if context is None else context.seen()
    if not causal:
        seen = jnp.ones_like(seen)
    if context is not None and context.past is not None:
        past_keys, past_values = context.past
        slots = jnp.arange(past_keys.shape[1])[None]
        seen_past = jnp.broadcast_to((slots < at[:, :1])[:, None], (*seen.shape[:2], slots.shape[1]))
        seen = jnp.concatenate([seen_past, seen], axis=2)
        k, v = (jnp.concatenate([old, new], axis=1) for old, new in ((past_keys, k), (past_values, v)))
        there = jnp.concatenate([jnp.broadcast_to(slots, (len(at), slots.shape[1])), at], axis=1)
    distance = here[:, :, None] - there[:, None, :]
    if context is not None and context.window is not None:
        seen = seen & (distance < context.window)
    return _weighted(q, k, v, distance, seen, scale, added, heads_reach)


def _weighted(q, k, v, distance, seen: Bool[Array, "b P S"], scale, added, heads_reach) -> Float[Array, "B P H e"]:
    seen = seen[:, None]
    if heads_reach is not None:
        seen = seen & (distance[:, None] < jnp.array(heads_reach)[:, None, None])
    scores = jnp.zeros(()) if q is None else jnp.einsum("bphe,bshe->bhps", q, k, preferred_element_type=jnp.float32)
    if added is not None:
        scores = scores + added(distance, k)
    shape = (len(v), v.shape[2], *distance.shape[1:])
    masked = jnp.where(seen, jnp.broadcast_to(scores * scale, shape), jnp.finfo(jnp.float32).min)
    return jnp.einsum("bhps,bshe->bphe", jax.nn.softmax(masked, axis=-1).astype(v.dtype), v)
