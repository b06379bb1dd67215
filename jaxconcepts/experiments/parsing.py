"""What the experiments share in reading a run's configuration: defaults of dataclasses, unknown fields, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from jaxconcepts.experiments import evaluators
from jaxconcepts.training.optimizers import OptimizerNumbers

OPTIMIZER = {
    "learning_rate": 1e-4, "weight_decay": 0.0, "b1": 0.9, "b2": 0.9999, "eps": 1e-8, "clip_norm": float("inf"),
}  # fmt: skip
"""The optimiser's numbers at their defaults; they stand in the section "train"."""


def defaults(cls: type, without: Iterable[str] = ()) -> dict[str, Any]:
    """The defaults of a dataclass' fields."""
    return {field.name: field.default for field in fields(cls) if field.name not in without}


def hashable(section: Mapping[str, Any]) -> dict[str, Any]:
    """Tuples for the lists that JSON and the command line give."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}


def static(cls: type, section: Mapping[str, Any]) -> Any:
    """A dataclass from the fields of a section that it has."""
    names = {field.name for field in fields(cls)}
    return cls(**{name: value for name, value in hashable(section).items() if name in names})


def optimizer(config: Mapping[str, Any]) -> OptimizerNumbers:
    """The optimiser's numbers of the section "train", in float32."""
    return OptimizerNumbers(**{name: np.float32(config["train"][name]) for name in OPTIMIZER})


def check_fields(config: Mapping[str, Any], known: Mapping[str, Any], optional: Iterable[str] = ()) -> None:
    """Raises ValueError naming any field of `config` that `known` does not have, or that is missing.

    optional: dotted names of fields that may be there or not.
    """
    optional = set(optional)
    for name, accepted in [("", known)] + [(name, part) for name, part in known.items() if isinstance(part, dict)]:
        given = config if not name else config.get(name, {})
        if not isinstance(given, Mapping):
            raise ValueError(f"config field {name} must be a section with {', '.join(sorted(accepted))}, got {given!r}")
        prefix = f"{name}." if name else ""
        free = {field for field in {*accepted, *given} if prefix + field in optional}
        unknown = sorted(set(given) - set(accepted) - free)
        if unknown:
            raise ValueError(
                f"unknown config field {prefix}{unknown[0]}; {name or 'the config'} has {', '.join(sorted(accepted))}"
            )
        missing = sorted(set(accepted) - set(given) - free)
        if missing:
            raise ValueError(f"config field {prefix}{missing[0]} is missing")


def check_numbers(config: Mapping[str, Any], at_least_0: tuple[str, ...] = (), positive: tuple[str, ...] = ()) -> None:
    """Raises ValueError naming a number that does not fit: those of the optimiser, the seed, and the given ones."""
    at_least_0 = (*at_least_0, "train.learning_rate", "train.weight_decay", "train.eps")
    limits = [
        (at_least_0, lambda value: value >= 0, "a number of at least 0"),
        (("train.clip_norm", *positive), lambda value: value > 0, "a positive number"),
        (("train.b1", "train.b2"), lambda value: 0 <= value < 1, "a number of at least 0 and below 1"),
        (("seed",), lambda value: isinstance(value, int) and 0 <= value < 2**32, "an integer from 0 to 2**32 - 1"),
    ]
    for names, holds, accepted in limits:
        for name in names:
            section, _, field = name.rpartition(".")
            value = config[section][field] if section else config[field]
            if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
                raise ValueError(f"{name} must be {accepted}, got {value!r}")


def check_measuring(experiment, points: int) -> None:
    """Raises ValueError, before anything is compiled, for steps, neighbours and metrics that do not fit; points: on
    which CD is computed."""
    settings = experiment.measuring
    settings.at_steps(experiment.train.steps)
    if settings.neighbours >= points:
        raise ValueError(f"measure.neighbours must be below the number of points, {points}, got {settings.neighbours}")
    for name in settings.metrics:
        evaluators.evaluator(experiment, name)
