"""Tagged sentences: what the readers of treebanks and the grammar give, and the part-of-speech family takes."""

from __future__ import annotations

from typing import NamedTuple

TAGS = ("Noun", "Pronoun", "Verb", "Adverb", "Adjective", "Preposition")


class Word(NamedTuple):
    """A word as it is written, and one of `TAGS`, or "" for a word with none of them."""

    text: str
    tag: str


Sentence = tuple[Word, ...]
