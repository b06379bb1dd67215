"""A vocabulary of whole words for biographies and questions, and what any other tokenizer must offer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from jaxconcepts.tasks.biographies_people import FIRST_YEAR, MONTHS, PRONOUNS, People, check_form
from jaxconcepts.tasks.biographies_questions import question_words
from jaxconcepts.tasks.biographies_templates import NAME_LAST
from jaxconcepts.tasks.biographies_text import COMPACT_NAME_LAST, POSSESSIVES, templates
from jaxconcepts.tasks.biographies_values import values

SPECIAL = ("<pad>", "<bos>", "<eos>", "<mask>")
# English: a possessive ending, a number with its sign, a word, or one other sign. Compact: what spaces divide.
PATTERNS = {"english": re.compile(r"'s|-?\d+|\w+|[^\w\s]"), "compact": re.compile(r"\S+")}


@runtime_checkable
class Tokenizer(Protocol):
    """What a token bank needs of a tokenizer.

    size: how many tokens there are. pad, bos, eos, mask: four distinct special tokens. `encode` gives the tokens of a
    text and the (start, end) characters of each; a space before a word may belong to its token.
    """

    size: int
    pad: int
    bos: int
    eos: int
    mask: int

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]: ...


class Vocabulary:
    """All words that the texts of a world can hold, one token each.

    form: "english" or "compact". words: the tokens in order, the four special ones first.
    """

    pad, bos, eos, mask = range(len(SPECIAL))

    def __init__(self, form: str, words: Iterable[str]):
        check_form(form)
        self.form = form
        self.words = (*SPECIAL, *words)

    @property
    def size(self) -> int:
        return len(self.words)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Word -> token."""
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens, and the characters of each. Raises ValueError for a word that no text of the world holds.

        A capital at the start of a sentence makes another word of it.
        """
        matches = list(PATTERNS[self.form].finditer(text))
        try:
            return [self.numbers[match[0]] for match in matches], [match.span() for match in matches]
        except KeyError as error:
            raise ValueError(
                f"the vocabulary has {self.size} words and not {error.args[0]!r}, in {text[:80]!r}"
            ) from None

    def decode(self, tokens: Sequence[int] | Int[np.ndarray, " n"]) -> str:
        """The text of tokens, without special ones. Raises ValueError for a number that is no token."""
        numbers = [int(token) for token in tokens]
        outside = [token for token in numbers if not 0 <= token < self.size]
        if outside:
            raise ValueError(f"tokens must be in 0 ... {self.size - 1}, got {outside[0]}")
        text = " ".join(self.words[token] for token in numbers if token >= len(SPECIAL))
        return text if self.form == "compact" else re.sub(r" (?=[.,;:?]|'s)", "", text)


def vocabulary(people: People, form: str = "english") -> Vocabulary:
    """The vocabulary of a world: every word that its cardinalities allow, whoever is in the table.

    Worlds of the same cardinalities have the same vocabulary, so that a model may move between them.
    """
    check_form(form)
    texts = chain(_fixed(form), question_words(people.cardinalities, form), _values(people.cardinalities, form))
    words = dict.fromkeys(word for text in texts for word in PATTERNS[form].findall(text))
    return Vocabulary(form, words)


def _fixed(form):
    """The words of sentences, each also with the capital that a sentence may begin with."""
    yield "and ."
    yield " ".join(PRONOUNS)
    closings = NAME_LAST if form == "english" else COMPACT_NAME_LAST
    for text in chain(*templates(form).values(), closings):
        bare = re.sub(r"\{\w+\}", "", text).strip()
        yield bare
        if form == "english":
            yield bare[0].upper() + bare[1:]
    if form == "english":
        yield " ".join((*POSSESSIVES.values(), *map(str.capitalize, (*PRONOUNS, *POSSESSIVES.values())), ",", "'s"))


def _values(cards, form):
    yield " ".join(MONTHS[: cards.months])
    yield " ".join(map(str, range(1, cards.days + 1)))
    yield " ".join(map(str, range(FIRST_YEAR, FIRST_YEAR + cards.years)))
    for field in ("first", "middle", "last", "cities", "universities", "majors", "employers"):
        for value in values(field)[: getattr(cards, field)]:
            yield value if form == "english" else value.replace(" ", "_")
