"""The bitwise family against operations on integers, parsed back from the prompts' text."""

import re
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2

from jaxconcepts.prompts import bitwise, family, render

# A truth table each, indexed by the two operands' bits: written apart from the package's operators.
TABLES = {"AND": "0001", "NAND": "1110", "OR": "0111", "NOR": "1000", "XOR": "0110", "XNOR": "1001"}
# Tests of independence fail by chance once in a thousand; the seeds are fixed, so they pass or fail for good.
SIGNIFICANCE = 1e-3
SHOWN = re.compile(r"Input: ([01]{5}) ([01]{5})\nOutput: ([01]{5})(?:\n\n|$)")


@pytest.fixture(scope="module")
def bits5():
    return bitwise.family()


def gold(concept, a, b):
    return "".join(TABLES[concept][2 * int(x) + int(y)] for x, y in zip(a, b, strict=True))


def by_integers(concept, a, b):
    a, b, ones = int(a, 2), int(b, 2), 2 ** len(a) - 1
    plain = {"AND": a & b, "NAND": a & b, "OR": a | b, "NOR": a | b, "XOR": a ^ b, "XNOR": a ^ b}[concept]
    return f"{plain ^ ones if concept in ('NAND', 'NOR', 'XNOR') else plain:05b}"


def test_every_answer_of_ten_thousand_prompts_is_recomputed_from_its_text(bits5):
    tested = {f"{a} {b}" for pool in bits5.test.values() for a, b in (example.input.split() for example in pool)}
    for number, concept in enumerate(bits5.concepts):
        made = render.prompts(bits5, concept, 4, 10_000 // 6 + (number < 4), seed=3)
        for prompt in made:
            pairs = SHOWN.findall(prompt.text + " " + prompt.answer)
            assert len(pairs) == 5
            assert all(by_integers(concept, a, b) == gold(concept, a, b) == output for a, b, output in pairs)
            *shown, asked = [f"{a} {b}" for a, b, _ in pairs]
            assert len({*shown, asked}) == 5
            assert asked in tested
            assert not tested & set(shown)


def test_the_sides_hold_other_operands_and_each_label_as_often(bits5):
    assert not family.inputs(bits5.train) & family.inputs(bits5.test)
    assert len(family.inputs(bits5.train)) + len(family.inputs(bits5.test)) == 4**5
    assert {len(pool) for pool in bits5.train.values()} == {10_000}
    assert {len(pool) for pool in bits5.test.values()} == {500}
    assert bits5.labels == ("AND", "NAND", "OR", "NOR", "XOR", "XNOR", "Null")
    for pool in (*bits5.train.values(), *bits5.test.values()):
        times = Counter(example.input for example in pool).values()
        assert max(times) - min(times) <= 1


def test_every_concept_answers_an_input_as_its_examples_do(bits5):
    for concept in bits5.concepts:
        for example in bits5.test[concept]:
            assert bits5.answers(example.input)[concept] == example.output
    assert bits5.answers("0110 11010") == bits5.answers("01101") == bits5.answers("01101 1101x") == {}


def test_null_bits_are_fair_and_independent_of_each_other_and_of_the_input(bits5):
    made = [p.query for p in render.prompts(bits5, "Null", 0, 10_000, seed=0, split="train")]
    bits = digits(made)
    outputs = bits[:, 10:]
    assert np.max((outputs.sum(0) - 5000) ** 2 / 2500) < chi2.ppf(1 - SIGNIFICANCE / 5, 1)
    statistics = [chi_square(bits[:, i], bits[:, 10 + j]) for j in range(5) for i in range(15) if i < 10 or i < 10 + j]
    assert len(statistics) == 60
    assert max(statistics) < chi2.ppf(1 - SIGNIFICANCE / 60, 1)
    # The same test sees a concept that the output does depend on.
    shown = digits(bits5.train["OR"])
    assert chi_square(shown[:, 0], shown[:, 10]) > 1000


def digits(examples):
    """[examples, 15]: the bits of both operands, then those of the output."""
    return np.array([[int(c) for c in example.input.replace(" ", "") + example.output] for example in examples])


def chi_square(x, y):
    counts = np.array([[np.sum((x == i) & (y == j)) for j in (0, 1)] for i in (0, 1)], float)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    return ((counts - expected) ** 2 / expected).sum()


def test_null_draws_again_where_an_input_comes_again(bits5):
    outputs: dict[str, set] = {}
    for example in bits5.train["Null"]:
        outputs.setdefault(example.input, set()).add(example.output)
    assert np.mean([len(drawn) for drawn in outputs.values()]) > 8


def test_baselines_that_know_no_concept_score_low(bits5):
    scores = family.baselines(bits5)
    assert set(scores) == set(bits5.labels)
    assert all(score < 0.3 for baselines in scores.values() for score in baselines.values())
    # By hand: AND gives 00000 with probability (3/4)^5.
    assert abs(scores["AND"]["most frequent"] - 0.75**5) < 0.08
    assert set(scores["XOR"]) == {"word 0", "word 1", "last word", "most frequent"}


@pytest.mark.parametrize("bits", [1, 2, 3, 12])
def test_every_width_has_disjoint_sides_that_are_not_empty(bits):
    made = bitwise.family(bits=bits, train=300, test=40)
    assert family.inputs(made.train)
    assert family.inputs(made.test)
    assert not family.inputs(made.train) & family.inputs(made.test)
    example = made.test["NAND"][0]
    a, b = example.input.split()
    assert len(a) == len(b) == len(example.output) == bits
    assert example.output == gold("NAND", a, b)


def test_a_family_is_its_seed_s(bits5):
    assert bitwise.family(train=50, test=20, seed=4).train == bitwise.family(train=50, test=20, seed=4).train
    assert bitwise.family(train=50, test=20, seed=4).test != bitwise.family(train=50, test=20, seed=5).test


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bits": 0}, r"bitwise.bits must be an integer in 1 ... 30, got 0"),
        ({"bits": 31}, r"bitwise.bits must be an integer in 1 ... 30, got 31"),
        ({"bits": 2.5}, r"bitwise.bits .* got 2.5"),
        ({"train": 0}, r"bitwise.train must be a positive integer, got 0"),
        ({"test": -1}, r"bitwise.test must be a positive integer, got -1"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        bitwise.family(**wrong)
