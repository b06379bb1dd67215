"""Strings of a layered grammar, drawn on the device level by level, with the tree's labels at every position.

`load` reads a grammar, `sample` draws whole strings; `grammar_stream.windows` joins strings into training windows, and
`grammar_exact` has what can be said about a string exactly. Noise is that of arXiv 2305.13673: strings that are
perturbed and not corrected.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxconcepts.tasks.grammar_tables import SHIPPED, Grammar, load

__all__ = ["NOISES", "SHIPPED", "Grammar", "Noise", "Strings", "flip_tokens", "load", "sample"]

NOISES = ("token", "symbol", "next_symbol")


@partial(jax.tree_util.register_dataclass, data_fields=["share", "rate"], meta_fields=["kind"])
@dataclass(frozen=True)
class Noise:
    """How strings are perturbed; `share` and `rate` may be traced, `kind` is static.

    share: the probability that a string is one of the perturbed.
    rate: in a perturbed string, the probability that one symbol changes.
    kind: "token": a terminal becomes another terminal, all others being equally likely. "symbol": a nonterminal that a
        rule has just put there becomes another one of its level, likewise. "next_symbol": it becomes the next one of
        its level, the last becoming the first.

    Raises ValueError for another kind and, where the values are known, for a share or rate outside [0, 1].
    """

    share: float | Float[Array, ""] = 0.0
    rate: float | Float[Array, ""] = 0.15
    kind: str = "token"

    def __post_init__(self):
        if self.kind not in NOISES:
            raise ValueError(f"noise.kind must be one of {', '.join(NOISES)}, got {self.kind!r}")
        for name in ("share", "rate"):
            value = getattr(self, name)
            if isinstance(value, (int, float, np.floating)) and not 0 <= value <= 1:
                raise ValueError(f"noise.{name} is a probability and must be in [0, 1], got {value!r}")


class Strings(NamedTuple):
    """Whole strings, T being the longest that the grammar has.

    tokens: [N, T], terminals from 1; 0 past a string's end. lengths: [N].
    ancestors: [N, levels, T], which symbol of each level a position comes from, as an index into the level's symbols.
    indices: [N, levels, T], the how-manieth symbol of its level that is, from 0 at the left.
    boundaries: [N, levels, T], whether the level's symbol ends at this position.
    perturbed: [N], whether noise was at work. Labels are those of the tree that was drawn: noise on nonterminals is in
        it, noise on tokens is not.
    Past a string's end ancestors and indices are -1 and boundaries False.
    """

    tokens: Int[Array, "N T"]
    lengths: Int[Array, " N"]
    ancestors: Int[Array, "N levels T"]
    indices: Int[Array, "N levels T"]
    boundaries: Bool[Array, "N levels T"]
    perturbed: Bool[Array, " N"]


def sample(grammar: Grammar, key: Key[Array, ""], count: int, noise: Noise | None = None) -> Strings:
    """Draws `count` strings (a static int) from a PRNG key; string i depends on the key and i alone.

    Raises ValueError for a count that is not positive, and for token noise on a grammar with one terminal.
    """
    if count < 1:
        raise ValueError(f"count must be a positive integer, got {count}")
    if noise is not None and noise.kind == "token" and grammar.terminals < 2:
        raise ValueError(f"token noise needs at least two terminals; {grammar.name} has {grammar.terminals}")
    return _sample(grammar, key, count, noise)


def flip_tokens(
    grammar: Grammar,
    key: Key[Array, ""],
    tokens: Int[Array, "*batch T"],
    rate: float | Float[Array, ""] = 0.15,
    until: int | None = None,
) -> Int[Array, "*batch T"]:
    """Tokens in which each terminal of the first `until` positions became another terminal with probability `rate`.

    until: None for all positions. Padding and tokens that are not terminals stay.
    Raises ValueError for a rate outside [0, 1] (where it is known) and for a grammar with one terminal.
    """
    Noise(1.0, rate)
    if grammar.terminals < 2:
        raise ValueError(f"a token can only change with at least two terminals; {grammar.name} has one")
    tokens = jnp.asarray(tokens)
    change_key, shift_key = jax.random.split(key)
    change = jax.random.bernoulli(change_key, rate, tokens.shape) & (tokens >= 1) & (tokens <= grammar.terminals)
    if until is not None:
        change &= jnp.arange(tokens.shape[-1]) < until
    return _shift(shift_key, tokens - 1, change, grammar.terminals) + 1


@partial(jax.jit, static_argnames=("grammar", "count"))
def _sample(grammar, key, count, noise):
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))
    return jax.vmap(lambda key: _draw(grammar, key, noise))(keys)


def _draw(grammar, key, noise):
    """One string, without a batch axis."""
    noise_key, share_key, key = jax.random.split(key, 3)
    perturbed = jnp.asarray(False) if noise is None else jax.random.bernoulli(share_key, noise.share)
    symbols, parents, current, length = [], [], jnp.zeros(1, jnp.int32), jnp.asarray(1)
    for depth, width in enumerate(level_widths(grammar)[1:]):
        symbols.append(current)
        current, parent, length = _rewrite(grammar, depth, jax.random.fold_in(key, depth), current, length, width)
        last = depth == len(grammar.levels) - 1
        if noise is not None and last == (noise.kind == "token"):
            amount = grammar.terminals if last else len(grammar.levels[depth + 1])
            level_key, shift_key = jax.random.split(jax.random.fold_in(noise_key, depth))
            change = jax.random.bernoulli(level_key, noise.rate, current.shape) & perturbed
            current = _shift(shift_key, current, change, amount, by_one=noise.kind == "next_symbol")
        parents.append(parent)
    return _labelled(symbols, parents, current, length, perturbed)


def _rewrite(grammar, depth, key, symbols, length, width):
    """The children of a level's first `length` symbols, padded to `width`; the parent of each; and how many."""
    rights = [right for rights in grammar.rules[depth] for right in rights]
    counts = np.array([len(rights) for rights in grammar.rules[depth]])
    firsts = np.cumsum(counts) - counts
    most = max(map(len, rights))
    children = np.array([right + (0,) * (most - len(right)) for right in rights], np.int32)
    sizes = np.array([len(right) for right in rights], np.int32)

    uniform = jax.random.uniform(key, symbols.shape)
    offset = jnp.floor(uniform * jnp.asarray(counts)[symbols]).astype(jnp.int32)
    rule = jnp.asarray(firsts)[symbols] + offset
    size = jnp.where(jnp.arange(len(symbols)) < length, jnp.asarray(sizes)[rule], 0)
    starts = jnp.cumsum(size) - size
    within = jnp.arange(most)
    # Children that a shorter rule does not have go past the end, where a scatter drops them.
    targets = jnp.where(within < size[:, None], starts[:, None] + within, width)
    empty = jnp.zeros(width, jnp.int32)
    parent = empty.at[targets].set(jnp.arange(len(symbols), dtype=jnp.int32)[:, None], mode="drop")
    return empty.at[targets].set(jnp.asarray(children)[rule], mode="drop"), parent, jnp.sum(size)


