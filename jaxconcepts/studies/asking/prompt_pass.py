"""One pass over a cell's prompts: states kept on the device, answers and log-probabilities on the host."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxconcepts.models import language, scoring
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.studies.asking import answers
from jaxconcepts.studies.asking.progress import Progress
from jaxconcepts.studies.icl.cells import Encoded
from jaxconcepts.studies.icl.config import IclConfig


class Read(NamedTuple):
    """Of every prompt, in the order of `Encoded`.

    states: on the device, at the last prompt token. texts: the answers. correct: exact match.
    log_probs: [n, K] of what each concept would answer, NaN where that is not known.
    """

    states: Float[Array, "layers n d"]
    texts: list[str]
    correct: Bool[np.ndarray, " n"]
    log_probs: Float[np.ndarray, "n K"]


def read_prompts(config: IclConfig, model: Decoder, params, tokenizer, encoded: Encoded, what: str) -> Read:
    """Runs every prompt once. what: named in the progress."""
    count = len(encoded.ids)
    stop = config.template.stop
    stops = answers.stop_tokens(tokenizer, model, stop)
    states = jnp.zeros((model.layers + 1, count, model.width), model.dtype)
    texts, log_probs = [""] * count, np.full(encoded.continuation_lengths.shape, np.nan)
    progress, waiting = Progress(what, count), None
    for batch in (*language.batches(encoded.ids, config.batch_size, config.multiple), None):
        found = None
        if batch is not None:
            indices, tokens, lengths = batch
            asked = (encoded.continuations[indices], encoded.continuation_lengths[indices])
            found = scoring.score(
                model, params, tokens, lengths, max_new_tokens=encoded.max_new_tokens, stop_tokens=stops,
                continuations=asked,
            )  # fmt: skip
            # Rows that only fill up the batch are written past the end, which drops them.
            states = _keep(states, np.where(indices < 0, count, indices), found.states)
        if waiting is not None:
            # Read while the next batch runs.
            real = waiting[0] >= 0
            for i, answer in zip(waiting[0][real], np.asarray(waiting[1].answers)[real], strict=True):
                texts[i] = answers.read(tokenizer, answer, stops, stop)
            log_probs[waiting[0][real]] = np.asarray(waiting[1].log_probs)[real]
            progress.add(int(real.sum()))
        waiting = None if batch is None else (batch[0], found)
    correct = np.array([text == answer for text, answer in zip(texts, encoded.answers, strict=True)], bool)
    return Read(states, texts, correct, np.where(encoded.continuation_lengths > 0, log_probs, np.nan))


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
