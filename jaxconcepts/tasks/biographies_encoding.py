"""Biographies and questions as tokens: what is a target, which tokens make a word, and the positions to probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxconcepts.tasks.biographies_people import ATTRIBUTES, People, Person
from jaxconcepts.tasks.biographies_questions import LABELS, Question
from jaxconcepts.tasks.biographies_text import Biography
from jaxconcepts.tasks.biographies_vocabulary import PATTERNS, Tokenizer

NAME, ANSWER = "name", "answer"
# What a token is part of: nothing that is counted, the first full name, or a value or the first pronoun.
OTHER, NAME_TOKEN, VALUE_TOKEN = range(3)
# What a spot is about, by number.
MARKS = (*ATTRIBUTES, NAME, ANSWER)


@dataclass(frozen=True)
class Item:
    """One biography or question: bos, the text, eos.

    tokens, targets (which of them are predicted), words (the word a token is part of, -1 for bos and eos): one entry a
    token. spots: (position, person, number in MARKS). persons: who it is about, one or two. label: the question's
    number in LABELS, or -1. parts: of a biography, what each token is part of, NAME_TOKEN, VALUE_TOKEN or OTHER.
    """

    tokens: tuple[int, ...]
    targets: tuple[bool, ...]
    words: tuple[int, ...]
    spots: tuple[tuple[int, int, int], ...]
    persons: tuple[int, ...]
    label: int = -1
    parts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)


def biography_item(biography: Biography, person: Person, tokenizer: Tokenizer) -> Item:
    """A biography as tokens; all but bos are targets. Spots: before each value, and at the name's end."""
    ids, spans, words = _encoded(biography.text, tokenizer)
    spots = [(_first(spans, start) - 1, person, MARKS.index(name)) for name, (start, _) in biography.values.items()]
    spots.append((_last(spans, biography.name[1]), person, MARKS.index(NAME)))
    parts = np.full(len(ids), OTHER)
    for start, end in (*biography.values.values(), *filter(None, [biography.pronoun])):
        parts[_first(spans, start) : _last(spans, end) + 1] = VALUE_TOKEN
    parts[_first(spans, biography.name[0]) : _last(spans, biography.name[1]) + 1] = NAME_TOKEN
    targets = (False, *[True] * (len(ids) - 1))
    return Item(ids, targets, words, tuple(sorted(spots)), (person,), parts=tuple(parts.tolist()))


def question_item(question: Question, people: People, tokenizer: Tokenizer, answers_only: bool = True) -> Item:
    """A question and its answer as tokens. Spots: at the end of each name asked about, and before the answer.

    answers_only: the targets are the answer and eos; else all but bos.
    """
    ids, spans, words = _encoded(f"{question.prompt} {question.answer}", tokenizer)
    answer = _first(spans, len(question.prompt) + 1)
    first = answer if answers_only else 1
    spots = [(answer - 1, question.people[0], MARKS.index(ANSWER))]
    for person in question.people:
        start = question.prompt.find(people.name(person))
        if start >= 0:
            spots.append((_last(spans, start + len(people.name(person))), person, MARKS.index(NAME)))
    targets = tuple(position >= first for position in range(len(ids)))
    return Item(ids, targets, words, tuple(sorted(spots)), question.people, LABELS.index(question.label))


def windows(told: Sequence[Item], asked: Sequence[Item], window: int, pad: int) -> dict[str, np.ndarray]:
    """Windows of `window` tokens filled one after the other, biographies and then questions; the next one starts where
    an item does not fit. The arrays are those of `biographies_bank.Bank`, from tokens to spots."""
    placements, count, question = [], 0, []
    for items in (told, asked):
        used = window
        for item in items:
            if used + len(item) > window:
                count, used = count + 1, 0
                question.append(items is asked)
            placements.append((item, count - 1, used))
            used += len(item)
    arrays = {
        "tokens": np.full((count, window), pad, np.int32),
        "loss_mask": np.zeros((count, window), bool),
        "group": np.full((count, window), -1, np.int32),
        "words": np.full((count, window), -1, np.int32),
        "question": np.array(question),
    }
    spots = []
    for item, row, start in placements:
        span = slice(start, start + len(item))
        arrays["tokens"][row, span] = item.tokens
        arrays["loss_mask"][row, span] = item.targets
        arrays["group"][row, span] = item.persons[0]
        # Words are numbered by where they start, so that those of two items of a window differ.
        words = np.array(item.words)
        arrays["words"][row, span] = np.where(words < 0, -1, words + start)
        spots += [(row, start + position, person, mark) for position, person, mark in item.spots]
    arrays["spots"] = np.array(spots, np.int32)
    return arrays


def _encoded(text, tokenizer):
    """Tokens with bos and eos, the spans of those between, and word numbers."""
    ids, spans = tokenizer.encode(text)
    pattern = PATTERNS[getattr(tokenizer, "form", "english")]
    starts = np.array([match.start() for match in pattern.finditer(text)])
    # A token's last character is in its word: the first may be the space before it.
    words = np.searchsorted(starts, [end - 1 for _, end in spans], side="right")
    return (tokenizer.bos, *ids, tokenizer.eos), spans, (-1, *words.tolist(), -1)


def _first(spans, start):
    """The position, bos counted, of the first token that reaches past a character."""
    return 1 + next(i for i, (_, end) in enumerate(spans) if end > start)


def _last(spans, end):
    """The position, bos counted, of the last token that starts before a character."""
    return 1 + max(i for i, (start, _) in enumerate(spans) if start < end)
