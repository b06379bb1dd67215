"""Compiled programs, shared by the packs of a group: one compilation for each experiment and size."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from jaxconcepts.runs import packs
from jaxconcepts.training.experiment import Experiment

log = logging.getLogger("jaxconcepts")


class Programs:
    """The programs of one layout.

    compilations: how many groups (static part and size) have been compiled. seconds: how long that took.
    """

    def __init__(self, layout: packs.Layout, devices: Any = None):
        """devices: as of `packs.make_mesh`."""
        self.layout, self.devices = layout, devices
        self.compilations = 0
        self.seconds = 0.0
        self._compiled: dict[tuple[Experiment, int], tuple[packs.Program, int]] = {}
        self._data: dict[tuple[Experiment, Any], Any] = {}
        self._host_data: dict[Experiment, Any] = {}

    def get(self, experiment: Experiment, runs: int, numbers: Any) -> packs.Program:
        """The compiled program of `runs` runs. numbers: one run's, for their shapes."""
        return self._get(experiment, runs, numbers)[0]

    def memory(self, experiment: Experiment, runs: int, numbers: Any) -> int:
        """Bytes that `runs` runs need on one device at the worst moment, by the compiler's memory analysis."""
        return self._get(experiment, runs, numbers)[1]

    def data(self, experiment: Experiment, program: packs.Program) -> Any:
        """What the experiment's runs share, placed on the program's devices once."""
        key = (experiment, program.mesh)
        if key not in self._data:
            self._data[key] = packs.place_data(program, self._shared(experiment))
        return self._data[key]

    def forget_others(self, experiment: Experiment) -> None:
        """Drops the programs and data of other experiments, which hold memory."""
        for kept in (self._compiled, self._data):
            for key in [key for key in kept if key[0] != experiment]:
                del kept[key]
        self._host_data = {key: value for key, value in self._host_data.items() if key == experiment}

    def _shared(self, experiment):
        if experiment not in self._host_data:
            self._host_data[experiment] = experiment.data()
        return self._host_data[experiment]

    def _get(self, experiment, runs, numbers):
        program = packs.make_program(experiment, runs, self.layout, self.devices)
        key = (experiment, program.size)
        if key not in self._compiled:
            data = packs.abstract_data(program, self._shared(experiment))
            log.info("%s", experiment.describe())
            log.info("compiling")
            started = time.monotonic()
            self._compiled[key] = _compile(program, experiment, numbers, data)
            log.info("compiled in %.0f s; starting", time.monotonic() - started)
            self.compilations += 1
            self.seconds += time.monotonic() - started
        return self._compiled[key]


def _compile(program: packs.Program, experiment: Experiment, one: Any, data: Any) -> tuple[packs.Program, int]:
    numbers = packs.abstract_numbers(program, one)
    state = packs.abstract_state(program, numbers, data)
    held_out = _sharded(program, jax.eval_shape(program.prepare, numbers, data))
    # Not init: it is also traced for the shapes of the state.
    inputs = {
        "chunk": (state, numbers, data, packs.step_count(1)),
        "prepare": (numbers, data),
        "constant": (numbers, held_out, data),
        "measure": (state, numbers, held_out, data),
    }
    if experiment.measuring.hidden_count:
        inputs["hidden"] = (state, numbers, held_out, data)
    # A CPU's compiler leaves most cores idle, so that its programs are compiled side by side. Accelerators' compilers
    # time kernels, each alone.
    at_once = len(inputs) if program.mesh.devices.flat[0].platform == "cpu" else 1
    with ThreadPoolExecutor(at_once) as pool:
        made = {name: pool.submit(getattr(program, name).lower(*given).compile) for name, given in inputs.items()}
        compiled = {name: each.result() for name, each in made.items()}
    beside = {"chunk": held_out, "measure": numbers}
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
