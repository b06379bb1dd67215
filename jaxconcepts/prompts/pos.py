"""Part of speech: the answer is the first word of the sentence with the hidden tag, or for Null a random word.

Sentences come from the built-in grammar (`grammar.sentences`), or from a treebank (`read_conllu`, `read_penn`); only
those that hold all six tags are used (arXiv 2412.12276, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxconcepts.prompts.family import Example, Family
from jaxconcepts.prompts.tagged import TAGS, Sentence
from jaxconcepts.prompts.treebanks import read_conllu, read_penn

__all__ = ["NULL", "RULES", "TAGS", "family", "first_words", "read_conllu", "read_penn"]

NULL = "Null"
RULES = {
    **{tag: f"Find the first {tag.lower()} in the sentence." for tag in TAGS},
    NULL: "Pick a random word of the sentence.",
}
TEST_SHARE = 0.2


def family(
    sentences: Sequence[Sentence], seed: int = 0, *, longest: int | None = None, needed: int = 10, name: str = "pos"
) -> Family:
    """The part-of-speech family on these sentences.

    Each sentence gives one example to every concept, Null too; a fifth of the sentences, drawn from the seed, are for
    test. The input is the words, separated by spaces. Null's word is drawn uniformly among those that hold a letter or
    a digit.
    longest: leave out sentences of more words, to fit a context.
    needed: how many usable sentences there must be: different ones that hold all six tags. At least 2.

    Raises ValueError where there are too few of them, saying how many there are.
    """
    if not isinstance(needed, int) or needed < 2:
        raise ValueError(f"pos.needed must be an integer of at least 2, got {needed!r}")
    usable = _usable(sentences, longest)
    if len(usable) < needed:
        within = "" if longest is None else f" and at most {longest} words"
        raise ValueError(
            f"{name}: {needed} different sentences with all of {', '.join(TAGS)}{within} are needed; found "
            f"{len(usable)} among {len(sentences)} sentences"
        )
    rng = np.random.default_rng(seed)
    texts = list(usable)
    texts = [texts[i] for i in rng.permutation(len(texts))]
    asked = max(1, int(TEST_SHARE * len(texts)))
    firsts = {text: first_words(usable[text]) for text in texts}
    drawn = {text: _random_word(usable[text], rng) for text in texts}

    def pools(group):
        known = {tag: tuple(Example(text, firsts[text][tag], tag) for text in group) for tag in TAGS}
        return {**known, NULL: tuple(Example(text, drawn[text], NULL) for text in group)}

    return Family(
        name=name,
        concepts=TAGS,
        null=NULL,
        train=pools(texts[asked:]),
        test=pools(texts[:asked]),
        rules=RULES,
        names={**{tag: tag for tag in TAGS}, NULL: "random"},
        answers=lambda text: dict(firsts.get(text, {})),
    )


def first_words(sentence: Sentence) -> dict[str, str]:
    """The first word of each tag that the sentence holds, in the order of `TAGS`."""
    first: dict[str, str] = {}
    for word in sentence:
        first.setdefault(word.tag, word.text)
    return {tag: first[tag] for tag in TAGS if tag in first}


def _usable(sentences, longest):
    """Text -> sentence, for those with all tags. Of equal texts the first: one input has one answer."""
    usable: dict[str, Sentence] = {}
    for sentence in sentences:
        if longest is not None and len(sentence) > longest:
            continue
        if {word.tag for word in sentence} >= set(TAGS):
            usable.setdefault(" ".join(word.text for word in sentence), sentence)
    return usable


def _random_word(sentence, rng):
    words = [word.text for word in sentence if any(map(str.isalnum, word.text))]
    return words[rng.integers(len(words))]
