"""Grammars as they are read from tables, shipped and of the user."""

import csv
from importlib import resources

import numpy as np
import pytest

from jaxconcepts.tasks import grammar

HEADER = "grammar,level,symbol,rule,children\n"


@pytest.mark.parametrize("name", grammar.SHIPPED)
def test_shipped_grammars_are_their_tables(name):
    g = grammar.load(name)
    text = resources.files("jaxconcepts").joinpath("data/physics_cfg_rules.csv").read_text()
    expected = {}
    for row in csv.DictReader(text.splitlines()):
        if row["grammar"] == name:
            expected.setdefault(int(row["symbol"]), []).append(tuple(map(int, row["children"].split())))
    below = (*g.levels[1:], tuple(range(1, g.terminals + 1)))
    for level, rules, lower in zip(g.levels, g.rules, below, strict=True):
        for symbol, rights in zip(level, rules, strict=True):
            assert [tuple(lower[child] for child in right) for right in rights] == expected[symbol]
    assert g.first_level == 1
    assert hash(g) == hash(grammar.load(name))


def test_the_attribution_is_kept_beside_the_rules():
    notice = resources.files("jaxconcepts").joinpath("data/physics_cfg_rules.NOTICE.txt").read_text()
    assert "facebookresearch/PhysicsLM4" in notice
    assert "Apache License, Version 2.0" in notice


def test_a_symbol_becomes_the_root():
    whole, part = grammar.load("cfg3b"), grammar.load("cfg3b@16")
    assert part.levels == ((16,), *whole.levels[3:])
    assert part.level_names == ("NT3", "NT4", "NT5", "NT6")
    assert part.rules[1:] == whole.rules[3:]
    assert (part.terminals, part.end, part.mask, part.separator, part.vocabulary) == (3, 4, 5, 6, 7)
    assert (part.min_length, part.max_length) == (30, 72)


def test_symbols_that_the_root_does_not_reach_are_left_out():
    g = grammar.load("cfg3f@7")
    assert g.levels == ((7,),)
    assert g.terminals == 3


def test_a_users_file_is_read_by_its_path(toy_file, toy):
    assert toy.levels == ((9,), (7, 8), (5, 6))
    assert toy.rules[2] == (((0, 1), (1, 0, 0)), ((2, 0), (0, 1)))
    assert grammar.load(str(toy_file)).rules == toy.rules
    assert grammar.load(f"{toy_file}@7").levels == ((7,), (5, 6))


def test_rules_may_have_one_child_or_many(tmp_path):
    (tmp_path / "g.csv").write_text(HEADER + "g,1,9,0,8\ng,1,9,1,8 8 8 8\ng,2,8,0,1\ng,2,8,1,2 1\n")
    g = grammar.load(tmp_path / "g.csv")
    assert (g.min_length, g.max_length) == (1, 8)
    from jaxconcepts.tasks import grammar_exact

    tokens, lengths = np.array([[2, 1, 0, 0], [1, 2, 1, 1], [1, 1, 1, 1]]), np.array([2, 4, 4])
    logs = grammar_exact.log_probability(g, tokens, lengths)
    np.testing.assert_allclose(np.exp(logs), [1 / 4, 0, 1 / 32], atol=1e-7)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cfg3z", "grammar must be one of cfg3b, .*, cfg3k or the path of a CSV, got 'cfg3z'"),
        ("nowhere.csv", "got 'nowhere.csv'"),
        ("cfg3b@99", r"cfg3b: the root must be one of the symbols 22, 21, .*, 7; got '99'"),
        ("cfg3b@x", "got 'x'"),
        ("cfg3b@", "cfg3b: .* got ''"),
    ],
)
def test_unknown_grammars_and_roots_are_named(source, message):
    with pytest.raises(ValueError, match=message):
        grammar.load(source)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the columns must be grammar, level, symbol, rule, children; got no header"),
        ("grammar,level,symbol,children\n", "got grammar, level, symbol, children"),
        (HEADER, "must hold one grammar, got none"),
        (HEADER + "a,1,9,0,1 2\nb,1,9,0,1 2\n", "must hold one grammar, got 'a', 'b'"),
        (HEADER + "a,1,9,0,1 x\n", "line 2: level and symbol must be integers .* children '1 x'"),
        (HEADER + "a,top,9,0,1 2\n", "line 2: .* got level 'top'"),
        (HEADER + "a,1,9,0\n", "line 2: .* children None"),
        (HEADER + "a,1,9,0,\n", "line 2, 9 -> : a rule must have at least one child"),
        (HEADER + "a,1,9,0,8 8\na,2,8,0,1 2\na,1,9,1,8 8\n", "line 4, 9 -> 8 8: the rule is there twice"),
        (HEADER + "a,1,9,0,8 7\na,2,8,0,1 2\n", "line 2, 9 -> 8 7: 7 is no symbol of the next level, 2"),
        (HEADER + "a,1,9,0,8 8\na,2,8,0,9 2\n", "line 3, 8 -> 9 2: the last level's children must be terminals"),
        (HEADER + "a,1,9,0,8 8\na,2,8,0,0 2\n", "line 3, 8 -> 0 2: .* got 0"),
        (HEADER + "a,1,9,0,8 8\na,2,9,0,1 2\n", "line 3, 9 -> 1 2: .* is on level 2 here and on level 1 before"),
        (HEADER + "a,1,9,0,8 8\na,3,8,0,1 2\n", "levels must be consecutive integers, got 1, 3"),
        (HEADER + "a,1,9,0,1 2\na,1,8,0,2 1\n", "level 1 must hold one symbol.* got 9, 8"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_its_rule(tmp_path, text, message):
    path = tmp_path / "rules.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        grammar.load(path)
    assert "rules.csv" in str(caught.value)
