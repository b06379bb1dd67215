"""Compiled programs, shared by the packs of a group: one compilation for each static part and size."""

from __future__ import annotations

import time
from typing import Any

import jax

from jaxconcepts.experiments import regression as synthetic
from jaxconcepts.runs import packs
from jaxconcepts.training.train import HParams


class Programs:
    """The programs of one layout.

    compilations: how many groups (static part and size) have been compiled. seconds: how long that took.
    """

    def __init__(self, layout: packs.Layout):
        self.layout = layout
        self.compilations = 0
        self.seconds = 0.0
        self._compiled: dict[tuple[synthetic.Static, int], tuple[packs.Program, int]] = {}

    def get(self, static: synthetic.Static, runs: int, hparams: HParams) -> packs.Program:
        """The compiled program of `runs` runs. hparams: one run's numbers, for their shapes."""
        return self._get(static, runs, hparams)[0]

    def memory(self, static: synthetic.Static, runs: int, hparams: HParams) -> int:
        """Bytes that `runs` runs need on one device at the worst moment, by the compiler's memory analysis."""
        return self._get(static, runs, hparams)[1]

    def forget_others(self, static: synthetic.Static) -> None:
        """Drops the programs of other static parts, which hold memory."""
        self._compiled = {key: value for key, value in self._compiled.items() if key[0] == static}

    def _get(self, static, runs, hparams):
        program = packs.make_program(static, runs, self.layout)
        key = (static, program.size)
        if key not in self._compiled:
            started = time.monotonic()
            self._compiled[key] = _compile(program, static, hparams)
            self.compilations += 1
            self.seconds += time.monotonic() - started
        return self._compiled[key]


def _compile(program: packs.Program, static: synthetic.Static, one: HParams) -> tuple[packs.Program, int]:
    hparams = packs.abstract_hparams(program, one)
    state = packs.abstract_state(program, hparams)
    held_out = _sharded(program, jax.eval_shape(program.prepare, hparams))
    # Not init: it is also traced for the shapes of the state.
    inputs = {
        "chunk": (state, hparams, packs.step_count(1)),
        "prepare": (hparams,),
        "constant": (held_out,),
        "measure": (state, held_out),
    }
    if static.measure.hidden_count:
        inputs["hidden"] = (state, held_out)
    compiled = {name: getattr(program, name).lower(*arguments).compile() for name, arguments in inputs.items()}
    beside = {"chunk": held_out, "measure": hparams}
    memory = max(_memory(compiled[name]) + _bytes(program, tree) for name, tree in beside.items())
    return program._replace(**compiled), memory


def _sharded(program, tree):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=program.sharding), tree)


def _memory(compiled: Any) -> int:
    """Bytes on one device while the program runs."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    used = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return used + analysis.temp_size_in_bytes


def _bytes(program, tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) // program.mesh.shape["runs"]
