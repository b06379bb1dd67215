"""A pack: runs of one experiment trained as one compiled program, laid out over a mesh of devices.

The mesh has two axes. Runs are independent, so the axis "runs" carries no communication; each run's batch is sharded
over "data". On a device the runs go side by side (`vmap`) or one after another (`map`): on an accelerator the first
fills the chip, on a CPU the second is faster and uses less memory, and gives a run the same bits whatever is beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxconcepts.models import residual
from jaxconcepts.training import train
from jaxconcepts.training.experiment import Experiment, HeldOut, Named

HOW = ("auto", "vmap", "map")
UNROLL = ("auto", "all", "none")


@dataclass(frozen=True)
class Layout:
    """How a pack runs. how: "vmap", "map" or "auto" (vmap on accelerators, map on CPU). data: devices a run's batch is
    sharded over; the rest of the devices share out the runs. unroll: the model's blocks "all" unrolled, "none" (a scan)
    or "auto" (all on CPU, where it is faster; none on accelerators, where it only takes longer to compile); a config's
    own model.unroll goes before it."""

    how: str = "auto"
    data: int = 1
    unroll: str = "auto"

    def __post_init__(self):
        if self.how not in HOW:
            raise ValueError(f"run.how must be one of {', '.join(HOW)}, got {self.how!r}")
        if self.unroll not in UNROLL:
            raise ValueError(f"run.unroll must be one of {', '.join(UNROLL)}, got {self.unroll!r}")
        if not isinstance(self.data, int) or self.data < 1:
            raise ValueError(f"run.data must be a positive integer, got {self.data!r}")


class Program(NamedTuple):
    """The compiled functions of a pack of `size` runs (padding included), all over arrays with a leading run axis, but
    for `data`, which all runs share (`place_data`).

    init(numbers, data) -> state. chunk(state, numbers, data, `step_count`) -> (state, what is reported and
    "diverged_at"). prepare(numbers, data) -> held out. constant(numbers, held_out, data), measure(state, numbers,
    held_out, data) -> measured. hidden(state, numbers, held_out, data) -> (states, labels).
    """

    mesh: Mesh
    size: int
    sharding: NamedSharding
    init: Callable[[Any, Any], train.TrainState]
    chunk: Callable[[train.TrainState, Any, Any, Any], tuple[train.TrainState, dict[str, jax.Array]]]
    prepare: Callable[[Any, Any], HeldOut]
    constant: Callable[[Any, HeldOut, Any], dict[str, Named]]
    measure: Callable[[train.TrainState, Any, HeldOut, Any], dict[str, Named]]
    hidden: Callable[[train.TrainState, Any, HeldOut, Any], tuple[jax.Array, jax.Array]]


def make_mesh(runs: int, data: int, devices: Sequence[jax.Device] | Mesh | None = None) -> Mesh:
    """The mesh runs x data over the devices (all by default), using no more of them than there is work for.

    devices: or the mesh that shared weights are split over by an axis "model" (`devices_of`); all runs are then on all
    of it, and the mesh is runs x data x model.

    Raises ValueError where `data` does not divide the number of devices.
    """
    if isinstance(devices, Mesh):
        place = devices.axis_names.index("model")
        grid = np.moveaxis(devices.devices, place, -1).reshape(1, -1, devices.shape["model"])
        return Mesh(grid, ("runs", "data", "model"), axis_types=(AxisType.Auto,) * 3)
    devices = list(jax.devices() if devices is None else devices)
    if len(devices) % data:
        raise ValueError(f"run.data must divide the number of devices, {len(devices)}, got {data}")
    rows = len(devices) // data
    if jax.process_count() == 1:
        rows = min(rows, runs)  # Several processes must all take part.
    return Mesh(np.array(devices[: rows * data]).reshape(rows, data), ("runs", "data"), axis_types=(AxisType.Auto,) * 2)


def platform_how(layout: Layout, platform: str | None = None) -> str:
    """ "vmap" or "map": what `layout.how` means on the platform (the default backend's if None)."""
    platform = jax.default_backend() if platform is None else platform
    return layout.how if layout.how != "auto" else ("map" if platform == "cpu" else "vmap")


def make_program(experiment: Experiment, runs: int, layout: Layout, devices=None) -> Program:
    """The program of `runs` runs, for `devices` (all by default), which may be ones that are only compiled for.

    Raises ValueError where the batch cannot be sharded over the data axis.
    """
    mesh = make_mesh(runs, layout.data, devices)
    if experiment.train.batch_size % layout.data:
        raise ValueError(f"run.data must divide train.batch_size = {experiment.train.batch_size}, got {layout.data}")
    platform = mesh.devices.flat[0].platform
    how = platform_how(layout, platform)
    # By the devices that the program is for, which need not be the default ones.
    experiment = experiment.unrolled(residual.unrolls(platform) if layout.unroll == "auto" else layout.unroll == "all")
    rows = mesh.shape["runs"]
    spec = PartitionSpec("runs")
    sharding = NamedSharding(mesh, spec)
    training = train.make_train(experiment, "data" if layout.data > 1 else None)

    def over_runs(function, shared=0, donate=(), once=False):
        """`function` of one run, over the runs of a device and over devices; the last `shared` arguments are common.

        once: it runs a single time, so that on a CPU optimising its code would take longer than it saves.
        """

        def on_device(own, common):
            one_run = lambda run: function(*run, *common)  # noqa: E731
            return jax.vmap(one_run)(own) if how == "vmap" else jax.lax.map(one_run, own)

        def everywhere(*args):
            split = len(args) - shared
            specs = (spec, PartitionSpec())
            sharded = jax.shard_map(
                on_device, mesh=mesh, in_specs=specs, out_specs=spec, axis_names={"runs"}, check_vma=False
            )
            return sharded(args[:split], args[split:])

        everywhere.__name__ = function.__name__  # What logs of compilations and profiles call it.
        options = {"xla_backend_optimization_level": 0} if once and platform == "cpu" else None
        return jax.jit(everywhere, donate_argnums=donate, out_shardings=sharding, compiler_options=options)

    def chunk(state, numbers, data, count):
        steps, since = count
        state, reported = training.chunk(state, numbers, data, steps, since=since)
        return state, reported | {"diverged_at": state.diverged_at + 0}

    def constant(numbers, held_out, data):
        def untrained():
            return experiment.model_params(experiment.init(numbers, data), numbers, data, None)

        return experiment.constants(held_out, untrained)

    def measure(state, numbers, held_out, data):
        return experiment.measure(experiment.model_params(state.params, numbers, data, None), held_out)

    def hidden(state, numbers, held_out, data):
        return experiment.hidden(experiment.model_params(state.params, numbers, data, None), held_out)

    return Program(
        mesh=mesh,
        size=-(-runs // rows) * rows,
        sharding=sharding,
        init=over_runs(training.init, shared=1),
        chunk=over_runs(chunk, shared=2, donate=0),
        prepare=over_runs(experiment.held_out, shared=1, once=True),
        constant=over_runs(constant, shared=1),
        measure=over_runs(measure, shared=1),
        hidden=over_runs(hidden, shared=1),
    )


def place_data(program: Program, data: Any) -> Any:
    """What all runs share on the program's devices, once: whole on each, but for weights that are shared out over a
    mesh's axis "model", which stay so."""

    def place(a):
        if isinstance(a, jax.Array):
            return jax.device_put(a, _data_sharding(program, a))
        whole = NamedSharding(program.mesh, PartitionSpec())
        return jax.make_array_from_callback(np.shape(a), whole, lambda index: np.asarray(a)[index])

    return jax.tree.map(place, data)


def abstract_data(program: Program, data: Any) -> Any:
    """The shapes, dtypes and shardings of `place_data`."""

    def abstract(a):
        dtype = a.dtype if hasattr(a, "dtype") else np.asarray(a).dtype
        return jax.ShapeDtypeStruct(np.shape(a), dtype, sharding=_data_sharding(program, a))

    return jax.tree.map(abstract, data)


def devices_of(params: Any) -> Mesh | None:
    """The mesh that weights are shared out over by an axis "model", None for weights on one device."""
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    shared = isinstance(sharding, NamedSharding) and sharding.mesh.shape.get("model", 1) > 1
    return sharding.mesh if shared else None


def _data_sharding(program, a):
    sharding = getattr(a, "sharding", None)
    if isinstance(sharding, NamedSharding) and "model" in program.mesh.axis_names:
        return NamedSharding(program.mesh, sharding.spec)
    return NamedSharding(program.mesh, PartitionSpec())


def stack_numbers(program: Program, numbers: Sequence[Any]) -> Any:
    """The runs' numbers with a leading run axis, on the program's devices; padded with copies of the last run."""
    padded = [*numbers, *[numbers[-1]] * (program.size - len(numbers))]
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *padded)
    place = lambda a: jax.make_array_from_callback(a.shape, program.sharding, lambda index: a[index])  # noqa: E731
    return jax.tree.map(place, stacked)


def abstract_numbers(program: Program, one: Any) -> Any:
    """The shapes, dtypes and shardings of `stack_numbers`, given one run's numbers."""
    return jax.tree.map(lambda a: _abstract(program, np.asarray(a).shape, np.asarray(a).dtype), one)


def abstract_state(program: Program, numbers: Any, data: Any) -> train.TrainState:
    """The shapes, dtypes and shardings of the pack's state, for restoring a checkpoint."""
    shapes = jax.eval_shape(program.init, numbers, data)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=program.sharding), shapes)


