"""Tunes arms together, as runs of one pack over one copy of the base weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import polars as pl
from jaxtyping import PyTree

from jaxconcepts import store
from jaxconcepts.runs import loop, packs
from jaxconcepts.runs.points import Point
from jaxconcepts.runs.programs import Programs
from jaxconcepts.studies.finetuning.config import Arm, FinetuneConfig
from jaxconcepts.training import tuning
from jaxconcepts.training.train import TrainState

log = logging.getLogger("jaxconcepts")


@dataclass(frozen=True)
class ArmPoint(Point):
    """An arm as a run of a pack. columns: of the runs table."""

    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> str:
        return self.columns["run"]

    def hyper_parameters(self) -> dict[str, Any]:
        return {name: value for name, value in self.columns.items() if name != "run"}


def tune(
    config: FinetuneConfig,
    tuned: tuning.Tuned,
    arms: Sequence[Arm],
    run: store.Run,
    pack: str,
    checkpoint_seconds: float,
    labels: Mapping[str, Any],
) -> TrainState:
    """The arms' states at the end in NumPy, with a leading axis of arms. Writes the runs table (labels: columns of
    every row), train_loss by step, and checkpoints.

    Raises PreemptedError after SIGTERM or SIGINT, with everything done so far checkpointed.
    """
    stacked = tuning.stack_arms([arm.hparams for arm in arms])
    points = []
    for index, arm in enumerate(arms):
        numbers = jax.tree.map(lambda a, i=index: a[i], stacked)
        own = {
            "run": arm.run,
            "arm": arm.name,
            "patterns": json.dumps(arm.patterns),
            "tuned_blocks": json.dumps(arm.blocks),
        }
        points.append(ArmPoint({"seed": arm.seed}, tuned, numbers, arm.name, columns=own | dict(labels)))
    layout, devices = packs.Layout(config.how), packs.devices_of(tuned.shared.base)
    programs = Programs(layout, devices)
    state = loop.run_pack(pack, points, run, layout, checkpoint_seconds, programs=programs)
    return jax.tree.map(lambda a: np.asarray(a)[: len(arms)], state)


def one(state: TrainState, index: int) -> PyTree:
    """The tuned arrays of one arm."""
    return jax.tree.map(lambda array: array[index], state.params)


def keyed(frame: pl.DataFrame, arm: Arm | None, step: int, labels: Mapping[str, Any]) -> pl.DataFrame:
    """The measured rows of an arm (None: of the base) with the columns that say whose they are."""
    own = {"run": "base", "arm": "before", "seed": None, "tuned_blocks": "[]"}
    if arm is not None:
        own = {"run": arm.run, "arm": arm.name, "seed": arm.seed, "tuned_blocks": json.dumps(arm.blocks)}
    types = {"seed": pl.Int64, "step": pl.Int64}
    columns = own | {"step": step} | dict(labels)
    return frame.select(*(pl.lit(value, types.get(name)).alias(name) for name, value in columns.items()), pl.all())


def movable(arm: Arm, layers: int) -> list[int]:
    """The hidden states that the arm can change: those from its first tuned block on (layer l comes out of block l)."""
    return list(range(min(arm.blocks), layers + 1)) if arm.blocks else []
