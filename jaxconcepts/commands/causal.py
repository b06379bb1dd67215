"""causal: patches, task and function vectors, steering, head ablation, interchange patching; tuning of layers."""

from __future__ import annotations

from dataclasses import dataclass

from jaxconcepts.commands import arguments, command_line
from jaxconcepts.fields import REQUIRED, field


@dataclass(frozen=True, kw_only=True)
class Flags(arguments.WorkdirFlags):
    """The model that the study is of."""

    model: str = field(
        REQUIRED, "a checkpoint folder, a GGUF file, a Hugging Face repository id, or smollm2-135m", low=1
    )
    revision: str | None = field(None, "branch, tag or commit of the Hugging Face repository", low=1)


def run(argv: list[str]) -> int:
    """Returns the exit code. Raises PreemptedError when the tuning is stopped by a signal, all being checkpointed."""
    flags, read = arguments.parse_with_config(argv, Flags, _config_kind, "causal")
    from etils import epath

    from jaxconcepts.figures import report
    from jaxconcepts.studies.causal import config as causal_config
    from jaxconcepts.studies.causal import study as causal
    from jaxconcepts.studies.finetuning import study as finetuning

    config, tuning = causal_config.from_fields(read.fields)
    # What is wrong with the tuning is said before the experiments' long work.
    prepared = None if tuning is None else finetuning.prepare(tuning, flags.model, flags.revision)
    workdir = epath.Path(flags.workdir)
    command_line.log_to(workdir / "log.txt", opened=workdir / causal.STUDY / "config.json")
    causal.run(config, flags.model, workdir, flags.revision)
    if tuning is not None:
        seconds = read.fields.tuning.run.checkpoint_seconds
        settings = {"checkpoint_seconds": seconds, "device": command_line.device()}
        finetuning.finetune(tuning, flags.model, workdir, revision=flags.revision, prepared=prepared, **settings)
    command_line.log.info("report: %s", report.write_report(workdir))
    return 0


def _config_kind(_) -> type:
    from jaxconcepts.studies.causal.config import CausalFields

    return CausalFields
