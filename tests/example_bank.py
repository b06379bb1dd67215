"""A task whose sequences were made beforehand and are shared by all runs; docs/adding_a_task.md."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxconcepts.experiments.tokens import TokenExperiment, Tokens
from jaxconcepts.fields import check, field


@dataclass(frozen=True)
class BankTask:
    bank: str = field("bank.npy", "file of the sequences, [N, T]", low=1)
    vocab_size: int = field(16, "tokens", low=2)
    length: int = field(8, "tokens a sequence", low=2)

    __post_init__ = check


@dataclass(frozen=True)
class Bank(TokenExperiment):
    TASK = BankTask
    DEFAULTS = {"measure.metrics": ("loss", "accuracy")}

    def data(self):
        return {"tokens": np.load(self.task.bank)}  # [N, T]

    def sample(self, task, data, key, count):
        rows = jax.random.randint(key, (count,), 0, len(data["tokens"]))
        tokens = data["tokens"][rows]
        return Tokens(tokens, jnp.ones(tokens.shape))
