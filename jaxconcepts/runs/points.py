"""Points of a sweep: one run's full configuration, its name, and the group that it is compiled with."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxconcepts import experiments, nested
from jaxconcepts.runs.lengths import FIELDS, Lengths, of_length
from jaxconcepts.training.experiment import Experiment


@dataclass(frozen=True)
class Point:
    """One run. config: its full configuration. experiment, numbers: what it says. hash: of the configuration that it
    was begun with. run: its name in every table. earlier: its experiments before it was made longer (`lengths`)."""

    config: Mapping[str, Any]
    experiment: Experiment
    numbers: Any
    hash: str
    earlier: tuple[Experiment, ...] = ()

    @property
    def run(self) -> str:
        return f"seed{self.config['seed']}-{self.hash[:12]}"

    def hyper_parameters(self) -> dict[str, Any]:
        """Every field by dotted name, for the runs table; as JSON text sequences and what may be None (`nullable`)."""
        flat = flatten(experiments.of_config(self.config).completed(self.config))
        as_text = nullable(self.config)
        return {
            name: json.dumps(v) if isinstance(v, list | tuple) or (name in as_text and v is not None) else v
            for name, v in flat.items()
            if "." in name
        }


def nullable(config: Mapping[str, Any]) -> set[str]:
    """The fields that are None by default, by dotted name. Their columns of the runs table are text in every part, for
    a part where all are None has to go together with one where none is."""
    defaults = flatten(experiments.of_config(config).default_config(config))
    return {name for name, value in defaults.items() if value is None and "." in name}


def make_point(config: Mapping[str, Any], lengths: Lengths = ()) -> Point:
    """Checks a run's configuration and names it. lengths: the workdir's, of which the run has the last one.

    Raises ValueError naming a field that the experiment does not take.
    """
    kind = experiments.of_config(config)
    *before, config = [of_length(config, length) for length in lengths] if len(lengths) > 1 else [config]
    experiment = kind.from_config(config)
    digest = hashlib.sha256(kind.canonical((*before, config)[0]).encode()).hexdigest()
    return Point(config, experiment, experiment.numbers(config), digest, tuple(map(kind.from_config, before)))


def stored(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as run directories keep it: without fields added later that are at their defaults."""
    return experiments.of_config(config).stored(config)


def expand(base: Mapping[str, Any], sweep: Iterable[Mapping[str, Any]], lengths: Lengths = ()) -> list[Point]:
    """The points of a sweep: the base configuration with each of the overrides, each different one once, in order.

    sweep: overrides by dotted field, e.g. a `space.Space`. A whole number is taken for a real one where the field is.
    lengths: as of `make_point`; the sweep then varies none of `lengths.FIELDS`.

    Raises ValueError, before anything runs, for an empty sweep, an unknown field, a section given beside one of its
    fields, and for a point that is invalid, which is named by its place and overrides.
    """
    known = flatten(_completed(base))
    points: dict[str, Point] = {}
    place = -1
    for place, override in enumerate(sweep):
        if not isinstance(override, Mapping):
            raise ValueError(f"a sweep must give dicts of overrides by dotted field, got {override!r}")
        for name in override:
            _check_swept(name, base, known)
            if len(lengths) > 1 and name in FIELDS:
                raise ValueError(f"--extend takes sweeps that do not vary {name}, of which every run has the same")
        try:
            point = make_point(apply(base, override), lengths)
        except (ValueError, TypeError) as error:
            raise ValueError(f"point {place} of the sweep, {dict(override)}, is invalid: {error}") from error
        points.setdefault(point.hash, point)
    if place < 0:
        raise ValueError("a sweep must have at least one point, got none")
    return list(points.values())


def with_seeds(sweep: Iterable[Mapping[str, Any]], first: int, count: int) -> list[dict[str, Any]]:
    """Every override with `count` seeds, first, first + 1, ...; as they are for one seed, which the base then has.

    Raises ValueError where the sweep has seeds of its own beside a `count`.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"num_seeds must be a positive integer, got {count!r}")
    sweep = list(sweep)
    if count == 1:
        return sweep
    if any("seed" in override for override in sweep):
        raise ValueError(f"seed is given twice: by the sweep and by num_seeds = {count}; leave num_seeds at 1")
    return [dict(override) | {"seed": seed} for override in sweep for seed in range(first, first + count)]


def expand_with_seeds(
    base: Mapping[str, Any], count: int, sweep: Iterable[Mapping[str, Any]], lengths: Lengths = ()
) -> list[Point]:
    """`expand` of `with_seeds`, from the base's seed on."""
    return expand(base, with_seeds(sweep, base["seed"], count), lengths)


def apply(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the configuration with fields replaced by dotted name; ValueError for a value of another type."""
    config = copy.deepcopy(dict(base))
    for name, value in override.items():
        section, _, field = name.rpartition(".")
        part = config[section] if section else config
        part[field] = _like(name, value, part.get(field))
    return config


def differences(base: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides by dotted field that turn `base` into `config`."""
    old, new = flatten(_completed(base)), flatten(_completed(config))
    return {name: value for name, value in new.items() if json.dumps(value) != json.dumps(old.get(name))}


def group(points: Sequence[Point]) -> list[list[Point]]:
    """The points by experiment, in order of first appearance: one compilation a group."""
    groups: dict[Experiment, list[Point]] = {}
    for point in points:
        groups.setdefault(point.experiment, []).append(point)
    return list(groups.values())


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of a configuration by dotted name."""
    return nested.flat(config, depth=1)


def _completed(config):
    """With every field that a configuration may leave out."""
    return experiments.of_config(config).completed(config)


def _check_swept(name, base, known):
    if name in known:
        return
    section = base.get(name)
    if isinstance(section, Mapping):
        raise ValueError(f"a sweep must name single fields, such as {name}.{next(iter(section))}, got {name}")
    part = base.get(name.rpartition(".")[0])
    accepted = part if isinstance(part, Mapping) else known
    raise ValueError(f"unknown swept field {name}; accepted: {', '.join(sorted(accepted))}")


def _like(name, value, old):
    """The value as plain Python, of the type that the configuration has there (None takes anything)."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kind = list if isinstance(old, list | tuple) else type(old)
    if old is not None and type(value) is not kind:
        raise ValueError(f"{name} must be of type {kind.__name__}, got {value!r}")
    return value
