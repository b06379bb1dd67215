"""Imports of the libraries that come with an extra alone: where one is missing, the error is one line with the command
that installs it."""

from __future__ import annotations

import importlib
from types import ModuleType

EXTRAS = {
    "transformers": "hf", "huggingface_hub": "hf", "tokenizers": "hf", "conllu": "prompts", "libtpu": "plan",
    "umap": "umap", "torch": "torch", "optuna": "optuna",
}  # fmt: skip
"""The extra of `setup.py` that brings a library, by the name that it is imported by."""


def extra_of(error: ImportError) -> str | None:
    """The extra that has the library whose import failed, None for a library of no extra and another failure."""
    return EXTRAS.get((error.name or "").partition(".")[0]) if isinstance(error, ModuleNotFoundError) else None


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
