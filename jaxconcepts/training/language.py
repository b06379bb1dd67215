"""Training a language model from its first weights, on the answers in prompts: `init(hparams)` and `chunk(...)`, pure.

The same steps as in `train`, of another model and another loss: a step's batch comes from the run's seed and the step
alone, and a run whose loss is not finite is marked and frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from jaxconcepts.models import residual, sharding
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.training import optimizers
from jaxconcepts.training.answer_loss import answer_loss, batch_of_step
from jaxconcepts.training.train import TrainState, advance, first_state, init_key, repeated


@dataclass(frozen=True)
class LanguageTrainConfig:
    """The static part. steps: of the whole run. batch_size: prompts a step. optimizer, schedule, warmup_steps,
    decay_fraction: as in `train.TrainConfig`."""

    steps: int = 1000
    batch_size: int = 32
    optimizer: str = "muon"
    schedule: str = "linear"
    warmup_steps: int = 0
    decay_fraction: float = 1.0

    def __post_init__(self):
        optimizers.check(self, "train")


class LanguageHParams(NamedTuple):
    """The numbers of a run, which may be traced."""

    seed: Int[Array, ""]
    optimizer: optimizers.OptimizerNumbers


class LanguageTrain(NamedTuple):
    """init(hparams) -> TrainState. chunk(state, hparams, data, steps, since=0) -> (TrainState, mean loss), where data
    are `answer_loss.Examples`; see `train.repeated`."""

    init: Callable[[LanguageHParams], TrainState]
    chunk: Callable[..., tuple[TrainState, Float[Array, ""]]]


def make_train(model: Decoder, train: LanguageTrainConfig, data_axis: str | None = None) -> LanguageTrain:
    """The training of `model`. data_axis: the mesh axis that a batch is sharded over, if any."""

    def init(hparams):
        return first_state(fan_in_init(model, init_key(hparams.seed)), optimizers.make(train, hparams.optimizer))

    def step(state, hparams, data):
        batch = batch_of_step(data, train.batch_size, hparams.seed, state.step)
        if data_axis:
            shard = lambda a: jax.lax.with_sharding_constraint(a, PartitionSpec(data_axis))  # noqa: E731
            batch = jax.tree.map(shard, batch)
        unroll = residual.unrolls() or 1
        loss_of = lambda params: answer_loss(model, params, batch, unroll=unroll)  # noqa: E731
        loss, grads = jax.value_and_grad(loss_of)(state.params)
        return advance(state, optimizers.make(train, hparams.optimizer), loss, grads)

    return LanguageTrain(init, repeated(step))


def fan_in_init(model: Decoder, key) -> PyTree:
    """Random parameters whose matrices have deviation 1 / sqrt(inputs), those that write to the stream of each of L
    blocks 1 / sqrt(2 L inputs) (as GPT-2 scales them); tables and norms as `Decoder.init` has them.

    A small model learns far sooner from these than from 0.02 everywhere.
    """
    params = model.init(key)

    def rescale(path, leaf):
        if path[-1].key != "kernel":
            return leaf
        writes = model.role(f"blocks/{sharding.path_of(path)}").writes
        return leaf / 0.02 * leaf.shape[-2] ** -0.5 * ((2 * model.layers) ** -0.5 if writes else 1.0)

    return params | {"blocks": jax.tree_util.tree_map_with_path(rescale, params["blocks"])}
