"""What extracting a language model's hidden states would need on devices that need not be here: memory, speed, fit.

The program is compiled for the topology, so memory and cycles are the compiler's own figures. Nothing is run: a plan is
not a measurement, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxconcepts.models import language, sharding
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.planning import chips, program_cost

GIB = 2**30
READ_OUT = ("unembed", "final_norm")


@dataclass(frozen=True)
class ModelPlan:
    """One compiled program: all layers' hidden states at the last token of `batch` prompts of `length` tokens.

    data, model: the mesh, chips a batch is shared out over times chips that share the parameters.
    memory: bytes a chip at the program's peak, parameters included; None where the compiler refused the program for
        want of memory. parameters: bytes of a chip's share of them. limit: what a chip has, None where unknown.
    flops: operations of a batch, all chips together.
    seconds: a batch's time by the compiler's cycles, without communication; None where it gives none.
    collectives: instructions of each kind that communicate between chips.
    """

    batch: int
    length: int
    data: int
    model: int
    memory: int | None
    parameters: int
    limit: int | None
    flops: float
    seconds: float | None
    collectives: dict[str, int]

    @property
    def fits(self) -> bool | None:
        """Whether it fits; None where the chip's memory is not known."""
        if self.memory is None:
            return False
        return None if self.limit is None else self.memory <= self.limit

    @property
    def tokens_per_second(self) -> float | None:
        """Of all chips together."""
        return None if self.seconds is None else self.batch * self.length / self.seconds


def plan(model: Decoder, devices: Sequence[jax.Device], batch: int, length: int, model_axis: int) -> ModelPlan:
    """Compiles the hidden states of all layers at the last token for `devices`: a mesh of data x `model_axis` chips.

    batch, length: prompts at once, over all chips, and their padded length. Raises ValueError where model_axis does not
    divide the number of devices, or the data axis the batch.
    """
    if len(devices) % model_axis:
        raise ValueError(f"model_axis must divide the {len(devices)} devices, got {model_axis}")
    data = len(devices) // model_axis
    if batch % data:
        raise ValueError(f"batch must be a multiple of the data axis of {data}, got {batch}")
    mesh = Mesh(np.array(devices).reshape(data, model_axis), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    params, held = _parameters(model, mesh)
    rows = NamedSharding(mesh, PartitionSpec("data"))
    tokens, last = (jax.ShapeDtypeStruct((batch, n), jnp.int32, sharding=rows) for n in (length, 1))
    chip, flops = chips.describe(devices[0]), forward_flops(model, batch, length)
    refused = ModelPlan(batch, length, data, model_axis, None, held, chip.memory, flops, None, {})
    layers = tuple(range(model.layers + 1))
    with language.exact_products(model):
        lowered = language._states.lower(model, params, tokens, last, None, layers, False)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return refused
    memory, text = compiled.memory_analysis(), compiled.as_text()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    # The read-out is no part of the program, and lies on the chip all the same.
    peak += memory.generated_code_size_in_bytes + _bytes({name: params.get(name, {}) for name in READ_OUT})
    cycles = program_cost.program_cycles(text)
    seconds = cycles / chip.clock if cycles and chip.clock else None
    collectives = program_cost.count_collectives(text)
    return replace(refused, memory=int(peak), seconds=seconds, collectives=collectives)


def plan_and_show(
    model: Decoder,
    devices: Sequence[jax.Device],
    batch: int,
    length: int,
    show: Callable[[str], None] = print,
) -> bool:
    """Plans with the parameters shared by as few chips as will do, and shows it; whether it fits.

    Where it does not fit on all chips together, shows what would: a smaller batch, or more chips.
    """
    chip, count = chips.describe(devices[0]), len(devices)
    show("This is a plan, not a measurement: the program was compiled for these devices and not run.")
    show(
        f"{type(model).__name__.removesuffix('Config')}, {model.layers} layers x {model.width} wide, "
        f"{model.num_params():,} parameters in {model.dtype}: hidden states of all {model.layers + 1} layers at the "
        f"last token of {batch} prompts of {length} tokens"
    )
    show(f"on {count} x {chip.name}" + (f", {chip.memory / GIB:.3g} GiB of memory each" if chip.memory else ""))
    found = None
    for model_axis in _model_axes(model, devices, batch):
        found = plan(model, devices, batch, length, model_axis)
        if found.fits is not False:
            break
    if found is not None:
        show(describe(found, chip))
        if found.fits is not False:
            return True
    show("  does not fit; " + _what_would(model, devices, batch, length, chip))
    return False


def describe(plan: ModelPlan, chip: chips.Chip) -> str:
    """A plan in lines."""
    chips_used = plan.data * plan.model
    memory = "more than there is"
    if plan.memory is not None:
        share = f" ({100 * plan.memory / plan.limit:.0f} % of {plan.limit / GIB:.3g} GiB)" if plan.limit else ""
        memory = f"{plan.memory / GIB:.3g} GiB{share}"
    lines = [
        f"mesh             {plan.data} x {plan.model}: data x chips that share the parameters",
        f"memory per chip  {memory}, {plan.parameters / GIB:.3g} GiB of it parameters",
        f"FLOPs            {plan.flops:.3g} a batch on all chips, {plan.flops / plan.batch / plan.length:.3g} a token",
        f"collectives      {', '.join(f'{n} {kind}' for kind, n in plan.collectives.items()) or 'none'}",
    ]
    if plan.seconds is not None:
        share = f", {100 * plan.flops / plan.seconds / chips_used / chip.peak:.0f} % of the bfloat16 peak"
        if plan.collectives:
            share += f"; without the {', '.join(f'{kind}s' for kind in plan.collectives)}"
        lines.append(
            f"time             {plan.seconds * 1e3:.3g} ms a batch, {plan.tokens_per_second:.3g} tokens per second "
            f"(the compiler's cycles at {chip.clock / 1e9:.2f} GHz{share})"
        )
    elif chip.peak:
        bound = plan.batch * plan.length * chips_used * chip.peak / plan.flops
        lines.append(f"time             no estimate by the compiler; at the peak rate {bound:.3g} tokens per second")
    else:
        lines.append("time             unknown: neither an estimate by the compiler nor a documented peak rate")
    return "\n".join("  " + line for line in lines)


def forward_flops(model: Decoder, batch: int, length: int) -> float:
    """Multiplications and additions of the blocks: two a weight and token, and the two products of full attention (of a
    state space: those with its state)."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))["blocks"]
    weights = sum(leaf.size for leaf in jax.tree.leaves(shapes) if leaf.ndim == 3)
    attention = 4 * model.layers * model.heads * model.head_dim * (length if model.ATTENDS else model.state)
    return float(batch * length * (2 * weights + attention))


def _parameters(model: Decoder, mesh: Mesh):
    """The abstract parameters on the mesh, and their bytes on a chip."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    specs = sharding.specs(model, mesh, shapes)
    params = jax.tree.map(lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), shapes, specs)
    return params, _bytes(params)


