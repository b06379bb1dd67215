"""What a written solution is worth: a kind for each of its sentences, and how it ends.

A sentence is judged against what the text itself stated before it, so one mistake is named once and what follows from
it is not called wrong again. The kinds, the first that applies:

    unparsable      no sentence of the form, or a name that the problem's world does not have
    repeated        the parameter was stated before
    not_computable  an input of the parameter was not stated before
    wrong_inputs    other inputs, operators or constants than the parameter's definition has
    wrong_arithmetic  an input's value is not the one stated before, or a result is not that of its operation
    unneeded        right, but the answer does not depend on it
    ok
"""

from __future__ import annotations

from typing import NamedTuple

from jaxconcepts.tasks import reasoning_parse, reasoning_text
from jaxconcepts.tasks.reasoning import Problem
from jaxconcepts.tasks.reasoning_graph import Parameter
from jaxconcepts.tasks.reasoning_parse import Operand, Operation, Statement

KINDS = ("ok", "unneeded", "not_computable", "repeated", "wrong_inputs", "wrong_arithmetic", "unparsable")
ENDINGS = ("right", "wrong_value", "early_stop", "too_long")
# An unparsable sentence is quoted up to so many words, each up to so many characters.
QUOTED_WORDS, QUOTED_CHARACTERS = 12, 40


class Verdict(NamedTuple):
    """What `check` returns.

    correct: every sentence is ok or unneeded, and the ending is right. steps: (parameter's name, kind) of each sentence
    that was not taken back; an unparsable sentence without a known name gives its first words. ending: "right";
    "wrong_value": the last sentence states another answer; "early_stop": the answer was never stated; "too_long":
    sentences follow the answer, or there are more sentences than parameters and no answer.
    retries: (name, kind) of each name that was taken back: "not_computable", "repeated", "unneeded", "ok" (it could
    have been computed) or "unparsable".
    """

    correct: bool
    steps: list[tuple[str, str]]
    ending: str
    retries: list[tuple[str, str]]

    @property
    def first_mistake(self) -> str | None:
        """The kind of the first sentence that is neither ok nor unneeded; None without one."""
        return next((kind for _, kind in self.steps if kind not in ("ok", "unneeded")), None)


def check(problem: Problem, text: str) -> Verdict:
    """Judges a solution of the problem, in the problem's form; any text will do."""
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, got {type(text).__name__}")
    return _Reading(problem).read(reasoning_text.words(text))


class _Reading:
    """A text on its way through the checker: what it stated so far."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.definitions = problem.graph.definitions
        self.asked = problem.graph.order[-1]
        self.needed = set(problem.graph.order)
        # The parameters that exist here: the world has names for others too.
        self.parameters = {
            tuple(reasoning_text.words(name)): parameter
            for parameter, name in problem.names.items()
            if parameter in self.definitions
        }
        self.values: dict[Parameter, int] = {}
        self.letters: dict[str, Parameter] = {}
        self.steps: list[tuple[str, str]] = []
        self.retries: list[tuple[str, str]] = []
        self.after_answer = False

    def read(self, tokens: list[str]) -> Verdict:
        end = reasoning_text.END[self.problem.form]
        start = 0
        for position, token in enumerate(tokens):
            if token == reasoning_text.BACK:
                self.retries.append(self._retried(tokens[start:position]))
            elif token == end:
                self._sentence(tokens[start:position], complete=True)
            else:
                continue
            start = position + 1
        self._sentence(tokens[start:], complete=False)
        ending = self._ending()
        correct = ending == "right" and all(kind in ("ok", "unneeded") for _, kind in self.steps)
        return Verdict(correct, self.steps, ending, self.retries)

    def _sentence(self, tokens: list[str], complete: bool) -> None:
        if not tokens:
            return
        self.after_answer = self.asked in self.values
        statement = reasoning_parse.parse(self.problem.form, tokens, self.parameters, self.letters)
        kind = "unparsable" if statement is None else self._kind(statement)
        if not complete and kind not in ("ok", "unneeded"):
            # It broke off: there is no telling what it would have been.
            statement, kind = None, "unparsable"
        self.steps.append((self._name(tokens), kind))
        if statement is not None and kind != "repeated":
            self.values[statement.parameter] = statement.value
            self.letters[statement.letter] = statement.parameter

    def _kind(self, statement: Statement) -> str:
        parameter, definition = statement.parameter, self.definitions[statement.parameter]
        if parameter in self.values:
            return "repeated"
        if any(given not in self.values for given in definition.inputs):
            return "not_computable"
        if not definition.inputs:
            # A constant alone: there are no inputs to be wrong, only the number.
            alone = len(statement.operations) == 1 and statement.operations[0].right is None
            if not alone or statement.operations[0].left.symbol is not None:
                return "wrong_inputs"
            right = statement.value == definition.constant
        elif not reasoning_parse.agrees(statement.operations, definition):
            return "wrong_inputs"
        else:
            right = self._right(statement.operations)
        if not right:
            return "wrong_arithmetic"
        return "ok" if parameter in self.needed else "unneeded"

    def _right(self, operations: list[Operation]) -> bool:
        """Whether all numbers are right, given the values stated before and the operations."""
        result = total = None
        for left, operator, right, written in operations:
            if left is not None and left.symbol is not None:
                # The result so far is the total that this product will be added to.
                total = result
            if not self._carried(left, result):
                return False
            if not operator:
                return True
            if not self._carried(right, total):
                return False
            number = result if left is None else left.value
            result = reasoning_text.calculate(operator, number, right.value, self.problem.graph.modulus)
            if written != result:
                return False
        return True

    def _carried(self, operand: Operand | None, number: int | None) -> bool:
        """Whether an operand's value is its parameter's as stated, or, bare, the number that stands there (if any)."""
        if operand is None:
            return True
        expected = number if operand.symbol is None else self.values[operand.symbol]
        return expected is None or operand.value == expected

    def _retried(self, tokens: list[str]) -> tuple[str, str]:
        parameter = reasoning_parse.named(self.problem.form, tokens, self.parameters)
        if parameter is None:
            kind = "unparsable"
        elif parameter in self.values:
            kind = "repeated"
        elif any(given not in self.values for given in self.definitions[parameter].inputs):
            kind = "not_computable"
        else:
            kind = "ok" if parameter in self.needed else "unneeded"
        return self._name(tokens), kind

    def _name(self, tokens: list[str]) -> str:
        parameter = reasoning_parse.named(self.problem.form, tokens, self.parameters)
        if parameter is not None:
            return self.problem.names[parameter]
        return " ".join(token[:QUOTED_CHARACTERS] for token in tokens[:QUOTED_WORDS])

    def _ending(self) -> str:
        if self.asked not in self.values:
            return "too_long" if len(self.steps) > len(self.problem.parameters) else "early_stop"
        if self.after_answer:
            return "too_long"
        return "right" if self.values[self.asked] == self.problem.answer else "wrong_value"
