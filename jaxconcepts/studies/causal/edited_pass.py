"""Prompts asked of a language model while its stream or heads are changed: one compiled program for every experiment.

A `Change` says what is done at the last token of a prompt (a head's output also at every token) as small arrays, so
that patches, task vectors, function vectors, steering and ablations at any layer and head share one program a width.

Attention is causal: a change at the last token leaves all tokens before it as they are. So those are read once, and
each change runs the last token alone on what they left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxconcepts.interventions import patching
from jaxconcepts.models import language, residual, scoring
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.prompts import render
from jaxconcepts.prompts.family import Family
from jaxconcepts.studies.asking import answers
from jaxconcepts.studies.asking.passes import Progress, one_ahead
from jaxconcepts.studies.causal.config import CausalConfig


class Session(NamedTuple):
    """A model with its tokenizer, and how it is asked."""

    config: CausalConfig
    model: Decoder
    params: PyTree
    tokenizer: Any


class Asked(NamedTuple):
    """Prompts in tokens, each up to the token before the answer's first one that says anything: many tokenizers begin
    an answer with a blank, the same for all answers, so that a change of the token before it would change nothing.

    other: what another concept would answer, "" where that is not known or the same.

    continuations: [n, 2, A] the tokens of both answers; continuation_lengths: [n, 2], 0 where there is none.
    """

    prompts: list[render.Prompt]
    ids: list[list[int]]
    other: list[str]
    continuations: Int[np.ndarray, "n 2 A"]
    continuation_lengths: Int[np.ndarray, "n 2"]


class Change(NamedTuple):
    """What is changed. Layers count from 0, the embeddings; -1 for none. Every part may differ from batch to batch.

    replace_layer, states [B or 1, d]: the stream at the last token after that layer becomes this.
    add_layer, direction [B or 1, d]: this is added to it.
    heads [L, H], outputs [L, H, e]: these heads' outputs become these, at every token, or `at_last` at the last one.
    """

    replace_layer: Int[Array, ""]
    states: Float[Array, "B d"]
    add_layer: Int[Array, ""]
    direction: Float[Array, "B d"]
    heads: Bool[Array, "L H"]
    outputs: Float[Array, "L H e"]
    at_last: Bool[Array, ""]


class Answered(NamedTuple):
    """texts: the greedy answers. correct, as_other: exact match with the right answer, with the other concept's (False
    where there is none)."""

    texts: list[str]
    correct: Bool[np.ndarray, " n"]
    as_other: Bool[np.ndarray, " n"]


class Captured(NamedTuple):
    """states: [L + 1, n, d] at the last token. heads: [L, n, H, e], the heads' outputs there; heads_mean: their mean
    over the prompt's tokens; H = 0 for a model without heads."""

    states: Float[np.ndarray, "layers n d"]
    heads: Float[np.ndarray, "L n H e"]
    heads_mean: Float[np.ndarray, "L n H e"]


def encode(session: Session, family: Family, prompts: Sequence[render.Prompt], others: dict[str, str]) -> Asked:
    """The prompts in tokens. others: by concept, whose answer is the other one."""
    ids, gold = render.encode(session.tokenizer, prompts, session.config.bos)
    named = [family.answers(prompt.query.input).get(others.get(prompt.concept), "") for prompt in prompts]
    named = ["" if other == prompt.answer else other for other, prompt in zip(named, prompts, strict=True)]
    asked = [prompt._replace(answer=other or prompt.answer) for other, prompt in zip(named, prompts, strict=True)]
    alternative = render.encode(session.tokenizer, asked, False)[1]
    told = [_without_blanks(session, *row) for row in zip(ids, gold, alternative, strict=True)]
    ids, gold, alternative = (list(part) for part in zip(*told, strict=True)) if told else ([], [], [])
    width = max(map(len, [*gold, *alternative]), default=1)
    continuations = np.zeros((len(prompts), 2, width), np.int32)
    lengths = np.zeros((len(prompts), 2), np.int32)
    for row, (right, other, known) in enumerate(zip(gold, alternative, named, strict=True)):
        continuations[row, 0, : len(right)], lengths[row, 0] = right, len(right)
        if known:
            continuations[row, 1, : len(other)], lengths[row, 1] = other, len(other)
    return Asked(list(prompts), ids, named, continuations, lengths)


def _without_blanks(session: Session, ids, *answers):
    """The prompt and its answers with the blank tokens that all answers begin with at the prompt's end instead."""
    count = 0
    while all(len(answer) > count + 1 and answer[count] == answers[0][count] for answer in answers):
        if session.tokenizer.decode([answers[0][count]], clean_up_tokenization_spaces=False).strip():
            break
        count += 1
    return ([*ids, *answers[0][:count]], *(answer[count:] for answer in answers))


