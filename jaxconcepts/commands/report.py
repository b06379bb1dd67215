"""report: the figures and report.html of a run directory, drawn from its tables alone."""

from __future__ import annotations

from jaxconcepts.commands import command_line


def run(argv: list[str]) -> int:
    values = command_line.parse(argv)
    from jaxconcepts.figures.report import write_report

    print(f"report: {write_report(values.workdir)}")
    return 0
