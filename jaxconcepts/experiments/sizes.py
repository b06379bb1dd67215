"""The named sizes of an experiment's configs, such as "smoke" and "paper" in `--config=configs/grammar.py:smoke`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of_name(sizes: Mapping[str, Mapping[str, Any]], size: str) -> dict[str, Any]:
    """The fields of a size, by dotted name. Raises ValueError for a size that there is not."""
    if size not in sizes:
        raise ValueError(f"the config's size must be one of {', '.join(sizes)}, got {size!r}")
    return dict(sizes[size])
