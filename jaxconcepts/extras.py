"""Imports of the libraries that come with an extra alone: where one is missing, the error is one line with the command
that installs it."""

from __future__ import annotations

import importlib
from types import ModuleType


def load(module: str, extra: str, what: str) -> ModuleType:
    """The module of a library that `pip install "jaxconcepts[extra]"` brings; what: the task that needs it.

    Raises ValueError with that command where the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A library that is there, but lacks one of its own, says itself which.
        if error.name != module.partition(".")[0]:
            raise
        library = module.partition(".")[0]
        raise ValueError(f'{what} needs {library}: pip install "jaxconcepts[{extra}]"') from None
