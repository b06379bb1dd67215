"""Strings that a decoder writes, and whether they are in the language: one compiled loop for all starts."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from jaxconcepts.models import decoding
from jaxconcepts.tasks import grammar_exact
from jaxconcepts.tasks.grammar_tables import BEGIN

STARTS = (("generation", "begin"), ("generation", "prefix"), ("noise", "corrupted"))
"""Which evaluator asks for which start."""
KEY = 20241216


class Written(NamedTuple):
    """Strings from one start at one temperature. tokens: [G, T], the start's included, 0 past the end. ended: whether
    there was an end within the longest string. parses: whether the string is in the language; after a corrupted
    prefix, whether some prefix of its length makes it one."""

    tokens: Int[Array, "G T"]
    ended: Bool[Array, " G"]
    parses: Bool[Array, " G"]


def write(experiment, params: PyTree, held_out, starts: list[str]) -> dict[str, Written]:
    """Strings of an `experiments.grammar.Grammar` from each of `starts` at each of `measure.temperatures`, by label.

    The label is the start, at temperature 1, else e.g. "begin at 0.1". Random numbers are those of one key, the same in
    every run and at every step.
    """
    settings, exact = experiment.measuring, held_out.exact
    labels = [(start, temperature) for start in starts for temperature in settings.temperatures]
    count = settings.generations
    prompts = [_prompt(exact, start, count) for start, _ in labels]
    tokens, given = (jnp.concatenate(parts) for parts in zip(*prompts, strict=True))
    each = jnp.repeat(jnp.array([temperature for _, temperature in labels], jnp.float32), count)
    free = jnp.repeat(jnp.array([start == "corrupted" for start, _ in labels]), count) * given
    written = go_on(experiment, params, held_out, tokens, given, each, free)[0]
    written = jax.tree.map(lambda a: a.reshape(len(labels), count, *a.shape[1:]), written)
    return {
        start if temperature == 1 else f"{start} at {temperature:g}": Written(*(part[i] for part in written))
        for i, (start, temperature) in enumerate(labels)
    }


def go_on(experiment, params, held_out, tokens, given, temperatures, free=0, edits=None):
    """`Written` of every row, and the logits of the first token that is written, [G, V].

    tokens: [G, 1 + P], the begin and `given` [G] tokens of a prefix. free: [G], how many of them any token may replace.
    edits: of the stream at the prefix, see `models.residual.Edits`.
    """
    of, longest = experiment.task.of, held_out.exact["next_token"].shape[1] - 1
    trace = decoding.read(experiment.model, params, tokens, given + 1, edits, keep="cache")
    choose = decoding.drawn(jax.random.key(KEY), temperatures[:, None])
    last = trace.captured[-1, :, 0]
    answers = decoding.decode(experiment.model, params, last, trace.outputs, given + 1, longest + 1, (of.end,), choose)
    strings, lengths = _joined(tokens[:, 1:], given, answers, of.end, longest)
    ended = lengths <= longest
    free = jnp.broadcast_to(free, given.shape)
    parses = grammar_exact.completes(of, strings, jnp.where(ended, lengths, 0), free) & ended
    return Written(strings, ended, parses), experiment.model.unembed(params, last)


def _prompt(exact, start, count):
    """Begin tokens and prefixes [G, 1 + P], and how many tokens of a prefix there are [G]."""
    prefixes = exact["corrupted" if start == "corrupted" else "prefixes"]
    rows = prefixes[jnp.arange(count) % len(prefixes)]
    given = jnp.full(count, 0 if start == "begin" else rows.shape[1], jnp.int32)
    return jnp.pad(rows, ((0, 0), (1, 0)), constant_values=BEGIN), given


def _joined(prefixes, given, answers, end, longest):
    """Prefix and answer up to the end token, [G, longest], and the length, above `longest` where there is no end."""
    at_end = answers == end
    lengths = given + jnp.where(at_end.any(1), at_end.argmax(1), 2 * longest)
    place = jnp.broadcast_to(jnp.arange(longest), (len(given), longest))
    after = jnp.take_along_axis(answers, jnp.clip(place - given[:, None], 0, answers.shape[1] - 1), 1)
    before = jnp.take_along_axis(prefixes, jnp.clip(place, 0, prefixes.shape[1] - 1), 1)
    whole = jnp.where(place < given[:, None], before, after)
    return jnp.where(place < lengths[:, None], whole, 0), lengths
