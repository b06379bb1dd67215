"""Training windows of a grammar's strings: begin, string, end, begin, string, end, ... cut every `window` tokens.

Every batch of windows is a pure function of its key, so that it depends on no packing, sharding or resumption.
Attention crosses documents, as in arXiv 2512.17351; a window may begin and end inside a string. What holds from a
string's begin only (the Bayes-optimal readings) must be measured on whole strings.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from jaxconcepts.tasks import grammar, grammar_moments
from jaxconcepts.tasks.grammar_tables import BEGIN, Grammar

# Standard deviations of the summed lengths that are held in reserve: fewer strings than needed come once in 10^9.
RESERVE = 6.0


class Windows(NamedTuple):
    """Windows cut from one joined stream, row after row.

    tokens: [B, W]. strings: [B, W], which string of the draw a position belongs to (the group of its points).
    offsets: [B, W], the position in the string: 0 at its first terminal, -1 at the begin token, its length at the end.
    terminal: [B, W], whether the token is a terminal, which alone has labels.
    ancestors, indices, boundaries: [B, levels, W], as in `grammar.Strings`; -1, -1 and False where not terminal.
    """

    tokens: Int[Array, "B W"]
    strings: Int[Array, "B W"]
    offsets: Int[Array, "B W"]
    terminal: Bool[Array, "B W"]
    ancestors: Int[Array, "B levels W"]
    indices: Int[Array, "B levels W"]
    boundaries: Bool[Array, "B levels W"]


def strings_for(of: Grammar, tokens: int) -> int:
    """How many strings are drawn to fill a stream of `tokens` tokens, with a reserve of `RESERVE` deviations."""
    mean, deviation = grammar_moments.mean_length(of) + 2, grammar_moments.length_deviation(of)
    # The root of count * mean - RESERVE * deviation * sqrt(count) = tokens.
    root = (RESERVE * deviation + math.sqrt((RESERVE * deviation) ** 2 + 4 * mean * tokens)) / (2 * mean)
    return min(math.ceil(root**2), math.ceil(tokens / (of.min_length + 2)))


def windows(of: Grammar, key: Key[Array, ""], batch: int, window: int, noise: grammar.Noise | None = None) -> Windows:
    """`batch` windows of `window` tokens (static ints), cut row after row from strings that are drawn from the key.

    Should the strings not suffice, which happens once in 10^9 draws, the stream goes on with the first one again.
    Raises ValueError for a batch or window that is not positive, and as `grammar.sample`.
    """
    for name, value in (("batch", batch), ("window", window)):
        if value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value}")
    strings = grammar.sample(of, key, strings_for(of, batch * window), noise)
    return _join(of, strings, batch, window)


@partial(jax.jit, static_argnums=(0, 2, 3))
def _join(of, strings, batch, window):
    ends = jnp.cumsum(strings.lengths + 2)
    position = jnp.arange(batch * window) % ends[-1]
    string = jnp.searchsorted(ends, position, side="right")
    length = strings.lengths[string]
    offset = position - (ends[string] - length - 2) - 1
    terminal = (offset >= 0) & (offset < length)
    column = jnp.clip(offset, 0, strings.tokens.shape[1] - 1)
    special = jnp.where(offset < 0, BEGIN, of.end)

    def labels(values, default):
        taken = jnp.where(terminal[:, None], values[string, :, column], default)
        return jnp.moveaxis(taken.reshape(batch, window, -1), -1, 1)

    rows = (jnp.where(terminal, strings.tokens[string, column], special), string, offset, terminal)
    return Windows(
        *(row.reshape(batch, window) for row in rows),
        labels(strings.ancestors, -1),
        labels(strings.indices, -1),
        labels(strings.boundaries, False),
    )
