"""Questions about people: of whole values, of parts, of what follows from a value, of two people, and of the name.

After arXiv 2309.14316 ("extract") and 2309.14402 (the other kinds, and the hint).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jaxconcepts.tasks.biographies_people import ATTRIBUTES, DATE_PARTS, People, Person, check_form, check_seed
from jaxconcepts.tasks.biographies_values import Cardinalities

KINDS = ("extract", "classify", "compare", "subtract", "reverse", "partial", "dual")
# What the literature also calls a kind.
SYNONYMS = {"difference": "subtract", "inverse": "reverse"}
OF_TWO = ("compare", "subtract")
MODULI = {"birth_month": (2, 6, 12), "major": (5, 20, 100)}
PAIRS = (
    ("birth_date", "birth_city"),
    ("birth_city", "birth_date"),
    ("university", "major"),
    ("major", "university"),
    ("employer", "employer_city"),
    ("employer_city", "employer"),
)
# What each of the ten reversed questions tells about the person.
CLUES = (
    ("birth_date",),
    ("birth_date", "birth_city"),
    ("birth_date", "university"),
    ("birth_date", "major"),
    ("birth_date", "employer"),
    ("birth_date", "birth_city", "employer"),
    ("university", "major", "employer"),
    ("birth_date", "birth_city", "university", "major"),
    ("birth_city", "university", "major", "employer", "employer_city"),
    ATTRIBUTES,
)
# Every question's label, in the order of their kinds.
LABELS = (
    *(f"extract:{attribute}" for attribute in ATTRIBUTES),
    *(f"classify:{field}:{modulus}" for field, moduli in MODULI.items() for modulus in moduli),
    *(f"{kind}:{field}" for kind in OF_TWO for field in MODULI),
    *(f"reverse:{number}" for number in range(len(CLUES))),
    *(f"partial:{part}" for part in DATE_PARTS),
    *(f"dual:{first}:{second}" for first, second in PAIRS),
)
HINT_ENGLISH = " State the facts first."
HINT_COMPACT = "hint"

_EXTRACT = {
    "birth_date": "What is the birth date of {name}?",
    "birth_city": "In which city was {name} born?",
    "university": "Which university did {name} attend?",
    "major": "What major did {name} study?",
    "employer": "Which company employs {name}?",
    "employer_city": "In which city does {name} work?",
}
_CLASSIFY = {
    "birth_month": "What is the birth month of {name} modulo {modulus}?",
    "major": "What is the rank of the major of {name} modulo {modulus}?",
}
_PARTIAL = "What is the {part} of {name}?"
_DUAL = "What are the {first} and the {second} of {name}?"
_CLUE = "whose {attribute} is {value}"
_REVERSE = "What is the full name of the person {clues}?"
_PARITY = "Is the birth month of {name} even or odd?"
_COMPARE = {
    "birth_month": "Was {name} born in a later month of the year than {other}?",
    "major": "Does the major of {name} have a higher rank than that of {other}?",
}
_SUBTRACT = {
    "birth_month": "What is the birth month of {name} minus that of {other}?",
    "major": "What is the rank of the major of {name} minus that of {other}?",
}


@dataclass(frozen=True)
class Question:
    """One question.

    label: the kind and what is asked, "classify:birth_month:2". prompt, answer: texts. facts: the values that the
    answer follows from, which a hint writes before it. people: who is asked about, one or two persons.
    """

    label: str
    prompt: str
    answer: str
    facts: tuple[str, ...]
    people: tuple[int, ...]


def questions(
    people: People,
    person: Person,
    kind: str = "extract",
    *,
    hint: bool = False,
    partner: Person | None = None,
    form: str = "english",
    seed: int = 0,
) -> list[tuple[str, str]]:
    """The questions of a kind about a person, as (prompt, answer).

    kind: "extract": the six values. "classify": birth month modulo 2 ("even", "odd"), 6 and 12 (January is 1), and the
    major's rank (`major_rank` of the table) modulo 5, 20, 100; a modulus above the number of values is left out.
    "compare": is the month later, the major's rank higher, than the partner's ("yes", "no"; equal is "no"). "subtract"
    (or "difference"): the two differences. "reverse" (or "inverse"): the name, from one to six values; ten questions,
    without those that fit other people too. "partial": each part of the birth date alone. "dual": two values in the
    order asked, joined by ";".
    hint: the prompt asks for the facts first, and the answer is "facts: answer". Facts are the whole values that are
    used (in "extract" the answer itself); in "reverse" those that the prompt does not tell.
    partner: the other person of compare and subtract; None draws one from the seed and the person.
    form: "english" or "compact" (one token a value; the prompt ends in "=").

    Raises ValueError for an unknown kind or form, a person or partner who is not in the table, a partner who is the
    person or is not needed, and where compare or subtract find no second person.
    """
    return [(question.prompt, question.answer) for question in ask(people, person, kind, hint, partner, form, seed)]


def ask(
    people: People,
    person: Person,
    kind: str = "extract",
    hint: bool = False,
    partner: Person | None = None,
    form: str = "english",
    seed: int = 0,
) -> list[Question]:
    """As `questions`, with each question's label, facts and people."""
    kind = check_kind(kind)
    person = people.check(person)
    check_form(form)
    check_seed(seed)
    persons = (person,)
    if kind in OF_TWO:
        persons = (person, _partner(people, person, partner, seed))
    elif partner is not None:
        raise ValueError(f"partner must be None for kind {kind!r}; {' and '.join(OF_TWO)} accept one; got {partner!r}")
    write = _english if form == "english" else _compact
    return [write(people, raw, hint) for raw in _RAW[kind](people, persons, form)]