def saved_state(program: Program, numbers: Any, data: Any, saved_size: int) -> train.TrainState:
    """As `abstract_state`, of a pack that was padded to another size on another layout; see `fit_state`."""
    shared = saved_size % program.mesh.shape["runs"] == 0
    sharding = program.sharding if shared else NamedSharding(program.mesh, PartitionSpec())
    shape = lambda a: jax.ShapeDtypeStruct((saved_size, *a.shape[1:]), a.dtype, sharding=sharding)  # noqa: E731
    return jax.tree.map(shape, abstract_state(program, numbers, data))


def fit_state(program: Program, state: train.TrainState, runs: int) -> train.TrainState:
    """The state of `runs` runs, padded to the program's size on its devices."""
    if state.step.shape[0] == program.size:
        return state
    take = np.minimum(np.arange(program.size), runs - 1)
    return jax.jit(lambda s: jax.tree.map(lambda a: a[take], s), out_shardings=program.sharding)(state)


def local_runs(program: Program) -> list[int]:
    """The places in the pack (padding included) whose values this process reads and writes down, ascending."""
    first = _first_of_rows(program)
    each = program.size // len(first)
    own = [row for row, device in enumerate(first) if device.process_index == jax.process_index()]
    return [row * each + place for row in own for place in range(each)]


def fetch(program: Program, tree: Any) -> Any:
    """Arrays with a leading run axis as NumPy, only this process's places of them (`local_runs`); waits for them."""
    first = set(_first_of_rows(program))

    def local(array):
        shards = [shard for shard in array.addressable_shards if shard.device in first]
        shards.sort(key=lambda shard: shard.index[0].start or 0)
        return np.concatenate([np.asarray(shard.data) for shard in shards])

    return jax.tree.map(local, tree)


def _first_of_rows(program):
    return program.mesh.devices.reshape(program.mesh.shape["runs"], -1)[:, 0]


def step_count(steps: int, since: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A chunk's length, and how many steps before it its mean loss is to cover too (`train.repeated`), as the arrays
    that `Program.chunk` takes (Python ints would have another, weak type)."""
    return np.asarray(steps, np.int32), np.asarray(since, np.int32)


def _abstract(program, shape, dtype):
    return jax.ShapeDtypeStruct((program.size, *shape), dtype, sharding=program.sharding)
