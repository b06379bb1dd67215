"""Reads one sentence of a solution, in either form, and compares its operations with a definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from jaxconcepts.tasks.reasoning_graph import Definition, Parameter
from jaxconcepts.tasks.reasoning_text import LETTERS, Step, steps

# A longer number is no value of any modulus.
MAX_DIGITS = 18
# The words of a parameter's name in English: number of ... ... per ... ...
NAME_WORDS = 7
UNKNOWN = "?"
_LETTERS = frozenset(LETTERS)

Names = Mapping[tuple[str, ...], Parameter]


class Operand(NamedTuple):
    """symbol: a parameter, "?" for a letter that stands for none, or None for a bare number. value: as written, or -1
    where a number is written in two ways."""

    symbol: Parameter | str | None
    value: int


class Operation(NamedTuple):
    """One operation as written; a copied value has no operator, right or result. left is None where the compact form
    leaves it out: the result of the operation before."""

    left: Operand | None
    operator: str = ""
    right: Operand | None = None
    result: int | None = None


class Statement(NamedTuple):
    """A sentence: what it states, the letter it gives it (English), and its operations."""

    parameter: Parameter
    letter: str
    operations: list[Operation]

    @property
    def value(self) -> int:
        last = self.operations[-1]
        return last.left.value if last.result is None else last.result


class _UnreadableError(Exception):
    pass


def parse(form: str, tokens: list[str], names: Names, letters: Mapping[str, Parameter]) -> Statement | None:
    """The sentence that the words make, without the sign at its end; None where they make none.

    names: the parameters by the words of their names. letters: what each letter stands for so far.
    """
    parameter = named(form, tokens, names)
    if parameter is None:
        return None
    try:
        if form == "compact":
            return Statement(parameter, "", _compact(tokens[1:], names))
        start = 1 + NAME_WORDS
        if len(tokens) < start + 4 or tokens[start] != "is" or tokens[start + 2] != ":":
            return None
        letter = tokens[start + 1]
        return Statement(parameter, letter, _english(tokens[start + 3 :], letters)) if letter in _LETTERS else None
    except _UnreadableError:
        return None


def named(form: str, tokens: list[str], names: Names) -> Parameter | None:
    """The parameter whose name a sentence begins with; None where there is none."""
    if form == "compact":
        return names.get(tuple(tokens[:1]))
    return names.get(tuple(tokens[1 : 1 + NAME_WORDS])) if tokens[:1] == ["The"] else None


def agrees(operations: list[Operation], definition: Definition) -> bool:
    """Whether the operations have the definition's inputs, operators and constants; sums and products in any order."""
    written = []
    products = 0
    for index, (left, operator, right, _) in enumerate(operations):
        start = None if left is None else left.symbol
        products += bool(index and start is not None)
        if index == 0 and start is None:
            start = left.value
        end = right
        if right is not None:
            # After a further product a bare number is the total before it.
            end = right.symbol if right.symbol is not None else None if products else right.value
        written.append(Step(start, operator, end))
    return _canonical(written) == _canonical(steps(definition))


def _canonical(operations: list[Step]):
    pairs = [step for step in operations if step.operator == "*" and None not in step and _symbols(step)]
    if pairs:
        pattern = [(step.left is None, step.operator, step.right is None) for step in operations]
        return pattern, sorted(sorted((str(step.left), str(step.right))) for step in pairs)
    terms = [("+", operations[0].left), *((step.operator, step.right) for step in operations if step.operator)]
    # Only a factor's position in a chain matters.
    factor = next((index for index, (operator, _) in enumerate(terms) if operator == "*"), len(terms))
    # Nothing but the first step of a chain has a left side.
    restarts = sum(step.left is not None for step in operations)
    return restarts, sorted(terms[:factor], key=str), terms[factor:]


def _symbols(step: Step) -> bool:
    return not isinstance(step.left, int) and not isinstance(step.right, int)


def _compact(tokens: list[str], names: Names) -> list[Operation]:
    remaining = iter(tokens)

    def operand(token):
        parameter = names.get((token,))
        return Operand(None, _number(token)) if parameter is None else Operand(parameter, _number(next(remaining, "")))

    left = operand(next(remaining, ""))
    operations = []
    for token in remaining:
        if token == "," and operations and left is None:
            left = operand(next(remaining, ""))
            continue
        operator, right = _operator(token), operand(next(remaining, ""))
        if next(remaining, "") != "=":
            raise _UnreadableError
        operations.append(Operation(left, operator, right, _number(next(remaining, ""))))
        left = None
    if left is not None and operations:
        raise _UnreadableError
    return operations or [Operation(left)]


def _english(tokens: list[str], letters: Mapping[str, Parameter]) -> list[Operation]:
    parts = _split(tokens, ",")
    sides = _split(parts[0], "=")
    if len(parts) == 1 and len(sides[0]) == 1:
        # A copied value, "a = 5", or a constant, "5".
        first = sides[0][0]
        if len(sides) > 2 or any(len(side) != 1 for side in sides) or (len(sides) == 1) == (first in _LETTERS):
            raise _UnreadableError
        return [Operation(_operand(first, sides[-1][0], letters))]
    return [_operation(_split(part, "="), letters) for part in parts]


def _operation(sides: list[list[str]], letters: Mapping[str, Parameter]) -> Operation:
    """a + b = 5 + 6 = 4, or 5 + 6 = 4 where there are no letters."""
    if len(sides) == 2:
        sides = [sides[0], *sides]
    if [len(side) for side in sides] != [3, 3, 1] or sides[0][1] != sides[1][1]:
        raise _UnreadableError
    (left, operator, right), (left_number, _, right_number), (result,) = sides
    return Operation(
        _operand(left, left_number, letters),
        _operator(operator),
        _operand(right, right_number, letters),
        _number(result),
    )


def _operand(symbol: str, number: str, letters: Mapping[str, Parameter]) -> Operand:
    if symbol in _LETTERS:
        return Operand(letters.get(symbol, UNKNOWN), _number(number))
    return Operand(None, _number(number) if _number(symbol) == _number(number) else -1)


def _operator(token: str) -> str:
    if token not in ("+", "-", "*"):
        raise _UnreadableError
    return token


def _number(token: str) -> int:
    # int() also reads other scripts' digits, which no solution writes.
    if not (token.isascii() and token.isdigit()) or len(token) > MAX_DIGITS:
        raise _UnreadableError
    return int(token)


def _split(tokens: list[str], separator: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for token in tokens:
        if token == separator:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts
