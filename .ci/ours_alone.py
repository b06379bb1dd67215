"""A plugin of pylint: of what is imported, only this repository and Python's own library are read.

Signatures of ours are what is checked. Following JAX and PyTorch would take ten times as long, and find what they make
at run time missing.
"""

import sys

from astroid.manager import AstroidManager

OURS = {"jaxconcepts", "tests", *sys.stdlib_module_names}


class Others(set):
    """The modules that are not read: it is asked for a name, and holds all but ours."""

    def __contains__(self, name: str) -> bool:
        return name.partition(".")[0] not in OURS


def register(linter) -> None:
    """Called by pylint as it starts."""
    AstroidManager.brain["module_denylist"] = AstroidManager().module_denylist = Others()
