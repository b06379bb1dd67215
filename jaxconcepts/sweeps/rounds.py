"""The rounds of an adaptive search: points are proposed, trained as those of any sweep, and what they gave is told.

search.json in the run directory keeps what each round proposed, with the names of the runs, and is written before the
round starts. What the points gave is in the tables. So a search that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxconcepts import extras, store
from jaxconcepts.quantity import Quantity, by_run
from jaxconcepts.runs import packs, processes
from jaxconcepts.runs.points import Point
from jaxconcepts.runs.programs import Programs
from jaxconcepts.store import files
from jaxconcepts.sweeps.search import Search, propose
from jaxconcepts.sweeps.sweep import run_sweep
from jaxconcepts.training.experiment import Experiment

log = logging.getLogger("jaxconcepts")

FILE = "search.json"
Proposals = Sequence[Mapping[str, Any]]


def run_search(
    search: Search,
    expand: Callable[[Proposals], list[Point]],
    run: store.Run,
    layout: packs.Layout,
    **settings: Any,
) -> Programs:
    """Proposes and trains points until there are `search.points`; returns what has been compiled.

    expand: the points of proposals, overrides by dotted field, one point a seed. layout, settings: as of `run_sweep`.
    All processes of a distributed job call it together, after `check`.

    Raises ValueError, before anything is trained, for a run directory with a search of other ranges; and as
    `run_sweep`.
    """
    primary = jax.process_index() == 0
    rounds = processes.tell_all(_recorded(run.workdir, search) if primary else None)
    programs: packs.Layout | Programs = layout
    while True:
        asked = [proposal for part in rounds for proposal in part]
        if asked:
            programs = run_sweep(expand(asked), run, programs, **settings)
            processes.tell_all(None)  # All processes have written their rows.
        values = _values(search.quantity, [expand([proposal]) for proposal in asked], run)
        _log_best(search, asked, values)
        if len(asked) >= search.points:
            return programs
        count = min(search.round, search.points - len(asked))
        rounds.append(processes.tell_all(propose(search, asked, values, count) if primary else None))
        # Before it is recorded: a point may be invalid.
        runs = [[point.run for point in expand([proposal])] for part in rounds for proposal in part]
        if primary:
            content = {"quantity": asdict(search.quantity), "goal": search.goal, "points": search.points}
            files.write(run.workdir / FILE, json.dumps(content | {"rounds": rounds, "runs": runs}).encode())
        log.info("round %d: points %d to %d of %d", len(rounds), len(asked) + 1, len(asked) + count, search.points)


def check(search: Search, point: Point, extend: bool = False) -> None:
    """Raises ValueError where Optuna is missing, where runs are to be made longer, and for a metric or a step that a
    run will not have. point: a run."""
    if extend:
        raise ValueError("--extend is for sweeps whose points are known; longer runs lead a search to other points")
    extras.load("optuna", "optuna", "an adaptive search")
    experiment, quantity, data = point.experiment, search.quantity, point.experiment.data()
    steps = experiment.measuring.at_steps(experiment.train.steps)
    if isinstance(quantity.at, int) and quantity.at not in steps:
        raise ValueError(f"search.quantity.at must be a measured step, {', '.join(map(str, steps))}, got {quantity.at}")

    def measure(numbers):
        params = experiment.model_params(experiment.init(numbers, data), numbers, data, None)
        return experiment.measure(params, experiment.held_out(numbers, data))

    names = {key.partition("/")[0] for key in jax.eval_shape(measure, point.numbers)} | set(experiment.REPORTED)
    # Some experiments add what they compute on the host.
    if quantity.metric not in names and type(experiment).on_host is Experiment.on_host:
        raise ValueError(f"search.quantity.metric must be one of {', '.join(sorted(names))}, got {quantity.metric!r}")


def _values(quantity: Quantity, asked: Sequence[Sequence[Point]], run: store.Run) -> list[float]:
    """What each proposal gave, the mean over its runs; NaN where one diverged or has no value."""
    if not asked:
        return []
    done = store.runs(run.workdir).filter(status="done").select("run")
    of_run = dict(by_run(quantity, store.metrics(run.workdir)).join(done, on="run").iter_rows())
    if done.height and not of_run:
        raise ValueError(f"search.quantity: the runs in {run.workdir} have no {quantity}")
    return [float(np.mean([of_run.get(point.run, math.nan) for point in points])) for points in asked]


def _log_best(search: Search, asked: Proposals, values: list[float]) -> None:
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        best = min(finite) if search.goal == "minimize" else max(finite)
        setting = _in_words(asked[values.index(best)])
        log.info("best of %d points: %s %.4g with %s", len(asked), search.quantity.metric, best, setting)


def _recorded(workdir: epath.Path, search: Search) -> list[Proposals]:
    """The proposals of before, by round. Raises ValueError where the search's ranges do not hold them."""
    rounds = []
    if (workdir / FILE).exists():
        with files.naming(workdir / FILE):
            rounds = [[dict(proposal) for proposal in part] for part in files.read_json(workdir / FILE)["rounds"]]
    for proposal in (proposal for part in rounds for proposal in part):
        try:
            search.check(proposal)
        except ValueError as error:
            raise ValueError(
                f"workdir {workdir} has a search of other ranges, which proposed {_in_words(proposal)}: {error}; "
                "give another workdir, or the earlier ranges"
            ) from None
    return rounds


def _in_words(proposal: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {f'{v:.3g}' if isinstance(v, float) else v}" for name, v in proposal.items())