def check_kind(kind: str) -> str:
    """The kind's main name. Raises ValueError for one that is not known."""
    name = SYNONYMS.get(kind, kind) if isinstance(kind, str) else kind
    if name not in KINDS:
        raise ValueError(f"kind must be one of {', '.join((*KINDS, *SYNONYMS))}, got {kind!r}")
    return name


@dataclass(frozen=True)
class _Raw:
    """A question before it is written: told are the values that the prompt states."""

    label: str
    english: str
    answer: str | tuple[str, ...]
    facts: tuple[str, ...]
    people: tuple[int, ...]
    told: tuple[str, ...] = ()


def _partner(people, person, partner, seed):
    if partner is None:
        if len(people) < 2:
            raise ValueError(f"kinds {' and '.join(OF_TWO)} need a second person; biographies.people is {len(people)}")
        other = int(np.random.default_rng((people.seed, person, seed)).integers(len(people) - 1))
        return other + (other >= person)
    partner = people.check(partner, "partner")
    if partner == person:
        raise ValueError(f"partner must be another person than person = {person}, got {partner}")
    return partner


def _english(people, raw, hint):
    names = dict(zip(("name", "other"), map(people.name, raw.people), strict=False))
    answer = raw.answer if isinstance(raw.answer, str) else "; ".join(raw.answer)
    prompt = raw.english.format(**names)
    if hint:
        prompt += HINT_ENGLISH
        answer = f"{'; '.join(raw.facts)}: {answer}" if raw.facts else answer
    return Question(raw.label, prompt, answer, raw.facts, raw.people)


def _compact(people, raw, hint):
    asked = raw.told or tuple(map(people.name, raw.people))
    prompt = " ".join(("?", *((HINT_COMPACT,) if hint else ()), raw.label, *asked, "="))
    answer = (raw.answer,) if isinstance(raw.answer, str) else raw.answer
    return Question(raw.label, prompt, " ".join((*(raw.facts if hint else ()), *answer)), raw.facts, raw.people)


def _extract(people, persons, form) -> Iterator[_Raw]:
    for attribute, text in _EXTRACT.items():
        value = people.value(persons[0], attribute, form)
        yield _Raw(f"extract:{attribute}", text, value, (value,), persons)


def _partial(people, persons, form) -> Iterator[_Raw]:
    date = people.value(persons[0], "birth_date", form)
    for part in people.varying_date_parts:
        text = _PARTIAL.replace("{part}", _phrase(part))
        yield _Raw(f"partial:{part}", text, people.value(persons[0], part, form), (date,), persons)


