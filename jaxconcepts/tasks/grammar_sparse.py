"""The charts of many known strings at once, on the host: `grammar_chart` in float64, keeping the spans that exist.

Few spans of a string are the yield of any symbol, so that sparse matrices are far smaller than the square ones that a
device needs. The strings' nodes stand one after the other; every matrix is block diagonal, a block a string.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from scipy import sparse

from jaxconcepts.tasks.grammar_moments import tilts
from jaxconcepts.tasks.grammar_tables import Grammar

# Numbers that the rows of one level may hold while strings run together.
ROOM = 2**23


def groups(grammar: Grammar, lengths: np.ndarray, tags: int) -> Iterator[np.ndarray]:
    """Indices of strings that run together, where every node has `tags` numbers for each of a level's symbols."""
    most = max(grammar.terminals, *map(len, grammar.levels))
    nodes = max(ROOM // (tags * most), 1)
    ends = np.cumsum(lengths + 1)
    cut = np.unique(ends // nodes, return_index=True)[1][1:]
    yield from np.split(np.arange(len(lengths)), cut)


class Charts:
    """The strings tokens[n, :lengths[n]], to ask for exact quantities. prefix: [N], how many leading tokens may be any.

    Each method returns arrays over the N strings, `width` + 1 nodes or `width` positions; they are 0 past the end of a
    string. `grammar_exact` describes the quantities.
    """

    def __init__(self, grammar: Grammar, tokens: np.ndarray, lengths: np.ndarray, prefix: np.ndarray):
        self.grammar, self.lengths, (self.count, self.width) = grammar, lengths, tokens.shape
        self.string = np.repeat(np.arange(len(lengths)), lengths + 1)
        self.first = np.cumsum(lengths + 1) - lengths - 1
        self.position = np.arange(len(self.string)) - self.first[self.string]
        # Nodes with a token behind them, and that token.
        self.steps = np.flatnonzero(self.position < lengths[self.string])
        self.tokens = tokens[self.string[self.steps], self.position[self.steps]]
        self.free = self.position[self.steps] < prefix[self.string[self.steps]]
        table = tilts(grammar)
        self.tilt = table[np.clip(lengths, 0, len(table) - 1)]

    def log_probability(self) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(self._at_end(self._complete(self._matrices))) - self.lengths * np.log(self.tilt)

    def membership(self) -> np.ndarray:
        return self._at_end(self._complete(self._spans("membership"), weighted=False)) > 0

    def completes(self) -> np.ndarray:
        return self._at_end(self._complete(self._spans("membership", free=True), weighted=False)) > 0

    def parses(self) -> np.ndarray:
        return self._at_end(self._complete(self._spans("parses"), weighted=False))

    def next_token(self) -> np.ndarray:
        expected = [row[:, 0] for row in self._expectations[-1]]
        weights = np.stack([*expected, self._complete(self._matrices)], 1)
        return self._placed(_shares(weights), np.arange(len(self.string)), self.width + 1)

    def ancestors(self, depth: int) -> np.ndarray:
        return self._readings((depth,))[0]

    def all_ancestors(self) -> tuple[np.ndarray, ...]:
        return tuple(self._readings(tuple(range(len(self.grammar.levels)))))

    def boundaries(self) -> np.ndarray:
        ends = [self._complete(self._matrices)]
        for rows, matrices in list(zip(self._expectations, self._matrices, strict=True))[1:-1]:
            ends.append(sum(matrix.T @ row[:, 0] for row, matrix in zip(rows, matrices, strict=True)))
        prefixes = self._seen([row[:, 0] for row in self._expectations[-1]])
        ends = np.stack(ends, 1)[self.steps + 1]
        shares = np.divide(ends, prefixes[:, None], out=np.zeros_like(ends), where=prefixes[:, None] > 0)
        return self._placed(shares, self.steps, self.width).swapaxes(1, 2)

    def inside(self, depth: int) -> np.ndarray:
        nodes = self.width + 1
        out = np.full((self.count, len(self.grammar.levels[depth]), nodes, nodes), -np.inf)
        for symbol, matrix in enumerate(self._spans("weights", top=depth)[depth]):
            spans = matrix.tocoo()
            string, start, stop = self.string[spans.row], self.position[spans.row], self.position[spans.col]
            out[string, symbol, start, stop] = np.log(spans.data) - (stop - start) * np.log(self.tilt[string])
        return out

    @cached_property
    def _matrices(self):
        return self._spans("weights")

    @cached_property
    def _expectations(self):
        """v of every level, and of the terminals last: [nodes, 1] for each symbol."""
        rows = [[self._start()]]
        for depth in range(len(self.grammar.levels)):
            rows.append(self._fall(depth, rows[-1], self._matrices))
        return rows

    def _spans(self, mode, free=False, top=1):
        """M of every symbol, level by level from `top` on, and of the terminals last; None above."""
        size, levels = len(self.string), len(self.grammar.levels)
        weights = self.tilt[self.string] if mode == "weights" else np.ones(size)
        lowest = []
        for terminal in range(1, self.grammar.terminals + 1):
            start = self.steps[(self.tokens == terminal) | (self.free & free)]
            lowest.append(sparse.csr_array((weights[start], (start, start + 1)), shape=(size, size)))
        matrices = [None] * levels + [lowest]
        for depth in reversed(range(top, levels)):
            matrices[depth] = self._rise(depth, matrices[depth + 1], mode)
        return matrices

    def _rise(self, depth, below, mode):
        products = {(child,): matrix for child, matrix in enumerate(below)}
        level = []
        for rights in self.grammar.rules[depth]:
            share = 1 / len(rights) if mode == "weights" else 1.0
            total = sum(share * _product(right, below, products) for right in rights)
            if mode == "membership":
                total.data = np.minimum(total.data, 1.0)
            level.append(total)
        return level

    def _fall(self, depth, rows, matrices):
        return self._walk(depth, rows, matrices[depth + 1], 1 / np.array(self._rule_counts(depth)))[0]

    def _complete(self, matrices, weighted=True):
        """M_root[0], the weight of every prefix as a whole string, at the prefix's last node."""
        share = 1 / np.array(self._rule_counts(0)) if weighted else np.ones(1)
        return self._walk(0, [self._start()], matrices[1], share)[1][:, 0]

    def _walk(self, depth, rows, below, share):
        """Reads the children of every rule: what is expected before each, and what is left after the last."""
        expected, finished = [np.zeros_like(rows[0]) for _ in below], np.zeros_like(rows[0])
        for row, rights, part in zip(rows, self.grammar.rules[depth], share, strict=True):
            for right in rights:
                current = part * row
                for child in right:
                    expected[child] += current
                    current = below[child].T @ current
                finished += current
        return expected, finished

    def _readings(self, depths):
        """For each level the posterior of its symbols. Rows are tagged by ancestor as in `grammar_chart.readings`."""
        rows, tags = [self._start()], [1]
        for depth in range(len(self.grammar.levels)):
            if depth in depths:
                each = np.eye(len(rows))
                rows = [np.hstack([row, row[:, :1] * own]) for row, own in zip(rows, each, strict=True)]
                tags.append(len(rows))
            rows = self._fall(depth, rows, self._matrices)
        parts = np.split(self._seen(rows), np.cumsum(tags)[:-1], 1)[1:]
        return [self._placed(_shares(part), self.steps, self.width) for part in parts]

    def _seen(self, rows):
        """What the terminals' rows say at each token about derivations that have this token there."""
        known = (self.tokens >= 1) & (self.tokens <= self.grammar.terminals)
        each = np.stack(rows)[np.where(known, self.tokens - 1, 0), self.steps]
        tilt = self.tilt[self.string[self.steps]] * known
        return each * tilt.reshape(-1, *(1,) * (each.ndim - 1))

    def _start(self):
        rows = np.zeros((len(self.string), 1))
        rows[self.first] = 1
        return rows

    def _at_end(self, values):
        return values[self.first + self.lengths]

    def _placed(self, values, nodes, width):
        out = np.zeros((self.count, width, *values.shape[1:]))
        out[self.string[nodes], self.position[nodes]] = values
        return out

    def _rule_counts(self, depth):
        return [len(rights) for rights in self.grammar.rules[depth]]


def _product(right, below, products):
    """The product of a rule's children; those of its beginnings are kept for the level's other rules."""
    if right not in products:
        products[right] = _product(right[:-1], below, products) @ below[right[-1]]
    return products[right]


def _shares(weights):
    totals = weights.sum(-1, keepdims=True)
    return np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)
