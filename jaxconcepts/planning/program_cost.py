"""What a compiled pack costs, read off the compiler's output: memory, FLOPs, cycles and collectives, per chip.

A pack's chunk is one loop over steps, of traced length, with further loops inside it (over layers). XLA's cost analysis
counts the body of every loop once. Here a step is what the chunk's loop does once, and inner loops count as often as
they run: FLOPs come from the traced program, cycles from the instructions of the compiled one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import jaxprs_in_params

from jaxconcepts.runs import packs
from jaxconcepts.training.experiment import Experiment

COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast", "send", "recv",
)  # fmt: skip


class Cost(NamedTuple):
    """Of one chip.

    arguments, outputs, temporaries, code: bytes while the program runs (outputs: without those that reuse arguments).
    held_out: bytes of the runs' held-out sequences, which stay beside it.
    flops: of the matrix products of one step; where runs are sharded over `data` chips, the optimizer's products (Muon
        has some, which every chip repeats) are counted as if they were too.
    cycles: of one step, the compiler's estimate, None where it gives none.
    collectives: how many instructions of each kind the program has.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int
    held_out: int
    flops: float
    cycles: int | None
    collectives: dict[str, int]

    @property
    def memory(self) -> int:
        """Bytes a chip needs while the program runs."""
        return self.arguments + self.outputs + self.temporaries + self.code + self.held_out


class DoesNotFitError(Exception):
    """The compiler refused the program for want of memory; the message is its own."""


def compile_chunk(program: packs.Program, experiment: Experiment, numbers: Any) -> Cost:
    """Compiles the training chunk of `program` for the devices of its mesh, which need not exist here.

    numbers: one run's, for their shapes. Raises DoesNotFitError where the compiler runs out of memory.
    """
    stacked = packs.abstract_numbers(program, numbers)
    data = packs.abstract_data(program, experiment.data())
    held_out = jax.eval_shape(program.prepare, stacked, data)
    state = packs.abstract_state(program, stacked, data)
    traced = program.chunk.trace(state, stacked, data, packs.step_count(1))
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFitError(str(error).splitlines()[0]) from error
    memory, text = compiled.memory_analysis(), compiled.as_text()
    return Cost(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        held_out=sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(held_out)) // program.mesh.shape["runs"],
        # Inside shard_map shapes are those of one row of the mesh; its batch is shared out over the data axis.
        flops=flops_of_products(traced.jaxpr.jaxpr) / program.mesh.shape["data"],
        cycles=step_cycles(text),
        collectives=count_collectives(text),
    )


def flops_of_products(jaxpr) -> float:
    """FLOPs (2 a multiply-add) of the matrix products of a jaxpr. A scan counts as often as it runs, a loop of traced
    length once, of a conditional's branches the dearest."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
            continue
        inner = [flops_of_products(sub) for sub in jaxprs_in_params(equation.params)]
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * (max(inner) if equation.primitive.name == "cond" else sum(inner)) if inner else 0
    return total


def count_collectives(hlo: str) -> dict[str, int]:
    """How many instructions of each kind of COLLECTIVES a compiled program has; those that it has none of left out."""
    kinds = re.findall(rf"[\]}})] ({'|'.join(COLLECTIVES)})(?:-start)?\(", hlo)
    return dict(sorted(Counter(kinds).items()))


def step_cycles(hlo: str) -> int | None:
    """The TPU compiler's estimated cycles of what is inside the program's loop of traced length, loops inside it times
    the number of times they run. None where the compiler left no estimates (CPU, GPU)."""
    return _cycles(hlo, within_step=False)


def program_cycles(hlo: str) -> int | None:
    """As `step_cycles`, of the whole program; a loop of traced length counts once."""
    return _cycles(hlo, within_step=True)


def _cycles(hlo: str, within_step: bool) -> int | None:
    if '"estimated_cycles":"' not in hlo:
        return None
    computations, entry = _computations(hlo)

    def walk(name: str, within_step: bool) -> int:
        total = 0
        for line in computations[name]:
            if loop := re.search(r" while\(.*condition=%([\w.\-]+), body=%([\w.\-]+)", line):
                trips = _trip_count(line, computations[loop[1]])
                total += (trips or 1) * walk(loop[2], within_step or trips is None)
            elif call := re.search(r" call\(.*to_apply=%([\w.\-]+)", line):
                total += walk(call[1], within_step)
            elif within_step and (cycles := re.search(r'"estimated_cycles":"(\d+)"', line)):
                total += int(cycles[1])
        return total

    return walk(entry, within_step)


def _computations(hlo: str) -> tuple[dict[str, Sequence[str]], str]:
    """The instructions of every computation by name, and the name of the entry."""
    computations, entry, name = {}, "", None
    for line in hlo.splitlines():
        if start := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = start[2]
            computations[name] = []
            entry = name if start[1] else entry
        elif name and line.startswith("}"):
            name = None
        elif name:
            computations[name].append(line)
    return computations, entry


def _trip_count(loop: str, condition: Sequence[str]) -> int | None:
    """How often a loop runs: as the compiler noted it, or the constant its counter is compared with; else None."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop):
        return int(known[1])
    constants = {}
    for line in condition:
        if constant := re.match(r"\s*(?:ROOT )?%([\w.\-]+) = .* constant\((\d+)\)", line):
            constants[constant[1]] = int(constant[2])
        if compare := re.match(r"\s*ROOT %[\w.\-]+ = .* compare\(%[\w.\-]+, %([\w.\-]+)\), direction=LT", line):
            return constants.get(compare[1])
    return None
