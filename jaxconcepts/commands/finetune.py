"""finetune: tune some layers of a model, a language model or a run of a training, and measure CD before and after."""

from __future__ import annotations

from dataclasses import dataclass

from jaxconcepts.commands import arguments, command_line
from jaxconcepts.commands.command_line import log
from jaxconcepts.fields import REQUIRED, field


@dataclass(frozen=True, kw_only=True)
class Flags(arguments.WorkdirFlags):
    """The model that is tuned."""

    model: str = field(
        REQUIRED, "a checkpoint folder, a Hugging Face repository id, or the run directory of a training", low=1
    )
    revision: str | None = field(None, "branch, tag or commit of the Hugging Face repository", low=1)


def run(argv: list[str]) -> int:
    """Returns the exit code. Raises PreemptedError when stopped by a signal, with everything checkpointed."""
    flags, read = arguments.parse_with_config(argv, Flags, _config_kind, "finetune")

    from etils import epath

    from jaxconcepts.figures.report import write_report
    from jaxconcepts.studies.finetuning import study as finetuning
    from jaxconcepts.studies.finetuning import synthetic as finetuning_synthetic

    workdir, seconds = epath.Path(flags.workdir), read.fields.run.checkpoint_seconds
    settings = {"checkpoint_seconds": seconds, "device": command_line.device()}
    parsed = finetuning.from_fields(read.fields)
    command_line.log_to(workdir / "log.txt")
    if (epath.Path(flags.model) / "provenance.json").exists():
        finetuning_synthetic.finetune(parsed, flags.model, workdir, **vars(read.fields.synthetic), **settings)
    else:
        finetuning.finetune(parsed, flags.model, workdir, revision=flags.revision, **settings)
    log.info("report: %s", write_report(workdir))
    return 0


def _config_kind(_) -> type:
    from jaxconcepts.studies.finetuning.config import FinetuneFields

    return FinetuneFields
