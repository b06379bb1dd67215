"""report: the figures and the page of a run directory, drawn from its tables alone."""

from __future__ import annotations

from jaxconcepts.commands import arguments


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    flags = arguments.parse(argv, arguments.WorkdirFlags)
    from etils import epath

    from jaxconcepts.figures.causal import catalogue as causal_catalogue
    from jaxconcepts.figures.report import write_report

    workdir = epath.Path(flags.workdir)
    causal = (workdir / "causal").exists()
    if causal:
        print(f"report: {causal_catalogue.write_report(workdir)}")
    # The causal study of a checkpoint keeps its settings with its tables, so its run directory need hold no run.
    if not causal or (workdir / "config.json").exists():
        print(f"report: {write_report(workdir)}")
    return 0
