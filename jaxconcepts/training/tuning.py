"""Fine-tuning restricted to layers: arms that differ in what is trained, in one program over one copy of the weights.

An *arm* says by masks which rows of the tuned arrays are trained. Its tuned arrays are LoRA adapters, or with full
fine-tuning copies of the trained leaves; everything else is the base, an argument of the program that no arm copies.
Frozen parameters stay as they are bit for bit by construction: they are never written. (Rows of the tuned arrays that
an arm does not train get no gradient, and whatever weight decay makes of them is not used.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxconcepts.models.decoder import Decoder
from jaxconcepts.training import freezing, lora, optimizers
from jaxconcepts.training.experiment import Experiment, MeasureConfig

Masks = Mapping[str, Bool[np.ndarray, "*row"]]


@dataclass(frozen=True)
class TuneConfig:
    """The static part of fine-tuning. steps: of the whole run. batch_size: sequences a step. optimizer, schedule,
    warmup_steps, decay_fraction: as in `train.TrainConfig`. lora: None for full fine-tuning."""

    steps: int = 1000
    batch_size: int = 16
    optimizer: str = "adamw"
    schedule: str = "linear"
    warmup_steps: int = 0
    decay_fraction: float = 1.0
    lora: lora.LoraConfig | None = lora.LoraConfig()

    def __post_init__(self):
        optimizers.check(self, "tune", ("adam", "adamw"))


class TuneHParams(NamedTuple):
    """The numbers of an arm, which may be traced: seed of initialisation, data and dropout; the optimiser's numbers;
    and masks, path -> whether each block's row (or a leaf outside the blocks) is trained, see `arm_masks`."""

    seed: Int[Array, ""]
    optimizer: optimizers.OptimizerNumbers
    masks: Mapping[str, Bool[Array, "*row"]]


class Tuning(NamedTuple):
    """with_tuned(base, tuned, hparams) -> parameters that any model runs with, as tuned, without dropout.

    merged(base, tuned, hparams) -> the same as plain parameters, for export.
    """

    with_tuned: Callable[[PyTree, PyTree, TuneHParams], PyTree]
    merged: Callable[[PyTree, PyTree, TuneHParams], PyTree]


@dataclass(frozen=True, eq=False)
class Shared:
    """What all arms share: the base's parameters, and whatever the objective draws its batches from.

    Two are equal where they are the same object, so that an experiment that holds one can be hashed.
    """

    base: PyTree
    data: Any


@dataclass(frozen=True)
class Tuned(Experiment):
    """Fine-tuning as an experiment, of which every arm is a run with `TuneHParams` as its numbers. What is trained are
    the arm's tuned arrays; the model runs with them placed into the base. Nothing is measured on the way.

    objective(params, data, seed, step) -> the loss of a step's batch.
    """

    model: Decoder
    train: TuneConfig
    objective: Callable[[PyTree, Any, Array, Array], Float[Array, ""]]
    shared: Shared | None = None
    measuring: MeasureConfig = MeasureConfig((), steps=(0,), hidden_count=0)

    ROW_STEPS: ClassVar[int] = 20

    def data(self) -> dict[str, PyTree]:
        return {"base": self.shared.base, "data": self.shared.data}

    def init(self, numbers: TuneHParams, data) -> PyTree:
        if self.train.lora is None:
            # Trained in float32, whatever the base is kept in.
            return {path: at(data["base"], path).astype(jnp.float32) for path in numbers.masks}
        key = jax.random.fold_in(jax.random.key(numbers.seed), 2)
        adapters = lora.init(self.train.lora, self.model, data["base"], key)
        return {path: adapters[path] for path in numbers.masks}

    def batch(self, numbers: TuneHParams, data, step):
        """What the objective draws the batch from."""
        return data["data"], numbers.seed, step

    def loss(self, params: PyTree, batch):
        loss = self.objective(params, *batch)
        return loss, {"train_loss": loss}

    def model_params(self, params: PyTree, numbers: TuneHParams, data, step) -> PyTree:
        """The base with the tuned arrays; with the dropout of a step, if one is given."""
        if self.train.lora is None:
            return chosen_leaves(data["base"], params, numbers.masks)
        key = None if step is None else jax.random.fold_in(jax.random.fold_in(jax.random.key(numbers.seed), 3), step)
        return lora.attach(data["base"], params, _scales(self.train, numbers), key, self.train.lora.dropout)

    def held_out(self, numbers, data) -> dict:
        return {}

    def measure(self, params, held_out) -> dict:
        return {}


def arm_masks(config: TuneConfig, model: Decoder, params: PyTree, patterns: freezing.Patterns) -> Masks:
    """What an arm trains: with LoRA {"blocks/q": [L]}, true where a target's kernel is; else every leaf's mask.

    Raises ValueError as `freezing.masks` and `lora.target_paths` do, and with LoRA for patterns that train a parameter
    outside the blocks, or parameters of the blocks but no target.
    """
    found = freezing.masks(patterns, params)
    if config.lora is None:
        return found
    targets = lora.target_paths(model, config.lora.targets)
    if outside := [path for path, mask in found.items() if not path.startswith("blocks/") and mask]:
        raise ValueError(f"LoRA adapts projections of the blocks, but a pattern trains {outside[0]}; freeze it")
    adapted = {path: found[f"{path}/kernel"] for path in targets}
    if freezing.trained_blocks(found) != freezing.trained_blocks(adapted):
        blocks = sorted(set(freezing.trained_blocks(found)) - set(freezing.trained_blocks(adapted)))
        raise ValueError(f"the patterns train block {blocks[0]}, but none of LoRA's targets ({', '.join(targets)})")
    return adapted


def stack_arms(arms: list[TuneHParams]) -> TuneHParams:
    """The arms' numbers with a leading axis; a leaf that no arm trains is left out of the masks."""
    trained = [path for path in arms[0].masks if any(np.any(arm.masks[path]) for arm in arms)]
    arms = [arm._replace(masks={path: arm.masks[path] for path in trained}) for arm in arms]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *arms)


def make_tuning(config: TuneConfig, model: Decoder) -> Tuning:
    """What is done with tuned arrays after training."""
    tuned_of = Tuned(model, config, None)

    def with_tuned(base, tuned, hparams):
        return tuned_of.model_params(tuned, hparams, {"base": base}, None)

    def merged(base, tuned, hparams):
        if config.lora is not None:
            return lora.merge(base, tuned, _scales(config, hparams))
        return chosen_leaves(base, tuned, hparams.masks)

    return Tuning(with_tuned, merged)


def _scales(config: TuneConfig, hparams: TuneHParams):
    return {path: jnp.asarray(mask, jnp.float32) * config.lora.scale for path, mask in hparams.masks.items()}


def chosen_leaves(base: PyTree, tuned: Mapping[str, Array], masks: Mapping[str, Array]) -> PyTree:
    """The base with the tuned leaves in its type where they are trained; other leaves are the base's own arrays."""

    def choose(keys, leaf):
        path = "/".join(key.key for key in keys)
        if path not in tuned:
            return leaf
        mask = jnp.reshape(masks[path], jnp.shape(masks[path]) + (1,) * (leaf.ndim - jnp.ndim(masks[path])))
        return jnp.where(mask, tuned[path].astype(leaf.dtype), leaf)

    return jax.tree_util.tree_map_with_path(choose, base)


def at(params: PyTree, path: str) -> Array:
    """The leaf at a path such as "blocks/q/kernel"."""
    for key in path.split("/"):
        params = params[key]
    return params
