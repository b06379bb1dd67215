"""Values of a checkpoint's config.json: their kinds, and how an error shows them."""

from __future__ import annotations

import math
from typing import Any


def is_positive(value: Any) -> bool:
    """Whether the value is a number above 0 and below 1e30; true and false are not numbers."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 < value < 1e30


def is_whole(value: Any) -> bool:
    """Whether the value is an integer; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_scalar(value: Any) -> bool:
    """Whether the value is null, a text, a number, true or false."""
    return value is None or isinstance(value, (str, int, float, bool))


def shown(value: Any) -> str:
    """The value as an error shows it, in at most 120 characters."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def stop_tokens(value: Any, vocab_size: int, path: str) -> tuple[int, ...]:
    """The ids of eos_token_id as a tuple. The value is null, one id, or a list of ids.

    Raises ValueError, with the file `path`, for an id outside the vocabulary.
    """
    ids = [] if value is None else value if isinstance(value, list) else [value]
    for one in ids:
        if not is_whole(one) or not 0 <= one < vocab_size:
            raise ValueError(
                f"{path}: eos_token_id must be null, or ids from 0 to {vocab_size - 1} (vocab_size is {vocab_size}), "
                f"got {shown(value)}"
            )
    return tuple(ids)
