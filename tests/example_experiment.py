"""Copying with a hidden shift: each sequence is a1 b1 a2 b2 ..., b = a + shift modulo the vocabulary, sometimes wrong.

An experiment of one's own in one file, which touches none of the package's; docs/adding_a_task.md goes through it.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxconcepts.experiments.tokens import TokenExperiment, Tokens
from jaxconcepts.fields import check, field
from jaxconcepts.training.experiment import Concept, Named


@dataclass(frozen=True)
class CopyingTask:
    vocab_size: int = field(16, "tokens", low=2)
    shifts: int = field(4, "different shifts, of which every sequence has one", low=2)
    pairs: int = field(8, "pairs a sequence", low=1)
    noise: float = field(0.0, "how often a b is any token", low=0, high=1)
    skew: float = field(0.0, "how much more often the first shift comes than the last, in nats", low=0)

    length = property(lambda self: 2 * self.pairs)
    __post_init__ = check


def guesses_shift(states, outputs, held_out):
    """An evaluator of our own: how often the last answer's most likely token is a + shift, whatever the noise."""
    tokens, shift = held_out.batch.tokens, held_out.concepts["shift"].labels
    right = outputs[:, -2].argmax(-1) == (tokens[:, -2] + 1 + shift) % outputs.shape[-1]
    return {"guesses_shift": Named(right.mean(dtype=jnp.float32), unit="fraction", chance=1 / outputs.shape[-1])}


@dataclass(frozen=True)
class Copying(TokenExperiment):
    TASK = CopyingTask
    NUMBERS = ("noise", "skew")
    EVALUATORS = {"guesses_shift": guesses_shift}
    DEFAULTS = {"measure.metrics": ("loss", "cd", "guesses_shift"), "measure.per_concept": 256}

    def sample(self, task, data, key, count):
        shift_key, first_key, wrong_key, noise_key = jax.random.split(key, 4)
        size, pairs = self.task.vocab_size, (count, self.task.pairs)
        odds = -task["skew"] * jnp.linspace(0, 1, self.task.shifts)
        shift = jax.random.categorical(shift_key, odds, shape=(count,))
        first = jax.random.randint(first_key, pairs, 0, size)
        wrong = jax.random.bernoulli(noise_key, task["noise"], pairs)
        second = jnp.where(wrong, jax.random.randint(wrong_key, pairs, 0, size), (first + 1 + shift[:, None]) % size)
        tokens = jnp.stack([first, second], axis=2).reshape(count, -1)
        return Tokens(tokens, jnp.tile(jnp.array([0.0, 1.0]), pairs), labels={"shift": shift})

    def concepts(self, batch):
        last = jnp.array([batch.tokens.shape[1] - 2])
        return {"shift": Concept(batch.labels["shift"], self.task.shifts, ("query",), last)}
