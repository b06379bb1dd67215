"""Public facts, against the calendar, Unicode and arithmetic."""

import calendar
import re
import string
import unicodedata

import pytest

from jaxconcepts.prompts import facts, family, render

# Atomic numbers of elements from all over the list.
ELEMENTS = {
    "hydrogen": 1,
    "carbon": 6,
    "oxygen": 8,
    "sodium": 11,
    "sulfur": 16,
    "calcium": 20,
    "iron": 26,
    "krypton": 36,
}


@pytest.fixture(scope="module")
def single():
    return facts.family()


@pytest.fixture(scope="module")
def pairs():
    return facts.pairs()


def pooled(made, concept):
    return [*made.train[concept], *made.test[concept]]


def value(numeral):
    """A Roman numeral's value: a smaller sign before a larger one is subtracted."""
    signs = [{"I": 1, "V": 5, "X": 10, "L": 50}[sign] for sign in numeral]
    return sum(-a if a < b else a for a, b in zip(signs, [*signs[1:], 0], strict=True))


def spoken(number):
    """How Unicode, which names numbers, writes one below fifty."""
    names = {
        int(unicodedata.numeric(chr(code))): re.split("NUMBER |DIGIT ", unicodedata.name(chr(code)))[1].lower()
        for code in (*range(0x2460, 0x2474), *range(0x3251, 0x3260), *range(0x32B1, 0x32BF))
    }
    return names[number].replace(" ", "-")


def test_the_lists_are_those_of_the_world():
    lists = facts.LISTS
    assert list(lists["months"]) == list(calendar.month_name)[1:]
    assert list(lists["weekdays"]) == list(calendar.day_name)
    assert list(lists["letters"]) == list(string.ascii_lowercase)
    assert [value(numeral) for numeral in lists["Roman numerals"]] == list(range(1, 40))
    assert list(lists["number words"]) == [spoken(number) for number in range(1, 50)]
    # Final sigma is the one letter that Unicode counts twice; it spells lambda without b.
    codes = [code for code in range(0x3B1, 0x3CA) if code != 0x3C2]
    greek = [unicodedata.name(chr(code)).split()[-1].lower().replace("lamda", "lambda") for code in codes]
    assert list(lists["Greek letters"]) == greek
    assert {name: lists["elements"].index(name) + 1 for name in ELEMENTS} == ELEMENTS
    assert (len(lists["elements"]), len(lists["planets"]), len(lists["zodiac"])) == (36, 8, 12)
    every = [item for items in lists.values() for item in items]
    assert len(set(every)) == len(every)


def test_every_answer_about_one_item_is_its_place_in_its_list(single):
    places = {item: (items, i, name) for name, items in facts.LISTS.items() for i, item in enumerate(items)}
    asked = {example.input for example in pooled(single, "Next")}
    ends = {item for name in facts.LINES for item in (facts.LISTS[name][0], facts.LISTS[name][-1])}
    assert asked == set(places) - ends
    for concept in single.concepts:
        assert {example.input for example in pooled(single, concept)} == asked
        for text, answer, _ in pooled(single, concept):
            items, i, _ = places[text]
            if concept in ("Next", "Previous"):
                step = 1 if concept == "Next" else -1
                assert (items.index(answer) - i) % len(items) == step % len(items)
            else:
                number, _, parity = answer.rpartition(", ")
                assert concept == "Parity" or int(number or parity) == i + 1
                assert concept == "Number" or parity == {1: "odd", 0: "even"}[(i + 1) % 2]
                assert bool(number) == (concept == "Number, parity")
            assert single.answers(text)[concept] == answer


def test_every_answer_about_two_items_is_their_order(pairs):
    numbers = {item: i for items in facts.LISTS.values() for i, item in enumerate(items, 1)}
    inputs = [example.input for example in pooled(pairs, "Later")]
    assert len(inputs) == len({frozenset(text.split(", ")) for text in inputs}) == 1000
    for concept in pairs.concepts:
        for text, answer, _ in pooled(pairs, concept):
            first, second = text.split(", ")
            assert any(first in items and second in items for items in facts.LISTS.values())
            a, b = numbers[first], numbers[second]
            compared = {True: "yes", False: "no"}[a > b]
            expected = {
                "Later": max(first, second, key=numbers.get),
                "Earlier": min(first, second, key=numbers.get),
                "Compare": compared,
                "Numbers, compare": f"{a}, {b}, {compared}",
                "Difference": str(a - b),
                "Numbers, difference": f"{a}, {b}, {a - b}",
            }
            assert answer == expected[concept] == pairs.answers(text)[concept]


def test_no_constant_answer_is_right_much_above_chance(single, pairs):
    for made, concept in ((single, "Parity"), (pairs, "Compare")):
        assert family.baselines(made)[concept]["most frequent"] < 0.62
    for concept in ("Later", "Earlier"):
        assert family.baselines(pairs)[concept]["last word"] < 0.62


def test_lists_share_the_pairs_evenly(pairs):
    inputs = [example.input.split(", ")[0] for example in pooled(pairs, "Later")]
    counts = [sum(item in items for item in inputs) for items in facts.LISTS.values()]
    sizes = [len(items) * (len(items) - 1) // 2 for items in facts.LISTS.values()]
    assert sum(counts) == 1000
    full = [count for count, size in zip(counts, sizes, strict=True) if count == size]
    others = [count for count, size in zip(counts, sizes, strict=True) if count < size]
    assert max(others) - min(others) <= 1 and max(full) <= max(others)


def test_families_are_functions_of_the_seed_and_make_prompts(single, pairs):
    assert facts.family().test == single.test and facts.family(seed=1).test != single.test
    assert facts.pairs().train == pairs.train and facts.pairs(seed=1).train != pairs.train
    months = facts.family(lists=("months",))
    assert {example.input for example in pooled(months, "Next")} == set(facts.LISTS["months"])
    for made in (single, pairs):
        assert not family.inputs(made.train) & family.inputs(made.test)
        for concept in made.concepts:
            for variant in render.VARIANTS:
                (prompt,) = render.prompts(made, concept, 3, 1, seed=0, variant=variant)
                assert re.search(r"Output:$", prompt.text) and prompt.answer == prompt.query.output


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"lists": ("months", "rivers")}, "facts.lists must be distinct names out of months, .*'rivers'"),
        ({"lists": ()}, r"facts.lists must be .*got \(\)"),
        ({"lists": ("months", "months")}, "facts.lists must be distinct"),
        ({"count": 4}, "fact_pairs.count must be an integer of at least 5, got 4"),
    ],
)
def test_families_that_cannot_be_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        facts.pairs(**call)
