"""Items for measuring: biographies and names for probes, questions for accuracy, and what each person's labels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxconcepts.tasks.biographies_encoding import ANSWER, MARKS, NAME, OTHER, Item, biography_item, question_item
from jaxconcepts.tasks.biographies_people import ATTRIBUTES, People
from jaxconcepts.tasks.biographies_questions import OF_TWO, ask, check_kind
from jaxconcepts.tasks.biographies_text import compose
from jaxconcepts.tasks.biographies_vocabulary import Tokenizer

FIRST_TOKEN = "first_token"


class Items(NamedTuple):
    """P sequences of T tokens, padded at the end.

    tokens: [P, T]. loss_mask: [P, T], which tokens are predicted (of a question, answer and end). group: [P], the
    person: what must not be divided over folds, nor be its own neighbour. spots: [P, S], positions asked about.
    marks: [P, S], what each spot is about, by number in `biographies_encoding.MARKS`. questions: [P], the number of the
    question in LABELS, -1 for what is none. parts: [P, T], which tokens of a biography are of the name and of values
    (`biographies_encoding`), for what is stored of people. concepts: by name, each row's label
    [P], the same at all of its spots, and how many classes there are.
    """

    tokens: Int[np.ndarray, "P T"]
    loss_mask: Bool[np.ndarray, "P T"]
    group: Int[np.ndarray, " P"]
    spots: Int[np.ndarray, "P S"]
    marks: Int[np.ndarray, "P S"]
    questions: Int[np.ndarray, " P"]
    parts: Int[np.ndarray, "P T"]
    concepts: Mapping[str, tuple[Int[np.ndarray, " P"], int]]


def labels(people: People, tokenizer: Tokenizer, form: str = "english") -> dict[str, tuple[Int[np.ndarray, " N"], int]]:
    """Concept -> (each person's label, how many classes): whole values, and the first tokens of them.

    "university" is the value and "university/first_token" its first token, left out where it tells as much as the
    value. The birth date is in its parts. Fields with one value are left out. Classes are those that someone has.
    """
    concepts = {}
    for field in (*people.varying_date_parts, *ATTRIBUTES[1:]):
        codes = people.codes[field]
        texts = {int(code): people.value(person, field, form) for person, code in enumerate(codes)}
        # The space that a value has before it in a text: some tokenizers join it to the first token.
        first = np.array([tokenizer.encode(" " + texts[code])[0][0] for code in range(len(texts))])
        met, starts = np.unique(first, return_inverse=True)
        if len(texts) > 1:
            concepts[field] = (codes, len(texts))
        if 1 < len(met) < len(texts):
            concepts[f"{field}/{FIRST_TOKEN}"] = (starts[codes], len(met))
    return concepts


def biography_items(
    people: People,
    persons: Sequence[int] | Int[np.ndarray, " P"],
    tokenizer: Tokenizer,
    variant: str = "single",
    seed: int = 0,
    form: str = "english",
) -> Items:
    """One biography each of some people, for probes before values (P) and at the name.

    spots: [P, 7]; the first is the last token of the name, the others stand right before the values, in the order of
    the text. All concepts are asked at all spots; `marks` says which value comes next.

    Raises ValueError as `biographies_text.compose` does, and where no person is given.
    """
    items = [
        biography_item(compose(people, person, variant, seed, form), int(person), tokenizer)
        for person in _checked(people, persons)
    ]
    name = MARKS.index(NAME)
    ordered = [sorted(item.spots, key=lambda spot: (spot[2] != name, spot[0])) for item in items]
    return _items(items, ordered, tokenizer, labels(people, tokenizer, form))


def name_items(
    people: People, persons: Sequence[int] | Int[np.ndarray, " P"], tokenizer: Tokenizer, form: str = "english"
) -> Items:
    """The name alone of some people, bos before and eos after it, for the probe at eos (Q). spots: [P, 1]."""
    items = []
    for person in _checked(people, persons):
        ids, _ = tokenizer.encode(people.name(person))
        tokens = (tokenizer.bos, *ids, tokenizer.eos)
        spot = (len(tokens) - 1, person, MARKS.index(NAME))
        words = (-1, *range(len(ids)), -1)
        items.append(Item(tokens, (False, *[True] * (len(ids) + 1)), words, (spot,), (person,)))
    return _items(items, [item.spots for item in items], tokenizer, labels(people, tokenizer, form))


def question_items(
    people: People,
    persons: Sequence[int] | Int[np.ndarray, " P"],
    kind: str,
    tokenizer: Tokenizer,
    hint: bool = False,
    form: str = "english",
    seed: int = 0,
) -> Items:
    """All questions of a kind about some people, with their answers.

    spots: [P, 1], the token before the answer. The answer is right as a whole where all targets of `loss_mask` are
    predicted, and in its first token where the one after the spot is. The partner in questions of two people is one of
    `persons`, drawn from the seed.

    Raises ValueError for an unknown kind, fewer than two persons where two are needed, or people with no such question.
    """
    kind = check_kind(kind)
    persons = _checked(people, persons)
    if kind in OF_TWO and len(persons) < 2:
        raise ValueError(f"persons must be at least 2 for kind {kind!r}, got {len(persons)}")
    rng = np.random.default_rng((people.seed, seed))
    items = []
    for i, person in enumerate(persons):
        partner = persons[(i + rng.integers(1, len(persons))) % len(persons)] if kind in OF_TWO else None
        asked = ask(people, person, kind, hint, partner, form)
        items += [question_item(question, people, tokenizer) for question in asked]
    if not items:
        raise ValueError(f"kind {kind!r} has no question about the {len(persons)} persons")
    answer = MARKS.index(ANSWER)
    return _items(items, [[spot for spot in item.spots if spot[2] == answer] for item in items], tokenizer, {})


def _checked(people, persons):
    checked = [people.check(person, "persons") for person in persons]
    if not checked or len(set(checked)) != len(checked):
        raise ValueError(f"persons must be distinct and not empty, got {checked[:20]}")
    return checked


def _items(items, spots, tokenizer, of_people) -> Items:
    longest = max(map(len, items))
    tokens = np.full((len(items), longest), tokenizer.pad, np.int32)
    loss_mask = np.zeros((len(items), longest), bool)
    parts = np.full((len(items), longest), OTHER, np.int8)
    for row, item in enumerate(items):
        tokens[row, : len(item)] = item.tokens
        loss_mask[row, : len(item)] = item.targets
        parts[row, : len(item.parts)] = item.parts
    group = np.array([item.persons[0] for item in items], np.int32)
    positions = np.array([[position for position, _, _ in row] for row in spots], np.int32)
    concepts = {name: (of[group], classes) for name, (of, classes) in of_people.items()}
    marks = np.array([[mark for _, _, mark in row] for row in spots], np.int32)
    questions = np.array([item.label for item in items], np.int32)
    return Items(tokens, loss_mask, group, positions, marks, questions, parts, concepts)
