"""Code of users that runs inside a measurement: what it raises becomes one line that says where."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def call(name: str, function: Callable, *given: Any) -> Any:
    """function(*given). Raises ValueError, naming the evaluator and the line of its file, for whatever it raises.

    name: what the config calls it, "module:function" or "file.py:function".
    """
    try:
        return function(*given)
    except Exception as error:
        file = getattr(getattr(function, "__code__", None), "co_filename", None)
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        where = f", line {frames[-1].lineno} of {Path(frames[-1].filename).name}" if frames else ""
        first = " ".join(str(error).split("\n\n")[0].split())
        raise ValueError(f"evaluator {name}{where}: {type(error).__name__}: {first[:300]}") from error
