"""Optimisers whose numbers are arrays, so that runs that differ only in numbers share one compilation.

Schedules have unit peak and are multiplied by the traced learning rate (optax schedules take no traced peak).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from jaxconcepts.fields import FieldError, field

OPTIMIZERS = ("adam", "adamw", "muon")
SCHEDULES = ("constant", "cosine", "linear")


class OptimizerNumbers(NamedTuple):
    """What may be traced. learning_rate: at the schedule's peak. clip_norm: of the whole gradient, inf for none."""

    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    b1: Float[Array, ""]
    b2: Float[Array, ""]
    eps: Float[Array, ""]
    clip_norm: Float[Array, ""]


def numbers(section: Mapping[str, Any]) -> OptimizerNumbers:
    """Those of a config's section, in float32."""
    return OptimizerNumbers(*(np.float32(section[name]) for name in OptimizerNumbers._fields))


@dataclass(frozen=True)
class OptimizerFields:
    """`OptimizerNumbers` as a config has them."""

    learning_rate: float = field(1e-4, "learning rate at the peak of the schedule", low=0)
    weight_decay: float = field(0.0, "weight decay of all parameters, with adamw and muon", low=0)
    b1: float = field(0.9, "decay rate of the first moment", low=0, below=1)
    b2: float = field(0.9999, "decay rate of the second moment", low=0, below=1)
    eps: float = field(1e-8, "epsilon, added to the root of the second moment", low=0)
    clip_norm: float = field(math.inf, "largest norm of the whole gradient; inf for no limit", above=0, infinite=True)


def check(config, section: str, optimizers: tuple[str, ...] = OPTIMIZERS) -> None:
    """Raises ValueError, naming the field of `section`, unless a training config's fields are what they must be: steps,
    batch_size, warmup_steps, optimizer, schedule and decay_fraction."""
    for name, least in (("steps", 1), ("batch_size", 1), ("warmup_steps", 0)):
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{section}.{name} must be an integer of at least {least}, got {value!r}")
    for name, accepted in (("optimizer", optimizers), ("schedule", SCHEDULES)):
        if getattr(config, name) not in accepted:
            raise ValueError(f"{section}.{name} must be one of {', '.join(accepted)}, got {getattr(config, name)!r}")
    if not 0 < config.decay_fraction <= 1:
        raise ValueError(f"{section}.decay_fraction must be in (0, 1], got {config.decay_fraction!r}")


def schedule(name: str, steps: int, warmup_steps: int, decay_fraction: float) -> optax.Schedule:
    """A unit-peak schedule: linear warm-up from 0, then the named course down to 0 over the last `decay_fraction`.

    "constant" never decays. "cosine" and "linear" hold 1 until (1 - decay_fraction) of the steps are done.
    """
    decay_steps = max(1, round(steps * decay_fraction))
    warmup_steps = min(warmup_steps, steps)
    hold_until = max(warmup_steps, steps - decay_steps)
    warmup = optax.linear_schedule(0.0, 1.0, max(1, warmup_steps))
    course = {
        "constant": optax.constant_schedule(1.0),
        "cosine": optax.cosine_decay_schedule(1.0, max(1, steps - hold_until)),
        "linear": optax.linear_schedule(1.0, 0.0, max(1, steps - hold_until)),
    }[name]
    hold = optax.constant_schedule(1.0)
    return optax.join_schedules([warmup, hold, course], [warmup_steps, hold_until])


def check_longer(config: Any, done: int) -> None:
    """Raises FieldError where the rate of one of the first `done` steps depends on how many there are to be."""
    steps, warmup = config.steps, config.warmup_steps
    if steps < warmup:
        raise FieldError("train.warmup_steps", f"must be at most the {steps} steps of the run so far, got {warmup}")
    fall = max(warmup, steps - max(1, round(steps * config.decay_fraction))) + 1
    if config.schedule != "constant" and done > fall:
        raise FieldError(
            "train.schedule",
            f"must be constant to extend a run of {steps} steps from step {done}: with {config.schedule} the learning "
            f"rate depends on train.steps from step {fall} on",
        )


def make(config: Any, numbers: OptimizerNumbers) -> optax.GradientTransformation:
    """The optimiser and schedule that a training config names; see `check` for its fields."""
    peak_schedule = schedule(config.schedule, config.steps, config.warmup_steps, config.decay_fraction)
    return optimizer(config.optimizer, peak_schedule, numbers)


def optimizer(name: str, peak_schedule: optax.Schedule, numbers: OptimizerNumbers) -> optax.GradientTransformation:
    """The named optimiser.

    "adam" has no weight decay; "adamw" decays every parameter. "muon" orthogonalises the updates of matrices (those of
    all blocks, batched over the layer axis, the position table, the read-in and the read-out) with momentum 0.95 and
    Adam's root mean square, and leaves the rest to AdamW with Nesterov momentum (Jordan et al. 2024; optax.contrib).
    """
    learning_rate, weight_decay, b1, b2, eps, clip_norm = numbers

    def rate(count):
        return peak_schedule(count) * learning_rate

    if name == "adam":
        rule = optax.adam(rate, b1=b1, b2=b2, eps=eps)
    elif name == "adamw":
        rule = optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
    else:
        rule = optax.contrib.muon(
            rate,
            eps=eps,
            weight_decay=weight_decay,
            adam_b1=b1,
            adam_b2=b2,
            adam_weight_decay=weight_decay,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_matrices,
        )
    return optax.chain(optax.clip_by_global_norm(clip_norm), rule)


def _matrices(params: PyTree) -> PyTree:
    """Which axes of which leaves are a matrix: stacked kernels keep their layer axis as a batch; None means Adam."""

    def axes(path, leaf):
        in_blocks = path[0].key == "blocks"
        if leaf.ndim == 2 + in_blocks:
            return optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)
        return None

    return jax.tree_util.tree_map_with_path(axes, params)
