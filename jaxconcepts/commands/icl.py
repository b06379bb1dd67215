"""icl: accuracy and CD of a language model's in-context tasks, on one checkpoint or a series; then the report."""

from __future__ import annotations

from absl import flags

from jaxconcepts.commands import command_line
from jaxconcepts.commands.command_line import log


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    values = command_line.text_flags(
        ("workdir", None, "the run directory, local or gs://"),
        ("model", None, "a checkpoint folder, or a Hugging Face repository id"),
        ("revision", None, "branch, tag or commit of the repository"),
        ("checkpoints", None, "a series: STEP=FOLDER|ID[@REVISION],... or a folder of folders step_<number>"),
        required=["workdir"],
    )
    flags.DEFINE_bool(
        "evict", True, "delete what was fetched for a checkpoint of a series after it", flag_values=values
    )
    values, fields = command_line.parse_with_config(
        argv,
        values,
        needs=("families", "shots"),
        example="configs/icl.py",
        source="studies.icl.config.default_fields()",
    )
    if (values.model is None) == (values.checkpoints is None):
        raise ValueError("icl needs one of --model=FOLDER|ID and --checkpoints=STEP=FOLDER|ID[@REVISION],...")
    if values.revision is not None and values.model is None:
        raise ValueError("--revision goes with --model; in a series each checkpoint has its own, STEP=ID@REVISION")

    from etils import epath

    from jaxconcepts.figures.report import write_report
    from jaxconcepts.studies.asking.checkpoints import series
    from jaxconcepts.studies.icl import study as icl

    config = icl.from_fields(fields)
    if values.checkpoints is None:
        checkpoints = [icl.Checkpoint(0, values.model, values.revision)]
    else:
        checkpoints = series(values.checkpoints)
    workdir = epath.Path(values.workdir)
    command_line.log_to(workdir / "log.txt")
    icl.run(config, checkpoints, workdir, evict=values.evict and values.model is None)
    log.info("drawing the report")
    log.info("report: %s", write_report(workdir))
    return 0
