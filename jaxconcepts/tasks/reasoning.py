"""Grade-school problems with a known graph: text, solution and answer of any number of problems, each from its seed.

    config = ReasoningConfig(modulus=7, max_instances=8, operations=(1, 6), form="compact")
    problem = generate(config, seed=0)
    problem.question, problem.solution, problem.answer

After Ye et al. 2024 (arXiv 2407.20311 and 2408.16293), in wording of our own. See `reasoning_graph` for the world,
`reasoning_text` for the two forms, `reasoning_check` for what a written solution is worth.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from random import Random

from jaxconcepts.tasks import reasoning_dependencies as dependencies
from jaxconcepts.tasks import reasoning_text as text
from jaxconcepts.tasks.reasoning_graph import MAX_ITEMS, MAX_LAYERS, PARAMETERS, Graph, Parameter

DRAWS = ("uniform", "smaller")
RETRY_KINDS = ("uncomputable", "weak", "miss")
SPLITS = ("all", "train", "test")
# A template is in the training split where its hash modulo 23 is below 17 (Ye et al. 2024). Problems of fewer
# operations have too few templates to hold any out.
TEMPLATE_CLASSES, TRAIN_CLASSES, SPLIT_OPERATIONS = 23, 17, 5


@dataclass(frozen=True)
class ReasoningConfig:
    """What problems are drawn.

    modulus: all arithmetic is modulo this number.
    max_instances: most instance parameters (counts that the text defines) of a problem.
    operations: least and most operations of a solution, both included.
    form: "compact", one token a parameter and number, or "english".
    operation_draw: "uniform", or "smaller": the smaller of two uniform draws (Ye et al. 2024).
    question_first: whether the question stands before the problem.
    depths, widths: least and most layers of items, and items a layer.
    retry: rate of wrong names that a solution writes and takes back (BACK), 0 for none.
    retry_kind: which names: "uncomputable" (neither computed nor computable at that point), "weak" (of a later
        sentence), "miss" (any that was not computed).
    retry_masked: whether the wrong names carry no loss.
    split: "train" or "test" keeps the problems whose solution's template is in that split; "all" keeps all. Problems of
        fewer than 5 operations are all in "train": there are too few templates.
    max_tries: graphs drawn for one problem before it is given up.

    Raises ValueError, naming the field, when a value is not accepted.
    """

    modulus: int = 7
    max_instances: int = 8
    operations: tuple[int, int] = (1, 6)
    form: str = "compact"
    operation_draw: str = "uniform"
    question_first: bool = False
    depths: tuple[int, int] = (2, MAX_LAYERS)
    widths: tuple[int, int] = (2, MAX_ITEMS)
    retry: float = 0.0
    retry_kind: str = "uncomputable"
    retry_masked: bool = False
    split: str = "all"
    max_tries: int = 1000

    def __post_init__(self):
        for name, least in (("modulus", 2), ("max_instances", 1), ("max_tries", 1)):
            _check_integer(f"task.{name}", getattr(self, name), least)
        for name, least, most in (("operations", 1, None), ("depths", 2, MAX_LAYERS), ("widths", 1, MAX_ITEMS)):
            object.__setattr__(self, name, _checked_range(f"task.{name}", getattr(self, name), least, most))
        for name, accepted in (
            ("form", text.FORMS), ("operation_draw", DRAWS), ("retry_kind", RETRY_KINDS), ("split", SPLITS),
        ):  # fmt: skip
            if getattr(self, name) not in accepted:
                raise ValueError(f"task.{name} must be one of {', '.join(accepted)}, got {getattr(self, name)!r}")
        for name in ("question_first", "retry_masked"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"task.{name} must be True or False, got {getattr(self, name)!r}")
        if isinstance(self.retry, bool) or not isinstance(self.retry, (int, float)) or not 0 <= self.retry < 1:
            raise ValueError(f"task.retry must be a number of at least 0 and below 1, got {self.retry!r}")
        self._check_sizes()

    def _check_sizes(self):
        least = (self.depths[0] - 1) * self.widths[0]
        if least > self.max_instances:
            raise ValueError(
                f"task.max_instances must be at least {least}, as many as {self.depths[0]} layers (task.depths) of "
                f"{self.widths[0]} items (task.widths) have; got {self.max_instances}"
            )
        if self.form == "english" and self.operations[1] > len(text.LETTERS):
            raise ValueError(
                f'task.operations must be at most {len(text.LETTERS)} with task.form="english", a letter a parameter; '
                f"got {self.operations[1]}"
            )
        if self.split == "test" and self.operations[0] < SPLIT_OPERATIONS:
            raise ValueError(
                f'task.operations must start at {SPLIT_OPERATIONS} or more with task.split="test": templates of fewer '
                f"operations are all in the training split; got {self.operations[0]}"
            )


@dataclass(frozen=True)
class Problem:
    """A problem, its solution and its graph.

    form: of the text. graph: parameters, definitions and values. names: of every parameter there can be.
    statements: the sentences that define the instance parameters, in the text's order. asked: the question's sentence.
    question: problem and question in the config's order. sentences: the solution's, wrong names included.
    tries: graphs drawn for it.
    """

    form: str
    graph: Graph
    names: dict[Parameter, str]
    statements: tuple[str, ...]
    asked: str
    question: str
    sentences: tuple[text.Sentence, ...]
    tries: int

    @property
    def solution(self) -> str:
        """The solution's text."""
        return " ".join(sentence.name + sentence.rest for sentence in self.sentences)

    @property
    def answer(self) -> int:
        """The value that is asked for."""
        return self.graph.values[self.graph.order[-1]]

    @property
    def operations(self) -> int:
        """Operations of the solution."""
        return self.graph.operations

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the problem's parameters: defined in the text, or totals that these or the question lead to."""
        return tuple(self.names[parameter] for parameter in sorted(self.graph.named))

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the parameters that the answer depends on, in the solution's order; the last is asked for."""
        return tuple(self.names[parameter] for parameter in self.graph.order)

    @cached_property
    def template_hash(self) -> int:
        """A number of 63 bits that is equal for solutions that differ in names and numbers alone."""
        position = {parameter: index for index, parameter in enumerate(self.graph.order)}
        shape = []
        for parameter in self.graph.order:
            inputs, join, constant, apply = self.graph.definitions[parameter]
            constant_kind = "" if constant is None else apply
            shape.append([parameter.abstract, [position[given] for given in inputs], join, constant_kind])
        return int.from_bytes(hashlib.sha256(json.dumps(shape).encode()).digest()[:8]) >> 1

    @property
    def template(self) -> int:
        """The class of the template, from 0 to 22."""
        return self.template_hash % TEMPLATE_CLASSES

    @property
    def split(self) -> str:
        """ "train" or "test", by the template."""
        held_out = self.operations >= SPLIT_OPERATIONS and self.template >= TRAIN_CLASSES
        return "test" if held_out else "train"


