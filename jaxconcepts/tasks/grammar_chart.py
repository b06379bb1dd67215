"""The chart of one string: weights of all spans (upward), and of all unfinished derivations (downward).

Nodes 0 to L lie between the tokens of a string x of length L. M_a[i, j] is the weight with which symbol a yields
x_i .. x_{j-1}: M_t[i, i+1] = c where x_i = t, and M_a = sum over rules a -> xyz of p M_x M_y M_z. The tilt c cancels
in every posterior; with c = 2^(bits a token) the weights of long strings stay in float32's range.
Downward, v_a[i] is the weight of all derivations that have read x_0 .. x_{i-1} and expect symbol a at node i.
Rows of v may carry a tag, the ancestor on some level, which makes the readings of that level.
Everything here is for one string, is traced, and is batched by vmap.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxconcepts.tasks.grammar_tables import Grammar

# Rows of a matrix that are multiplied together; a symbol's yields are short, so most columns are known to be zero.
BLOCK = 64
HIGHEST = lax.Precision.HIGHEST

Expected = Float[Array, "symbols nodes"]
Matrices = Float[Array, "_ nodes nodes"]


class Stage(NamedTuple):
    """The products of m symbols that a level's rules need.

    left, right: [products], product i being product left[i] of stage m - 1 times symbol right[i].
    rules: [symbols, products], 1 where a rule of the symbol is exactly this product.
    """

    left: np.ndarray
    right: np.ndarray
    rules: np.ndarray


class Step(NamedTuple):
    """Child m of all rules that have one: the rule's row in step m - 1, its symbol (step 0), and the child.

    rules: [rules], rows of the previous step (of the symbols in step 0). children: [rules].
    together: [children, most], rows of this step by child, filled up with row 0. column: [rules], where each row is.
    """

    rules: np.ndarray
    children: np.ndarray
    together: np.ndarray
    column: np.ndarray


def spans(
    grammar: Grammar, tokens: Int[Array, " L"], tilt: Float[Array, ""] | float = 1.0, *, mode: str, free=None, top=0
) -> list[Matrices | None]:
    """M of every level from `top` on, and of the terminals last; entries above `top` are None.

    mode: "weights" for probabilities, "parses" for numbers of derivations, "membership" for 1 where there is one.
    free: [L] bool, positions where every terminal fits.
    """
    length = len(tokens)
    fits = tokens == jnp.arange(1, grammar.terminals + 1)[:, None]
    fits = fits if free is None else fits | free
    nodes = jnp.arange(length)
    lowest = jnp.zeros((grammar.terminals, length + 1, length + 1)).at[:, nodes, nodes + 1].set(fits * tilt)
    matrices = [None] * len(grammar.levels) + [lowest]
    reach = 1
    for depth in reversed(range(top, len(grammar.levels))):
        total = _rise(grammar, depth, matrices[depth + 1], reach, weighted=mode == "weights")
        matrices[depth] = jnp.minimum(total, 1.0) if mode == "membership" else total
        reach = max(grammar.max_lengths[depth])
    return matrices


def root_row(grammar: Grammar, matrices: list[Matrices | None], mode: str) -> Float[Array, " nodes"]:
    """M_root[0], the weight of every prefix as a whole string, from the matrices of the levels below the root."""
    return _complete(grammar, 0, _start(matrices), matrices[1], weighted=mode == "weights")[0, 0]


def expectations(grammar: Grammar, matrices: list[Matrices | None]) -> list[Expected]:
    """v of every level, and of the terminals last."""
    rows = [_start(matrices)]
    for depth in range(len(grammar.levels)):
        rows.append(_fall(grammar, depth, rows[-1], matrices[depth + 1]))
    return [row[0] for row in rows]


def readings(
    grammar: Grammar, matrices: list[Matrices | None], depths: tuple[int, ...]
) -> list[Float[Array, "positions _"]]:
    """For each of some levels the weight, given the prefix up to and with each position, of every ancestor there.

    The rows of each level asked for join on the way down: row 0 has all derivations, the others those of one ancestor.
    """
    rows, tags = _start(matrices), [1]
    for depth in range(len(grammar.levels)):
        if depth in depths:
            each = jnp.eye(rows.shape[1])[:, :, None] * rows[0]
            rows = jnp.concatenate([rows, each])
            tags.append(rows.shape[1])
        rows = _fall(grammar, depth, rows, matrices[depth + 1])
    weights = jnp.einsum("atn,tn->na", rows[..., :-1], _superdiagonal(matrices[-1]), precision=HIGHEST)
    return jnp.split(weights, np.cumsum(tags)[:-1], 1)[1:]


def endings(
    matrices: list[Matrices | None], rows: list[Float[Array, "symbols nodes"]], depth: int
) -> Float[Array, " positions"]:
    """The weight, given the prefix up to and with each position, of a symbol of the level ending there."""
    return jnp.einsum("si,sij->j", rows[depth], matrices[depth], precision=HIGHEST)[1:]


def prefixes(matrices: list[Matrices | None], rows: list[Expected]) -> Float[Array, " positions"]:
    """The weight of the prefix up to and with each position."""
    return jnp.sum(rows[-1][:, :-1] * _superdiagonal(matrices[-1]), 0)


def _superdiagonal(matrices):
    return jnp.diagonal(matrices, 1, -2, -1)


def _start(matrices):
    return jnp.zeros((1, 1, matrices[-1].shape[-1])).at[0, 0, 0].set(1.0)


def _rise(grammar, depth, below, reach, weighted):
    """M of a level from that of the next one, whose yields are at most `reach` long.

    Row blocks are made one after the other: a block of M_x M_y M_z needs that block of M_x alone. Entries below the
    diagonal and more than a yield above it are zero, so a block's products are narrow.
    """
    stages, nodes = _stages(grammar, depth), below.shape[-1]
    block = min(BLOCK, nodes)
    widths = [min(nodes, block + reach * (number + 1)) for number in range(len(stages))]
    shares = [_shares(grammar, depth, stage.rules, weighted) for stage in stages]

    def add_block(number, matrices):
        # The last block begins early where the blocks do not fill the matrix: its first rows are made twice.
        start = jnp.minimum(number * block, nodes - block)
        firsts = [jnp.minimum(start, nodes - width) for width in widths]
        rows = lax.dynamic_slice(below, (0, start, firsts[0]), (len(below), block, widths[0]))
        product = rows[stages[0].right]
        parts = [_combine(shares[0], product)]
        for stage, share, first, last, height, width in zip(
            stages[1:], shares[1:], firsts, firsts[1:], widths, widths[1:], strict=False
        ):
            factor = lax.dynamic_slice(below, (0, first, last), (len(below), height, width))
            product = jnp.matmul(product[stage.left], factor[stage.right], precision=HIGHEST)
            parts.append(_combine(share, product))
        strip = jnp.zeros((len(matrices), block, nodes), below.dtype)
        for part, first in zip(parts, firsts, strict=True):
            if part is not None:
                old = lax.dynamic_slice(strip, (0, 0, first), part.shape)
                strip = lax.dynamic_update_slice(strip, old + part, (0, 0, first))
        return lax.dynamic_update_slice(matrices, strip, (0, start, 0))

    empty = jnp.zeros((len(grammar.rules[depth]), nodes, nodes), below.dtype)
    return lax.fori_loop(0, -(-nodes // block), add_block, empty)


def _combine(share, products):
    return jnp.tensordot(share, products, 1, precision=HIGHEST) if np.any(share) else None


def _fall(grammar, depth, rows, below):
    """v of the next level from that of this one."""
    return sum(_walk(grammar, depth, rows, below, weighted=True)[0])


def _complete(grammar, depth, rows, below, weighted):
    """The rows [tags, symbols, nodes] after each symbol has been read to its end."""
    return sum(_walk(grammar, depth, rows, below, weighted)[1])


def _walk(grammar, depth, rows, below, weighted):
    """Reads the children of every rule from left to right: what is expected before each, and what is left after it."""
    symbols, steps = len(grammar.rules[depth]), _steps(grammar, depth)
    share = 1 / np.array([len(rights) for rights in grammar.rules[depth]]) if weighted else np.ones(symbols)
    owner = steps[0].rules
    current = rows[:, owner] * jnp.asarray(share[owner], rows.dtype)[:, None]
    expected, finished = [], []
    for number, step in enumerate(steps):
        if number:
            current, owner = current[:, step.rules], owner[step.rules]
        expected.append(_add_up(current, step.children, below.shape[0]))
        # The rules of one child together, so that no matrix is copied.
        current = jnp.einsum("tski,sij->tskj", current[:, step.together], below, precision=HIGHEST)
        current = current[:, step.children, step.column]
        following = steps[number + 1].rules if number + 1 < len(steps) else np.zeros(0, int)
        ended = np.setdiff1d(np.arange(len(step.children)), following)
        finished.append(_add_up(current[:, ended], owner[ended], symbols))
    return expected, finished


def _add_up(rows, targets, count):
    onto = jnp.asarray(targets == np.arange(count)[:, None], rows.dtype)
    return jnp.einsum("sr,trn->tsn", onto, rows, precision=HIGHEST)


def _shares(grammar, depth, rules, weighted):
    counts = np.array([len(rights) for rights in grammar.rules[depth]])
    return (rules / counts[:, None] if weighted else rules).astype(np.float32)


@lru_cache(maxsize=256)
def _stages(grammar: Grammar, depth: int) -> tuple[Stage, ...]:
    level = grammar.rules[depth]
    longest = max(len(right) for rights in level for right in rights)
    stages, previous = [], []
    for size in range(1, longest + 1):
        heads = sorted({right[:size] for rights in level for right in rights if len(right) >= size})
        left = np.array([previous.index(head[:-1]) if size > 1 else 0 for head in heads])
        rules = np.array([[float(head in rights) for head in heads] for rights in level])
        stages.append(Stage(left, np.array([head[-1] for head in heads]), rules))
        previous = heads
    return tuple(stages)


@lru_cache(maxsize=256)
def _steps(grammar: Grammar, depth: int) -> tuple[Step, ...]:
    count = len(grammar.levels[depth + 1]) if depth + 1 < len(grammar.levels) else grammar.terminals
    alive = [(symbol, right) for symbol, rights in enumerate(grammar.rules[depth]) for right in rights]
    steps, rows = [], [symbol for symbol, _ in alive]
    while alive:
        number = len(steps)
        children = np.array([right[number] for _, right in alive])
        steps.append(Step(np.array(rows), children, *_by_child(children, count)))
        rows = [row for row, (_, right) in enumerate(alive) if len(right) > number + 1]
        alive = [alive[row] for row in rows]
    return tuple(steps)


def _by_child(children, count):
    most = max(np.bincount(children))
    together, column = np.zeros((count, most), int), np.zeros(len(children), int)
    for child in range(count):
        rows = np.flatnonzero(children == child)
        together[child, : len(rows)], column[rows] = rows, np.arange(len(rows))
    return together, column
