"""A small grammar that writes tagged English sentences, for the part-of-speech family where no corpus is at hand.

Every sentence holds all six tags. Sentences differ in what comes first (subject, adverb, preposition, verb, adjective),
in clauses joined and nested, in subjects that are nouns or pronouns, and in where adjectives and adverbs stand, so that
no position, and no order of the tags, gives an answer away.

Each word has one tag in every sentence, and is chosen to have one in English and in the usual tag sets: no noun that is
a verb too ("walk"), no adjective that is an adverb ("fast"), no preposition that is a particle or a conjunction ("up",
"after"), no "someone" (a pronoun in Universal Dependencies, a noun in the Penn Treebank). All is in lower case, without
punctuation, and in the past tense or the imperative, where nothing has to agree.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from itertools import accumulate

from jaxconcepts.prompts.tagged import TAGS, Sentence, Word

# Lexical category -> (tag, words); "" is a word with none of the tags.
LEXICON = {
    "singular": ("Noun", "sailor farmer teacher kitten rabbit wizard village forest kitchen lantern basket violin"),
    "plural": ("Noun", "sailors farmers teachers kittens rabbits wizards villages forests lanterns baskets violins"),
    "subject": ("Pronoun", "he she they we you it"),
    "object": ("Pronoun", "him them us me you it himself herself themselves"),
    "who": ("Pronoun", "who"),
    "acted": ("Verb", "brought took gave stole remembered described forgot chose carried followed admired"),
    "happened": ("Verb", "slept sat arrived waited listened sang swam laughed went"),
    "was": ("Verb", "seemed became remained appeared"),
    "order": ("Verb", "bring deliver follow remember describe choose forget protect examine admire"),
    "adverb": ("Adverb", "quietly slowly quickly gladly carefully suddenly proudly often never soon rarely again"),
    "adjective": ("Adjective", "happy hungry tiny lazy clever heavy dusty wooden famous strange lonely foolish noisy"),
    "preposition": ("Preposition", "with without from into toward beside beneath against among onto of at"),
    "determiner": ("", "the a"),
    "the": ("", "the"),
    "conjunction": ("", "and but"),
    "and": ("", "and"),
}  # fmt: skip

# Symbol -> what it may become, each with its weight. Symbols that have no rule are lexical categories.
RULES = {
    "sentence": [
        (4, "clause"),
        (3, "clause conjunction clause"),
        (4, "adverb clause"),
        (4, "place clause"),
        (5, "order_clause"),
        (2, "adverb order_clause"),
        (3, "place happened thing"),
        (3, "place happened thing conjunction clause"),
        (4, "adjective place clause"),
        (3, "adjective and adjective clause"),
    ],
    "clause": [
        (4, "agent action"),
        (2, "agent adverb action"),
        (2, "agent action adverb"),
        (1, "thing who action action"),
        (1, "thing place action"),
    ],
    "action": [
        (3, "acted patient"),
        (3, "acted patient place"),
        (2, "happened place"),
        (1, "happened"),
        (2, "was adjective"),
        (1, "acted patient adverb place"),
    ],
    "order_clause": [
        (2, "order patient place"),
        (1, "order adverb patient"),
        (2, "order patient conjunction clause"),
        (1, "order patient who action"),
    ],
    "agent": [(1, "subject"), (1, "thing")],
    "patient": [(1, "object"), (1, "thing")],
    "place": [(1, "preposition object"), (3, "preposition thing")],
    "thing": [
        (3, "determiner singular"),
        (3, "determiner adjective singular"),
        (2, "plural"),
        (2, "adjective plural"),
        (1, "the plural"),
        (1, "the adjective plural"),
    ],
}
SHORTEST, LONGEST = 6, 14


def sentences(count: int, seed: int = 0) -> list[Sentence]:
    """So many different sentences of 6 to 14 words, each with all six tags, drawn from the seed.

    The first n of them are the same however many are asked for. Raises ValueError where count is not positive.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"count of sentences must be a positive integer, got {count!r}")
    rng = random.Random(seed)
    found: dict[Sentence, None] = {}
    while len(found) < count:
        sentence = tuple(_expand(["sentence"], rng))
        if SHORTEST <= len(sentence) <= LONGEST and {word.tag for word in sentence} >= set(TAGS):
            found[sentence] = None
    return list(found)


def vocabulary() -> dict[str, str]:
    """Each word of the grammar and its tag, "" for those with none of the six."""
    return {word: tag for tag, words in LEXICON.values() for word in words.split()}


def _table(options):
    return list(accumulate(weight for weight, _ in options)), [symbols.split() for _, symbols in options]


_TABLES = {symbol: _table(options) for symbol, options in RULES.items()}
_WORDS = {category: [Word(word, tag) for word in words.split()] for category, (tag, words) in LEXICON.items()}


def _expand(symbols, rng):
    for symbol in symbols:
        if symbol in _TABLES:
            limits, choices = _TABLES[symbol]
            yield from _expand(choices[bisect_right(limits, rng.random() * limits[-1])], rng)
        else:
            words = _WORDS[symbol]
            yield words[int(rng.random() * len(words))]
