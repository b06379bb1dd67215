"""The patch study over a run directory: every checkpoint of every run that is asked for, each once.

Tables go to WORKDIR/patching/{grid,summary,heads}/<run>.<step>.parquet (`patching_rows`); what is there is not computed
again. Runs of one shape share their compiled programs, whatever their seeds, numbers and steps.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence

import jax
import numpy as np
import polars as pl
from etils import epath

from jaxconcepts import store
from jaxconcepts.studies.patching import rows as patching_rows
from jaxconcepts.studies.patching import study as patching
from jaxconcepts.sweeps import trained

log = logging.getLogger("jaxconcepts")

STUDY = "patching"
KINDS = ("grid", "heads", "summary")
"""In the order in which they are written: a checkpoint with a summary is finished."""


def patch_runs(
    workdir: epath.PathLike,
    config: patching.PatchConfig,
    runs: Sequence[str] = (),
    steps: Sequence[int] = (),
) -> list[patching.Patching]:
    """Patches the runs' checkpoints (all where none are named) and writes their tables; returns the programs compiled.

    Raises ValueError, before anything is computed, for a directory without checkpoints, an unknown run or step, a layer
    or head that a model does not have, a task with one concept, and tables that were made with another config.
    """
    work = trained.chosen(trained.trained(workdir), runs, steps)
    programs: dict = {}
    for pack, _, _ in work:
        experiment = pack.points[0].experiment
        if (experiment.task, experiment.model) not in programs:
            programs[experiment.task, experiment.model] = patching.make_patching(
                experiment.task, experiment.model, config
            )
    how = {name: value for name, value in dataclasses.asdict(config).items() if name != "cells_at_once"}
    plain = {name: list(map(_plain, value)) if isinstance(value, tuple) else value for name, value in how.items()}
    with store.open_study(workdir, STUDY, plain):
        todo = [
            (pack, step, run)
            for pack, step, names in work
            for run in names
            if not store.has_result(workdir, STUDY, KINDS[-1], _part(run, step))
        ]
        total = sum(len(names) for _, _, names in work)
        log.info("patching %d checkpoint(s) of %d run(s)", total, len({run for *_, names in work for run in names}))
        if len(todo) < total:
            log.info("%d of them are done already", total - len(todo))
        loaded, started = (None, None), time.monotonic()
        for number, (pack, step, run) in enumerate(todo, 1):
            if loaded[0] != (pack.pack, step):
                loaded = (pack.pack, step), trained.load_params(workdir, pack, step)
            place = [point.run for point in pack.points].index(run)
            params = jax.tree.map(lambda a, place=place: a[place], loaded[1])
            experiment = pack.points[place].experiment
            program = programs[experiment.task, experiment.model]
            tables = _tables(config, program, pack.points[place], step, params)
            for kind in KINDS:
                store.write_result(workdir, STUDY, kind, _part(run, step), tables[kind])
            left = (time.monotonic() - started) / number * (len(todo) - number)
            log.info(
                "%s step %d (%d of %d)  %s  %s left",
                run, step, number, len(todo), headline(tables["summary"]), _duration(left),
            )  # fmt: skip
    return list(programs.values())


def headline(summary: pl.DataFrame) -> str:
    """The patch of a concept's mean after which the query's predictions follow the target's oracle most."""
    weights = summary.filter(at="query", metric="weight")
    rows = weights.filter(patch="mean", reference="target oracle")
    if not rows.height:
        return ""
    cell = {name: rows.sort("value").row(-1, named=True)[name] for name in ("layer", "positions", "mode")}
    at_cell = weights.filter(**cell)
    value = lambda patch, reference: at_cell.filter(patch=patch, reference=reference)["value"].item()  # noqa: E731
    before = weights.filter(patch="none", reference="source oracle")["value"].item()
    return (
        f"{cell['mode']} at layer {cell['layer']}, {cell['positions']}: weight on the target's oracle "
        f"{value('mean', 'target oracle'):.2f} (random {value('random', 'target oracle'):.2f}), on the source's "
        f"{value('mean', 'source oracle'):.2f} (unpatched {before:.2f})"
    )


def _tables(config, program, point, step, params) -> dict[str, pl.DataFrame]:
    task, model = point.experiment.task, point.experiment.model
    prepared = program.prepare(point.numbers.task)
    both = jax.device_get((program.grid(params, prepared), program.heads(params, prepared)))
    (clean, grid), (_, heads) = jax.tree.map(np.asarray, both)
    layers, references = config.chosen_layers(model.layers), patching.reference_names(task)
    given = (point.run, step, layers, config.modes, references, clean, grid)
    return {
        "grid": patching_rows.grid(*given),
        "summary": patching_rows.summary(*given),
        "heads": patching_rows.heads(point.run, step, config.chosen_heads(model.layers, model.heads), clean, heads),
    }


def _part(run: str, step: int) -> str:
    return f"{run}.{step:09d}"


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
