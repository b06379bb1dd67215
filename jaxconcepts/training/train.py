"""One training run as pure functions: `make_train(static)` gives `init(hparams)` and `chunk(state, hparams, steps)`.

Everything that changes the program is in `TrainConfig` and in the model's and task's configs; everything that is a
number is in `HParams`. The data of a step come from fold_in(run key, step), so a run's stream never depends on how it
was packed, sharded or resumed. Evaluation, checkpoints and preemption live between chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from jaxconcepts.models import gpt2
from jaxconcepts.tasks import curriculum, regression
from jaxconcepts.training import optimizers

LOSSES = ("mse", "log_mse")


@dataclass(frozen=True)
class TrainConfig:
    """The static part of training.

    steps: of the whole run (the schedule's length). batch_size: sequences a step.
    loss: what is minimised. "mse": the mean squared error over batch and positions, the paper's. "log_mse": the mean
        over positions of the logarithm of each position's mean squared error, the likelihood of Gaussian errors with a
        variance for each position: late positions, whose errors are small, count as much as early ones, which no model
        can predict. Reported losses are squared errors either way.
    optimizer: "adam", "adamw" or "muon". schedule: "constant", "cosine" or "linear", see `optimizers.schedule`, with
        warmup_steps and decay_fraction.
    """

    steps: int = 80_000
    batch_size: int = 128
    loss: str = "mse"
    optimizer: str = "adam"
    schedule: str = "constant"
    warmup_steps: int = 0
    decay_fraction: float = 1.0

    def __post_init__(self):
        optimizers.check(self, "train")
        if self.loss not in LOSSES:
            raise ValueError(f"train.loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")


class HParams(NamedTuple):
    """The numbers of a run, a pytree of arrays; every leaf may be traced and swept without compiling again."""

    seed: Int[Array, ""]
    optimizer: optimizers.OptimizerNumbers
    init: gpt2.InitScales
    task: regression.RegressionHParams
    curriculum: curriculum.Curriculum


class TrainState(NamedTuple):
    """What a run carries from step to step. diverged_at: the step whose loss or update was not finite, or -1.
    loss_sum: of the steps that the next reported mean covers, so that the mean does not depend on where chunks end."""

    params: PyTree
    opt_state: PyTree
    step: Int[Array, ""]
    diverged_at: Int[Array, ""]
    loss_sum: Float[Array, ""]


class Train(NamedTuple):
    """init(hparams) -> TrainState. chunk(state, hparams, steps, since=0) -> (TrainState, mean loss), see `repeated`."""

    init: Callable[[HParams], TrainState]
    chunk: Callable[..., tuple[TrainState, Float[Array, ""]]]


def make_train(
    task: regression.RegressionConfig, model: gpt2.GPT2Config, train: TrainConfig, data_axis: str | None = None
) -> Train:
    """The training of `model` on `task`. data_axis: the mesh axis that a batch is sharded over, if any."""

    def init(hparams: HParams) -> TrainState:
        params = gpt2.init(model, init_key(hparams.seed), hparams.init)
        return first_state(params, optimizers.make(train, hparams.optimizer))

    def step(state: TrainState, hparams: HParams) -> TrainState:
        key = jax.random.fold_in(data_key(hparams.seed), state.step)
        now = curriculum.at_step(hparams.curriculum, hparams.task, state.step)
        batch = regression.sample(task, now, key, train.batch_size)
        if data_axis:
            batch = jax.tree.map(lambda a: _shard_batch(a, train.batch_size, data_axis), batch)
        gradient = jax.value_and_grad(lambda p: objective_and_mse(model, train.loss, p, batch), has_aux=True)
        (_, loss), grads = gradient(state.params)
        return advance(state, optimizers.make(train, hparams.optimizer), loss, grads)

    return Train(init, repeated(step))


def repeated(step: Callable[..., TrainState]) -> Callable[..., tuple[TrainState, Array]]:
    """chunk(state, hparams, *data, steps, since=0) -> (state, mean loss): `step(state, hparams, *data)`, `steps` times.

    The mean is that of these steps and of the `since` steps before them, whose chunks' means are then partial ones. A
    stretch of steps gives the same bits, its mean's included, in whatever chunks it is run. Both numbers may be traced:
    one compilation serves chunks of every length.
    """

    def chunk(state, hparams, *data_and_steps, since=0):
        *data, steps = data_and_steps
        state = state._replace(loss_sum=jnp.where(since == 0, 0.0, state.loss_sum))
        # A loop with a traced length, not a scan: nothing differentiates through it, and every length shares a program.
        state = jax.lax.fori_loop(0, steps, lambda _, state: step(state, hparams, *data), state)
        return state, state.loss_sum / (since + steps)

    return chunk


def first_state(params: PyTree, rule: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    zero = jnp.zeros((), jnp.int32)
    return TrainState(params, rule.init(params), zero, zero - 1, jnp.zeros(()))


def advance(state: TrainState, rule: optax.GradientTransformation, loss, grads: PyTree) -> TrainState:
    """The state after the step with this loss and these gradients.

    A run whose loss or update is not finite is marked with the step and keeps its parameters from there on.
    """
    updates, opt_state = rule.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    healthy = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(updates)) & (state.diverged_at < 0)
    keep = lambda new, old: jnp.where(healthy, new, old)  # noqa: E731
    params, opt_state = jax.tree.map(keep, (params, opt_state), (state.params, state.opt_state))
    failed_now = ~healthy & (state.diverged_at < 0)
    diverged_at = jnp.where(failed_now, state.step, state.diverged_at)
    return TrainState(params, opt_state, state.step + 1, diverged_at, state.loss_sum + loss)


def mean_loss(model: gpt2.GPT2Config, params: PyTree, batch: regression.Batch) -> Float[Array, ""]:
    """Mean squared error over the batch and the pairs that carry loss, the zero-example one included."""
    return objective_and_mse(model, "mse", params, batch)[1]


def objective_and_mse(
    model: gpt2.GPT2Config, kind: str, params: PyTree, batch: regression.Batch
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """What the loss of this kind (one of `LOSSES`) minimises, and the mean squared error beside it."""
    errors = jnp.square(predictions(model, params, batch).out - batch.targets).mean(0)
    over_pairs = lambda values: (values * batch.pair_mask).sum() / batch.pair_mask.sum()  # noqa: E731
    mse = over_pairs(errors)
    return (over_pairs(jnp.log(errors + 1e-4)) if kind == "log_mse" else mse), mse


class Predictions(NamedTuple):
    """out: [B, n], the prediction of y_i read at the token of x_i. captured: [L + 1, B, P, d] or None."""

    out: Float[Array, "B n"]
    captured: Float[Array, "layers B P d"] | None


def predictions(model: gpt2.GPT2Config, params: PyTree, batch: regression.Batch, capture=None, edits=None):
    """The model's predictions for a batch; capture, edits as in `models.residual.run` (token 2i is x_i, 2i+1 y_i)."""
    output = gpt2.apply(model, params, regression.interleave(batch), capture=capture, edits=edits)
    return Predictions(output.out[:, ::2, 0], output.captured)


def init_key(seed):
    """The PRNG key of a run's initial weights."""
    return jax.random.fold_in(jax.random.key(seed), 0)


def data_key(seed):
    """The PRNG key that a run's data stream is folded from, step by step."""
    return jax.random.fold_in(jax.random.key(seed), 1)


def _shard_batch(array, batch_size, axis):
    if array.ndim and array.shape[0] == batch_size:
        return jax.lax.with_sharding_constraint(array, PartitionSpec(axis))
    return array
