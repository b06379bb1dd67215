"""What the task looks like at a training step: numbers that move over training, nothing that changes a shape.

Garg et al. (2022) start with few dimensions and few pairs and add some at intervals. A third schedule draws the
concepts unequally often, in turn: equal concepts form a symmetric mixture in which small models stay for thousands of
steps at the solution that ignores the concept (ridge), while unequal ones split off one after another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxconcepts.fields import FieldError, field
from jaxconcepts.tasks.regression import RegressionHParams

SPAN = 1e30
"""How often one concept may come for once of another."""


class Curriculum(NamedTuple):
    """Numbers, each of which may be traced. The defaults leave the task as it is at every step.

    dim_start, dim_increment, dim_interval: the first `dim_start` dimensions of x are drawn at step 0, `dim_increment`
        more every `dim_interval` steps, up to the task's own `active_dim` (0: all from the start).
    pairs_start, pairs_increment, pairs_interval: likewise for the pairs that carry loss.
    concept_ratio, concept_steps: concept k is drawn `concept_ratio` ** (-k * tilt) times as often as concept 0, on top
        of the task's own weights. The tilt falls from 1 at step 0 to -1 at two thirds of `concept_steps`, so that the
        last concepts get their turn too, and returns to 0, the task's own weights, at `concept_steps`.
    """

    dim_start: Float[Array, ""] | float = 0.0
    dim_increment: Float[Array, ""] | float = 1.0
    dim_interval: Float[Array, ""] | float = 2000.0
    pairs_start: Float[Array, ""] | float = 0.0
    pairs_increment: Float[Array, ""] | float = 2.0
    pairs_interval: Float[Array, ""] | float = 2000.0
    concept_ratio: Float[Array, ""] | float = 1.0
    concept_steps: Float[Array, ""] | float = 1.0


@dataclass(frozen=True)
class CurriculumFields:
    """`Curriculum` as a config has it."""

    dim_start: float = field(0.0, "dimensions of x at step 0; 0 for all dimensions from the start", low=0)
    dim_increment: float = field(1.0, "dimensions that each interval adds", low=0)
    dim_interval: float = field(2000.0, "steps in such an interval", above=0)
    pairs_start: float = field(0.0, "pairs that carry loss at step 0; 0 for all pairs from the start", low=0)
    pairs_increment: float = field(2.0, "pairs that each interval adds", low=0)
    pairs_interval: float = field(2000.0, "steps in such an interval", above=0)
    concept_ratio: float = field(1.0, "how many times as frequent each concept is as the next, at first", above=0)
    concept_steps: float = field(1.0, "steps after which the frequencies follow task.concept_weights", above=0)


def check_ratio(ratio: float, num_concepts: int) -> None:
    """Raises FieldError where the first and the last concept's frequencies are too far apart for float32."""
    most = SPAN ** (1 / max(1, num_concepts - 1))
    if not 1 / most <= ratio <= most:
        raise FieldError(
            "curriculum.concept_ratio", f"must be from {1 / most:.3g} to {most:.3g} with {num_concepts} concepts, of "
            f"which the last comes concept_ratio ** {num_concepts - 1} times for once of the first, got {ratio!r}",
        )  # fmt: skip


def at_step(curriculum: Curriculum, task: RegressionHParams, step) -> RegressionHParams:
    """The task's numbers at `step` (0-based)."""
    c = curriculum
    step = jnp.asarray(step, jnp.float32)

    def grown(start, increment, interval, final):
        size = start + increment * jnp.floor(step / interval)
        return jnp.where(jnp.asarray(start) > 0, jnp.minimum(size, final), final)

    tilt = jnp.interp(step / c.concept_steps, jnp.array([0.0, 2 / 3, 1.0]), jnp.array([1.0, -1.0, 0.0]))
    order = jnp.arange(task.concept_weights.shape[0], dtype=jnp.float32)
    return task._replace(
        concept_weights=task.concept_weights * jnp.exp(-order * tilt * jnp.log(c.concept_ratio)),
        active_dim=grown(c.dim_start, c.dim_increment, c.dim_interval, task.active_dim),
        active_pairs=grown(c.pairs_start, c.pairs_increment, c.pairs_interval, task.active_pairs),
    )
