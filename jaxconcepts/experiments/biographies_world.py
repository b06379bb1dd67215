"""A world of people as arrays: windows that are trained on, and what is asked of held-out and of training people."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from jaxconcepts.experiments.tokens import MOST_TOKENS
from jaxconcepts.fields import FieldError, check, field
from jaxconcepts.tasks import biographies, biographies_bank, biographies_capacity, biographies_items, masking
from jaxconcepts.tasks.biographies_bank import Bank, BankConfig
from jaxconcepts.tasks.biographies_people import People
from jaxconcepts.tasks.biographies_questions import LABELS
from jaxconcepts.tasks.biographies_values import Cardinalities
from jaxconcepts.tasks.biographies_vocabulary import vocabulary

SIDES = ("asked", "held_out")
"""Of people: those about whom questions are trained on, and those about whom none is."""
HINT = " hint"
"""Ends the label of a question that asks for the facts first."""


@dataclass(frozen=True)
class BiographyTask:
    """The section "task" of a config: who there is, what is written and asked about them, and when."""

    people: int = field(240, "number of people", low=2, high=100_000_000)
    first: int = field(1, "number of first names", low=1, high=400)
    middle: int = field(1, "number of middle names", low=1, high=400)
    last: int = field(240, "number of last names", low=1, high=1000)
    years: int = field(1, "number of years of birth", low=1, high=200)
    months: int = field(12, "number of months of birth", low=1, high=12)
    days: int = field(1, "number of days of birth", low=1, high=28)
    cities: int = field(40, "number of cities", low=2, high=200)
    universities: int = field(60, "number of universities", low=2, high=300)
    majors: int = field(20, "number of majors", low=2, high=100)
    employers: int = field(50, "number of employers; each is in one city", low=2, high=263)
    form: str = field(
        "compact", "form of the texts: english, or compact with one token a value", choices=biographies.FORMS
    )
    variant: str = field("single", "variant of the biographies, see docs/biographies.md")
    window: int = field(
        36, "tokens in a training window, which never cuts a text; the model's context", low=8, high=MOST_TOKENS
    )
    kinds: tuple[str, ...] = field(
        ("extract",), "kinds of questions, see docs/biographies.md", choices=biographies.KINDS, low=1
    )
    hint_share: float = field(0.0, "share of the questions that ask for the facts first", low=0, high=1)
    held_out: float = field(0.5, "share of the people that no training question is about", low=0, below=1)
    celebrities: float = field(
        0.0, "share of the people whose biographies have the variant celebrity_variant", low=0, below=1
    )
    celebrity_variant: str = field("multi5+permute", "variant of the biographies of celebrities")
    passes: int = field(
        40, "how often the data repeat all texts, each time in new windows, so that the model cannot learn the windows",
        low=1, high=1000,
    )  # fmt: skip
    answers_only: bool = field(True, "in questions, only the answers carry loss")
    world_seed: int = field(
        0, "seed of the people, their texts and who is held out; the same for all runs", low=0, high=2**31 - 1
    )
    regime: str = field("mixed", "mixed: biographies and questions together; staged: first biographies, then questions",
                        choices=tuple(biographies_bank.REGIMES))  # fmt: skip
    qa_share: float = field(0.8, "share of the tokens that are from questions, where both are mixed", low=0, below=1)
    tuning_share: float = field(0.6, "in staged: share of the steps, at the end, on questions alone", above=0, below=1)
    tuning: str = field("low_rank", "in staged: what these last steps train", choices=("low_rank", "full"))
    tuning_rate: float = field(
        1.0, "in staged: the peak learning rate of these steps, divided by train.learning_rate", above=0
    )
    rank: int = field(8, "rank of the tuning of the attention projections", low=1, high=65536)
    embedding_rank: int = field(
        32, "rank of the tuning of the embedding, which is also the read-out", low=1, high=65536
    )
    mask_rate: float = field(0.15, "share of the words that an encoder must fill in", above=0, high=1)

    vocab_size = property(lambda self: vocabulary(_people(self), self.form).size)
    length = property(lambda self: self.window)

    def __post_init__(self):
        check(self)
        try:
            biographies_bank.split(_people(self), self.bank)
        except FieldError:
            raise
        except ValueError as error:
            name, _, message = str(error).partition(" ")
            raise FieldError(name.rpartition(".")[2], message) from error

    @property
    def cardinalities(self) -> Cardinalities:
        """How many values there are of each part of a person."""
        return Cardinalities(**{of.name: getattr(self, of.name) for of in fields(Cardinalities)})

    @property
    def bank(self) -> BankConfig:
        """What the bank of windows holds."""
        shared = {of.name for of in fields(BankConfig)} & {of.name for of in fields(type(self))}
        return BankConfig(**{name: getattr(self, name) for name in shared}, seed=self.world_seed)


@dataclass(frozen=True, eq=False)
class World:
    """arrays: what `Biographies.data` gives. labels: the questions, e.g. "extract:major", that `arrays["questions"]`
    numbers. concepts: names and how many classes, of `arrays["names"]` and `arrays["biographies"]`."""

    people: People
    bank: Bank
    labels: tuple[str, ...]
    concepts: dict[str, int]
    arrays: dict[str, Any]


@lru_cache(maxsize=8)
def make(task: BiographyTask, each: int, causal: bool = True) -> World:
    """The world of a task, `each` people of either side being measured; T is the window.

    arrays: told, asked: {tokens, loss_mask, words [W, T]}, windows of biographies and of questions; question_share: of
    windows, for `qa_share` of the tokens where it is .5 (`window_share`). questions: {tokens, loss_mask [R, t], masked
    (for an encoder) or None, label, side [R], plain: tokens of the answer without facts and with its end [R]}.
    names, biographies: {tokens, group, spots [N, S], side}, with parts [N, t] of the biographies, and labels [C, N].
    majority: by label, how often the best constant answer is right for held-out people.

    Raises FieldError where the window is shorter than the longest text.
    """
    people = _people(task)
    tokenizer = vocabulary(people, task.form)
    try:
        bank = biographies_bank.bank(people, task.bank, tokenizer)
    except ValueError as error:
        raise FieldError(
            f"task.{str(error).partition(' ')[0].rpartition('.')[2]}", str(error).partition(" ")[2]
        ) from error
    sides = [np.flatnonzero(mask)[:each].tolist() for mask in (bank.split.asked, bank.split.held_out)]
    labels, questions = _questions(task, people, tokenizer, sides)
    persons = [person for side in sides for person in side]
    names = biographies_items.name_items(people, persons, tokenizer, task.form)
    texts = biographies_items.biography_items(people, persons, tokenizer, task.variant, 0, task.form)
    longest = max(questions["tokens"].shape[1], texts.tokens.shape[1])
    if longest > task.window:
        raise FieldError(
            "task.window", f"must hold the longest text that is measured, {longest} tokens, got {task.window}"
        )
    if not causal:
        questions |= _for_encoder(questions, task.window, tokenizer)
    side = np.repeat([0, 1], [len(part) for part in sides])
    lengths = (bank.group >= 0).sum(1)
    arrays = {
        "told": _windows(bank, False), "asked": _windows(bank, True), "questions": questions,
        "mean_lengths": np.array([lengths[~bank.question].mean(), lengths[bank.question].mean()], np.float32),
        "names": _spotted(names, side), "biographies": _spotted(texts, side) | {"parts": texts.parts.astype(np.int32)},
        "majority": _majority(labels, questions),
    }  # fmt: skip
    concepts = {name: classes for name, (_, classes) in names.concepts.items()}
    return World(people, bank, labels, concepts, jax.tree.map(_narrow, arrays))


def bits(task: BiographyTask) -> biographies_capacity.PersonBits:
    """What one person holds."""
    return biographies_capacity.bits_a_person(task.people, task.cardinalities)


@lru_cache(maxsize=8)
def _of(count: int, seed: int, cardinalities: Cardinalities) -> People:
    return biographies.people(count, seed, cardinalities)


def _people(task) -> People:
    return _of(task.people, task.world_seed, task.cardinalities)


def _windows(bank, question):
    kept = bank.question == question
    return {
        "tokens": bank.tokens[kept],
        "loss_mask": bank.loss_mask[kept].astype(np.float32),
        "words": bank.words[kept],
    }


def _questions(task, people, tokenizer, sides):
    parts, labels = [], {}
    for side, persons in enumerate(sides):
        for kind in task.kinds:
            for hint in (False, True) if task.hint_share and kind != "extract" else (False,):
                make = lambda hint, persons=persons, kind=kind: biographies_items.question_items(  # noqa: E731
                    people, persons, kind, tokenizer, hint, task.form
                )
                items = make(hint)
                plain = (make(False) if hint else items).loss_mask.sum(1)
                texts = [LABELS[number] + HINT * hint for number in items.questions]
                numbers = [labels.setdefault(text, len(labels)) for text in texts]
                parts.append((items.tokens, items.loss_mask, np.array(numbers), np.full(len(numbers), side), plain))
    width = max(tokens.shape[1] for tokens, *_ in parts)
    wide = lambda a, fill: np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=fill)  # noqa: E731
    columns = list(zip(*parts, strict=True))
    questions = {"tokens": np.concatenate([wide(a, tokenizer.pad) for a in columns[0]])}
    questions["loss_mask"] = np.concatenate([wide(a, False) for a in columns[1]]).astype(np.float32)
    questions |= {name: np.concatenate(columns[place]) for place, name in ((2, "label"), (3, "side"), (4, "plain"))}
    return tuple(labels), questions | {"masked": None}


def _for_encoder(questions, window, tokenizer):
    """Rows that fill the window, as in training, with the answers of the first question masked."""
    tokens, mask = questions["tokens"], questions["loss_mask"] > 0
    lengths = (tokens != tokenizer.pad).sum(1)
    count = len(tokens)
    rows = np.full((count, window), tokenizer.pad, np.int32)
    for row in range(count):
        used, other = 0, row
        while used + lengths[other] <= window:
            rows[row, used : used + lengths[other]] = tokens[other, : lengths[other]]
            used, other = used + lengths[other], (other + 1) % count
    first = np.pad(mask, ((0, 0), (0, window - mask.shape[1])))
    hidden = masking.answers(rows, first, tokenizer.eos)
    return {"tokens": rows, "loss_mask": hidden.astype(np.float32), "masked": np.where(hidden, tokenizer.mask, rows)}


def _spotted(items, side):
    labels = np.stack([of_persons for of_persons, _ in items.concepts.values()])
    return {"tokens": items.tokens, "group": items.group, "spots": items.spots, "labels": labels, "side": side}


def _majority(labels, questions) -> np.ndarray:
    """How often the commonest of the right answers is, by label, among those to held-out people."""
    shares = []
    for number in range(len(labels)):
        rows = np.flatnonzero((questions["label"] == number) & (questions["side"] == 1))
        answers = [
            tuple(questions["tokens"][row][questions["loss_mask"][row] > 0][-questions["plain"][row] :]) for row in rows
        ]
        counts = {answer: answers.count(answer) for answer in set(answers)}
        shares.append(max(counts.values(), default=0) / max(len(answers), 1))
    return np.array(shares, np.float32)


def _narrow(array):
    return array.astype(np.int32) if array.dtype in (np.int64, np.int8) else array
