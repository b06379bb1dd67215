"""The forward pass and decoding as pure functions, to be called inside jit; `language` checks and compiles them.

Shape letters: B batch, T tokens, P captured positions, L blocks, V vocabulary, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxconcepts.models import residual
from jaxconcepts.models.decoder import Context, Decoder
from jaxconcepts.models.layers import merge_heads

TOKENS_AT_ONCE = 2**15
"""Tokens of many rows that `by_rows` reads at once."""


def forward(
    model: Decoder, params, tokens, positions, past=None, capture=None, edits=None, depth=None,
    keep: str | None = None, resume: tuple | None = None, attention: str = "xla", nowhere_else: bool = False,
    lengths=None, branch=None, **options,
):  # fmt: skip
    """The residual stack on tokens at `positions`.

    keep: what the trace's outputs are: None; "cache": the state that the tokens leave (of attention: keys and values);
        "heads": the heads' outputs [L, B, P, heads * head_dim] at the captured positions, before the output projection.
    resume: (layer, stream after it), to run the later blocks alone; `tokens` is then not used (`residual.run`'s first).
    attention: see `Context`.
    nowhere_else: the stream after the last block is wanted at the captured positions [B, P] alone, so that block runs
        for them only (all of its keys and values aside), and the trace's stream is [B, P, d]. Not with edits.
    lengths: [B], how many of each row's tokens are real (default: all).
    branch: [T], see `Context`.
    options: remat and unroll, as of `residual.run`.

    Raises ValueError for edits of heads, or keep="heads", where the model's blocks have none.
    """
    if not model.ATTENDS and (keep == "heads" or (edits is not None and any(e is not None for e in edits[3:]))):
        raise ValueError(f"a {model.MODEL_TYPE} model has no attention heads to read or edit; edit the stream")

    def block(layer_params, stream, layer_input, head_edits, queries=None):
        inputs, layer_past = layer_input
        window, frequencies, amplitude = inputs
        context = Context(positions, layer_past, window, attention, queries, frequencies, amplitude, lengths, branch)
        stream, written = model.block().apply({"params": layer_params}, stream, context, head_edits)
        if keep == "heads":
            return stream, residual.select(merge_heads(written.heads), capture)
        return stream, written.state if keep == "cache" else None

    first, stream = (None, model.embed(params, tokens, positions)) if resume is None else resume
    inputs = jax.tree.map(lambda a: jnp.asarray(a)[: model.layers if depth is None else depth], model.layer_inputs())
    return residual.run(
        block, params["blocks"], stream,
        layer_inputs=(inputs, past), capture=capture, edits=edits, first=first, depth=depth,
        last_block=partial(block, head_edits=None, queries=capture) if nowhere_else else None, **options,
    )  # fmt: skip


def by_rows(function: Callable[[PyTree], PyTree], rows: PyTree, length: int) -> PyTree:
    """`function(rows)`, arrays [N, ...] of arrays [N, ...], a part of the rows after the other: as many at once as have
    `TOKENS_AT_ONCE` tokens where each has `length`, so that the memory of one call does not grow with N."""
    count = len(jax.tree.leaves(rows)[0])
    parts = -(-count // max(1, TOKENS_AT_ONCE // length))
    if parts <= 1:
        return function(rows)
    # Parts of one size: the last one is filled up with copies of the last row.
    each = -(-count // parts)
    at = jnp.minimum(jnp.arange(parts * each), count - 1).reshape(parts, each)
    made = jax.lax.map(lambda part: function(jax.tree.map(lambda a: a[part], rows)), at)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], made)


def read(model: Decoder, params, tokens, lengths, edits=None, keep: str | None = None):
    """`forward` on right-padded prompts, captured at each one's last token, which alone takes part in the last block
    (unless there are edits)."""
    return forward(
        model, params, tokens, jnp.arange(tokens.shape[1])[None],
        capture=(lengths - 1)[:, None], edits=edits, keep=keep, nowhere_else=edits is None, lengths=lengths,
    )  # fmt: skip


def greedy(
    model: Decoder, params, last: Float[Array, "B d"], cache, lengths, max_new_tokens: int, stop_tokens
) -> Int[Array, "B new"]:
    """`generate` from the prompts' stream at their last tokens, and the state that they left; inside jit."""
    return decode(model, params, last, cache, lengths, max_new_tokens, stop_tokens, _most_likely)


def decode(
    model: Decoder, params, last: Float[Array, "B d"], cache, lengths, max_new_tokens: int, stop_tokens,
    choose: Callable[[Float[Array, "B V"], Int[Array, ""]], Int[Array, " B"]],
) -> Int[Array, "B new"]:  # fmt: skip
    """As `greedy`, with each new token as choose(logits, how many there are already) says; inside jit."""
    rows, fill = jnp.arange(last.shape[0]), stop_tokens[0] if stop_tokens else 0
    stops = jnp.array(stop_tokens, jnp.int32)
    following = lambda stream, count: choose(model.unembed(params, stream), count).astype(jnp.int32)  # noqa: E731
    ends = lambda token: (token[:, None] == stops).any(-1)  # noqa: E731

    cache = model.with_room(cache, max_new_tokens)
    token = following(last, jnp.int32(0))
    answer = jnp.full((last.shape[0], max_new_tokens), fill, jnp.int32).at[:, 0].set(token)

    def step(state):
        count, token, done, answer, cache = state
        position = lengths + count - 1
        trace = forward(model, params, token[:, None], position[:, None], past=cache, keep="cache")
        cache = model.advanced(cache, trace.outputs, rows, position)
        token = jnp.where(done, fill, following(trace.stream[:, 0], count))
        return count + 1, token, done | ends(token), answer.at[:, count].set(token), cache

    going = lambda state: (state[0] < max_new_tokens) & ~state[2].all()  # noqa: E731
    return jax.lax.while_loop(going, step, (1, token, ends(token), answer, cache))[3]


def _most_likely(logits, _):
    return jnp.argmax(logits, axis=-1)


def drawn(
    key: Key[Array, ""], temperature: float | Float[Array, ""]
) -> Callable[[Float[Array, "B V"], Int[Array, ""]], Int[Array, " B"]]:
    """For `decode`: tokens drawn from softmax(logits / temperature), those of step n by fold_in(key, n)."""
    return lambda logits, count: jax.random.categorical(jax.random.fold_in(key, count), logits / temperature, axis=-1)
