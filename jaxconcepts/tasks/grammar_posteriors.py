"""What is asked of the chart of one string: probabilities and posteriors, normalized and cut at the string's end.

Everything is for one string of static width, is traced, and is batched by vmap.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxconcepts.tasks import grammar_chart
from jaxconcepts.tasks.grammar_moments import tilts
from jaxconcepts.tasks.grammar_tables import Grammar


class Chart(NamedTuple):
    """One string: tokens [L], which are 0 past its `length`; prefix: how many leading tokens may be anything."""

    grammar: Grammar
    tokens: jax.Array
    length: jax.Array
    prefix: jax.Array

    @classmethod
    def of(cls, grammar, tokens, length, prefix):
        """The chart of a string whose tokens past the end may be anything."""
        return cls(grammar, jnp.where(jnp.arange(len(tokens)) < length, tokens, 0), length, prefix)

    def log_probability(self):
        matrices, tilt = self._spans()
        weight = grammar_chart.root_row(self.grammar, matrices, "weights")[self.length]
        return jnp.log(weight) - self.length * jnp.log(tilt)

    def membership(self):
        matrices = grammar_chart.spans(self.grammar, self.tokens, mode="membership", top=1)
        return grammar_chart.root_row(self.grammar, matrices, "membership")[self.length] > 0

    def completes(self):
        position = jnp.arange(len(self.tokens))
        free = (position < self.prefix) & (position < self.length)
        matrices = grammar_chart.spans(self.grammar, self.tokens, mode="membership", free=free, top=1)
        return grammar_chart.root_row(self.grammar, matrices, "membership")[self.length] > 0

    def parses(self):
        matrices = grammar_chart.spans(self.grammar, self.tokens, mode="parses", top=1)
        return grammar_chart.root_row(self.grammar, matrices, "parses")[self.length]

    def next_token(self):
        matrices, _ = self._spans()
        expected = grammar_chart.expectations(self.grammar, matrices)[-1]
        end = grammar_chart.root_row(self.grammar, matrices, "weights")
        weights = jnp.concatenate([expected, end[None]]).T
        return self._normalized(weights, jnp.sum(weights, -1, keepdims=True))

    def ancestors(self, depth):
        return self._ancestors((depth,))[0]

    def all_ancestors(self):
        return tuple(self._ancestors(tuple(range(len(self.grammar.levels)))))

    def boundaries(self):
        matrices, _ = self._spans()
        rows = grammar_chart.expectations(self.grammar, matrices)
        lower = [grammar_chart.endings(matrices, rows, depth) for depth in range(1, len(self.grammar.levels))]
        ends = jnp.stack([grammar_chart.root_row(self.grammar, matrices, "weights")[1:], *lower])
        return self._normalized(ends.T, grammar_chart.prefixes(matrices, rows)[:, None]).T

    def inside(self, depth):
        matrices, tilt = self._spans(top=depth)
        nodes = jnp.arange(len(self.tokens) + 1)
        return jnp.log(matrices[depth]) - (nodes - nodes[:, None]) * jnp.log(tilt)

    def _ancestors(self, depths):
        weights = grammar_chart.readings(self.grammar, self._spans()[0], depths)
        return [self._normalized(level, jnp.sum(level, -1, keepdims=True)) for level in weights]

    def _normalized(self, weights, totals):
        """Rows of weights over their totals; 0 past the end, and where no string of the language has the prefix."""
        rows = jnp.arange(len(weights))[:, None]
        last = self.length + (len(weights) > len(self.tokens))
        known = (totals > 0) & (rows < last)
        return jnp.where(known, weights / jnp.where(known, totals, 1.0), 0.0)

    def _spans(self, top=1):
        table = jnp.asarray(tilts(self.grammar), jnp.float32)
        tilt = table[jnp.clip(self.length, 0, len(table) - 1)]
        return grammar_chart.spans(self.grammar, self.tokens, tilt, mode="weights", top=top), tilt
