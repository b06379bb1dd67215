"""Fine-tuning restricted to layers: arms that differ in what is trained, in one program over one copy of the weights.

An *arm* says by masks which rows of the tuned arrays are trained. Its tuned arrays are LoRA adapters, or with full
fine-tuning copies of the trained leaves; everything else is the base, an argument of the program that no arm copies.
Frozen parameters stay as they are bit for bit by construction: they are never written. (Rows of the tuned arrays that
an arm does not train get no gradient, and whatever weight decay makes of them is not used.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxconcepts.models.decoder import Decoder
from jaxconcepts.training import freezing, lora, optimizers
from jaxconcepts.training.train import TrainState, advance, first_state, repeated

HOW = ("auto", "vmap", "map")
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
    """init(base, hparams) -> TrainState whose params are the arm's tuned arrays.

    chunk(state, hparams, base, data, steps, since=0) -> (TrainState, mean loss), see `train.repeated`.
    with_tuned(base, tuned, hparams) -> parameters that any model runs with, as tuned, without dropout.
    merged(base, tuned, hparams) -> the same as plain parameters, for export.
    """

    init: Callable[[PyTree, TuneHParams], TrainState]
    chunk: Callable[..., tuple[TrainState, Float[Array, ""]]]
    with_tuned: Callable[[PyTree, PyTree, TuneHParams], PyTree]
    merged: Callable[[PyTree, PyTree, TuneHParams], PyTree]


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


def make_tuning(
    config: TuneConfig, model: Decoder, objective: Callable[[PyTree, Any, Array, Array], Float[Array, ""]]
) -> Tuning:
    """The fine-tuning of one arm; see `over_arms` for several.

    objective(params, data, seed, step) -> the loss of a step's batch.
    """

    def scales(h: TuneHParams):
        return {path: jnp.asarray(mask, jnp.float32) * config.lora.scale for path, mask in h.masks.items()}

    def fresh(base, hparams):
        if config.lora is None:
            # Trained in float32, whatever the base is kept in.
            return {path: at(base, path).astype(jnp.float32) for path in hparams.masks}
        adapters = lora.init(config.lora, model, base, jax.random.fold_in(jax.random.key(hparams.seed), 2))
        return {path: adapters[path] for path in hparams.masks}

    def init(base, hparams):
        return first_state(fresh(base, hparams), optimizers.make(config, hparams.optimizer))

    def placed(base, tuned, hparams, key=None):
        if config.lora is not None:
            return lora.attach(base, tuned, scales(hparams), key, config.lora.dropout)
        return chosen_leaves(base, tuned, hparams.masks)

    def step(state, hparams, base, data):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(hparams.seed), 3), state.step)

        def loss_of(tuned):
            return objective(placed(base, tuned, hparams, key), data, hparams.seed, state.step)

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        return advance(state, optimizers.make(config, hparams.optimizer), loss, grads)

    def merged(base, tuned, hparams):
        if config.lora is not None:
            return lora.merge(base, tuned, scales(hparams))
        return chosen_leaves(base, tuned, hparams.masks)

    return Tuning(init, repeated(step), placed, merged)


def over_arms(function: Callable, how: str = "auto", mapped: int = 1) -> Callable:
    """`function` over a leading axis of its first `mapped` arguments, the others shared by all arms.

    how: "vmap" (arms side by side), "map" (one after another: less memory, the same bits as alone) or "auto", which is
    vmap on accelerators and map on a CPU. Either way there is one copy of the shared arguments.
    """
    if how not in HOW:
        raise ValueError(f"how must be one of {', '.join(HOW)}, got {how!r}")
    side_by_side = how == "vmap" or (how == "auto" and jax.default_backend() != "cpu")

    def everywhere(*args):
        own, shared = args[:mapped], args[mapped:]
        one = lambda arm: function(*arm, *shared)  # noqa: E731
        return jax.vmap(one)(own) if side_by_side else jax.lax.map(one, own)

    everywhere.__name__ = function.__name__  # What logs of compilations and profiles call it.
    return everywhere


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
