"""What a family of text tasks is: concepts, their examples split into demonstrations and queries, and their rules.

A concept is the hidden rule that turns an input into an output ("AND", "Noun"). A family may have a Null concept too,
whose outputs carry no information: the control that decodability and accuracy are held against.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Example(NamedTuple):
    """One input, the output that the concept gives it, and the concept's name."""

    input: str
    output: str
    concept: str


def _unknown(_: str) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Family:
    """A family of tasks that share their inputs and differ in the hidden concept.

    name: "bitwise", "pos", or the stem of a file.
    concepts: without Null.
    null: the name of the concept whose answers carry no information, or None.
    train, test: concept (Null too) -> the pool that demonstrations are drawn from, and the queries.
    rules, names: concept -> the rule in words, and the operator's name; may be empty.
    answers: input -> what each concept (without Null) would answer; {} where that is not known.

    Raises ValueError where a concept has no examples on a side, an example stands under another concept, an output is
    empty, or an input is on both sides.
    """

    name: str
    concepts: tuple[str, ...]
    null: str | None
    train: Mapping[str, tuple[Example, ...]]
    test: Mapping[str, tuple[Example, ...]]
    rules: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    answers: Callable[[str], dict[str, str]] = _unknown

    def __post_init__(self):
        if not self.concepts or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"{self.name}: concepts and null must be distinct and not empty, got {self.labels}")
        for side, pools in (("train", self.train), ("test", self.test)):
            if set(pools) != set(self.labels):
                raise ValueError(f"{self.name}.{side} must hold {', '.join(self.labels)}; got {', '.join(pools)}")
            for concept in self.labels:
                if not pools[concept]:
                    raise ValueError(f"{self.name}.{side}: concept {concept!r} has no example")
                for example in pools[concept]:
                    if example.concept != concept or not example.output.strip():
                        raise ValueError(f"{self.name}.{side}: no example of {concept!r} with an output: {example}")
        both = inputs(self.train) & inputs(self.test)
        if both:
            raise ValueError(f"{self.name}: {len(both)} inputs are in train and in test, such as {min(both)!r}")

    @property
    def labels(self) -> tuple[str, ...]:
        """Concepts, then Null if there is one: the order of concept numbers everywhere."""
        return self.concepts if self.null is None else (*self.concepts, self.null)

    def pool(self, split: str, concept: str) -> tuple[Example, ...]:
        """The examples of a concept on one side. Raises ValueError for an unknown split or concept."""
        if split not in ("train", "test"):
            raise ValueError(f"split must be train or test, got {split!r}")
        if concept not in self.labels:
            raise ValueError(f"{self.name} has the concepts {', '.join(self.labels)}; got {concept!r}")
        return (self.train if split == "train" else self.test)[concept]


def inputs(pools: Mapping[str, tuple[Example, ...]]) -> set[str]:
    """The distinct inputs of all concepts of one side."""
    return {example.input for pool in pools.values() for example in pool}


def baselines(family: Family) -> dict[str, dict[str, float]]:
    """How often a rule that knows no concept is right, on the test examples: concept -> {baseline: accuracy}.

    "word 0", "word 1", ...: always answer with that word of the input (counted from 0; a shorter input is answered
    wrongly). "last word". "most frequent": always the answer that is most frequent in train for this concept (of
    equals, the one met first).
    """
    longest = max(len(text.split()) for text in inputs(family.test))
    scores = {}
    for concept in family.labels:
        pool = family.test[concept]
        words = [(example.input.split(), example.output) for example in pool]
        right = {
            f"word {j}": sum(j < len(split) and split[j] == output for split, output in words) for j in range(longest)
        }
        right["last word"] = sum(split[-1:] == [output] for split, output in words)
        frequent = Counter(example.output for example in family.train[concept]).most_common(1)[0][0]
        right["most frequent"] = sum(output == frequent for _, output in words)
        scores[concept] = {name: count / len(pool) for name, count in right.items()}
    return scores