def pair(session: Session, prompts: Sequence[render.Prompt]) -> list[tuple[list[int], list[int]]]:
    """(prompt, answer) in tokens of prompts to compare token by token, cut as `Asked` says."""
    ids, gold = render.encode(session.tokenizer, prompts, session.config.bos)
    return [tuple(_without_blanks(session, *row)) for row in zip(ids, gold, strict=True)]


def take(asked: Asked, rows: Sequence[int]) -> Asked:
    """Some of the prompts."""
    pick = lambda part: [part[i] for i in rows]  # noqa: E731
    arrays = (asked.continuations[np.asarray(rows, int)], asked.continuation_lengths[np.asarray(rows, int)])
    return Asked(pick(asked.prompts), pick(asked.ids), pick(asked.other), *arrays)


def nothing(model: Decoder) -> Change:
    """The change that changes nothing."""
    heads = (model.layers, model.heads)
    state = np.zeros((1, model.width), np.float32)
    none = np.asarray(-1, np.int32)
    outputs = np.zeros((*heads, model.head_dim), np.float32)
    return Change(none, state, none, state, np.zeros(heads, bool), outputs, np.asarray(False))


def replaced(model: Decoder, layer: int, states) -> Change:
    """The stream at the last token after `layer` becomes `states`, [d] or [B, d]."""
    patching.check_layers([layer], model.layers)
    states = np.atleast_2d(np.asarray(states, np.float32))
    return nothing(model)._replace(replace_layer=np.asarray(layer, np.int32), states=states)


def added(model: Decoder, layer: int, direction) -> Change:
    """`direction`, [d] or [B, d], is added to the stream at the last token after `layer`."""
    patching.check_layers([layer], model.layers)
    direction = np.atleast_2d(np.asarray(direction, np.float32))
    return nothing(model)._replace(add_layer=np.asarray(layer, np.int32), direction=direction)


def with_heads(model: Decoder, heads, outputs, at_last: bool) -> Change:
    """The outputs of the heads where `heads` [L, H] is true become `outputs` [L, H, e] (0 for zero ablation)."""
    outputs = np.broadcast_to(np.asarray(outputs, np.float32), (model.layers, model.heads, model.head_dim))
    return nothing(model)._replace(heads=np.asarray(heads, bool), outputs=outputs, at_last=np.asarray(at_last))


Changes = Sequence[Change | Callable[[Int[np.ndarray, " B"]], Change] | None]
"""Changes one after the other: each the same for all prompts, or a function of a batch's places among them; None for
the model as it is."""


def ask(session: Session, asked: Asked, change: Change | None = None, what: str = "prompts") -> Answered:
    """The answers to all prompts under one change; what: as of `ask_each`."""
    return ask_each(session, asked, [change], what)[0]


def ask_each(session: Session, asked: Asked, changes: Changes, what: str = "prompts") -> list[Answered]:
    """The answers to all prompts under each change. what: named in the progress."""
    stop = session.config.template.stop
    stops = answers.stop_tokens(session.tokenizer, session.model, stop)
    budget = asked.continuations.shape[2] + answers.SPARE
    texts = [[""] * len(asked.ids) for _ in changes]
    for number, indices, found in _runs(session, asked, changes, scoring.Wanted(False, budget, stops), what):
        for i, answer in zip(indices, np.asarray(found.answers), strict=False):
            texts[number][i] = answers.read(session.tokenizer, answer, stops, stop)
    right = [prompt.answer.strip() for prompt in asked.prompts]
    match = lambda row, wanted: np.array([bool(w) and t == w for t, w in zip(row, wanted, strict=True)], bool)  # noqa: E731
    return [Answered(row, match(row, right), match(row, asked.other)) for row in texts]


def log_probs(
    session: Session, asked: Asked, changes: Changes, what: str = "prompts"
) -> Float[np.ndarray, "changes n 2"]:
    """The log-probability of both answers to all prompts under each change, nats summed over an answer's tokens; NaN
    where there is no answer. what: as of `ask_each`."""
    values = np.full((len(changes), len(asked.ids), 2), np.nan)
    for number, indices, found in _runs(session, asked, changes, scoring.Wanted(False, 0, ()), what):
        values[number, indices] = np.asarray(found.log_probs)[: len(indices)]
    return np.where(asked.continuation_lengths > 0, values, np.nan)


def _runs(session: Session, asked: Asked, changes: Changes, wanted: scoring.Wanted, what: str):
    """(number of the change, places of the prompts, their `Scores`), each read while the next is computed."""
    progress = Progress(what, len(asked.ids) * len(changes))
    for number, indices, found in one_ahead(_started(session, asked, changes, wanted)):
        yield number, indices, jax.block_until_ready(found)
        progress.add(len(indices))


