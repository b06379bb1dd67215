"""The part-of-speech family: answers looked up again, word by word; what a position, an order or Null gives away."""

import re
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2

from jaxconcepts.prompts import family, grammar, pos, render
from jaxconcepts.prompts.tagged import Word

# Every word of the grammar under its tag, written apart from the grammar's own lists.
KNOWN = {
    "Noun": "sailor sailors farmer farmers teacher teachers kitten kittens rabbit rabbits wizard wizards village "
    "villages forest forests kitchen lantern lanterns basket baskets violin violins",
    "Pronoun": "he she they we you it him them us me himself herself themselves who",
    "Verb": "brought took gave stole remembered described forgot chose carried followed admired slept sat arrived "
    "waited listened sang swam laughed went seemed became remained appeared bring deliver follow remember describe "
    "choose forget protect examine admire",
    "Adverb": "quietly slowly quickly gladly carefully suddenly proudly often never soon rarely again",
    "Adjective": "happy hungry tiny lazy clever heavy dusty wooden famous strange lonely foolish noisy",
    "Preposition": "with without from into toward beside beneath against among onto of at",
    "": "the a and but",
}
TAG_OF = {word: tag for tag, words in KNOWN.items() for word in words.split()}
SIGNIFICANCE = 1e-3


@pytest.fixture(scope="module")
def sentences():
    return grammar.sentences(3000, seed=1)


@pytest.fixture(scope="module")
def made(sentences):
    return pos.family(sentences, seed=1)


def looked_up(text, concept):
    return next(word for word in text.split(" ") if TAG_OF[word] == concept)


def test_every_answer_of_ten_thousand_prompts_is_looked_up_again(made):
    tested = family.inputs(made.test)
    for number, concept in enumerate(made.concepts):
        for prompt in render.prompts(made, concept, 4, 10_000 // 6 + (number < 4), seed=3):
            pairs = re.findall(r"Input: (.+)\nOutput: (.+)", prompt.whole)
            assert len(pairs) == 5
            assert all(looked_up(text, concept) == output for text, output in pairs)
            *shown, asked = [text for text, _ in pairs]
            assert len({*shown, asked}) == 5
            assert asked in tested
            assert not tested & set(shown)


def test_a_fifth_of_the_sentences_are_for_test_and_every_label_has_each(made, sentences):
    shown, asked = family.inputs(made.train), family.inputs(made.test)
    assert (len(shown), len(asked)) == (2400, 600)
    assert shown | asked == {" ".join(word.text for word in sentence) for sentence in sentences}
    assert made.labels == ("Noun", "Pronoun", "Verb", "Adverb", "Adjective", "Preposition", "Null")
    assert {len(pool) for pool in made.train.values()} == {2400}
    assert {len(pool) for pool in made.test.values()} == {600}
    for example in made.test["Verb"]:
        assert made.answers(example.input)["Verb"] == example.output
        assert tuple(made.answers(example.input)) == made.concepts
    assert made.answers("no such sentence") == {}


def test_words_have_one_tag_and_sentences_all_of_them(sentences):
    assert grammar.vocabulary() == TAG_OF
    assert sum(len(words.split()) for words in KNOWN.values()) == len(TAG_OF)
    for sentence in sentences:
        assert 6 <= len(sentence) <= 14
        assert {word.tag for word in sentence} >= set(pos.TAGS)
        assert all(TAG_OF[word.text] == word.tag for word in sentence)
    assert len(set(sentences)) == 3000
    assert grammar.sentences(50, seed=1) == sentences[:50]
    assert grammar.sentences(50, seed=2) != sentences[:50]


def test_no_position_and_no_frequent_word_gives_an_answer_away(made):
    scores = family.baselines(made)
    assert set(scores) == set(made.labels)
    for concept, baselines in scores.items():
        assert len(baselines) == 14 + 2
        worst = max(baselines, key=baselines.get)
        assert baselines[worst] < 0.35, (concept, worst)
        assert baselines["most frequent"] < 0.2
    # By hand, on the first word: who answers it is right where it has the tag.
    opened = Counter(TAG_OF[example.input.split()[0]] for example in made.test["Noun"])
    assert all(scores[tag]["word 0"] == opened[tag] / 600 for tag in pos.TAGS)


def test_no_order_of_the_tags_gives_an_answer_away(sentences):
    """Answering with the word right before, or right after, the first word of another tag (or of none)."""
    for concept in pos.TAGS:
        for other in (*pos.TAGS, ""):
            for step in (-1, 1):
                right = 0
                for sentence in sentences:
                    tags = [word.tag for word in sentence]
                    right += other in tags and tags.index(other) + step == tags.index(concept)
                assert right / len(sentences) < 0.55, (concept, other, step)


def test_null_s_word_stands_anywhere_with_the_same_chance(made):
    """By thirds of the sentence, and by position in sentences of equal length; words met twice are left aside."""
    statistics = []
    examples = [e for e in (*made.train["Null"], *made.test["Null"]) if max(Counter(e.input.split()).values()) == 1]
    for length in range(7, 14):
        of_length = [example for example in examples if len(example.input.split()) == length]
        places = np.bincount([e.input.split().index(e.output) for e in of_length], minlength=length)
        expected = len(of_length) / length
        assert expected > 5
        statistics.append((((places - expected) ** 2 / expected).sum(), length))
    assert all(value < chi2.ppf(1 - SIGNIFICANCE / 7, length - 1) for value, length in statistics)
    # The same test sees a concept whose word does depend on the sentence.
    first = np.bincount([e.input.split().index(e.output) for e in made.train["Noun"] if len(e.input.split()) == 10])
    assert ((first - first.sum() / 10) ** 2 / (first.sum() / 10)).sum() > 100


def test_null_s_word_holds_a_letter_or_a_digit():
    words = [("He", "Pronoun"), (",", ""), ("gladly", "Adverb"), ("saw", "Verb"), ("old", "Adjective"), ("...", "")]
    ends = [[("cats", "Noun"), ("in", "Preposition"), (f"{i}", "")] for i in range(40)]
    made = pos.family([tuple(Word(*word) for word in words + end) for end in ends])
    drawn = {example.output for pool in (made.train, made.test) for example in pool["Null"]}
    assert not drawn & {",", "..."}
    assert len(drawn) > 6


def test_a_sentence_met_twice_is_used_once(sentences):
    doubled = pos.family(list(sentences[:40]) + list(sentences[:40]))
    assert len(doubled.train["Noun"]) + len(doubled.test["Noun"]) == 40


def test_long_sentences_are_left_out_where_asked(sentences):
    assert max(len(text.split()) for text in family.inputs(pos.family(sentences, longest=9).train)) == 9


def test_too_few_usable_sentences_are_counted(sentences):
    lacking = tuple(word for word in sentences[0] if word.tag != "Adverb")
    with pytest.raises(ValueError, match=r"pos: 10 different sentences with all of Noun, .* needed; found 9 among 10"):
        pos.family([*sentences[:9], lacking])
    with pytest.raises(ValueError, match=r"30 different sentences .* and at most 7 words are needed; found \d among"):
        pos.family(sentences[:50], longest=7, needed=30)
    with pytest.raises(ValueError, match="pos.needed must be an integer of at least 2, got 1"):
        pos.family(sentences, needed=1)
    with pytest.raises(ValueError, match="count of sentences must be a positive integer, got 0"):
        grammar.sentences(0)
