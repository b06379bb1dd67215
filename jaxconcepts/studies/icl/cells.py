"""The cells of the in-context study: a family, a number of shots and a variant, and the tokens of its prompts.

Everything here is done, and everything wrong with it said, before a model's weights are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxconcepts.models.decoder import Decoder
from jaxconcepts.prompts import render
from jaxconcepts.prompts.family import Family
from jaxconcepts.store import files
from jaxconcepts.studies.asking.answers import SPARE
from jaxconcepts.studies.icl.config import IclConfig


class Cell(NamedTuple):
    """What is measured at once on a checkpoint."""

    family: str
    shots: int
    variant: str

    def __str__(self) -> str:
        return f"{files.safe_name(self.family)}-{self.shots}-{self.variant}"


class Encoded(NamedTuple):
    """A cell's prompts, concept by concept in the order of `Family.labels`, as many of each.

    ids: the tokens of each prompt. answers: what is right. ruled: what each concept would answer ({}: not known).
    continuations: [n, K, A] tokens of what each concept would answer, the right answer in the prompt's own column;
    continuation_lengths: [n, K], 0 where that is not known. queries: [n], the same number for prompts of one query.
    shown: the tokens of each prompt's demonstrated answers.
    """

    ids: list[Int[np.ndarray, " tokens"]]
    answers: list[str]
    ruled: list[dict[str, str]]
    continuations: Int[np.ndarray, "n K A"]
    continuation_lengths: Int[np.ndarray, "n K"]
    queries: Int[np.ndarray, " n"]
    shown: list[list[int]]

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return max(map(len, self.ids))

    @property
    def max_new_tokens(self) -> int:
        """Tokens that the longest of what may be answered takes, and `SPARE` more."""
        return int(self.continuations.shape[2]) + SPARE


def cells(config: IclConfig, families: Mapping[str, Family]) -> list[Cell]:
    """Every cell, family by family and variant by variant; variants that a family cannot state left out.

    Raises ValueError, naming them, where a concept has too few examples for k neighbours or for the shots.
    """
    found = []
    for name, family in families.items():
        for concept in family.labels:
            count = len({example.input for example in family.test[concept]})
            if count <= config.k:
                raise ValueError(
                    f"{name}: k = {config.k} neighbours need more than {config.k} queries of every concept; "
                    f"{concept!r} has {count}"
                )
        stated = {"plain": family.labels, "rule": family.rules, "name": family.names}
        for variant in config.variants:
            if set(stated[variant]) >= set(family.labels):
                found += [Cell(name, shots, variant) for shots in config.shots]
    if not found:
        raise ValueError(f"no family states variants {', '.join(config.variants)}: it has neither rules nor names")
    for cell in found:
        for concept in families[cell.family].labels:
            _prompts(config, families[cell.family], concept, cell, 1)
    return found


def encode(config: IclConfig, family: Family, cell: Cell, tokenizer) -> Encoded:
    """The cell's prompts and what could be answered, in tokens."""
    prompts = [p for concept in family.labels for p in _prompts(config, family, concept, cell, config.prompts)]
    ids, gold = render.encode(tokenizer, prompts, config.bos)
    ruled = [family.answers(prompt.query.input) for prompt in prompts]
    # What continues a prompt depends on its last line alone, and both repeat.
    ends = {}
    for prompt, answers in zip(prompts, ruled, strict=True):
        line = prompt.text[max(prompt.text.rfind("\n"), 0) :]
        for answer in answers.values():
            ends.setdefault((line, answer), prompt._replace(text=line, answer=answer))
    tokens = dict(zip(ends, render.encode(tokenizer, list(ends.values()), False)[1], strict=True))
    width = max(map(len, [*gold, *tokens.values()]))
    number = {concept: i for i, concept in enumerate(family.labels)}
    continuations = np.zeros((len(prompts), len(number), width), np.int32)
    lengths = np.zeros(continuations.shape[:2], np.int32)
    for row, (prompt, answers, right) in enumerate(zip(prompts, ruled, gold, strict=True)):
        line = prompt.text[max(prompt.text.rfind("\n"), 0) :]
        found = {concept: tokens[line, answer] for concept, answer in answers.items()} | {prompt.concept: right}
        for concept, answer in found.items():
            continuations[row, number[concept], : len(answer)] = answer
            lengths[row, number[concept]] = len(answer)
    arrays = [np.array(one, np.int32) for one in ids]
    queries = np.unique([p.query.input for p in prompts], return_inverse=True)[1].astype(np.int32)
    shown = _shown(tokenizer, prompts)
    return Encoded(arrays, [p.answer.strip() for p in prompts], ruled, continuations, lengths, queries, shown)


def _shown(tokenizer, prompts: Sequence[render.Prompt]) -> list[list[int]]:
    """The tokens of each prompt's demonstrated answers, each answer encoded once."""
    answers = list({p.lead + example.output: None for p in prompts for example in p.demonstrations})
    ids = tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else []
    tokens = dict(zip(answers, ids, strict=True))
    return [[i for example in p.demonstrations for i in tokens[p.lead + example.output]] for p in prompts]


def encode_all(
    config: IclConfig, families: Mapping[str, Family], cells: Sequence[Cell], tokenizer
) -> dict[Cell, Encoded]:
    """Every cell encoded; within a family as many tokens are kept for answers in all, so that they share a program."""
    encoded = {cell: encode(config, families[cell.family], cell, tokenizer) for cell in cells}
    for cell in cells:
        width = max(e.continuations.shape[2] for c, e in encoded.items() if c.family == cell.family)
        wider = [(0, 0), (0, 0), (0, width - encoded[cell].continuations.shape[2])]
        encoded[cell] = encoded[cell]._replace(continuations=np.pad(encoded[cell].continuations, wider))
    return encoded


def check_fits(model: Decoder, tokenizer, encoded: Mapping[Cell, Encoded], where: str) -> None:
    """Raises ValueError for a tokenizer larger than the vocabulary and prompts longer than the context."""
    largest = max(tokenizer.get_vocab().values())
    if largest >= model.vocab_size:
        raise ValueError(
            f"{where}: the tokenizer does not match the model: its largest id is {largest}, the vocabulary has "
            f"{model.vocab_size} tokens"
        )
    needed = {cell: e.longest + e.max_new_tokens for cell, e in encoded.items()}
    for cell, tokens in needed.items():
        if tokens > model.context:
            alike = [c for c in needed if (c.family, c.variant) == (cell.family, cell.variant)]
            fitting = [str(c.shots) for c in alike if needed[c] <= model.context]
            raise ValueError(
                f"{where}: {cell.family} prompts ({cell.variant}) of {cell.shots} shots take up to {tokens} tokens "
                f"with their answers, the model's context is {model.context}; shots that fit: "
                f"{', '.join(fitting) or 'none'}"
            )


def _prompts(config: IclConfig, family: Family, concept: str, cell: Cell, count: int) -> list[render.Prompt]:
    return render.prompts(
        family, concept, cell.shots, count, seed=config.seed, template=config.template, variant=cell.variant
    )
