"""Problems and solutions as text, in English and in a compact form of one token a parameter and number.

Both forms are sequences of words (`words`), so that a text, its tokens and the positions in it are one thing. Operators
are read from left to right. A solution has one sentence a parameter. The compact ones are

    A0B2 5 ;                                       copied from the definition "A0B2 = 5 ;"
    A0B1 A0B2 5 + B1C 3 = 1 * 4 = 4 ;              (A0B2 + B1C) * 4 modulo 7; each input is followed by its value
    A0C A0B1 4 * B1C 3 = 5 , A0B2 5 * B2C 2 = 3 + 5 = 1 ;      a sum of products: each product, then the total

where A0B2 counts items B2 per item A0, and A0C all items of layer C per A0. The English ones give each parameter a
letter. BACK takes the unfinished sentence before it back.
"""

from __future__ import annotations

import re
from random import Random
from typing import NamedTuple

from jaxconcepts.tasks.reasoning_graph import MAX_ITEMS, MAX_LAYERS, PARAMETERS, Definition, Graph, Parameter

FORMS = ("compact", "english")
BACK = "BACK"
END = {"compact": ";", "english": "."}
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*|[0-9]+|\S")

# Categories from the top layer down: singular, plural.
WORLDS = (
    (("valley", "valleys"), ("farm", "farms"), ("barn", "barns"), ("crate", "crates")),
    (("harbour", "harbours"), ("ship", "ships"), ("cabin", "cabins"), ("lantern", "lanterns")),
    (("museum", "museums"), ("hall", "halls"), ("cabinet", "cabinets"), ("fossil", "fossils")),
    (("planet", "planets"), ("dome", "domes"), ("workshop", "workshops"), ("robot", "robots")),
    (("city", "cities"), ("library", "libraries"), ("shelf", "shelves"), ("atlas", "atlases")),
)
ADJECTIVES = (
    "amber", "bronze", "cold", "dusty", "early", "faded", "gentle", "hollow", "ivory", "jolly", "level", "mossy",
    "narrow", "oval", "plain", "quiet", "round", "silver", "tall", "velvet",
)  # fmt: skip
WORDING = "The number of all per is the sum and difference more than times same as What"


class Step(NamedTuple):
    """One operation of a sentence: left, operator, right; a copied value has no operator.

    left, right: a parameter, a constant, or None. None on the left is the result of the step before; on the right, the
    total before the latest product.
    """

    left: Parameter | int | None
    operator: str = ""
    right: Parameter | int | None = None


class Sentence(NamedTuple):
    """A sentence of a solution, or a name that is taken back.

    parameter: what it states. name, rest: its text, cut after the parameter's name. struck: taken back by BACK.
    """

    parameter: Parameter
    name: str
    rest: str
    struck: bool = False


def words(text: str) -> list[str]:
    """The tokens of a text: names and letters, numbers, and any other character by itself."""
    return WORD.findall(text)


def steps(definition: Definition) -> list[Step]:
    """The operations that compute a definition, in the order in which a solution writes them."""
    inputs, constant = definition.inputs, definition.constant
    if not inputs:
        return [Step(constant)]
    if definition.join == "*":
        result = [Step(inputs[0], "*", inputs[1])]
        for left, right in zip(inputs[2::2], inputs[3::2], strict=True):
            result += [Step(left, "*", right), Step(None, "+", None)]
        return result
    rights = [(definition.join, parameter) for parameter in inputs[1:]]
    rights += [(definition.apply, constant)] if constant is not None else []
    if not rights:
        return [Step(inputs[0])]
    lefts = [inputs[0], *[None] * (len(rights) - 1)]
    return [Step(left, *right) for left, right in zip(lefts, rights, strict=True)]


def calculate(operator: str, left: int, right: int, modulus: int) -> int:
    """The result of one operation."""
    result = {"+": left + right, "-": left - right, "*": left * right}[operator]
    return result % modulus


def compact_name(parameter: Parameter) -> str:
    """A0B2 for an instance parameter, A0C for an abstract one."""
    child = "" if parameter.abstract else str(parameter.child)
    return f"{'ABCD'[parameter.layer]}{parameter.item}{'ABCD'[parameter.category]}{child}"


def draw_names(rng: Random, form: str) -> dict[Parameter, str]:
    """A name for every parameter there can be."""
    if form == "compact":
        return {parameter: compact_name(parameter) for parameter in PARAMETERS}
    world = rng.choice(WORLDS)
    adjectives = [rng.sample(ADJECTIVES, MAX_ITEMS) for _ in range(MAX_LAYERS)]
    names = {}
    for parameter in PARAMETERS:
        layer, item, category, child = parameter
        kind = "all" if parameter.abstract else adjectives[category][child]
        names[parameter] = f"number of {kind} {world[category][1]} per {adjectives[layer][item]} {world[layer][0]}"
    return names


