"""The config of a training: an experiment's fields, how many seeds of it are trained, and how runs are executed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxconcepts import fields
from jaxconcepts.runs.execution import Execution


def config_kind(values: Mapping[str, Any]) -> type:
    """The dataclass of a training's config, for the values of one."""
    from jaxconcepts.runs import loop

    defaults = dict(loop.default_config())
    del defaults["num_seeds"], defaults["run"]
    own = [
        ("num_seeds", int, fields.field(1, "runs trained together: seeds seed, seed + 1, ...", low=1, high=2**20)),
        ("run", Execution, fields.section(Execution)),
    ]
    bases = (fields.inferred(defaults, _added(defaults)),)
    return dataclasses.make_dataclass("TrainingConfig", own, bases=bases, frozen=True)


def _added(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the model that came after run directories had been made without them."""
    from jaxconcepts.experiments import regression
    from jaxconcepts.models import gpt2

    known = {*defaults["model"], *regression._DERIVED}
    return {f"model.{of.name}": of.default for of in dataclasses.fields(gpt2.GPT2Config) if of.name not in known}
