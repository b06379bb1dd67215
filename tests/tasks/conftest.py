"""A small grammar, and every derivation of it by plain Python from the CSV's text: the grammar tests' reference."""

import csv
import itertools
from collections import defaultdict

import pytest

from jaxconcepts.tasks import grammar

HEADER = "grammar,level,symbol,rule,children\n"
# Two and three children, two levels of nonterminals above the last, strings with several derivations.
TOY = HEADER + "\n".join(
    f"toy,{line}"
    for line in (
        "1,9,0,7 8",
        "1,9,1,8 7",
        "1,9,2,7 7 8",
        "2,7,0,5 6",
        "2,7,1,6 5",
        "2,8,0,5 5 6",
        "2,8,1,5 6",
        "3,5,0,1 2",
        "3,5,1,2 1 1",
        "3,6,0,3 1",
        "3,6,1,1 2",
    )
)


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory):
    """The CSV of the small grammar; its root is 9."""
    path = tmp_path_factory.mktemp("grammar") / "toy.csv"
    path.write_text(TOY)
    return path


@pytest.fixture(scope="session")
def toy(toy_file):
    return grammar.load(toy_file)


@pytest.fixture(scope="session")
def trees():
    """Every derivation of the small grammar."""
    return derivations(9)


@pytest.fixture(scope="session")
def derivations_of():
    """A function from a symbol of the small grammar to its derivations."""
    return derivations


def derivations(root):
    """(probability, tokens, for each level the ancestors and their indices) of every derivation of `root`."""
    rules = defaultdict(list)
    for row in csv.DictReader(TOY.splitlines()):
        rules[int(row["symbol"])].append([int(child) for child in row["children"].split()])

    def derive(symbol):
        if symbol not in rules:
            return [(1.0, (symbol,), [])]
        out = []
        for right in rules[symbol]:
            for parts in itertools.product(*map(derive, right)):
                probability, tokens, levels = 1 / len(rules[symbol]), (), None
                for p, part, labels in parts:
                    probability, tokens = probability * p, tokens + part
                    levels = labels if levels is None else [_join(a, b) for a, b in zip(levels, labels, strict=True)]
                out.append((probability, tokens, [[(symbol, 0)] * len(tokens), *levels]))
        return out

    return derive(root)


def _join(left, right):
    """Labels of two neighbours on one level, the right one's indices going on from the left one's."""
    return left + [(symbol, index + left[-1][1] + 1) for symbol, index in right]