def _labelled(symbols, parents, terminals, length, perturbed):
    inside = jnp.arange(len(terminals)) < length
    owner, ancestors, indices = jnp.arange(len(terminals)), [], []
    for level, parent in zip(reversed(symbols), reversed(parents), strict=True):
        owner = parent[owner]
        indices.append(owner)
        ancestors.append(level[owner])
    ancestors, indices = (jnp.where(inside, jnp.stack(rows[::-1]), -1) for rows in (ancestors, indices))
    following = jnp.pad(indices[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    boundaries = inside & (indices != following)
    return Strings(jnp.where(inside, terminals + 1, 0), length, ancestors, indices, boundaries, perturbed)


def _shift(key, codes, change, amount, by_one=False):
    """Codes below `amount`, those in `change` moved to another one: the next, or any with equal probability."""
    step = 1 if by_one else jax.random.randint(key, codes.shape, 1, max(amount, 2))
    return jnp.where(change, (codes + step) % amount, codes)


def level_widths(grammar: Grammar) -> tuple[int, ...]:
    """The most symbols that a tree can have on each level, and the most terminals last."""
    widths = [1]
    for depth in range(len(grammar.levels)):
        most = [1] * (len(grammar.levels[depth + 1]) if depth + 1 < len(grammar.levels) else grammar.terminals)
        for rules in reversed(grammar.rules[: depth + 1]):
            most = [max(sum(most[child] for child in right) for right in rights) for rights in rules]
        widths.append(most[0])
    return tuple(widths)
