"""What an in-context study asks of a batch of prompts, from one pass over them: states, answers, log-probabilities."""

from __future__ import annotations

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
    """[B, C]: teacher-forced, one continuation of every prompt after another, on the prompts' keys and values."""
    steps = jnp.arange(continuations.shape[2])
    first = jax.nn.log_softmax(model.unembed(params, last), axis=-1)

    def one(continuation):
        ids, count = continuation
        found = jnp.take_along_axis(first, ids[:, :1], axis=1)
        if len(steps) > 1:
            positions = lengths[:, None] + steps[:-1]
            stream = language.forward(model, params, ids[:, :-1], positions, past=cache).stream
            later = jax.nn.log_softmax(model.unembed(params, stream), axis=-1)
            found = jnp.concatenate([found, jnp.take_along_axis(later, ids[:, 1:, None], axis=2)[..., 0]], axis=1)
        return jnp.sum(jnp.where(steps < count[:, None], found, 0.0), axis=1)

    each = (jnp.moveaxis(continuations, 1, 0), jnp.moveaxis(continuation_lengths, 1, 0))
    return jax.lax.map(one, each).T
