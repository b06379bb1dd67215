"""report: the figures and the page of a run directory, or of several beside one another, drawn from their tables."""

from __future__ import annotations

from dataclasses import dataclass

from jaxconcepts.commands import arguments
from jaxconcepts.fields import field


@dataclass(frozen=True, kw_only=True)
class Flags(arguments.WorkdirFlags):
    """What is drawn, and where several run directories are drawn together."""

    out: str | None = field(None, "the folder of the page for --workdir=A,B; A/comparison if not given", low=1)


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    flags = arguments.parse(argv, Flags)
    from jaxconcepts.commands.command_line import to_terminal
    from jaxconcepts.figures.report import write_report
    from jaxconcepts.store import files

    to_terminal()
    if "," in flags.workdir and not files.resolve(flags.workdir).exists():
        from jaxconcepts.figures.comparison import write_comparison

        workdirs = [files.existing_run(part) for part in flags.workdir.split(",") if part]
        print(f"report: {write_comparison(workdirs, flags.out or workdirs[0] / 'comparison')}")
        return 0
    if flags.out is not None:
        raise ValueError("--out is for several run directories, --workdir=A,B")
    print(f"report: {write_report(flags.workdir)}")
    return 0
