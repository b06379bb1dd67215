"""Directions to steer along: differences of means, random controls of the same length, and a scale."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxconcepts.interventions import patching
from jaxconcepts.models.residual import Edits


def concept_means(
    states: Float[Array, "layers N *rest"], concepts: Int[Array, " N"], num_concepts: int
) -> Float[Array, "layers K *rest"]:
    """The mean hidden state of each concept's points, layer by layer; NaN for a concept without points."""
    member = jax.nn.one_hot(concepts, num_concepts, axis=0)
    sums = jnp.einsum("kn,ln...->lk...", member, states, precision=jax.lax.Precision.HIGHEST)
    return sums / member.sum(1).reshape(1, num_concepts, *[1] * (states.ndim - 2))


def random_like(key, directions: Float[Array, "*any d"]) -> Float[Array, "*any d"]:
    """Random directions, uniform on the sphere, each as long as the direction in its place."""
    drawn = jax.random.normal(key, directions.shape)
    length = jnp.linalg.norm(directions, axis=-1, keepdims=True)
    return drawn / jnp.linalg.norm(drawn, axis=-1, keepdims=True) * length


def steer(
    place: Bool[Array, "layers B T"], direction: Float[Array, "*layers d"], scale: float | Float[Array, ""] = 1.0
) -> Edits:
    """scale * direction added at the place. direction: [d], or [L + 1, d], each layer's own. scale may be traced."""
    direction = jnp.asarray(direction)
    direction = direction[None] if direction.ndim == 1 else direction
    return patching.add(place, scale * direction[:, None, None, :])