def generate(config: ReasoningConfig, seed: int = 0) -> Problem:
    """The problem of a seed, an integer of at least 0: the same for the same config on every machine.

    Raises ValueError where the config's most operations cannot be reached, or none of `max_tries` graphs would do.
    """
    _check_integer("seed", seed, 0)
    _check_reachable(config)
    rng = Random(seed)
    low, high = config.operations
    operations = rng.randint(low, high)
    if config.operation_draw == "smaller":
        operations = min(operations, rng.randint(low, high))
    for tries in range(1, config.max_tries + 1):
        graph = _draw(rng, config, operations)
        if graph is not None:
            problem = _written(rng, config, graph, tries)
            if config.split in ("all", problem.split):
                return problem
    raise ValueError(
        f"task.max_tries must be higher: none of {config.max_tries} graphs of {operations} operations was in "
        f"task.split={config.split!r}"
    )


def _draw(rng: Random, config: ReasoningConfig, operations: int) -> Graph | None:
    return dependencies.draw(rng, operations, config.modulus, config.max_instances, config.depths, config.widths)


@lru_cache(maxsize=64)
def _check_reachable(config: ReasoningConfig) -> None:
    low, high = config.operations

    def reached(operations):
        rng = Random(operations)
        return any(_draw(rng, config, operations) is not None for _ in range(config.max_tries))

    if reached(high):
        return
    # Each of at most 48 instance and 24 abstract parameters has fewer than 8 operations.
    largest, high = 0, min(high, 8 * len(PARAMETERS))
    # By bisection: what can be reached is reached at all smaller numbers.
    while largest + 1 < high:
        middle = (largest + high) // 2
        largest, high = (middle, high) if reached(middle) else (largest, middle)
    raise ValueError(
        f"task.operations must be at most {largest} with task.max_instances={config.max_instances}: the largest number "
        f"reached within task.max_tries={config.max_tries} graphs; got {config.operations[1]}"
    )


def _written(rng: Random, config: ReasoningConfig, graph: Graph, tries: int) -> Problem:
    names = text.draw_names(rng, config.form)
    instances = [parameter for parameter in graph.named if not parameter.abstract]
    rng.shuffle(instances)
    statements = tuple(text.statement(config.form, names, p, graph.definitions[p]) for p in instances)
    asked = text.question(config.form, names[graph.order[-1]])
    sentences = text.solution(rng, config.form, names, graph)
    if config.retry:
        sentences = text.add_retries(rng, graph, sentences, names, config.retry, config.retry_kind)
    parts = (asked, *statements) if config.question_first else (*statements, asked)
    return Problem(config.form, graph, names, statements, asked, " ".join(parts), tuple(sentences), tries)


def _check_integer(name: str, value, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def _checked_range(name: str, value, least: int, most: int | None) -> tuple[int, int]:
    accepted = f"at least {least}" if most is None else f"from {least} to {most}"
    message = f"{name} must be two integers {accepted}, the smaller first, got {value!r}"
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(message)
    integers = all(isinstance(bound, int) and not isinstance(bound, bool) for bound in value)
    if not integers or not least <= value[0] <= value[1] or (most is not None and value[1] > most):
        raise ValueError(message)
    return tuple(value)
