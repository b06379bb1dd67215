"""A pack: runs with one static part trained as one compiled program, laid out over a mesh of devices.

The mesh has two axes. Runs are independent, so the axis "runs" carries no communication; each run's batch is sharded
over "data". On a device the runs go side by side (`vmap`) or one after another (`map`): on an accelerator the first
fills the chip, on a CPU the second is faster and uses less memory, and gives a run the same bits whatever is beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxconcepts.studies import synthetic
from jaxconcepts.training import train

HOW = ("auto", "vmap", "map")


@dataclass(frozen=True)
class Layout:
    """How a pack runs. how: "vmap", "map" or "auto" (vmap on accelerators, map on CPU). data: devices a run's batch is
    sharded over; the rest of the devices share out the runs."""

    how: str = "auto"
    data: int = 1

    def __post_init__(self):
        if self.how not in HOW:
            raise ValueError(f"run.how must be one of {', '.join(HOW)}, got {self.how!r}")
        if not isinstance(self.data, int) or self.data < 1:
            raise ValueError(f"run.data must be a positive integer, got {self.data!r}")


class Program(NamedTuple):
    """The compiled functions of a pack of `size` runs (padding included), all over arrays with a leading run axis."""

    mesh: Mesh
    size: int
    sharding: NamedSharding
    init: Callable[[train.HParams], train.TrainState]
    chunk: Callable[[train.TrainState, train.HParams, Any], tuple[train.TrainState, dict[str, jax.Array]]]
    prepare: Callable[[train.HParams], synthetic.HeldOut]
    constant: Callable[[synthetic.HeldOut], dict[str, jax.Array]]
    measure: Callable[[train.TrainState, synthetic.HeldOut], dict[str, jax.Array]]
    hidden: Callable[[train.TrainState, synthetic.HeldOut], jax.Array]


def make_mesh(runs: int, data: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh runs x data over the devices (all by default), using no more of them than there is work for.

    Raises ValueError where `data` does not divide the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    if len(devices) % data:
        raise ValueError(f"run.data must divide the number of devices, {len(devices)}, got {data}")
    rows = min(len(devices) // data, runs)
    return Mesh(np.array(devices[: rows * data]).reshape(rows, data), ("runs", "data"), axis_types=(AxisType.Auto,) * 2)


def make_program(static: synthetic.Static, runs: int, layout: Layout, devices=None) -> Program:
    """The program of `runs` runs. Raises ValueError where the batch cannot be sharded over the data axis."""
    mesh = make_mesh(runs, layout.data, devices)
    if static.train.batch_size % layout.data:
        raise ValueError(f"run.data must divide train.batch_size = {static.train.batch_size}, got {layout.data}")
    platform = mesh.devices.flat[0].platform
    how = layout.how if layout.how != "auto" else ("map" if platform == "cpu" else "vmap")
    rows = mesh.shape["runs"]
    spec = PartitionSpec("runs")
    sharding = NamedSharding(mesh, spec)
    training = train.make_train(static.task, static.model, static.train, "data" if layout.data > 1 else None)
    measuring = synthetic.make_measure(static)

    def over_runs(function, shared=0, donate=()):
        """`function` of one run, over the runs of a device and over devices; the last `shared` arguments are common."""

        def on_device(own, common):
            one_run = lambda run: function(*run, *common)  # noqa: E731
            return jax.vmap(one_run)(own) if how == "vmap" else jax.lax.map(one_run, own)

        @partial(jax.jit, donate_argnums=donate)
        def everywhere(*args):
            split = len(args) - shared
            specs = (spec, PartitionSpec())
            sharded = jax.shard_map(
                on_device, mesh=mesh, in_specs=specs, out_specs=spec, axis_names={"runs"}, check_vma=False
            )
            return sharded(args[:split], args[split:])

        return everywhere

    def chunk(state, hparams, steps):
        state, loss = training.chunk(state, hparams, steps)
        return state, {"train_loss": loss, "diverged_at": state.diverged_at + 0}

    return Program(
        mesh=mesh,
        size=-(-runs // rows) * rows,
        sharding=sharding,
        init=over_runs(training.init),
        chunk=over_runs(chunk, shared=1, donate=0),
        prepare=over_runs(measuring.prepare),
        constant=over_runs(measuring.constant),
        measure=over_runs(lambda state, held_out: measuring.measure(state.params, held_out)),
        hidden=over_runs(lambda state, held_out: measuring.hidden(state.params, held_out)),
    )


def stack_hparams(program: Program, hparams: Sequence[train.HParams]) -> train.HParams:
    """The runs' numbers with a leading run axis, on the program's devices; padded with copies of the last run."""
    padded = [*hparams, *[hparams[-1]] * (program.size - len(hparams))]
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *padded)
    return jax.device_put(stacked, program.sharding)


def abstract_state(program: Program, hparams: train.HParams) -> train.TrainState:
    """The shapes, dtypes and shardings of the pack's state, for restoring a checkpoint."""
    shapes = jax.eval_shape(program.init, hparams)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=program.sharding), shapes)


def step_count(steps: int) -> jax.Array:
    """A chunk's length as the array that `Program.chunk` takes (a Python int would have another, weak type)."""
    return jnp.asarray(steps, jnp.int32)
