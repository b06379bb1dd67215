"""One pass over a cell's prompts: states kept on the device, answers and log-probabilities on the host."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from jaxconcepts.models import language, scoring
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.studies.asking import answers
from jaxconcepts.studies.asking.passes import Parts, Progress, one_ahead
from jaxconcepts.studies.icl.cells import Encoded
from jaxconcepts.studies.icl.config import IclConfig

log = logging.getLogger("jaxconcepts")


class Read(NamedTuple):
    """Of every prompt, in the order of `Encoded`.

    states: on the device, at the last prompt token. texts: the answers. correct: exact match.
    log_probs: [n, K] of what each concept would answer, NaN where that is not known.
    """

    states: Float[Array, "layers n d"]
    texts: list[str]
    correct: Bool[np.ndarray, " n"]
    log_probs: Float[np.ndarray, "n K"]


def read_prompts(
    config: IclConfig, model: Decoder, params, tokenizer, encoded: Encoded, what: str, parts: Parts | None = None
) -> Read:
    """Runs every prompt once. what: named in the progress. parts: where what was read is kept, and was by a pass that
    was stopped, of the same prompts and batches."""
    parts = Parts(None) if parts is None else parts
    stop = config.template.stop
    stops = answers.stop_tokens(tokenizer, model, stop)
    states, texts, log_probs, known = _known(model, encoded, parts)
    progress = Progress(what, int((~known).sum()))

    def started():
        for indices, tokens, lengths in language.batches(encoded.ids, config.batch_size, config.multiple):
            if known[indices[indices >= 0]].all():
                continue
            asked = (encoded.continuations[indices], encoded.continuation_lengths[indices])
            yield indices, scoring.score(
                model, params, tokens, lengths, max_new_tokens=encoded.max_new_tokens, stop_tokens=stops,
                continuations=asked,
            )  # fmt: skip

    for indices, found in one_ahead(started()):
        # Rows that only fill up the batch are written past the end, which drops them.
        states = _keep(states, np.where(indices < 0, len(known), indices), found.states)
        real = indices >= 0
        at, new = indices[real], np.asarray(found.log_probs)[real]
        read = [answers.read(tokenizer, answer, stops, stop) for answer in np.asarray(found.answers)[real]]
        texts[at], log_probs[at] = read, new
        parts.keep(at=at, texts=np.array(read, str), log_probs=new, states=_bits(found.states)[real])
        progress.add(len(at))
    texts = texts.tolist()
    correct = np.array([text == answer for text, answer in zip(texts, encoded.answers, strict=True)], bool)
    return Read(states, texts, correct, np.where(encoded.continuation_lengths > 0, log_probs, np.nan))


def _known(model: Decoder, encoded: Encoded, parts: Parts):
    """(states, texts, log-probabilities, whether they are known) of all prompts, from the parts that were kept."""
    shape = (model.layers + 1, len(encoded.ids), model.width)
    texts, known = np.full(shape[1], "", object), np.zeros(shape[1], bool)
    log_probs = np.full(encoded.continuation_lengths.shape, np.nan)
    stored = list(parts.stored())
    if not stored:
        return jnp.zeros(shape, model.dtype), texts, log_probs, known
    states = np.zeros(shape, model.dtype)
    for part in stored:
        at = part["at"]
        texts[at], log_probs[at], known[at] = part["texts"], part["log_probs"], True
        states[:, at] = part["states"].view(model.dtype).swapaxes(0, 1)
    log.info("%d of %d prompts are already done", known.sum(), len(known))
    return jnp.asarray(states), texts, log_probs, known


def _bits(states: Float[Array, "layers B d"]) -> Shaped[np.ndarray, "B layers d"]:
    """By prompt, as a type that files know."""
    states = np.ascontiguousarray(np.asarray(states).swapaxes(0, 1))
    return states.view(np.uint16) if states.dtype.itemsize == 2 else states


def read_states(
    config: IclConfig, model: Decoder, params, prompts: Sequence[Sequence[int]], what: str
) -> Float[Array, "layers n d"]:
    """The states of every prompt alone, at its last token, as in `Read`. what: named in the progress."""
    states = jnp.zeros((model.layers + 1, len(prompts), model.width), model.dtype)
    progress = Progress(what, len(prompts))
    for indices, tokens, lengths in language.batches(prompts, config.batch_size, config.multiple):
        found = language.hidden_states(model, params, tokens, lengths)
        states = jax.block_until_ready(_keep(states, np.where(indices < 0, len(prompts), indices), found))
        progress.add(int((indices >= 0).sum()))
    return states


@partial(jax.jit, donate_argnums=0)
def _keep(kept, indices, states):
    return kept.at[:, indices].set(states.astype(kept.dtype), mode="drop")