def _dual(people, persons, form) -> Iterator[_Raw]:
    for pair in PAIRS:
        values = {attribute: people.value(persons[0], attribute, form) for attribute in pair}
        facts = tuple(values[attribute] for attribute in ATTRIBUTES if attribute in values)
        text = _DUAL.replace("{first}", _phrase(pair[0])).replace("{second}", _phrase(pair[1]))
        yield _Raw(f"dual:{pair[0]}:{pair[1]}", text, tuple(values.values()), facts, persons)


def _classify(people, persons, form) -> Iterator[_Raw]:
    for field, number, facts in _ranked(people, persons, form):
        for modulus in MODULI[field]:
            size = people.cardinalities.months if field == "birth_month" else people.cardinalities.majors
            if modulus > size:
                continue
            parity = field == "birth_month" and modulus == 2
            text = _PARITY if parity else _CLASSIFY[field].replace("{modulus}", str(modulus))
            answer = ("even", "odd")[number[0] % 2] if parity else str(number[0] % modulus)
            yield _Raw(f"classify:{field}:{modulus}", text, answer, facts, persons)


def _compare(people, persons, form) -> Iterator[_Raw]:
    for field, numbers, facts in _ranked(people, persons, form):
        answer = "yes" if numbers[0] > numbers[1] else "no"
        yield _Raw(f"compare:{field}", _COMPARE[field], answer, facts, persons)


def _subtract(people, persons, form) -> Iterator[_Raw]:
    for field, numbers, facts in _ranked(people, persons, form):
        yield _Raw(f"subtract:{field}", _SUBTRACT[field], str(numbers[0] - numbers[1]), facts, persons)


def _ranked(people, persons, form):
    """The fields that have an order: (field, a number a person, the values in words)."""
    for field, column in (("birth_month", "birth_month"), ("major", "major_rank")):
        if field == "birth_month" and people.cardinalities.months == 1:
            continue
        numbers = tuple(people.columns[column][person] for person in persons)
        yield field, numbers, tuple(people.value(person, field, form) for person in persons)


def _reverse(people, persons, form) -> Iterator[_Raw]:
    (person,) = persons
    for number, clues in enumerate(CLUES):
        if not _identifying(people, clues)[person]:
            continue
        told = tuple(people.value(person, attribute, form) for attribute in clues)
        facts = tuple(people.value(person, attribute, form) for attribute in ATTRIBUTES if attribute not in clues)
        stated = [
            _CLUE.format(attribute=_phrase(attribute), value=value)
            for attribute, value in zip(clues, told, strict=True)
        ]
        joined = " and ".join([", ".join(stated[:-1]), stated[-1]] if len(stated) > 1 else stated)
        text = _REVERSE.replace("{clues}", joined)
        yield _Raw(f"reverse:{number}", text, people.name(person), facts, persons, told)


@lru_cache(maxsize=64)
def _identifying(people, clues):
    """Which people are the only one with their values of these attributes."""
    codes = np.stack([people.codes[attribute] for attribute in clues], axis=1)
    _, inverse, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    return counts[inverse.reshape(-1)] == 1


def _phrase(field):
    """An attribute's name as a prompt has it."""
    return "city of work" if field == "employer_city" else field.replace("_", " ")


def question_words(cardinalities: Cardinalities, form: str) -> list[str]:
    """Texts that hold every word of prompts and answers but people's names and values, for building a vocabulary."""
    check_form(form)
    largest = max(cardinalities.months, cardinalities.majors)
    answers = f"even odd yes no {' '.join(map(str, range(1 - largest, largest + 1)))}"
    if form == "compact":
        return [f"? = {HINT_COMPACT}", answers, *LABELS]
    raw = (*_EXTRACT.values(), *_CLASSIFY.values(), _PARITY, *_COMPARE.values(), *_SUBTRACT.values())
    stated = [_CLUE.format(attribute=_phrase(attribute), value="") for attribute in ATTRIBUTES]
    parts = [_phrase(part) for part in DATE_PARTS]
    frames = [re.sub(r"\{\w+\}", "", text) for text in (*raw, _PARTIAL, _DUAL, _REVERSE)]
    return [*frames, *stated, *parts, "the first ; : , and", HINT_ENGLISH, answers]


_RAW = dict(zip(KINDS, (_extract, _classify, _compare, _subtract, _reverse, _partial, _dual), strict=True))
