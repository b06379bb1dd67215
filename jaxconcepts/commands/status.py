"""status: how far a sweep is, also while it runs."""

from __future__ import annotations

from jaxconcepts.commands import arguments


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    flags = arguments.parse(argv, arguments.WorkdirFlags)
    from jaxconcepts.sweeps import status

    print(status.text(status.status(flags.workdir)))
    return 0
