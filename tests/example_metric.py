"""A metric of one's own: how often a point is nearest to the mean of its own concept; docs/adding_a_metric.md."""

import jax
import jax.numpy as jnp

from jaxconcepts.experiments import evaluators
from jaxconcepts.training.experiment import Named


def nearest_mean(hidden, concepts, num_concepts):
    """hidden [..., N, d], concepts [N] from 0 -> [...]: the fraction of points whose nearest mean is their concept's.

    A point is left out of its own concept's mean.
    """
    member = jax.nn.one_hot(concepts, num_concepts)
    sums = jnp.einsum("nk,...nd->...kd", member, hidden)
    others = sums[..., None, :, :] - member[:, :, None] * hidden[..., None, :]
    means = others / jnp.maximum(member.sum(0) - member, 1)[..., None]
    distances = jnp.square(hidden[..., None, :] - means).sum(-1)
    return (distances.argmin(-1) == concepts).mean(-1, dtype=jnp.float32)


def nearest_means(states, outputs, held_out):
    """The evaluator: `nearest_mean` at every token and layer, of each concept."""
    measured = {}
    for name, concept in held_out.concepts.items():
        scores = nearest_mean(states[name], concept.labels, concept.classes)
        measured[evaluators.metric("nearest_mean", name)] = Named(
            scores, ("token", "layer"), "fraction", chance=1 / concept.classes, names=(("token", concept.tokens),)
        )
    return measured
