"""Bitwise operations on two binary numbers: AND, NAND, OR, NOR, XOR, XNOR, and a Null whose output is random.

An input is two operands of equal width, "01101 11010"; the output has the same width (arXiv 2412.12276, section 4).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from jaxconcepts.prompts.family import Example, Family

OPERATIONS = {
    "AND": lambda a, b: a & b,
    "NAND": lambda a, b: ~(a & b),
    "OR": lambda a, b: a | b,
    "NOR": lambda a, b: ~(a | b),
    "XOR": lambda a, b: a ^ b,
    "XNOR": lambda a, b: ~(a ^ b),
}
NULL = "Null"
RULES = {
    "AND": "Write 1 where both numbers have a 1, and 0 elsewhere.",
    "NAND": "Write 0 where both numbers have a 1, and 1 elsewhere.",
    "OR": "Write 1 where at least one of the numbers has a 1, and 0 elsewhere.",
    "NOR": "Write 0 where at least one of the numbers has a 1, and 1 elsewhere.",
    "XOR": "Write 1 where the numbers differ, and 0 elsewhere.",
    "XNOR": "Write 0 where the numbers differ, and 1 elsewhere.",
    NULL: "Write a random binary number.",
}
TEST_SHARE = 0.2
MAX_BITS = 30
# Up to so many operand pairs are enumerated; of more, as many as are needed are drawn.
ENUMERATED = 1 << 20


def family(bits: int = 5, train: int = 10_000, test: int = 500, seed: int = 0) -> Family:
    """The bitwise family.

    bits: width of the operands and of the output.
    train, test: how many examples each concept has on that side, Null too: seven times as many in all.
    seed: draws the split, the order and Null's outputs.

    A pair of operands is on one side only, the same for all concepts: a fifth of the 4**bits pairs are for test, or
    `test` of them if that is fewer. So five bits (1 024 pairs) have 204 pairs to ask and 820 to show. Where a pool is
    larger than its pairs, they come round again, each equally often up to one; Null draws a new output every time, each
    bit fair and independent of the input.

    Raises ValueError where bits is not in 1 ... 30 or a count not positive.
    """
    for field, value, most in (("bits", bits, MAX_BITS), ("train", train, None), ("test", test, None)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (most and value > most):
            accepted = f"an integer in 1 ... {most}" if most else "a positive integer"
            raise ValueError(f"bitwise.{field} must be {accepted}, got {value!r}")
    rng = np.random.default_rng(seed)
    shown, asked = _split(bits, train, test, rng)
    labels = (*OPERATIONS, NULL)
    return Family(
        name="bitwise",
        concepts=tuple(OPERATIONS),
        null=NULL,
        train={concept: _examples(concept, shown, train, bits, rng) for concept in labels},
        test={concept: _examples(concept, asked, test, bits, rng) for concept in labels},
        rules=RULES,
        names={**{concept: concept for concept in OPERATIONS}, NULL: "random"},
        answers=partial(answers, bits=bits),
    )


def answers(text: str, bits: int) -> dict[str, str]:
    """What each operation gives for an input such as "01101 11010"; {} where the text is no such pair."""
    operands = text.split(" ")
    if len(operands) != 2 or any(len(word) != bits or set(word) - {"0", "1"} for word in operands):
        return {}
    a, b = (int(word, 2) for word in operands)
    return {concept: _binary(operation(a, b), bits) for concept, operation in OPERATIONS.items()}


def _split(bits, train, test, rng):
    """The operand pairs of train and of test, each as one integer of 2 bits digits, in random order."""
    pairs = 4**bits
    asked = min(test, max(1, int(TEST_SHARE * pairs)))
    shown = min(train, pairs - asked)
    if pairs <= ENUMERATED:
        drawn = rng.permutation(pairs)
    else:
        drawn = np.empty(0, np.int64)
        while len(drawn) < shown + asked:
            drawn = np.unique(np.concatenate([drawn, rng.integers(pairs, size=2 * (shown + asked))]))
        drawn = rng.permutation(drawn)
    return drawn[asked : asked + shown], drawn[:asked]


def _examples(concept, pairs, count, bits, rng):
    rounds = -(-count // len(pairs))
    drawn = np.concatenate([rng.permutation(pairs) for _ in range(rounds)])[:count].tolist()
    known = {pair: (pair >> bits, pair & ((1 << bits) - 1)) for pair in pairs.tolist()}
    texts = {pair: f"{_binary(a, bits)} {_binary(b, bits)}" for pair, (a, b) in known.items()}
    if concept == NULL:
        outputs = [_binary(output, bits) for output in rng.integers(1 << bits, size=count).tolist()]
    else:
        results = {pair: _binary(OPERATIONS[concept](a, b), bits) for pair, (a, b) in known.items()}
        outputs = [results[pair] for pair in drawn]
    return tuple(Example(texts[pair], output, concept) for pair, output in zip(drawn, outputs, strict=True))


def _binary(number, bits):
    return format(number & ((1 << bits) - 1), f"0{bits}b")
