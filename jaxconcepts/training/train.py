"""One training run as pure functions: `make_train(experiment)` gives `init(numbers, data)` and `chunk(state, ...)`.

Everything that changes the program is in the experiment; everything that is a number is in its numbers. The data of a
step come from fold_in(run key, step), so a run's stream never depends on how it was packed, sharded or resumed.
Evaluation, checkpoints and preemption live between chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from jaxconcepts.fields import field
from jaxconcepts.training import optimizers
from jaxconcepts.training.experiment import Experiment


@dataclass(frozen=True)
class TrainConfig:
    """The static part of training.

    steps: of the whole run (the schedule's length). batch_size: sequences a step.
    optimizer: "adam", "adamw" or "muon". schedule: "constant", "cosine" or "linear", see `optimizers.schedule`, with
        warmup_steps and decay_fraction.
    """

    steps: int = field(80_000, "number of steps, which is also the length of the schedule", low=1, high=1_000_000_000)
    batch_size: int = field(128, "sequences in a batch", low=1, high=1_000_000)
    optimizer: str = field("adam", "optimiser", choices=optimizers.OPTIMIZERS)
    schedule: str = field("constant", "schedule of the learning rate after warm-up", choices=optimizers.SCHEDULES)
    warmup_steps: int = field(0, "steps of linear warm-up", low=0)
    decay_fraction: float = field(
        1.0, "share of the steps, at the end, in which the learning rate falls", above=0, high=1
    )

    def __post_init__(self):
        optimizers.check(self, "train")


class TrainState(NamedTuple):
    """What a run carries from step to step. diverged_at: the step whose loss or update was not finite, or -1.
    loss_sum: of what is reported ([], or [m] where that is m numbers) over the steps that the next reported mean
    covers, so that the mean does not depend on where chunks end."""

    params: PyTree
    opt_state: PyTree
    step: Int[Array, ""]
    diverged_at: Int[Array, ""]
    loss_sum: Float[Array, "*m"]


class Train(NamedTuple):
    """init(numbers, data) -> TrainState. chunk(state, numbers, data, steps, since=0) -> (TrainState, means of what is
    reported, by name), see `repeated`."""

    init: Callable[[Any, PyTree], TrainState]
    chunk: Callable[..., tuple[TrainState, dict[str, Float[Array, ""]]]]


def make_train(experiment: Experiment, data_axis: str | None = None) -> Train:
    """The training of an experiment. data_axis: the mesh axis that a batch is sharded over, if any."""
    names = tuple(experiment.REPORTED)

    def init(numbers, data) -> TrainState:
        params = experiment.init(numbers, data)
        return first_state(params, experiment.rule(numbers), len(names))

    def step(state: TrainState, numbers, data) -> TrainState:
        batch = experiment.batch(numbers, data, state.step)
        if data_axis:
            batch = jax.tree.map(lambda a: _shard_batch(a, experiment.train.batch_size, data_axis), batch)

        def objective(params):
            return experiment.loss(experiment.model_params(params, numbers, data, state.step), batch)

        (_, reported), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        return advance(state, experiment.rule(numbers), _packed(names, reported), grads)

    chunk = repeated(step)

    def named_chunk(state, numbers, data, steps, since=0):
        state, means = chunk(state, numbers, data, steps, since=since)
        return state, {name: means if len(names) == 1 else means[i] for i, name in enumerate(names)}

    return Train(init, named_chunk)


def repeated(step: Callable[..., TrainState]) -> Callable[..., tuple[TrainState, Array]]:
    """chunk(state, *arguments, steps, since=0) -> (state, means): `step(state, *arguments)`, `steps` times.

    The means are those of these steps and of the `since` steps before them, whose chunks' means are then partial ones.
    A stretch of steps gives the same bits, its means' included, in whatever chunks it is run. Both numbers may be
    traced: one compilation serves chunks of every length.
    """

    def chunk(state, *arguments_and_steps, since=0):
        *arguments, steps = arguments_and_steps
        state = state._replace(loss_sum=jnp.where(since == 0, 0.0, state.loss_sum))
        # A loop with a traced length, not a scan: nothing differentiates through it, and every length shares a program.
        state = jax.lax.fori_loop(0, steps, lambda _, state: step(state, *arguments), state)
        return state, state.loss_sum / (since + steps)

    return chunk


def first_state(params: PyTree, rule: optax.GradientTransformation, reported: int = 1) -> TrainState:
    """The state before the first step, of a run that reports so many numbers."""
    zero = jnp.zeros((), jnp.int32)
    return TrainState(params, rule.init(params), zero, zero - 1, jnp.zeros(() if reported == 1 else reported))


def advance(state: TrainState, rule: optax.GradientTransformation, loss, grads: PyTree) -> TrainState:
    """The state after the step with this loss (or these reported numbers, the loss first) and these gradients.

    A run whose loss or update is not finite is marked with the step and keeps its parameters from there on.
    """
    updates, opt_state = rule.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    first = loss if jnp.ndim(loss) == 0 else loss[0]
    healthy = jnp.isfinite(first) & jnp.isfinite(optax.tree.norm(updates)) & (state.diverged_at < 0)
    keep = lambda new, old: jnp.where(healthy, new, old)  # noqa: E731
    params, opt_state = jax.tree.map(keep, (params, opt_state), (state.params, state.opt_state))
    failed_now = ~healthy & (state.diverged_at < 0)
    diverged_at = jnp.where(failed_now, state.step, state.diverged_at)
    return TrainState(params, opt_state, state.step + 1, diverged_at, state.loss_sum + loss)


def init_key(seed):
    """The PRNG key of a run's initial weights."""
    return jax.random.fold_in(jax.random.key(seed), 0)


def data_key(seed):
    """The PRNG key that a run's data stream is folded from, step by step."""
    return jax.random.fold_in(jax.random.key(seed), 1)


def _packed(names: tuple[str, ...], reported: Mapping[str, Array]) -> Array:
    if set(reported) != set(names):
        raise ValueError(f"loss must report {', '.join(names)} (REPORTED), got {', '.join(reported) or 'nothing'}")
    return reported[names[0]] if len(names) == 1 else jnp.stack([reported[name] for name in names])


def _shard_batch(array, batch_size, axis):
    if array.ndim and array.shape[0] == batch_size:
        return jax.lax.with_sharding_constraint(array, PartitionSpec(axis))
    return array
