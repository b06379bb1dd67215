"""report: the figures and the page of a run directory, drawn from its tables alone."""

from __future__ import annotations

from jaxconcepts.commands import arguments


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    flags = arguments.parse(argv, arguments.WorkdirFlags)
    from jaxconcepts.figures.report import write_report

    print(f"report: {write_report(flags.workdir)}")
    return 0