def _started(session: Session, asked: Asked, changes: Changes, wanted: scoring.Wanted):
    """`_runs` whose scores may still be on their way."""
    config, model, params = session.config, session.model, session.params
    room = max(asked.continuations.shape[2], wanted.max_new_tokens)
    # Few prompts do not fill a batch up: each is asked under every change.
    size = max(1, min(config.batch_size, len(asked.ids)))
    for indices, tokens, lengths in language.batches(asked.ids, size, config.multiple):
        tokens, lengths = language.checked(model, tokens, lengths)
        if (longest := int(lengths.max()) + room) > model.context:
            raise ValueError(f"prompt and answer take {longest} tokens, the model's context is {model.context}")
        places, before = np.maximum(indices, 0), None
        continuations = None
        if not wanted.max_new_tokens:
            continuations = (asked.continuations[places], asked.continuation_lengths[places])
        for number, change in enumerate(changes):
            made = change(places) if callable(change) else nothing(model) if change is None else change
            # Always a row a prompt: one program, whether all rows get the same or not.
            rows = (len(tokens), model.width)
            made = made._replace(
                states=np.broadcast_to(made.states, rows), direction=np.broadcast_to(made.direction, rows)
            )
            with language.exact_products(model):
                if made.heads.any() and not made.at_last:
                    found = _asked(model, params, tokens, lengths, continuations, made, wanted)
                else:
                    before = _before_last(model, params, tokens, lengths) if before is None else before
                    found = _asked_last(model, params, before, tokens, lengths, continuations, made, wanted)
            yield number, indices[indices >= 0], found


def capture(session: Session, asked: Asked) -> Captured:
    """The prompts' states and head outputs."""
    model, parts = session.model, {}
    for indices, tokens, lengths in language.batches(asked.ids, session.config.batch_size, session.config.multiple):
        tokens, lengths = language.checked(model, tokens, lengths)
        with language.exact_products(model):
            found = jax.device_get(_captured(model, session.params, tokens, lengths))
        real = indices >= 0
        parts |= {i: [a[:, row] for a in found] for row, i in enumerate(indices) if real[row]}
    return Captured(*(np.stack([parts[i][part] for i in range(len(asked.ids))], axis=1) for part in range(3)))


def edits_of(change: Change, model: Decoder, lengths: Int[Array, " B"], width: int) -> residual.Edits:
    """The change as edits of a batch of right-padded prompts; of the stream alone where a model has no heads."""
    last = patching.last_tokens(lengths, width)
    replace = patching.replace(patching.at_layer(change.replace_layer, model.layers, last), change.states[:, None])
    add = patching.add(patching.at_layer(change.add_layer, model.layers, last), change.direction[:, None])
    if not model.ATTENDS:
        return replace._replace(add=add.add)
    where = (last | ~change.at_last)[None, :, :, None] & change.heads[:, None, None, :]
    return replace._replace(add=add.add, head_mask=where, head_value=change.outputs[:, None, None])


@partial(jax.jit, static_argnums=(0, 6))
def _asked(model, params, tokens, lengths, continuations, change, wanted):
    edits = edits_of(change, model, lengths, tokens.shape[1])
    return scoring.scored(model, params, tokens, lengths, continuations, wanted, edits)


@partial(jax.jit, static_argnums=0)
def _before_last(model, params, tokens, lengths):
    """The state that all tokens of each prompt but its last one leave."""
    positions = jnp.arange(tokens.shape[1])[None]
    return language.forward(model, params, tokens, positions, keep="cache", lengths=lengths - 1).outputs


@partial(jax.jit, static_argnums=(0, 7))
def _asked_last(model, params, before, tokens, lengths, continuations, change, wanted):
    """As `_asked` for a change at the last token, from the state `before` it."""
    rows, at = jnp.arange(len(lengths)), lengths - 1
    edits = edits_of(change, model, jnp.ones_like(lengths), 1)
    trace = language.forward(
        model, params, tokens[rows, at][:, None], at[:, None], past=before, edits=edits, keep="cache"
    )
    cache = model.advanced(before, trace.outputs, rows, at)
    return scoring.continued(model, params, trace.stream[:, 0], cache, lengths, continuations, wanted)


@partial(jax.jit, static_argnums=0)
def _captured(model, params, tokens, lengths):
    positions = jnp.arange(tokens.shape[1])
    keep = "heads" if model.ATTENDS else None
    trace = language.forward(model, params, tokens, positions[None], capture="all", keep=keep, lengths=lengths)
    rows = jnp.arange(len(lengths))
    if not model.ATTENDS:
        none = jnp.zeros((model.layers, len(lengths), 0, model.head_dim))
        return trace.captured[:, rows, lengths - 1], none, none
    heads = trace.outputs.reshape(*trace.outputs.shape[:3], model.heads, model.head_dim)
    real = (positions < lengths[:, None]).astype(heads.dtype)
    mean = jnp.einsum("lbthe,bt->lbhe", heads, real) / lengths[:, None, None]
    return trace.captured[:, rows, lengths - 1], heads[:, rows, lengths - 1], mean
