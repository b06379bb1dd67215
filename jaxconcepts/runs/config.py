"""The config of a training: an experiment's fields, how many seeds of it are trained, and how runs are executed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxconcepts import experiments, fields
from jaxconcepts.runs.execution import Execution


def config_kind(values: Mapping[str, Any]) -> type:
    """The dataclass of a training's config, for the values of one, whose experiment it has the fields of."""
    experiment = experiments.of_config(values)
    own = [
        ("num_seeds", int, fields.field(1, "runs trained together: seeds seed, seed + 1, ...", low=1, high=2**20)),
        ("run", Execution, fields.section(Execution)),
    ]
    return dataclasses.make_dataclass("TrainingConfig", own, bases=(experiment.config_kind(values),), frozen=True)
