"""Which spans and boundaries of the held-out strings are asked about, picked once on the host.

A question is matched with a false one that differs in what is asked alone: a span with one of the same length whose end
is the end of the same symbol, a boundary with a position of the same token.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxconcepts.tasks.grammar import Strings

PAIRS = 1000
"""Spans of each level, at most, half of them false."""


def trees(strings: Strings, level: int) -> dict[str, Any]:
    """What holds at every position of the strings at a level (a row of the labels), each [N, T]: symbol, the ancestor;
    index, which of the level's symbols it is; end, whether it ends there. -1, -1 and False outside."""
    parts = {"symbol": strings.ancestors, "index": strings.indices, "end": strings.boundaries}
    return {name: np.asarray(values)[:, level] for name, values in parts.items()}


def spans(tree: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    """Pairs of positions, [P] each: string, first, last, and label, whether a symbol of the level spans them.

    To every true span there is a false one of the same length that ends where the same symbol ends, in any string; true
    ones without are left out. Half of the labels are 1. Raises ValueError where there is no such span at all.
    """
    string, last = np.nonzero(tree["end"])
    same_string = np.r_[False, string[1:] == string[:-1]]
    first = np.where(same_string, np.r_[0, last[:-1] + 1], 0)
    symbol, length = tree["symbol"][string, last], last - first + 1
    picked = []
    for one in random.permutation(len(string)):
        fits = (symbol == symbol[one]) & (length != length[one]) & (last - length[one] + 1 >= 0)
        if fits.any() and len(picked) < PAIRS:
            other = random.choice(np.flatnonzero(fits))
            picked.append((string[one], first[one], last[one], 1))
            picked.append((string[other], last[other] - length[one] + 1, last[other], 0))
    if not picked:
        raise ValueError("measure.metrics: span needs a symbol of two lengths, and the held-out strings have none")
    return dict(zip(("string", "first", "last", "label"), np.array(picked, np.int32).T, strict=True))


def boundaries(tokens, lengths, upper: dict, below: dict | None, random: np.random.Generator) -> dict[str, Any]:
    """Ends of symbols of the level `upper`, one a string where there is one, and what may stand in for them, [Q] each:
    string, place; alike_string, alike_place, another end of the same symbol; other_string, other_place, a place where
    no symbol of the level ends, though one of the level `below` does. All three have the same token, and a token after.

    Raises ValueError where no string has all three.
    """
    before_last = np.arange(tokens.shape[1]) < np.asarray(lengths)[:, None] - 1
    ends = upper["end"] & before_last
    others = (before_last if below is None else below["end"] & before_last) & ~upper["end"]
    picked = []
    for string in range(len(tokens)):
        for place in random.permutation(np.flatnonzero(ends[string])):
            token = tokens == tokens[string, place]
            alike = ends & token & (upper["symbol"] == upper["symbol"][string, place])
            alike[string, place] = False
            if alike.any() and (others & token).any():
                stand_ins = (random.choice(np.argwhere(mask)) for mask in (alike, others & token))
                picked.append((string, place, *np.concatenate(list(stand_ins))))
                break
    if not picked:
        raise ValueError("measure.metrics: patch needs an end and a position that is none with the same token")
    names = ("string", "place", "alike_string", "alike_place", "other_string", "other_place")
    return dict(zip(names, np.array(picked, np.int32).T, strict=True))
