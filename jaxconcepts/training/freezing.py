"""Which parameters are trained: a list of (regular expression, "train" or "freeze") that must cover every parameter.

A parameter of a block is named with its block's number, "blocks/3/q/kernel", though the blocks' parameters are stacked.
Blocks are counted from 1, as everywhere in the package: hidden state l comes out of block l. (Checkpoints of Hugging
Face and their adapters count from 0.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Bool, PyTree

CHOICES = ("train", "freeze")
EVERYTHING = r".*"

Patterns = Sequence[tuple[str, str]]


def masks(patterns: Patterns, params: PyTree) -> dict[str, Bool[np.ndarray, "*row"]]:
    """For every leaf, by path ("blocks/q/kernel", "embed"), whether it is trained: [blocks] if stacked, else [].

    patterns: the first one whose expression matches a parameter's whole name decides on it.
    params: the parameters or their shapes, those of the blocks stacked under "blocks".

    Raises ValueError naming a parameter that no pattern covers, a pattern that matches no parameter, and one that is
    not a pair of a regular expression and "train" or "freeze".
    """
    compiled = [_compiled(pattern) for pattern in patterns]
    used = [False] * len(compiled)
    found: dict[str, np.ndarray] = {}
    uncovered: list[str] = []
    for path, names in _names(params):
        chosen = np.zeros(len(names), bool)
        for index, name in enumerate(names):
            matching = [place for place, (expression, _) in enumerate(compiled) if expression.fullmatch(name)]
            for place in matching:
                used[place] = True
            if matching:
                chosen[index] = compiled[matching[0]][1]
            else:
                uncovered.append(name)
        found[path] = chosen if path.startswith("blocks/") else chosen[0]
    if uncovered:
        more = f" and {len(uncovered) - 4} more" if len(uncovered) > 4 else ""
        raise ValueError(
            f"every parameter must be covered by a pattern, and none matches {', '.join(uncovered[:4])}{more}; end the "
            f'list with ("{EVERYTHING}", "freeze") to freeze the rest'
        )
    if not all(used):
        idle = patterns[used.index(False)][0]
        raise ValueError(f"pattern {idle!r} matches no parameter; parameters are {', '.join(_examples(params))}")
    return found


def arm(name: str, blocks: int) -> list[tuple[str, str]]:
    """The patterns of a usual choice: "first-n" or "last-n" blocks, "all" blocks, "none", or "blocks-2-5-7" by number.

    Embeddings, final norm and read-out are frozen in every one. Raises ValueError for another name, and for blocks that
    a model of `blocks` blocks does not have.
    """
    kind, _, given = name.partition("-")
    numbers = [int(part) for part in given.split("-")] if re.fullmatch(r"\d+(-\d+)*", given) else []
    if name == "none":
        chosen: Sequence[int] = []
    elif name == "all":
        chosen = range(1, blocks + 1)
    elif kind in ("first", "last") and len(numbers) == 1:
        if not 1 <= numbers[0] <= blocks:
            raise ValueError(f"arm {name!r}: the model has {blocks} blocks, so n must be 1 to {blocks}")
        chosen = range(1, numbers[0] + 1) if kind == "first" else range(blocks - numbers[0] + 1, blocks + 1)
    elif kind == "blocks" and numbers:
        if (absent := [n for n in numbers if not 1 <= n <= blocks]) or len(set(numbers)) < len(numbers):
            wrong = f"there is no block {absent[0]}" if absent else "a block is given twice"
            raise ValueError(f"arm {name!r}: {wrong}; the model's blocks are 1 to {blocks}")
        chosen = numbers
    else:
        raise ValueError(f'an arm must be "first-n", "last-n", "all", "none" or "blocks-2-5-7", got {name!r}')
    freeze = [(EVERYTHING, "freeze")]
    return [(f"blocks/({'|'.join(map(str, chosen))})/.*", "train"), *freeze] if chosen else freeze


def trained_blocks(found: dict[str, np.ndarray]) -> list[int]:
    """The numbers of the blocks in which anything is trained, ascending, given the masks of all or some leaves."""
    stacked = [mask for path, mask in found.items() if path.startswith("blocks/")]
    return (np.flatnonzero(np.any(stacked, axis=0)) + 1).tolist() if stacked else []


def _compiled(pattern) -> tuple[re.Pattern, bool]:
    try:
        expression, choice = pattern
        compiled = re.compile(expression)
    except (TypeError, ValueError, re.error) as error:
        raise ValueError(f'a pattern must be (regular expression, "train" or "freeze"), got {pattern!r}') from error
    if choice not in CHOICES:
        raise ValueError(f'pattern {expression!r} must say "train" or "freeze", got {choice!r}')
    return compiled, choice == "train"


def _names(params: PyTree) -> Iterator[tuple[str, list[str]]]:
    """(path, the name of each of its rows) for every leaf."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = "/".join(key.key for key in keys)
        if path.startswith("blocks/"):
            yield path, [f"blocks/{block + 1}/{path.removeprefix('blocks/')}" for block in range(leaf.shape[0])]
        else:
            yield path, [path]


def _examples(params: PyTree) -> list[str]:
    """A name of every leaf, the blocks' with the range of their numbers."""
    shown = []
    for path, names in _names(params):
        inside = path.removeprefix("blocks/")
        shown.append(path if inside == path else f"blocks/<1 to {len(names)}>/{inside}")
    return shown
