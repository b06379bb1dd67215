"""Parameters of a grade-school problem, what each is computed from, and problems of exactly the wanted size.

The world has layers of items (valleys, farms, barns, crates). An *instance* parameter counts one item per item of the
layer above, on an edge of the structure graph; the problem's text defines it. An *abstract* parameter totals a whole
category under an item: a sum one layer down, a sum of instance times lower abstract further down. The text never
defines it. All arithmetic is modulo a small number (Ye et al. 2024, arXiv 2407.20311, section 2).

The number of operations is fixed before anything is drawn, so that nearly every drawn graph is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

MAX_LAYERS = 4
MAX_ITEMS = 4
MAX_INPUTS = 4


class Parameter(NamedTuple):
    """How many of something there are per item.

    layer, item: the item. category: the layer of what is counted. child: the item that is counted (an instance
    parameter), or -1 for all items of the category (an abstract parameter).
    """

    layer: int
    item: int
    category: int
    child: int = -1

    @property
    def abstract(self) -> bool:
        return self.child < 0


PARAMETERS = tuple(
    Parameter(layer, item, category, child)
    for layer in range(MAX_LAYERS - 1)
    for item in range(MAX_ITEMS)
    for category in range(layer + 1, MAX_LAYERS)
    for child in (range(-1, MAX_ITEMS) if category == layer + 1 else (-1,))
)
INDEX = {parameter: index for index, parameter in enumerate(PARAMETERS)}


class Definition(NamedTuple):
    """What a parameter is computed from.

    inputs: parameters. join: "+" sums them, "-" subtracts the second from the first, "*" sums the products of the
    pairs (inputs 0 and 1, inputs 2 and 3, ...). constant: a number or None. apply: how the constant enters after the
    inputs were joined, "+" or "*".
    """

    inputs: tuple[Parameter, ...] = ()
    join: str = "+"
    constant: int | None = None
    apply: str = "+"

    @property
    def operations(self) -> int:
        """Binary operations, and 1 where a value is only copied."""
        return max(1, len(self.inputs) + (self.constant is not None) - 1)

    def evaluate(self, values: Mapping[Parameter, int], modulus: int) -> int:
        """The value, given those of the inputs."""
        numbers = [values[parameter] for parameter in self.inputs]
        if self.join == "-":
            total = numbers[0] - numbers[1]
        elif self.join == "*":
            total = sum(a * b for a, b in zip(numbers[::2], numbers[1::2], strict=True))
        else:
            total = sum(numbers)
        if self.constant is not None:
            total = total * self.constant if self.apply == "*" else total + self.constant
        return total % modulus


@dataclass(frozen=True)
class Graph:
    """A problem without words.

    definitions: of every instance parameter and every abstract one that the structure allows, inputs first.
    named: the parameters of the problem: all instance parameters, and the abstract ones that some definition, or the
        question, leads to. order: the needed ones as the solution computes them; the last is asked for.
    values: of every parameter in `definitions`.
    """

    modulus: int
    definitions: Mapping[Parameter, Definition]
    named: tuple[Parameter, ...]
    order: tuple[Parameter, ...]
    values: Mapping[Parameter, int]

    @property
    def operations(self) -> int:
        return sum(self.definitions[parameter].operations for parameter in self.order)

    def ancestors(self) -> dict[Parameter, set[Parameter]]:
        """For each parameter all others that its value depends on."""
        result: dict[Parameter, set[Parameter]] = {}
        for parameter, definition in self.definitions.items():
            result[parameter] = set(definition.inputs).union(*(result[i] for i in definition.inputs))
        return result


class Structure(NamedTuple):
    """instances: the edges. abstracts: definitions of the abstract parameters, lower layers first. closures: for each
    abstract parameter all that it depends on, itself included, inputs first."""

    instances: list[Parameter]
    abstracts: dict[Parameter, Definition]
    closures: dict[Parameter, list[Parameter]]


class Shape(NamedTuple):
    """needed_instances, needed: parameters wanted in the solution, instance ones and all. edges: instance parameters of
    the problem. depth: layers. low, high: least and most items a layer."""

    needed_instances: int
    needed: int
    edges: int
    depth: int
    low: int
    high: int


def draw_shape(rng: Random, operations: int, max_instances: int, depths, widths) -> Shape | None:
    """The sizes of a graph, as the official generator draws them, but for sizes that cannot give `operations`."""
    relative = min(1.0, (operations - 1) / max(1, max_instances - 1))

    def size(bounds):
        choices = range(bounds[0], bounds[1] + 1)
        # 2, 3 and 4 are likeliest at 0.2, 0.5 and 0.8 of the largest problem.
        logits = [-((relative - 0.3 * choice + 0.4) ** 2) for choice in choices]
        return rng.choices(choices, [math.exp(logit - max(logits)) for logit in logits])[0]

    # More could not be drawn.
    bound = min(operations, max_instances)
    for _ in range(1000):
        instances = max(rng.randint(1, bound), rng.randint(1, bound))
        needed = rng.randint(instances, operations)
        depth, first, second = size(depths), size(widths), size(widths)
        low, high = min(first, second), max(first, second)
        least = max(instances, (depth - 1) * low)
        most = min(max_instances, (depth - 1) * high**2)
        if least <= most and _most_operations(needed) >= operations:
            edges = min(rng.randint(least, most), rng.randint(least, most))
            return Shape(instances, needed, edges, depth, low, high)
    return None


def _most_operations(parameters: int) -> int:
    """Most operations of so many instance parameters: 1, 1, 2, 3, 3, ... for each, which has the earlier ones as inputs
    and `MAX_INPUTS` at most."""
    return parameters if parameters < 3 else 4 + (MAX_INPUTS - 1) * (parameters - 3)


def draw_structure(rng: Random, shape: Shape) -> Structure:
    """Items in layers, each below the first layer with at least one parent, and `shape.edges` edges."""
    sizes = [shape.low] * shape.depth

    def room():
        return sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))

    while True:
        layers = [layer for layer in range(shape.depth) if sizes[layer] < shape.high]
        layers = [layer for layer in layers if layer == 0 or sum(sizes[1:]) < shape.edges]
        if not layers or (room() >= shape.edges and rng.random() < 0.5):
            break
        sizes[rng.choice(layers)] += 1
    items = [rng.sample(range(MAX_ITEMS), size) for size in sizes]
    edges = {
        Parameter(layer, rng.choice(items[layer]), layer + 1, child): None
        for layer in range(shape.depth - 1)
        for child in items[layer + 1]
    }
    others = [
        edge
        for layer in range(shape.depth - 1)
        for item in items[layer]
        for child in items[layer + 1]
        if (edge := Parameter(layer, item, layer + 1, child)) not in edges
    ]
    extra = min(len(others), max(0, shape.edges - len(edges)))
    instances = sorted([*edges, *rng.sample(others, extra)])
    abstracts = _abstracts(instances, shape.depth)
    closures: dict[Parameter, list[Parameter]] = {}
    for parameter, definition in abstracts.items():
        inputs = [p for i in definition.inputs for p in closures.get(i, [i])]
        closures[parameter] = list(dict.fromkeys([*inputs, parameter]))
    return Structure(instances, abstracts, closures)


def _abstracts(instances: list[Parameter], depth: int) -> dict[Parameter, Definition]:
    below: dict[tuple[int, int], list[Parameter]] = {}
    for instance in instances:
        below.setdefault((instance.layer, instance.item), []).append(instance)
    result: dict[Parameter, Definition] = {}
    for layer in range(depth - 2, -1, -1):
        for item in range(MAX_ITEMS):
            children = below.get((layer, item), [])
            if children:
                result[Parameter(layer, item, layer + 1)] = Definition(tuple(children))
            for category in range(layer + 2, depth):
                lower = [(edge, Parameter(layer + 1, edge.child, category)) for edge in children]
                pairs = [parameter for pair in lower if pair[1] in result for parameter in pair]
                if pairs:
                    result[Parameter(layer, item, category)] = Definition(tuple(pairs), "*")
    return result
