"""Biographies: six sentences about a person, in variants that differ in wording, order and where the name stands."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, permutations

import numpy as np

from jaxconcepts.tasks.biographies_people import ATTRIBUTES, People, Person, check_form, check_seed
from jaxconcepts.tasks.biographies_templates import NAME_LAST, TEMPLATES

POSSESSIVES = {"he": "his", "she": "her"}
# So many filler tokens an attribute: their ordered pairs are the wordings of the compact form.
FILLERS = 6
ACCEPTED = "single, multiM, permute, permuteM, fullname, combined, reverse, joined by +, with M in 1 ... 9999"


@dataclass(frozen=True)
class Variant:
    """How the biographies of a person are written (arXiv 2309.14316, section 2; 2309.14402 for "reverse").

    versions: how many different texts a person has. reworded: each has its own wording. permuted: each has its own
    order of sentences. fullname: every sentence has the full name, none a pronoun. combined: two attributes a sentence.
    reverse: pronouns only, and the name in an added last sentence.
    """

    versions: int = 1
    reworded: bool = False
    permuted: bool = False
    fullname: bool = False
    combined: bool = False
    reverse: bool = False


@dataclass(frozen=True)
class Biography:
    """A text and what is where in it.

    text: str. values: attribute -> the (start, end) characters of its value. name: those of the first full name.
    pronoun: those of the first pronoun, "she" or "her"; None where there is none.
    """

    text: str
    values: Mapping[str, tuple[int, int]]
    name: tuple[int, int]
    pronoun: tuple[int, int] | None


def parse_variant(variant: str) -> Variant:
    """The variant that a text such as "multi5+permute" names.

    "single": one text a person. "multi5": five, each with its own wording. "permute": sentences in random order; alone
    with a number, "permute5": five orders of the same sentences. Raises ValueError for any other text.
    """
    if not isinstance(variant, str):
        raise ValueError(f"variant must be a string of {ACCEPTED}; got {variant!r}")
    fields: dict[str, int | bool] = {}
    parts = variant.split("+")
    kinds = []
    for part in parts:
        match = re.fullmatch(r"(multi|permute)([1-9]\d{0,3})|(single|permute|fullname|combined|reverse)", part)
        if not match:
            raise ValueError(f"variant must be made of {ACCEPTED}; got {part!r} in {variant!r}")
        kind = match[1] or match[3]
        kinds.append(kind)
        if match[2]:
            fields["versions"] = int(match[2])
        if kind != "single":
            fields[{"multi": "reworded", "permute": "permuted"}.get(kind, kind)] = True
    if len(set(kinds)) != len(kinds) or {"single", "multi"} <= set(kinds):
        raise ValueError(f"variant must name each part once, and one of single and multiM; got {variant!r}")
    if {"fullname", "reverse"} <= set(kinds):
        raise ValueError(f"variant must not hold both fullname and reverse, which has pronouns only; got {variant!r}")
    if re.search(r"permute\d", variant) and {"single", "multi"} & set(kinds):
        raise ValueError(f"variant must have permute without a number beside single or multiM; got {variant!r}")
    return Variant(**fields)


def biography(people: People, person: Person, variant: str = "single", seed: int = 0, form: str = "english") -> str:
    """The biography of a person.

    variant: see `parse_variant`. seed: picks one of the person's texts, number `seed` modulo the variant's versions;
    so a "single" person has one text under every seed. form: "english", or "compact": the name in three tokens, two
    filler tokens and one token a value (the birth date has one for each part), with spaces between.

    Raises ValueError for an unknown variant or form, or a person who is not in the table.
    """
    return compose(people, person, variant, seed, form).text


def compose(
    people: People, person: Person, variant: str | Variant = "single", seed: int = 0, form: str = "english"
) -> Biography:
    """As `biography`, with where the values and the name stand."""
    settings = variant if isinstance(variant, Variant) else parse_variant(variant)
    person = people.check(person)
    check_form(form)
    check_seed(seed)
    version = seed % settings.versions
    rng = np.random.default_rng((people.seed, person))
    wordings = _wordings(settings, version, rng)
    units = [ATTRIBUTES[i : i + 2] for i in range(0, 6, 2)] if settings.combined else [(name,) for name in ATTRIBUTES]
    if settings.permuted:
        units = [units[i] for i in _order(len(units), settings.versions, version, rng)]
    writer = _Writer(people, person, settings, form)
    for unit in units:
        writer.sentence([(attribute, wordings[attribute]) for attribute in unit])
    if settings.reverse:
        writer.closing(wordings["name"])
    return Biography(writer.text, writer.values, writer.name, writer.pronoun)


def templates(form: str) -> Mapping[str, tuple[str, ...]]:
    """Attribute -> its sentences, with {subject} or {possessive}, and {value}."""
    check_form(form)
    return TEMPLATES if form == "english" else COMPACT_TEMPLATES


def _compact(attribute):
    fillers = [f"{attribute}:{i}" for i in range(FILLERS)]
    return tuple(f"{{subject}} {a} {b} {{value}}" for a in fillers for b in fillers)


COMPACT_TEMPLATES = {attribute: _compact(attribute) for attribute in ATTRIBUTES}
COMPACT_NAME_LAST = tuple(f"name:{i} {{name}}" for i in range(len(NAME_LAST)))


def _wordings(settings, version, rng):
    """Attribute -> the number of its sentence; a person's versions differ in every attribute while there are others."""
    drawn = {}
    for attribute in (*ATTRIBUTES, "name"):
        # The same draws for both forms: the compact one has at least as many wordings.
        count = len(NAME_LAST) if attribute == "name" else len(TEMPLATES[attribute])
        needed = settings.versions if settings.reworded else 1
        numbers = np.concatenate([rng.permutation(count) for _ in range(-(-needed // count))])
        drawn[attribute] = int(numbers[version if settings.reworded else 0])
    return drawn


def _order(units, versions, version, rng):
    """The order of one version; a person's versions have different orders while there are others."""
    total = math.factorial(units)
    drawn = np.concatenate([rng.permutation(total) for _ in range(-(-versions // total))])
    return next(islice(permutations(range(units)), int(drawn[version]), None))


class _Writer:
    """Writes sentence after sentence and keeps where values and name stand."""

    def __init__(self, people, person, settings, form):
        self.people, self.person, self.settings, self.form = people, person, settings, form
        self.text, self.values, self.name, self.pronoun = "", {}, None, None

    def sentence(self, parts):
        self._begin()
        start = len(self.text)
        for number, (attribute, wording) in enumerate(parts):
            if number:
                self.text += " and " if self.form == "compact" else ", and "
            self._fill(templates(self.form)[attribute], wording, attribute)
        self._end(start)

    def closing(self, wording):
        self._begin()
        start = len(self.text)
        closings = NAME_LAST if self.form == "english" else COMPACT_NAME_LAST
        before, after = closings[wording].split("{name}")
        self.text += before
        self._add_name()
        self.text += after
        self._end(start)

    def _begin(self):
        if self.text:
            self.text += " "

    def _end(self, start):
        if self.form == "english":
            self.text = self.text[:start] + self.text[start].upper() + self.text[start + 1 :]
        self.text += " ." if self.form == "compact" else "."

    def _fill(self, wordings, number, attribute):
        for piece in re.split(r"(\{\w+\})", wordings[number]):
            if piece == "{value}":
                value = self.people.value(self.person, attribute, self.form)
                self.values[attribute] = (len(self.text), len(self.text) + len(value))
                self.text += value
            elif piece in ("{subject}", "{possessive}"):
                self._mention(possessive=piece == "{possessive}")
            else:
                self.text += piece

    def _mention(self, possessive):
        pronoun = self.people.columns["pronoun"][self.person]
        if self.settings.fullname or (self.name is None and not self.settings.reverse):
            self._add_name()
            self.text += "'s" if possessive else ""
        else:
            start = len(self.text)
            self.text += POSSESSIVES[pronoun] if possessive else pronoun
            self.pronoun = self.pronoun or (start, len(self.text))

    def _add_name(self):
        start = len(self.text)
        self.text += self.people.name(self.person)
        if self.name is None:
            self.name = (start, len(self.text))
