"""What extracting a language model's hidden states would need on devices that need not be here: memory, speed, fit.

The program is compiled for the topology, so memory is the compiler's own figure; speed is an estimate from the count of
operations at an assumed share of the documented peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxconcepts.models import language, sharding
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.sweeps import chips

# What a well-shaped forward pass in bfloat16 reaches of the peak; the estimate of speed rests on it.
SHARE_OF_PEAK = 0.5


@dataclass(frozen=True)
class ModelPlan:
    """memory: bytes a chip at the program's peak, parameters included; limit: what a chip has, None where unknown.
    flops: operations a batch, all chips together. tokens_per_second: at half the peak, None if that is unknown."""

    memory: int
    limit: int | None
    flops: float
    tokens_per_second: float | None

    @property
    def fits(self) -> bool | None:
        return None if self.limit is None else self.memory <= self.limit


def plan(model: Decoder, devices: Sequence[jax.Device], batch: int, length: int, model_axis: int) -> ModelPlan:
    """Compiles the hidden states of all layers at the last token for `devices`: a mesh of data x `model_axis` chips.

    batch, length: prompts at once, over all chips, and their padded length. Raises ValueError where model_axis does not
    divide the number of devices, or the data axis the batch.
    """
    if len(devices) % model_axis:
        raise ValueError(f"model_axis must divide the {len(devices)} devices, got {model_axis}")
    if batch % (len(devices) // model_axis):
        raise ValueError(f"batch must be a multiple of the data axis of {len(devices) // model_axis}, got {batch}")
    grid = np.array(devices).reshape(-1, model_axis)
    mesh = Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        sharding.specs(model, mesh, shapes),
    )
    rows = NamedSharding(mesh, PartitionSpec("data"))
    tokens, last = (jax.ShapeDtypeStruct((batch, n), jnp.int32, sharding=rows) for n in (length, 1))
    with language.exact_products(model):
        layers = tuple(range(model.layers + 1))
        compiled = language._states.lower(model, params, tokens, last, None, layers, False).compile()
    memory = compiled.memory_analysis()
    chip = chips.describe(devices[0])
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    flops = forward_flops(model, batch, length)
    speed = None if chip.peak is None else batch * length / (flops / (SHARE_OF_PEAK * chip.peak * len(devices)))
    return ModelPlan(int(peak), chip.memory, flops, speed)


def forward_flops(model: Decoder, batch: int, length: int) -> float:
    """Multiplications and additions of the blocks: two a weight and token, and the two products of full attention."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))["blocks"]
    weights = sum(leaf.size for leaf in jax.tree.leaves(shapes) if leaf.ndim == 3)
    attention = 4 * model.layers * model.heads * model.head_dim * length
    return float(batch * length * (2 * weights + attention))