def _bytes(tree) -> int:
    """Of one chip's shards of the arrays."""
    shard = lambda a: math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize  # noqa: E731
    return sum(map(shard, jax.tree.leaves(tree)))


def _model_axes(model: Decoder, devices, batch: int) -> list[int]:
    """How many chips may share the parameters, fewest first, those left out with which the parameters alone are too
    much; all chips where none will do."""
    limit, count = chips.describe(devices[0]).memory, len(devices)
    axes = [axis for axis in range(1, count + 1) if count % axis == 0 and batch % (count // axis) == 0]
    return [axis for axis in axes if limit is None or _held(model, devices, axis) <= limit]


def _held(model, devices, axis) -> int:
    mesh = Mesh(np.array(devices).reshape(-1, axis), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    return _parameters(model, mesh)[1]


def _what_would(model, devices, batch, length, chip) -> str:
    """What would fit, in words: the largest halving of the batch on these chips, or more chips."""
    count = len(devices)
    held = _held(model, devices, count)
    if held > chip.memory:
        least = 2 ** math.ceil(math.log2(count * held / chip.memory))
        return f"the parameters alone take {held / GIB:.3g} GiB on each chip: it takes {least} chips at least"
    while batch > 1:
        batch //= 2
        if plan(model, devices, batch, length, count).fits:
            return f"--batch_size={batch} would, with the parameters shared by all {count} chips"
    return f"not even one prompt of {length} tokens does: shorter prompts (--length) or more chips would"
