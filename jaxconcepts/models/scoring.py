"""What an in-context study asks of a batch of prompts, from one pass over them: states, answers, log-probabilities."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxconcepts.models import language, sharding, through_transformers
from jaxconcepts.models.decoder import Decoder


class Scores(NamedTuple):
    """states: the stream at each prompt's last token, layer 0 the embeddings. answers: greedy, as of `generate`.
    log_probs: of each continuation, nats summed over its tokens. None where not asked for."""

    states: Float[Array, "layers B d"] | None
    answers: Int[Array, "B new"] | None
    log_probs: Float[Array, "B C"] | None


def score(
    model: Decoder,
    params: PyTree,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    *,
    states: bool = True,
    max_new_tokens: int = 0,
    stop_tokens: tuple[int, ...] = (),
    continuations: tuple[Int[Array, "B C A"], Int[Array, "B C"]] | None = None,
) -> Scores:
    """All of `Scores` from one pass over right-padded prompts.

    max_new_tokens: of the greedy answers; 0 for none. stop_tokens: ids after which an answer ends.
    continuations: token ids [B, C, A], right-padded, and how many of each count [B, C].

    Raises ValueError as `language.generate` does.
    """
    tokens, lengths = language.checked_tokens(model, tokens, lengths)
    width = 0 if continuations is None else np.shape(continuations[0])[2]
    if (longest := int(lengths.max()) + max(max_new_tokens, width)) > model.context:
        raise ValueError(f"prompt and answer take {longest} tokens, the model's context is {model.context}")
    wanted = Wanted(states, max_new_tokens, tuple(stop_tokens))
    if isinstance(model, through_transformers.TransformersModel):
        return _through(model, params, tokens, lengths, continuations, wanted)
    model = model.for_lengths(np.concatenate([lengths, lengths + max(max_new_tokens, width)]))
    batch = (tokens, lengths, continuations)
    batch = jax.tree.map(lambda array: sharding.shard_batch(np.asarray(array, np.int32), params), batch)
    with language.exact_products(model):
        return _score(model, params, *batch, wanted)


class Wanted(NamedTuple):
    """What is asked for beside continuations, as of `score`."""

    states: bool
    max_new_tokens: int
    stop_tokens: tuple[int, ...]


def _through(model, params, tokens, lengths, continuations, wanted: Wanted) -> Scores:
    """`score` of a model that transformers runs."""
    stream = language.hidden_states(model, params, tokens, lengths) if wanted.states else None
    answers = log_probs = None
    if wanted.max_new_tokens:
        answers = through_transformers.generate(model, params, tokens, lengths, *wanted[1:])
    if continuations is not None:
        log_probs = through_transformers.log_probs(
            params, tokens, lengths, continuations[0], np.asarray(continuations[1])
        )
    return Scores(stream, answers, log_probs)


def scored(model, params, tokens, lengths, continuations, wanted: Wanted, edits=None) -> Scores:
    """`score` inside jit; edits: `residual.Edits` of the prompts' tokens, which the answers see through the cache."""
    reused = wanted.max_new_tokens > 0 or continuations is not None
    trace = language.read(model, params, tokens, lengths, edits, keep="cache" if reused else None)
    found = continued(model, params, trace.captured[-1, :, 0], trace.outputs, lengths, continuations, wanted)
    return found._replace(states=trace.captured[:, :, 0]) if wanted.states else found


def continued(
    model: Decoder, params: PyTree, last: Float[Array, "B d"], cache: PyTree, lengths, continuations, wanted: Wanted
) -> Scores:
    """`scored` but for the states, from the stream after the last block at the prompts' last tokens and the state that
    the prompts left; inside jit."""
    answers = log_probs = None
    if wanted.max_new_tokens:
        answers = language.greedy(model, params, last, cache, lengths, *wanted[1:])
    if continuations is not None:
        log_probs = _log_probs(model, params, last, cache, lengths, *continuations)
    return Scores(None, answers, log_probs)


_score = jax.jit(scored, static_argnums=(0, 5))


def _log_probs(model, params, last, cache, lengths, continuations, continuation_lengths):
    """[B, C]: teacher-forced, on what the prompts left. A prompt's continuations are branches of one sequence; with a
    recurrent model, whose state is that of one text, they come one after another."""
    width = continuations.shape[2]
    first = jax.nn.log_softmax(model.unembed(params, last), axis=-1)
    found = jnp.take_along_axis(first, continuations[:, :, 0], axis=1)[..., None]
    if width > 1:
        given, offsets = continuations[:, :, :-1], jnp.arange(width - 1)

        def stream(ids):
            """Of tokens [B, C', A - 1] of C' continuations each."""
            branch = jnp.repeat(jnp.arange(ids.shape[1]), width - 1)
            positions = lengths[:, None] + jnp.tile(offsets, ids.shape[1])
            branch = branch if ids.shape[1] > 1 else None
            ids = ids.reshape(len(ids), -1)
            found = language.forward(model, params, ids, positions, past=cache, branch=branch).stream
            return found.reshape(len(ids), -1, width - 1, found.shape[-1])

        def later(each):
            """One continuation's, so that the logits of all are never there at once."""
            ids, stream = each
            logits = jax.nn.log_softmax(model.unembed(params, stream), axis=-1)
            return jnp.take_along_axis(logits, ids[..., None], axis=2)[..., 0]

        by_continuation = partial(jnp.moveaxis, source=1, destination=0)
        if model.ATTENDS:
            streams = by_continuation(stream(given))
        else:
            streams = jax.lax.map(lambda ids: stream(ids[:, None])[:, 0], by_continuation(given))
        rest = jax.lax.map(later, (by_continuation(continuations[:, :, 1:]), streams))
        found = jnp.concatenate([found, jnp.moveaxis(rest, 0, 1)], axis=2)
    counted = jnp.arange(width) < continuation_lengths[..., None]
    return jnp.sum(jnp.where(counted, found, 0.0), axis=2)
