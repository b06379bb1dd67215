"""Experiments, a file each: a task, a model, and what is measured along a training (`training.experiment`).

A config names one by `experiment = "regression"`: a name of `BUILT_IN` or of the entry points `jaxconcepts.experiments`
of any installed package, or "module:Class" or "file.py:Class" for one of your own.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

BUILT_IN = {
    "biographies": "jaxconcepts.experiments.biographies:Biographies",
    "grammar": "jaxconcepts.experiments.grammar:Grammar",
    "language": "jaxconcepts.experiments.language:Language",
    "reasoning": "jaxconcepts.experiments.reasoning:Reasoning",
    "regression": "jaxconcepts.experiments.regression:Regression",
}
ENTRY_POINTS = "jaxconcepts.experiments"
FROM_FILE = "_experiment_"
"""How modules are called that come from a file."""


def find(name: str) -> type:
    """The class of an experiment. Raises ValueError for an unknown name, what cannot be imported, and a class that is
    no experiment or lacks a method."""
    return _find(name) if isinstance(name, str) else _find.__wrapped__(name)


@cache
def _find(name: Any) -> type:
    from jaxconcepts.training.experiment import check_experiment

    installed = {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}
    known = BUILT_IN | installed
    if not isinstance(name, str) or (name not in known and ":" not in name):
        raise ValueError(
            f"experiment must be one of {', '.join(sorted(known))}, module:Class or file.py:Class, got {name!r}"
        )
    kind = load(known.get(name, name), "experiment")
    check_experiment(kind, name)
    return kind


def name_of(kind: type) -> str:
    """What a config calls an experiment's class: its name if it is registered, else "module:Class"."""
    reference = f"{kind.__module__}:{kind.__qualname__}"
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if kind.__module__.startswith(FROM_FILE) and file:
        reference = f"{file}:{kind.__qualname__}"
    registered = {point.value: point.name for point in metadata.entry_points(group=ENTRY_POINTS)}
    return ({value: name for name, value in BUILT_IN.items()} | registered).get(reference, reference)


def of_config(config: Mapping[str, Any]) -> type:
    """The class of the experiment that a configuration is of; "regression" where it names none."""
    return find(config.get("experiment", "regression"))


@cache
def load(text: str, what: str) -> Any:
    """The object "module:Name" or "file.py:Name"; what: the field that named it, for errors (ValueError)."""
    where, _, name = text.rpartition(":")
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:
        raise ValueError(f"{what} {text} cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        raise ValueError(f"{what} {text}: {where} has no {name}")
    return getattr(module, name)


def _from_file(path: Path):
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    path = path.resolve()
    # Registered under a name of its own, which dataclasses and pickling look up.
    name = f"{FROM_FILE}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
