"""status: how far a sweep is, also while it runs."""

from __future__ import annotations

from jaxconcepts.commands import command_line


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    values = command_line.parse(argv)
    from jaxconcepts.sweeps import status

    print(status.text(status.status(values.workdir)))
    return 0