def statement(form: str, names: dict[Parameter, str], parameter: Parameter, definition: Definition) -> str:
    """The sentence of the problem that defines an instance parameter."""
    inputs = [names[given] for given in definition.inputs]
    constant = definition.constant
    if form == "compact":
        expression = f" {definition.join} ".join(inputs)
        if constant is not None:
            expression += f" {definition.apply} {constant}" if inputs else f"{constant}"
        return f"{names[parameter]} = {expression} ;"
    inner = "the " + ", the ".join(inputs[:-1]) + " and the " + inputs[-1] if len(inputs) > 1 else ""
    if inner:
        inner = f"the {'difference' if definition.join == '-' else 'sum'} of {inner}"
    elif inputs:
        inner = f"the {inputs[0]}" if constant is not None else f"the same as the {inputs[0]}"
    if constant is not None:
        inner = f"{constant} {'times' if definition.apply == '*' else 'more than'} {inner}" if inputs else f"{constant}"
    return f"The {names[parameter]} is {inner}."


def question(form: str, name: str) -> str:
    """The question for a parameter's value."""
    return f"{name} ?" if form == "compact" else f"What is the {name}?"


def solution(rng: Random, form: str, names: dict[Parameter, str], graph: Graph) -> list[Sentence]:
    """One sentence for each needed parameter, in the graph's order."""
    letters = dict(zip(graph.order, rng.sample(LETTERS, len(graph.order)), strict=True)) if form == "english" else {}
    result = []
    for parameter in graph.order:
        operations = steps(graph.definitions[parameter])
        if form == "compact":
            name, rest = names[parameter], f" {_compact(operations, names, graph)} ;"
        else:
            name = f"The {names[parameter]}"
            rest = f" is {letters[parameter]}: {_english(operations, letters, graph)}."
        result.append(Sentence(parameter, name, rest))
    return result


def add_retries(
    rng: Random, graph: Graph, sentences: list[Sentence], names: dict[Parameter, str], rate: float, kind: str
) -> list[Sentence]:
    """Puts wrong names, each taken back, before the sentences of a solution: before each one, while a draw from
    U(0, 1) is below `rate` (Ye et al. 2024, arXiv 2408.16293).

    kind: which names. "uncomputable": neither computed nor computable at that point. "weak": of a later sentence.
    "miss": of any parameter that was not computed. The name that comes next is never among them.
    """
    computed: set[Parameter] = set()
    result: list[Sentence] = []
    for position, sentence in enumerate(sentences):
        later = {other.parameter for other in sentences[position + 1 :]}
        candidates = [p for p in graph.named if p not in computed and p != sentence.parameter]
        if kind == "weak":
            candidates = [p for p in candidates if p in later]
        elif kind == "uncomputable":
            candidates = [p for p in candidates if not computed.issuperset(graph.definitions[p].inputs)]
        while candidates and rng.random() < rate:
            wrong = rng.choice(candidates)
            # The sentence's own name, with the parameter's changed: "The" in front where the form has it.
            name = sentence.name.removesuffix(names[sentence.parameter]) + names[wrong]
            result.append(Sentence(wrong, name, f" {BACK}", struck=True))
        result.append(sentence)
        computed.add(sentence.parameter)
    return result


def _running(operations: list[Step], graph: Graph):
    """(step, left number, right number, result) of each operation; right and result None for a copied value."""
    value = total = 0
    for step in operations:
        if step.left is not None:
            total = value
        left = _number(step.left, value, graph)
        if not step.operator:
            yield step, left, None, None
            return
        right = _number(step.right, total, graph)
        value = calculate(step.operator, left, right, graph.modulus)
        yield step, left, right, value


def _number(operand: Parameter | int | None, otherwise: int, graph: Graph) -> int:
    if operand is None:
        return otherwise
    return graph.values[operand] if isinstance(operand, Parameter) else operand


def _compact(operations: list[Step], names: dict[Parameter, str], graph: Graph) -> str:
    def written(operand, number):
        return f"{names[operand]} {number}" if isinstance(operand, Parameter) else f"{number}"

    text = ""
    for step, left, right, result in _running(operations, graph):
        if step.left is not None:
            text += (" , " if text else "") + written(step.left, left)
        if step.operator:
            text += f" {step.operator} {written(step.right, right)} = {result}"
    return text


def _english(operations: list[Step], letters: dict[Parameter, str], graph: Graph) -> str:
    parts = []
    for step, left, right, result in _running(operations, graph):
        first = letters.get(step.left, f"{left}")
        if not step.operator:
            parts.append(f"{first} = {left}" if step.left in letters else first)
            continue
        second = letters.get(step.right, f"{right}")
        numbers = f"{left} {step.operator} {right}"
        symbols = f"{first} {step.operator} {second}"
        parts.append(f"{symbols} = {numbers} = {result}" if symbols != numbers else f"{numbers} = {result}")
    return ", ".join(parts)


def vocabulary(form: str, modulus: int) -> tuple[str, ...]:
    """All words of a form, each once; the first four are padding, start, end and BACK."""
    special = ("<pad>", "<bos>", "<eos>", BACK)
    numbers = tuple(str(number) for number in range(modulus))
    if form == "compact":
        return (*special, *"?;=+-*,", *numbers, *(compact_name(parameter) for parameter in PARAMETERS))
    nouns = [noun for world in WORLDS for category in world for noun in category]
    return tuple(dict.fromkeys([*special, *"?.,:=+-*", *numbers, *LETTERS, *WORDING.split(), *ADJECTIVES, *nouns]))
