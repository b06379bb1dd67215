"""causal: patches, task and function vectors, steering, head ablation, interchange patching; tuning of layers."""

from __future__ import annotations

from jaxconcepts.commands import command_line


def run(argv: list[str]) -> int:
    """Returns the exit code. Raises PreemptedError when the tuning is stopped by a signal, all being checkpointed."""
    values = command_line.text_flags(
        ("workdir", None, "where to store, local or gs://"),
        ("model", None, "a checkpoint folder, or a Hugging Face repository id"),
        ("revision", None, "branch, tag or commit of the repository"),
        required=["workdir", "model"],
    )
    values, fields = command_line.parse_with_config(
        argv, values, needs=("families", "experiments"), example="configs/causal.py",
        source="studies.causal.config.default_fields()",
    )  # fmt: skip
    from etils import epath

    from jaxconcepts.figures import report
    from jaxconcepts.figures.causal import catalogue as causal_catalogue
    from jaxconcepts.studies.causal import config as causal_config
    from jaxconcepts.studies.causal import study as causal
    from jaxconcepts.studies.finetuning import study as finetuning

    config, tuning = causal_config.from_fields(fields)
    # What is wrong with the tuning is said before the experiments' long work.
    prepared = None if tuning is None else finetuning.prepare(tuning, values.model, values.revision)
    workdir = epath.Path(values.workdir)
    command_line.log_to(workdir / "log.txt", opened=workdir / causal.STUDY / "config.json")
    causal.run(config, values.model, workdir, values.revision)
    command_line.log.info("report: %s", causal_catalogue.write_report(workdir))
    if tuning is None:
        return 0
    seconds = (causal_config.default_fields()["tuning"] | fields["tuning"])["run"]["checkpoint_seconds"]
    settings = {"checkpoint_seconds": seconds, "device": command_line.device()}
    finetuning.finetune(tuning, values.model, workdir, revision=values.revision, prepared=prepared, **settings)
    command_line.log.info("report: %s", report.write_report(workdir))
    return 0
