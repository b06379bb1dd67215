"""train: the runs of a config, one a seed, side by side; then their report."""

from __future__ import annotations

import copy

from jaxconcepts.commands import arguments, command_line
from jaxconcepts.commands.command_line import log
from jaxconcepts.runs.config import config_kind


def run(argv: list[str]) -> int:
    """Returns the exit code. Raises PreemptedError when stopped by a signal, with everything checkpointed."""
    flags, read = arguments.parse_with_config(argv, arguments.TrainingFlags, config_kind, "quickstart")
    return train(read, flags.workdir, flags.extend)


def train(read: arguments.Config, workdir: str, extend: bool = False) -> int:
    """Trains the runs of a config that has been read, as `run` does, whose code and errors it has."""
    config = copy.deepcopy(read.values)
    execution, num_seeds = config.pop("run"), config.pop("num_seeds")
    made = read.file.claims()
    command_line.make_cpu_devices(execution["cpu_devices"])
    from jaxconcepts import store
    from jaxconcepts.figures import claims, live
    from jaxconcepts.figures.report import write_report
    from jaxconcepts.runs import lengths, packs, points
    from jaxconcepts.runs import loop as running
    from jaxconcepts.sweeps import sizing

    seeds = range(config["seed"], config["seed"] + num_seeds)
    record = points.stored(config) | {"num_seeds": num_seeds}
    known = lengths.extended(workdir, record, extend)
    pack = [points.make_point(copy.deepcopy(config) | {"seed": seed}, known) for seed in seeds]
    layout = packs.Layout(execution["how"], execution["data"], execution["unroll"])
    sizing.check_fits(pack, layout)
    sizing.try_own_evaluators(pack)
    if read.file.sweep() is not None:
        log.warning("%s has a get_sweep(), which `sweep` runs; `train` runs the config alone", read.file.name)
    device = command_line.device()
    keep_steps = pack[0].experiment.measuring.checkpoint_steps
    with store.open_run(
        workdir,
        record,
        device=device | execution,
        keep_steps=keep_steps,
        extend=lengths.allowing(extend, workdir, record, known, lambda: [("train", pack[0])]),
    ) as run:
        command_line.log_to(run.workdir / "log.txt")
        if made:
            claims.write(run.workdir, made)
        log.info("training %d run(s) on %d %s in %s", len(pack), device["count"], device["kind"], run.workdir)
        watching = running.Watching(trackers=execution["trackers"])
        with live.page(run.workdir):
            running.run_pack("train", pack, run, layout, execution["checkpoint_seconds"], watching=watching)
        log.info("drawing the report")
        log.info("report: %s", write_report(run.workdir))
    return 0
