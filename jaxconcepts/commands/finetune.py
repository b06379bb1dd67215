"""finetune: tune some layers of a model, a language model or a run of a training, and measure CD before and after."""

from __future__ import annotations

from jaxconcepts.commands import command_line
from jaxconcepts.commands.command_line import log


def run(argv: list[str]) -> int:
    """Returns the exit code. Raises PreemptedError when stopped by a signal, with everything checkpointed."""
    values = command_line.text_flags(
        ("model", None, "a checkpoint folder, a Hugging Face repository id, or the run directory of a training"),
        ("workdir", None, "the run directory, local or gs://"),
        ("revision", None, "branch, tag or commit of the repository"),
        required=["model", "workdir"],
    )
    values, config = command_line.parse_with_config(
        argv, values, needs=("arms", "tune", "lora"), example="configs/finetune.py",
        source="studies.finetuning.config.default_fields()",
    )  # fmt: skip

    from etils import epath

    from jaxconcepts.figures.report import write_report
    from jaxconcepts.studies.finetuning import study as finetuning
    from jaxconcepts.studies.finetuning import synthetic as finetuning_synthetic

    parsed = finetuning.from_fields(config)
    workdir, seconds = epath.Path(values.workdir), config["run"]["checkpoint_seconds"]
    settings = {"checkpoint_seconds": seconds, "device": command_line.device()}
    command_line.log_to(workdir / "log.txt")
    if (epath.Path(values.model) / "provenance.json").exists():
        finetuning_synthetic.finetune(parsed, values.model, workdir, **config["synthetic"], **settings)
    else:
        finetuning.finetune(parsed, values.model, workdir, revision=values.revision, **settings)
    log.info("report: %s", write_report(workdir))
    return 0
