"""icl_from_scratch: train a small language model on the tasks, and run the in-context study on its checkpoints."""

from __future__ import annotations

from jaxconcepts.commands import command_line
from jaxconcepts.commands.command_line import log


def run(argv: list[str]) -> int:
    """Returns the exit code. Raises PreemptedError when the training is stopped by a signal, all being checkpointed."""
    values, config = command_line.parse_with_config(
        argv,
        needs=("corpus", "model", "train", "study", "run"),
        example="configs/icl_from_scratch.py",
        source="studies.from_scratch.default_fields()",
    )
    execution = config.pop("run")
    command_line.make_cpu_devices(execution["cpu_devices"])

    from jaxconcepts import store
    from jaxconcepts.figures.report import write_report
    from jaxconcepts.studies.asking.checkpoints import Checkpoint
    from jaxconcepts.studies.icl import config as icl_config
    from jaxconcepts.studies.icl import from_scratch
    from jaxconcepts.studies.icl import study as icl

    training, study = from_scratch.from_fields(config)
    families = icl_config.families(study)
    with store.open_run(
        values.workdir, config, device=command_line.device() | execution, keep_steps=training.saved_steps
    ) as opened:
        command_line.log_to(opened.workdir / "log.txt")
        saved = from_scratch.train(
            training, list(families.values()), opened, study.template, execution["checkpoint_seconds"]
        )
        icl.run(study, [Checkpoint(step, str(folder)) for step, folder in saved.items()], opened, using=families)
        log.info("drawing the report")
        log.info("report: %s", write_report(opened.workdir))
    return 0
