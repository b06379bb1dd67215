"""LoRA (Hu et al. 2021, arXiv 2106.09685): W + (alpha / r) a @ b with W frozen, in any blocks and projections.

Adapters are a flat dict {"blocks/q": {"a": [L, inputs, r], "b": [L, r, outputs]}}, stacked over all L blocks as the
weights are; which blocks have one is data, a scale of 0 elsewhere. `attach` puts them beside the kernels as
`layers.LowRank`, so training and measuring many of them takes one copy of the weights; `merge` forms the sum for
export.

Conventions are those of the `peft` library: a ~ Kaiming-uniform with slope sqrt(5), b = 0, dropout on the input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from jaxconcepts.models import safetensors_io
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.models.layers import LowRank

Adapters = Mapping[str, Mapping[str, Array]]


@dataclass(frozen=True)
class LoraConfig:
    """rank: r. alpha: the adapter is scaled by alpha / r. dropout: the share of an adapted projection's inputs that the
    adapter does not see in a training step. targets: projections by our names ("q", "mlp_up") or the checkpoint's
    ("q_proj", "c_fc"); empty for queries and values, as PEFT.

    The defaults are the paper's (arXiv 2412.12276), which does not name its targets.
    """

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.1
    targets: tuple[str, ...] = ()

    def __post_init__(self):
        if not isinstance(self.rank, int) or isinstance(self.rank, bool) or self.rank < 1:
            raise ValueError(f"lora.rank must be a positive integer, got {self.rank!r}")
        if not self.alpha > 0:
            raise ValueError(f"lora.alpha must be a positive number, got {self.alpha!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout must be at least 0 and below 1, got {self.dropout!r}")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def projections(model: Decoder) -> dict[str, str]:
    """The projections of a block, path of the Dense ("blocks/q") -> module of the checkpoint, {} for the block."""
    kernels = {path: name for path, name in model.CHECKPOINT.items() if path.startswith("blocks/")}
    suffix = "/kernel"
    return {p.removesuffix(suffix): n.removesuffix(".weight") for p, n in kernels.items() if p.endswith(suffix)}


def target_paths(model: Decoder, targets: tuple[str, ...]) -> list[str]:
    """The paths of the target projections, in the model's order.

    Raises ValueError for one that the model does not have, listing those that it has.
    """
    known = projections(model)
    names = {path: (path.rpartition("/")[2], module.rpartition(".")[2]) for path, module in known.items()}
    accepted = {name: path for path, both in names.items() for name in both}
    if absent := [target for target in targets if target not in accepted]:
        have = ", ".join(own if own == theirs else f"{own} ({theirs})" for own, theirs in names.values())
        raise ValueError(f"lora.targets: {model.MODEL_TYPE} has no projection {absent[0]!r}; it has {have}")
    chosen = {accepted[target] for target in targets or model.ADAPTED if target in accepted}
    return [path for path in known if path in chosen]


def init(config: LoraConfig, model: Decoder, params: PyTree, key) -> dict[str, dict[str, Float[Array, "L i o"]]]:
    """Fresh float32 adapters of all blocks: a uniform in +-1 / sqrt(inputs), which is PEFT's
    kaiming_uniform_(a=sqrt(5)), and b = 0, so that nothing changes at first."""
    adapters = {}
    for path in target_paths(model, config.targets):
        kernel = kernel_of(params, path)
        key, own = jax.random.split(key)
        blocks, inputs, outputs = kernel.shape
        a = jax.random.uniform(own, (blocks, inputs, config.rank), minval=-1, maxval=1) * inputs**-0.5
        adapters[path] = {"a": a, "b": jnp.zeros((blocks, config.rank, outputs))}
    return adapters


def attach(
    params: PyTree,
    adapters: Adapters,
    scales: Mapping[str, Float[Array, " L"]],
    key=None,
    dropout: float = 0.0,
) -> PyTree:
    """The parameters with the adapters beside their kernels; nothing is copied, and any model runs with them.

    scales: alpha / r where a block has the adapter, 0 where it has not. key: of this step's dropout, None for none;
    every projection of every block gets its own mask.
    """
    low_rank = {}
    for index, (path, pair) in enumerate(adapters.items()):
        blocks = pair["a"].shape[0]
        keys = rates = None
        if key is not None and dropout > 0:
            keys = jax.random.split(jax.random.fold_in(key, index), blocks)
            rates = jnp.full(blocks, dropout)
        low_rank[path] = LowRank(pair["a"], pair["b"], jnp.asarray(scales[path], jnp.float32), keys, rates)
    blocks = {
        name: part | {"low_rank": low_rank[f"blocks/{name}"]} if f"blocks/{name}" in low_rank else part
        for name, part in params["blocks"].items()
    }
    return {**params, "blocks": blocks}


def merge(params: PyTree, adapters: Adapters, scales: Mapping[str, Float[Array, " L"]]) -> PyTree:
    """The parameters with W + scale * a @ b for every adapted kernel, summed in float32; others are the same arrays."""
    blocks = dict(params["blocks"])
    for path, pair in adapters.items():
        name = path.removeprefix("blocks/")
        kernel = kernel_of(params, path)
        product = jnp.einsum("lir,lro->lio", pair["a"], pair["b"], precision="highest")
        product = product * jnp.asarray(scales[path], jnp.float32)[:, None, None]
        # A block without an adapter keeps its bits.
        summed = (kernel.astype(jnp.float32) + product).astype(kernel.dtype)
        kernel = jnp.where((jnp.asarray(scales[path]) != 0)[:, None, None], summed, kernel)
        blocks[name] = blocks[name] | {"kernel": kernel}
    return {**params, "blocks": blocks}


def save_peft(
    config: LoraConfig,
    model: Decoder,
    adapters: Adapters,
    adapted: Mapping[str, Bool[np.ndarray, " L"]],
    folder: str | Path,
    base_model: str = "",
) -> None:
    """Writes adapter_config.json and adapter_model.safetensors as `peft` writes them; PeftModel.from_pretrained reads
    them.

    adapted: the blocks that have each adapter. base_model: recorded as the model that they belong to.

    Raises ValueError where no block has an adapter: `peft` has no such thing.
    """
    modules = projections(model)
    chosen = [(path, block) for path in adapters for block in np.flatnonzero(adapted[path]).tolist()]
    if not chosen:
        raise ValueError("there must be an adapter in at least one block to be saved, got none")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fields: dict[str, Any] = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_model, "inference_mode": True,
        "r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout, "bias": "none",
        "fan_in_fan_out": not model.TRANSPOSED,
        # By their whole names, so that any set of blocks can be said.
        "target_modules": sorted(modules[path].format(block) for path, block in chosen),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(fields, indent=2) + "\n")
    tensors = []
    for path, block in chosen:
        for ours, theirs in (("a", "lora_A"), ("b", "lora_B")):
            array = np.asarray(adapters[path][ours][block], np.float32).T
            name = f"base_model.model.{modules[path].format(block)}.{theirs}.weight"
            tensors.append((name, array.shape, array.dtype, lambda array=array: array))
    safetensors_io.write(folder / "adapter_model.safetensors", tensors)


def kernel_of(params: PyTree, path: str) -> Float[Array, "L inputs outputs"]:
    """The stacked kernel of a projection, given its path."""
    return params["blocks"][path.removeprefix("blocks/")]["kernel"]
