"""Layered context-free grammars: what one is, and how its table is read (arXiv 2305.13673).

A grammar has levels of symbols. A rule rewrites a symbol of one level to symbols of the next, each rule of a symbol
being equally likely; the last level's rules give terminals. There is no recursion, so every string is finite.
The nine shipped tables are data of facebookresearch/PhysicsLM4 (Apache-2.0; see data/physics_cfg_rules.NOTICE.txt).
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("grammar", "level", "symbol", "rule", "children")
SHIPPED = ("cfg3b", "cfg3i", "cfg3h", "cfg3g", "cfg3f", "cfg3e1", "cfg3e2", "cfg3j", "cfg3k")
# The numbers of the two special tokens that need no terminal count: padding of strings, and the begin of a document.
PADDING = BEGIN = 0


@dataclass(frozen=True)
class Grammar:
    """A grammar, hashable, so that it can be a static argument of a compiled program.

    name: what it was loaded as, e.g. "cfg3b@16".
    levels: the symbols of each level of nonterminals, from the root's level down, as numbered in the table. Only
        symbols that the root can reach are kept. Level i of this tuple is row i of every label.
    rules: rules[level][symbol] holds the right sides of one symbol; each is a tuple of indices into the next level's
        symbols (into the terminals 1, 2, ..., less one, on the last level).
    terminals: T, how many terminals there are. They are the tokens 1 to T; 0 is padding.
    first_level: the number of the root's level in the table; 1 for a whole grammar.
    """

    name: str
    levels: tuple[tuple[int, ...], ...]
    rules: tuple[tuple[tuple[tuple[int, ...], ...], ...], ...]
    terminals: int
    first_level: int

    @property
    def end(self) -> int:
        """The token that ends a string in a stream."""
        return self.terminals + 1

    @property
    def mask(self) -> int:
        """The token that hides another one in masked-token training."""
        return self.terminals + 2

    @property
    def separator(self) -> int:
        """A token for use between two parts of a prompt."""
        return self.terminals + 3

    @property
    def vocabulary(self) -> int:
        """How many tokens there are: begin (0, also the padding), the terminals, end, mask and separator."""
        return self.terminals + 4

    @property
    def level_names(self) -> tuple[str, ...]:
        """The literature's names of the levels, "NT1" being the whole table's root."""
        return tuple(f"NT{self.first_level + i}" for i in range(len(self.levels)))

    @cached_property
    def max_lengths(self) -> tuple[tuple[int, ...], ...]:
        """The longest yield of every symbol, level by level."""
        return _yields(self, max)

    @cached_property
    def min_lengths(self) -> tuple[tuple[int, ...], ...]:
        """The shortest yield of every symbol, level by level."""
        return _yields(self, min)

    @property
    def max_length(self) -> int:
        """The length of the longest string."""
        return self.max_lengths[0][0]

    @property
    def min_length(self) -> int:
        """The length of the shortest string."""
        return self.min_lengths[0][0]

    def level_index(self, level: int | str) -> int:
        """The row of a level: an index (negative ones count from the last level) or a name such as "NT4".

        Raises ValueError for a level that the grammar does not have.
        """
        count = len(self.levels)
        if isinstance(level, str) and level in self.level_names:
            return self.level_names.index(level)
        if isinstance(level, str) or not -count <= level < count:
            raise ValueError(
                f"level must be an index from 0 to {count - 1} or one of {', '.join(self.level_names)} for "
                f"{self.name}; got {level!r}"
            )
        return int(level) % count


def load(source: str | os.PathLike) -> Grammar:
    """The grammar that `source` names: a shipped one, or a CSV's path; "@16" behind it makes symbol 16 the root.

    A CSV holds one grammar, with the columns grammar, level, symbol, rule, children: a line a rule, children being
    symbols of the next level, separated by spaces. On the last level they are terminals, numbered from 1.
    Raises ValueError for an unknown grammar, for a root that is not in it, for a file of another form, and for a rule
    that is there twice or names a symbol that is not on the next level.
    """
    text = os.fspath(source)
    # A file's name may hold an @ of its own.
    name, root = text.rsplit("@", 1) if "@" in text and not Path(text).is_file() else (text, None)
    if name in SHIPPED:
        table = _shipped()[name]
    elif Path(name).is_file():
        table = _read(Path(name).read_text(encoding="utf-8-sig"), name)
        if len(table) != 1:
            raise ValueError(f"{name}: a file must hold one grammar, got {', '.join(map(repr, table)) or 'none'}")
        table = next(iter(table.values()))
    else:
        raise ValueError(f"grammar must be one of {', '.join(SHIPPED)} or the path of a CSV, got {name!r}")
    return _build(text, name, table, root)


class _Rule(NamedTuple):
    line: int
    level: int
    symbol: int
    children: tuple[int, ...]

    def __str__(self):
        return f"line {self.line}, {self.symbol} -> {' '.join(map(str, self.children))}"


@lru_cache(maxsize=1)
def _shipped() -> dict[str, list[_Rule]]:
    text = resources.files("jaxconcepts").joinpath("data/physics_cfg_rules.csv").read_text(encoding="utf-8")
    return _read(text, "physics_cfg_rules.csv")


def _read(text: str, source: str) -> dict[str, list[_Rule]]:
    """The rules of each grammar in a CSV's text, in the file's order."""
    reader = csv.DictReader(text.splitlines())
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(
            f"{source}: the columns must be {', '.join(COLUMNS)}; got {', '.join(reader.fieldnames or ['no header'])}"
        )
    tables: dict[str, list[_Rule]] = {}
    for row in reader:
        try:
            numbers = int(row["level"]), int(row["symbol"]), tuple(int(child) for child in row["children"].split())
            rule = _Rule(reader.line_num, *numbers)
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{source}: line {reader.line_num}: level and symbol must be integers and children integers separated "
                f"by spaces; got level {row['level']!r}, symbol {row['symbol']!r}, children {row['children']!r}"
            ) from error
        if not rule.children:
            raise ValueError(f"{source}: {rule}: a rule must have at least one child, got none")
        tables.setdefault(row["grammar"], []).append(rule)
    return tables


def _build(text: str, source: str, table: list[_Rule], root: str | None) -> Grammar:
    """The grammar of a table, checked, without the symbols that the root does not reach."""
    rules_of, level_of = _check(source, table)
    first = min(level_of.values())
    tops = [symbol for symbol, level in level_of.items() if level == first]
    if root is not None:
        if not (root.isascii() and root.isdigit() and int(root) in level_of):
            symbols = ", ".join(map(str, sorted(level_of, reverse=True)))
            raise ValueError(f"{source}: the root must be one of the symbols {symbols}; got {root!r}")
        tops = [int(root)]
    elif len(tops) > 1:
        raise ValueError(
            f"{source}: level {first} must hold one symbol, the root, or '@SYMBOL' must name one; got "
            f"{', '.join(map(str, tops))}"
        )
    last = max(level_of.values())
    terminals = max(child for rule in table if rule.level == last for child in rule.children)
    levels, current = [], tuple(tops)
    while current and current[0] in level_of:
        levels.append(current)
        current = tuple(sorted({child for symbol in current for right in rules_of[symbol] for child in right}))
    below = [*levels[1:], tuple(range(1, terminals + 1))]
    rules = tuple(
        tuple(tuple(tuple(lower.index(child) for child in right) for right in rules_of[symbol]) for symbol in level)
        for level, lower in zip(levels, below, strict=True)
    )
    return Grammar(text, tuple(levels), rules, terminals, level_of[tops[0]])


def _check(source: str, table: list[_Rule]) -> tuple[dict[int, list[tuple[int, ...]]], dict[int, int]]:
    """The right sides and the level of every symbol; ValueError naming the first rule that is wrong."""
    rules_of: dict[int, list[tuple[int, ...]]] = {}
    level_of: dict[int, int] = {}
    for rule in table:
        if level_of.setdefault(rule.symbol, rule.level) != rule.level:
            raise ValueError(
                f"{source}: {rule}: a symbol must be on one level; {rule.symbol} is on level {rule.level} here and on "
                f"level {level_of[rule.symbol]} before"
            )
        rights = rules_of.setdefault(rule.symbol, [])
        if rule.children in rights:
            raise ValueError(f"{source}: {rule}: the rule is there twice")
        rights.append(rule.children)
    numbers = sorted(set(level_of.values()))
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise ValueError(f"{source}: levels must be consecutive integers, got {', '.join(map(str, numbers))}")
    for rule in table:
        for child in rule.children:
            if rule.level < numbers[-1] and level_of.get(child) != rule.level + 1:
                raise ValueError(f"{source}: {rule}: {child} is no symbol of the next level, {rule.level + 1}")
            if rule.level == numbers[-1] and (child in level_of or child < 1):
                raise ValueError(
                    f"{source}: {rule}: the last level's children must be terminals, which are positive integers that "
                    f"no rule rewrites; got {child}"
                )
    return rules_of, level_of


def _yields(grammar: Grammar, extreme) -> tuple[tuple[int, ...], ...]:
    below, levels = [1] * grammar.terminals, []
    for rules in reversed(grammar.rules):
        below = [extreme(sum(below[child] for child in right) for right in rights) for rights in rules]
        levels.append(tuple(below))
    return tuple(reversed(levels))
