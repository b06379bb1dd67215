"""icl: accuracy and CD of a language model's in-context tasks, on one checkpoint or a series; then the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxconcepts.commands import arguments, command_line
from jaxconcepts.commands.command_line import log
from jaxconcepts.fields import field


@dataclass(frozen=True, kw_only=True)
class Flags(arguments.WorkdirFlags):
    """The model, or the checkpoints of one."""

    model: str | None = field(
        None, "a checkpoint folder, a GGUF file, a Hugging Face repository id, or smollm2-135m", low=1
    )
    revision: str | None = field(None, "branch, tag or commit of the Hugging Face repository", low=1)
    checkpoints: str | None = field(
        None,
        "a series: STEP=FOLDER|ID[@REVISION],..., or 'ID@step{0,512}', or a folder with subfolders step_<number>",
        low=1,
    )
    through: Literal["transformers"] | None = field(
        None, "transformers runs models of any architecture with PyTorch; the tables record it"
    )
    evict: bool = field(True, "delete each downloaded checkpoint of a series after it is measured")


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    flags, read = arguments.parse_with_config(argv, Flags, _config_kind, "icl")
    if (flags.model is None) == (flags.checkpoints is None):
        raise ValueError("icl needs one of --model=FOLDER|ID and --checkpoints=STEP=FOLDER|ID[@REVISION],...")
    if flags.revision is not None and flags.model is None:
        raise ValueError("--revision goes with --model; in a series each checkpoint has its own, STEP=ID@REVISION")

    from etils import epath

    from jaxconcepts.figures.report import write_report
    from jaxconcepts.studies.asking.checkpoints import series
    from jaxconcepts.studies.icl import study as icl

    if flags.checkpoints is None:
        checkpoints = [icl.Checkpoint(0, flags.model, flags.revision)]
    else:
        checkpoints = series(flags.checkpoints)
    checkpoints = [checkpoint._replace(through=flags.through) for checkpoint in checkpoints]
    workdir = epath.Path(flags.workdir)
    command_line.log_to(workdir / "log.txt")
    icl.run(read.fields, checkpoints, workdir, evict=flags.evict and flags.model is None)
    log.info("drawing the report")
    log.info("report: %s", write_report(workdir))
    return 0


def _config_kind(_) -> type:
    from jaxconcepts.studies.icl.config import IclConfig

    return IclConfig
