"""Which parameters a solution needs, in which order, and what each is computed from: exactly so many operations.

The order is drawn backwards from the parameter that is asked for: the next is one that a parameter already in the order
needs (a part of an abstract one, or an input given to an instance one with room for it). So all of them are needed.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from jaxconcepts.tasks.reasoning_graph import (
    MAX_INPUTS,
    MAX_ITEMS,
    MAX_LAYERS,
    Definition,
    Graph,
    Parameter,
    Shape,
    Structure,
    draw_shape,
    draw_structure,
)

# An abstract parameter is drawn this many times as often as an instance parameter.
ABSTRACT_WEIGHT = 3


class Order(NamedTuple):
    """parameters: the needed ones, the one asked for last. inputs: those given to each instance parameter so far."""

    parameters: list[Parameter]
    inputs: dict[Parameter, list[Parameter]]


def draw(
    rng: Random,
    operations: int,
    modulus: int,
    max_instances: int,
    depths: tuple[int, int] = (2, MAX_LAYERS),
    widths: tuple[int, int] = (2, MAX_ITEMS),
) -> Graph | None:
    """A graph whose solution has exactly `operations` operations; None where this try led nowhere.

    max_instances: most instance parameters. depths, widths: least and most layers, and items a layer.
    """
    shape = draw_shape(rng, operations, max_instances, depths, widths)
    if shape is None:
        return None
    structure = draw_structure(rng, shape)
    needed = draw_needed(rng, structure, shape, operations)
    order = draw_order(rng, structure, needed, operations)
    if order is None:
        return None
    definitions = draw_definitions(rng, structure, order, operations, modulus)
    if definitions is None:
        return None
    named = add_unneeded(rng, structure, definitions, modulus)
    for parameter, definition in structure.abstracts.items():
        definitions.setdefault(parameter, definition)
    values: dict[Parameter, int] = {}
    for parameter, definition in definitions.items():
        values[parameter] = definition.evaluate(values, modulus)
    return Graph(modulus, definitions, named, tuple(order.parameters), values)


def draw_needed(rng: Random, structure: Structure, shape: Shape, operations: int) -> list[Parameter]:
    """The parameters of the solution, in no order: abstract ones with all their parts, then instance ones.

    There are `shape.needed` of them, or fewer where the structure or the operations do not allow as many.
    """
    needed: dict[Parameter, None] = {}
    abstracts = shape.needed - shape.needed_instances
    for candidate in rng.sample(list(structure.abstracts), len(structure.abstracts)):
        union = dict.fromkeys([*needed, *structure.closures[candidate]])
        count = sum(parameter.abstract for parameter in union)
        fits = count <= abstracts and len(union) <= shape.needed
        if fits and _least_operations(structure, union) <= operations:
            needed = union
    instances = [instance for instance in structure.instances if instance not in needed]
    room = min(shape.needed - len(needed), operations - _least_operations(structure, needed), len(instances))
    return [*needed, *rng.sample(instances, max(0, room))]


def _least_operations(structure: Structure, parameters) -> int:
    return sum(structure.abstracts[p].operations if p.abstract else 1 for p in parameters)


def draw_order(rng: Random, structure: Structure, needed: list[Parameter], operations: int) -> Order | None:
    """The needed parameters in an order in which each can be computed and each but the last is used later.

    None where the drawing came to an end before all had a use.
    """
    spare = operations - _least_operations(structure, needed)
    parts = {p: set(structure.abstracts[p].inputs) for p in needed if p.abstract}
    left, backwards = sorted(needed), []
    inputs: dict[Parameter, list[Parameter]] = {}
    used: set[Parameter] = set()
    while left:
        blocked = set().union(*(parts[p] for p in left if p.abstract))
        hosts = [p for p, given in inputs.items() if len(given) < 2 or (len(given) < MAX_INPUTS and spare > 0)]
        candidates = [p for p in left if p not in blocked and (p in used or hosts or not backwards)]
        if not candidates:
            return None
        parameter = rng.choices(candidates, [ABSTRACT_WEIGHT if p.abstract else 1 for p in candidates])[0]
        if backwards and parameter not in used:
            # The latest: long chains, as the official generator draws them.
            host = hosts[-1]
            spare -= len(inputs[host]) >= 2
            inputs[host].append(parameter)
        if parameter.abstract:
            used |= parts[parameter]
        else:
            inputs[parameter] = []
        left.remove(parameter)
        backwards.append(parameter)
    return Order(backwards[::-1], inputs)


def draw_definitions(
    rng: Random, structure: Structure, order: Order, operations: int, modulus: int
) -> dict[Parameter, Definition] | None:
    """Definitions of the needed parameters, with constants and further inputs until the operations are as wanted.

    None where the parameters have no room for as many.
    """
    inputs = {parameter: list(given) for parameter, given in order.inputs.items()}
    spare = operations - _least_operations(structure, order.parameters)
    spare -= sum(max(0, len(given) - 2) for given in inputs.values())
    constants = set()
    for parameter, given in inputs.items():
        free = len(given) < 2 or (spare > 0 and len(given) < MAX_INPUTS)
        if not given or (free and rng.random() < 0.5):
            constants.add(parameter)
            spare -= len(given) >= 2
    earlier = {parameter: order.parameters[:position] for position, parameter in enumerate(order.parameters)}
    while spare > 0:
        size = {parameter: len(given) + (parameter in constants) for parameter, given in inputs.items()}
        options = {p: [e for e in earlier[p] if e not in inputs[p]] for p in inputs if size[p] < MAX_INPUTS}
        options = {p: more for p, more in options.items() if more or p not in constants}
        if not options:
            return None
        parameter = rng.choice(list(options))
        if options[parameter]:
            inputs[parameter].append(rng.choice(options[parameter]))
        else:
            constants.add(parameter)
        spare -= size[parameter] >= 2
    return {
        p: structure.abstracts[p] if p.abstract else _definition(rng, inputs[p], p in constants, modulus)
        for p in order.parameters
    }


def add_unneeded(
    rng: Random, structure: Structure, definitions: dict[Parameter, Definition], modulus: int
) -> tuple[Parameter, ...]:
    """Adds the other instance parameters to `definitions`; returns all parameters that the problem names or implies.

    Half of them depend on each other alone. Inputs number 1, 2, 3, ... with probability 1/2, 1/4, 1/8, ...
    """
    needed = set(definitions)
    others = [instance for instance in structure.instances if instance not in needed]
    unneeded: set[Parameter] = set()
    for parameter in rng.sample(others, len(others)):
        base = unneeded if rng.random() < 0.5 else unneeded | needed
        pool = [p for p in structure.instances if p in base]
        pool += [a for a, parts in structure.closures.items() if all(p in base for p in parts if not p.abstract)]
        count = 1
        while count < MAX_INPUTS and rng.random() < 0.5:
            count += 1
        constant = not pool or rng.random() < 0.5
        inputs = rng.sample(pool, min(len(pool), count - constant))
        for part in (part for given in inputs for part in structure.closures.get(given, ()) if part.abstract):
            definitions.setdefault(part, structure.abstracts[part])
        definitions[parameter] = _definition(rng, inputs, constant, modulus)
        unneeded.add(parameter)
    return tuple(definitions)


def _definition(rng: Random, inputs: list[Parameter], constant: bool, modulus: int) -> Definition:
    inputs = rng.sample(inputs, len(inputs))
    join = "-" if len(inputs) == 2 and rng.random() < 0.5 else "+"
    if not constant:
        return Definition(tuple(inputs), join)
    if inputs and rng.random() < 0.5:
        return Definition(tuple(inputs), join, rng.randint(1, modulus - 1), "*")
    return Definition(tuple(inputs), join, rng.randint(0, modulus - 1))
