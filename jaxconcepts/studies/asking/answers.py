"""Greedy answers of a language model to in-context prompts, and which of them are right, also under edits.

An answer is what the model writes up to the stop string (the end of the line, normally); it is right where it equals
the prompt's answer, blanks at both ends aside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, PyTree

from jaxconcepts.models import language, residual
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.prompts import render

# Tokens that an answer may take beyond the longest right one: another spelling of it, and the stop.
SPARE = 3


class Answers(NamedTuple):
    """texts: what was answered, up to the stop string, without blanks at both ends. correct: [prompts], exact match."""

    texts: list[str]
    correct: Bool[np.ndarray, " prompts"]


def correct(
    model: Decoder,
    params: PyTree,
    tokenizer,
    prompts: Sequence[render.Prompt],
    *,
    bos: bool,
    batch_size: int,
    edits: residual.Edits | Callable[[Int[np.ndarray, " B"], int], residual.Edits] | None = None,
    max_new_tokens: int | None = None,
    multiple: int = 64,
) -> Answers:
    """The model's greedy answers to the prompts, in their order.

    bos: whether prompts begin with the beginning-of-sequence token. batch_size: prompts a batch.
    edits: made in the prompts: `residual.Edits` whose batch axis is 1, or a function of the batch's token lengths [B]
        and its width (tokens a row, padding included), called once a batch.
    max_new_tokens: by default as many as the longest of the prompts' answers has, and `SPARE` more.
    multiple: what widths of batches are rounded up to.

    Raises ValueError for prompts of several templates, whose answers end differently, and as `render.encode` and
    `language.generate` do: a prompt and its answer that exceed the context, a token outside the vocabulary.
    """
    if len(stop_strings := {prompt.stop for prompt in prompts}) > 1:
        raise ValueError(f"prompts must end their answers alike, got the stops {sorted(stop_strings)}")
    stop = next(iter(stop_strings), render.STOP)
    ids, gold = render.encode(tokenizer, prompts, bos)
    budget = max(map(len, gold), default=1) + SPARE if max_new_tokens is None else max_new_tokens
    stops = stop_tokens(tokenizer, model, stop)
    texts = [""] * len(prompts)
    waiting = None
    for batch in (*language.batches(ids, batch_size, multiple), None):
        found = None
        if batch is not None:
            _, tokens, lengths = batch
            made = edits(lengths, min(tokens.shape[1], model.context)) if callable(edits) else edits
            found = language.generate(model, params, tokens, lengths, budget, made, stops)
        # Decoded while the next batch runs.
        if waiting is not None:
            for i, answer in zip(waiting[0], np.asarray(waiting[1]), strict=True):
                if i >= 0:
                    texts[i] = read(tokenizer, answer, stops, stop)
        waiting = None if batch is None else (batch[0], found)
    return Answers(texts, np.array([text == p.answer.strip() for text, p in zip(texts, prompts, strict=True)], bool))


def stop_tokens(tokenizer, model: Decoder, stop: str = render.STOP) -> tuple[int, ...]:
    """The ids at which an answer ends: whose text holds the stop string, and the checkpoint's end-of-text tokens."""
    holding = _holding(tokenizer, stop)
    return tuple(sorted({*(i for i in holding if i < model.vocab_size), *model.stop_tokens}))


def read(tokenizer, answer: Int[np.ndarray, " new"], stops: Sequence[int], stop: str = render.STOP) -> str:
    """The text of one row of `generate`, up to the stop string, without blanks at both ends."""
    ends = np.flatnonzero(np.isin(answer, stops))
    ids = answer[: ends[0] + 1] if len(ends) else answer
    text = tokenizer.decode(ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return language.cut(text, [stop]).strip()


@lru_cache(maxsize=2)
def _holding(tokenizer, stop: str) -> tuple[int, ...]:
    texts = [tokenizer.decode([i], clean_up_tokenization_spaces=False) for i in range(len(tokenizer))]
    return language.tokens_with(texts, [stop])
