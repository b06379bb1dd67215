"""Whole strings of a grammar that models are measured on, and what is true of them, made once on the host.

Attention of a trained model crosses strings, so what holds from a string's begin is measured on rows that begin with
one. Exact answers are in float64 there (`tasks.grammar_exact`).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxconcepts.experiments import grammar_spans
from jaxconcepts.tasks import grammar, grammar_exact
from jaxconcepts.tasks.grammar_tables import BEGIN, Grammar

SEED = 20241215
"""Of everything that is held out: all runs of a grammar are measured on the same strings."""
ROUNDS = 50
"""How often strings are drawn until enough of them fit."""
ASKED = 256
"""Strings by which a grammar is judged ambiguous."""


def width_of(of: Grammar, window: int) -> int:
    """The longest string that is held out: the grammar's longest, or what a window holds with its begin and end."""
    return min(of.max_length, window - 2)


def make(
    of: Grammar, count: int, window: int, *, points: int, prefix: int, corruption: float, unambiguous: bool = False,
    mask_rate: float | None = None, metrics: Collection[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """`count` strings and their exact answers, as NumPy arrays; T = `width_of`, W = T + 2, M points of reading.

    rows: [N, W], begin, string, end, and after it what a model that looks back alone does not see (0). With a
        `mask_rate`, W is the window, filled with the strings that follow. lengths: [N].
    next_token: [N, T + 1, terminals + 1], see `grammar_exact.next_token`. fitting: the token that came there, as a
        column of it, [N, T + 1].
    points: [M], at most `points` of the positions [N * W] that hold terminals of the strings, without replacement;
    group, offset: [M], the string of each and where in it. ancestors, ends: [M] by level, the label (the symbol's
        index; 1 where a symbol ends). Levels of one symbol have no ancestors to tell apart.
    ceiling, ends_ceiling: by level, how often the best reading of the prefix is right at these points; 1 for
        ancestors under a `mask_rate`, since the whole string is then seen.
    prefixes, corrupted: [N, prefix], the strings' first tokens, and the same with each changed with probability
        `corruption`.
    trees: by level, `grammar_spans.trees`. spans, boundaries: for "span" and "patch" among the `metrics`, see
        `grammar_spans`; boundaries are those of the uppermost level.
    loss_mask: [N, W], 1 at the strings and their ends, or where a token is masked. masked: [N, W], None without a rate.

    Raises ValueError where too few strings fit.
    """
    strings = _draw(of, count, width_of(of, window), unambiguous)
    rows = _rows(of, strings, strings.tokens.shape[1] + 2 if mask_rate is None else window, mask_rate is not None)
    random = np.random.default_rng(SEED)
    inside = np.zeros(rows.shape, bool)
    inside[:, 1 : strings.tokens.shape[1] + 1] = strings.tokens > 0
    places = np.sort(random.permutation(np.flatnonzero(inside))[:points])
    string, offset = places // rows.shape[1], places % rows.shape[1] - 1
    levels = [row for row, symbols in enumerate(of.levels) if len(symbols) > 1]
    names = [of.level_names[row] for row in levels]
    exact = (strings.tokens, strings.lengths)
    readings = [np.asarray(table)[string, offset] for table in grammar_exact.all_ancestors(of, *exact)]
    endings = np.asarray(grammar_exact.boundaries(of, *exact))[string, :, offset]
    ancestors = {name: strings.ancestors[string, row, offset] for name, row in zip(names, levels, strict=True)}
    ends = {name: strings.boundaries[string, row, offset] for name, row in zip(names, levels, strict=True)}
    ceilings = [np.mean(readings[row].argmax(-1) == strings.ancestors[string, row, offset]) for row in levels]
    ends_ceilings = [np.mean((endings[:, row] > 0.5) == strings.boundaries[string, row, offset]) for row in levels]
    if mask_rate is not None:
        ceilings = ends_ceilings = [1.0] * len(levels)
    prefixes = strings.tokens[:, :prefix]
    corrupted = grammar.flip_tokens(of, jax.random.key(SEED + 1), prefixes, corruption)
    made = {
        "rows": rows, "lengths": strings.lengths, "points": places, "group": string, "offset": offset,
        "next_token": np.asarray(grammar_exact.next_token(of, *exact)),
        "fitting": np.where(np.arange(strings.tokens.shape[1] + 1) < strings.lengths[:, None],
                            np.pad(strings.tokens, ((0, 0), (0, 1))) - 1, of.terminals),
        "ancestors": ancestors, "ends": {name: labels.astype(np.int32) for name, labels in ends.items()},
        "ceiling": dict(zip(names, map(np.float32, ceilings), strict=True)),
        "ends_ceiling": dict(zip(names, map(np.float32, ends_ceilings), strict=True)),
        "prefixes": prefixes, "corrupted": np.asarray(corrupted), "masked": None,
        "trees": {name: grammar_spans.trees(strings, row) for name, row in zip(names, levels, strict=True)},
        "loss_mask": (np.arange(rows.shape[1]) <= strings.lengths[:, None] + 1).astype(np.float32),
    }  # fmt: skip
    if mask_rate is not None:
        hidden = random.random(rows.shape) < mask_rate
        made |= {"loss_mask": hidden.astype(np.float32), "masked": np.where(hidden, of.mask, rows)}
    every = list(made["trees"].values())
    if "span" in metrics:
        made["spans"] = {name: grammar_spans.spans(tree, random) for name, tree in made["trees"].items()}
    if "patch" in metrics:
        made["boundaries"] = grammar_spans.boundaries(*exact, every[0], every[1] if every[1:] else None, random)
    return jax.tree.map(lambda a: a.astype(np.int32) if a.dtype == np.int64 else a, made)


@lru_cache(maxsize=32)
def check_labels(of: Grammar, unambiguous: bool) -> None:
    """Raises ValueError where strings of the grammar have several trees, so that ancestors are not defined by them,
    unless these are left out (`unambiguous`)."""
    if unambiguous:
        return
    strings = grammar.sample(of, jax.random.key(SEED), ASKED)
    share = float(np.mean(np.asarray(grammar_exact.parses(of, strings.tokens, strings.lengths)) > 1))
    if share:
        raise ValueError(
            f"task.mask_ambiguous must be True to read ancestors of {of.name}, of whose strings {share:.0%} have "
            "several trees; such strings are then left out of what is held out"
        )


def _draw(of, count, longest, unambiguous) -> grammar.Strings:
    """The first `count` strings that are at most `longest` long, and have one tree where that is asked for."""
    kept: list[grammar.Strings] = []
    for number in range(ROUNDS):
        drawn = grammar.sample(of, jax.random.fold_in(jax.random.key(SEED), number), 2 * count)
        fits = np.asarray(drawn.lengths) <= longest
        if unambiguous:
            fits &= np.asarray(grammar_exact.parses(of, drawn.tokens, drawn.lengths)) == 1
        kept.append(jax.tree.map(lambda a, fits=fits: np.asarray(a)[fits], drawn))
        if sum(len(part.tokens) for part in kept) >= count:
            strings = jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *kept)
            return grammar.Strings(
                strings.tokens[:, :longest], strings.lengths,
                *(labels[..., :longest] for labels in (strings.ancestors, strings.indices, strings.boundaries)),
                strings.perturbed,
            )  # fmt: skip
    kind = "with one tree" if unambiguous else f"of at most {longest} tokens (task.window less begin and end)"
    raise ValueError(
        f"measure.per_concept = {count} strings {kind} are needed of {of.name}; {2 * count * ROUNDS} draws gave "
        f"{sum(len(part.tokens) for part in kept)}"
    )


def _rows(of, strings, width, filled) -> Int[np.ndarray, "N W"]:
    whole = [np.r_[BEGIN, row[:length], of.end] for row, length in zip(strings.tokens, strings.lengths, strict=True)]
    shortest = min(map(len, whole))
    following = -(-width // shortest) if filled else 1
    rows = np.zeros((len(whole), width), np.int32)
    for number, first in enumerate(whole):
        others = [whole[(number + step) % len(whole)] for step in range(1, following)]
        rows[number] = np.concatenate([first, *others, np.zeros(width, int)])[:width]
    return rows
