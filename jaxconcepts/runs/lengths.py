"""Runs that are made longer (`--extend`): what may change, and what is as it was.

A workdir's runs keep their names, which are hashes of the config that they were begun with; `earlier.json` keeps that
config and those between. Up to its former length a run is measured at the steps that the former config says, and from
there on at those of the new one: what has been written stays as it is. Going on is refused where the steps done would
have been others in a run that was as long from the start (`Experiment.check_longer`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from jaxconcepts import store
from jaxconcepts.fields import FieldError
from jaxconcepts.store import files, opening
from jaxconcepts.training.experiment import Experiment

FIELDS = ("train.steps", "measure.count", "measure.steps", "measure.hidden_count", "measure.checkpoint_steps")
"""What a longer run may have otherwise; the first must be larger."""

Lengths = Sequence[Mapping[str, Any]]
"""A workdir's configurations, that of the shortest first; the last is the one that it has now."""


def there(workdir: epath.PathLike) -> Lengths:
    """Those of a run directory. Raises ValueError where there is none."""
    return (*store.earlier(workdir), store.config(workdir))


def extended(workdir: epath.PathLike, config: Mapping[str, Any], extend: bool) -> Lengths:
    """Those that the run directory has once it is opened with `config`; that alone where there is none yet.

    extend: whether the runs are to be made longer, if they are not as long already.
    Raises ValueError, with `extend`, where there is no run, or where one differs in more than `FIELDS` or is not
    shorter.
    """
    root = files.resolve(workdir)
    if not (root / "config.json").exists():
        if extend:
            raise ValueError(f"--extend needs a workdir that holds a run, but there is no {root / 'config.json'}")
        return (config,)
    *before, now = there(root)
    if extend and (differing := opening.differing(now, config)):
        _check(root, now, config, differing)
        before.append(now)
    return (*before, config)


def allowing(
    extend: bool,
    workdir: epath.PathLike,
    config: Mapping[str, Any],
    lengths: Lengths,
    packs: Callable[[], Iterable[tuple[str, Any]]],
) -> Callable[[], None] | None:
    """What `store.open_run` takes for `extend`: raises ValueError unless the run directory can be made as long as
    `config` says, by the steps that it has done. None, which keeps it as it is, without `extend`.

    lengths: as `extended` gave them. packs: gives the name and a point of each pack that may have been started.
    """

    def check():
        if json.dumps(extended(workdir, config, True)) != json.dumps(lengths):
            raise ValueError(f"workdir {workdir} was given another config in the meantime; start again")
        for name, point in packs():
            if not point.earlier:
                return
            _check_measured(point.experiment, point.earlier)
            if done := max(store.checkpoints(workdir, name), default=0):
                point.earlier[-1].check_longer(done)

    return check if extend else None


def of_length(config: Mapping[str, Any], length: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with `FIELDS` as one of the workdir's configurations has them."""
    config = copy.deepcopy(dict(config))
    for name in FIELDS:
        section, _, field = name.rpartition(".")
        if field in length[section]:
            config[section][field] = length[section][field]
        else:
            config[section].pop(field, None)
    return config


def steps(
    experiment: Experiment, earlier: Iterable[Experiment], of: Callable[[Experiment], Iterable[int]]
) -> list[int]:
    """The steps that `of` gives for the run of each length, each from the end of the one before on; ascending."""
    joined, end = [], -1
    for length in (*earlier, experiment):
        joined += sorted(step for step in of(length) if step > end)
        end = length.train.steps
    return joined


def _check(root, now, config, differing) -> None:
    if others := [name for name in differing if name not in FIELDS]:
        raise ValueError(
            f"--extend goes on with the config of {root} but for {', '.join(FIELDS)}; got another {', '.join(others)}"
        )
    old, new = (value["train"]["steps"] for value in (now, config))
    if new <= old:
        raise FieldError("train.steps", f"must be more than the {old} of {root} with --extend, got {new}")


def _check_measured(experiment, earlier) -> None:
    """Raises FieldError for steps before the former length that are asked for now and were not then."""
    *before, former = earlier
    for name, of in (("steps", measured_steps), ("checkpoint_steps", kept_steps)):
        known = steps(former, before, of)
        asked = [step for step in getattr(experiment.measuring, name) if step <= former.train.steps]
        if other := sorted({*asked} - {*known}):
            raise FieldError(
                f"measure.{name}", f"must be as it was up to step {former.train.steps}, among {known}, got {other[0]}"
            )


def measured_steps(of: Experiment) -> Sequence[int]:
    """The steps that a run measures, for `steps`."""
    return of.measuring.at_steps(of.train.steps)


def kept_steps(of: Experiment) -> Sequence[int]:
    """The steps whose checkpoints a run keeps, for `steps`."""
    return of.measuring.checkpoint_steps
