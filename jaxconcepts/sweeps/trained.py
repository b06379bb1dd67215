"""The trained models of a run directory: which runs and checkpoints there are, and their parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
import polars as pl
from etils import epath
from jaxtyping import PyTree

from jaxconcepts import store
from jaxconcepts.runs import lengths, packs
from jaxconcepts.runs import points as sweep_points
from jaxconcepts.runs.points import Point
from jaxconcepts.store import files, tidy
from jaxconcepts.sweeps import membership


@dataclass(frozen=True)
class Trained:
    """A pack of runs: its name, its runs' points in their order, and the steps of its checkpoints, ascending."""

    pack: str
    points: tuple[Point, ...]
    steps: tuple[int, ...]


def trained(workdir: epath.PathLike) -> list[Trained]:
    """The packs of `train` or `sweep` in a run directory that have a checkpoint.

    Raises ValueError where there is no run or no checkpoint.
    """
    root = files.existing_run(workdir)
    if (root / "packs").exists():
        known = [(pack.name, pack.points) for pack in membership.recorded(root)]
    else:
        known = [("train", _points_of_train(root))]
    found = [Trained(name, points, tuple(store.checkpoints(root, name))) for name, points in known]
    found = [pack for pack in found if pack.steps]
    if not found:
        raise ValueError(
            f"workdir {root} has no checkpoints: train in it first (python -m jaxconcepts train --config=... "
            "--workdir=...; measure.checkpoint_steps names steps whose checkpoints are kept for good)"
        )
    return found


def chosen(
    found: Sequence[Trained], runs: Iterable[str] = (), steps: Iterable[int] = ()
) -> list[tuple[Trained, int, list[str]]]:
    """(pack, step, its runs) for every checkpoint asked for; all runs and all steps where none are named.

    A run may be named by its beginning, such as "seed0". Raises ValueError for a run or step that is not there, with
    those that are.
    """
    names = [point.run for pack in found for point in pack.points]
    runs, steps = list(runs), sorted(set(steps))
    for wanted in runs:
        if not any(_is_called(name, wanted) for name in names):
            raise ValueError(f"run must be one of {', '.join(names)}, or the beginning of one, got {wanted!r}")
    there = sorted({step for pack in found for step in pack.steps})
    if unknown := [step for step in steps if step not in there]:
        raise ValueError(f"step must be one of the checkpoints {', '.join(map(str, there))}, got {unknown[0]}")
    work = []
    for pack in found:
        own = [p.run for p in pack.points if not runs or any(_is_called(p.run, wanted) for wanted in runs)]
        work += [(pack, step, own) for step in pack.steps if own and (not steps or step in steps)]
    return work


def load_params(workdir: epath.PathLike, pack: Trained, step: int, data: PyTree = None) -> PyTree:
    """The parameters of all the pack's runs at a checkpoint, with a leading run axis.

    data: the experiment's, where it is at hand; made otherwise, which can take a while.

    Raises ValueError where the arrays are not this program's, DamagedFileError where they cannot be read.
    """
    experiment = pack.points[0].experiment
    program = packs.make_program(experiment, len(pack.points), packs.Layout())
    numbers = packs.stack_numbers(program, [point.numbers for point in pack.points])
    data = packs.abstract_data(program, experiment.data() if data is None else data)
    like = lambda stored: packs.saved_state(program, numbers, data, stored["step"][0])  # noqa: E731
    return jax.device_get(store.load_checkpoint(workdir, pack.pack, step, like).params)


def one(workdir: epath.PathLike, run: str | None, step: int | None) -> tuple[Trained, int, int]:
    """(pack, step, place in the pack) of a run, None for the first, at a step, None for its last checkpoint. Raises as
    `chosen`."""
    there = trained(workdir)
    wanted = there[0].points[0].run if run is None else run
    pack, at, names = chosen(there, [wanted], [] if step is None else [step])[-1]
    return pack, at, [point.run for point in pack.points].index(names[0])


def params(workdir: epath.PathLike, pack: Trained, step: int, place: int, data: PyTree = None) -> PyTree:
    """One run's parameters, as `one` names it; data as of `load_params`."""
    return jax.tree.map(lambda a: a[place], load_params(workdir, pack, step, data))


def measure(workdir: epath.PathLike, run: str | None, step: int | None, metrics: Sequence[str]) -> pl.DataFrame:
    """The rows that evaluators give of a run's checkpoint, those that are measured once among them; see
    `api.Run.measure`."""
    pack, at, place = one(workdir, run, step)
    point = pack.points[place]
    measuring = dict(point.config["measure"]) | {"metrics": list(metrics)}
    experiment = sweep_points.make_point(point.config | {"measure": measuring}).experiment
    data = experiment.data()

    def of_model(trained_params, numbers, data):
        held_out = experiment.held_out(numbers, data)
        seen = lambda params: experiment.model_params(params, numbers, data, None)  # noqa: E731
        once = experiment.constants(held_out, lambda: seen(experiment.init(numbers, data)))
        return once | experiment.measure(seen(trained_params), held_out)

    measured = jax.device_get(jax.jit(of_model)(params(workdir, pack, at, place, data), point.numbers, data))
    of_runs = {name: replace(named, values=np.asarray(named.values)[None]) for name, named in measured.items()}
    return tidy.rows([point.run], at, experiment.on_host(of_runs))


def _points_of_train(root: epath.Path) -> tuple[Point, ...]:
    there = lengths.there(root)
    config = dict(there[-1])
    count = config.pop("num_seeds", None)
    if count is None:
        raise ValueError(f"workdir {root} was not made by train or sweep: its config has no num_seeds")
    return tuple(sweep_points.make_point(config | {"seed": config["seed"] + place}, there) for place in range(count))


def _is_called(name: str, wanted: str) -> bool:
    return name == wanted or name.startswith(f"{wanted}-")
