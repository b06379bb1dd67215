"""icl_from_scratch: train a small language model on the tasks, and run the in-context study on its checkpoints."""

from __future__ import annotations

from jaxconcepts.commands import arguments, command_line
from jaxconcepts.commands.command_line import log


def run(argv: list[str]) -> int:
    """Returns the exit code. Raises PreemptedError when the training is stopped by a signal, all being checkpointed."""
    flags, config = arguments.parse_with_config(argv, arguments.WorkdirFlags, _config_kind, "icl_from_scratch")
    execution = config.values.pop("run")
    command_line.make_cpu_devices(execution["cpu_devices"])

    from jaxconcepts import store
    from jaxconcepts.figures.report import write_report
    from jaxconcepts.studies.asking.checkpoints import Checkpoint
    from jaxconcepts.studies.icl import config as icl_config
    from jaxconcepts.studies.icl import from_scratch
    from jaxconcepts.studies.icl import study as icl

    training, study = from_scratch.from_fields(config.fields)
    from_scratch.check_local(flags.workdir)
    families = icl_config.families(study)
    prepared = from_scratch.prepare(training, list(families.values()), study.template)
    device = command_line.device() | execution
    with store.open_run(flags.workdir, config.values, device=device, keep_steps=training.saved_steps) as opened:
        command_line.log_to(opened.workdir / "log.txt")
        saved = from_scratch.train(training, prepared, opened, execution["checkpoint_seconds"])
        icl.run(study, [Checkpoint(step, str(folder)) for step, folder in saved.items()], opened, using=families)
        log.info("drawing the report")
        log.info("report: %s", write_report(opened.workdir))
    return 0


def _config_kind(_) -> type:
    from jaxconcepts.studies.icl.from_scratch import FromScratchFields

    return FromScratchFields
