"""Tunes arms together from where their last checkpoint left them, over one copy of the base weights."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import polars as pl
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxconcepts import store
from jaxconcepts.runs.pacing import Pace
from jaxconcepts.runs.preemption import PreemptedError, stop_requested
from jaxconcepts.runs.progress import Progress
from jaxconcepts.store import tidy
from jaxconcepts.studies.finetuning.config import Arm, FinetuneConfig
from jaxconcepts.training import tuning
from jaxconcepts.training.train import TrainState

log = logging.getLogger("jaxconcepts")

ROW_STEPS = 20
"""The most steps that a row of the training loss covers."""


def tune(
    config: FinetuneConfig,
    made: tuning.Tuning,
    arms: Sequence[Arm],
    base: PyTree,
    data: Any,
    run: store.Run,
    pack: str,
    checkpoint_seconds: float,
    labels: Mapping[str, Any],
) -> TrainState:
    """The arms' states at the end, with a leading axis of arms. Writes the runs table (labels: columns of every row),
    train_loss by step, and checkpoints.

    Raises PreemptedError after SIGTERM or SIGINT, with everything done so far checkpointed.
    """
    stacked = tuning.stack_arms([arm.hparams for arm in arms])
    sharding = jax.tree.leaves(base)[0].sharding
    # Adapters are small: whole on every device that the base is shared out over.
    whole = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else sharding

    def init(hparams, base):
        return made.init(base, hparams)

    def chunk(*args):
        return made.chunk(*args[:-1], since=args[-1])

    init = jax.jit(tuning.over_arms(init, config.how), out_shardings=whole)
    chunk = jax.jit(tuning.over_arms(chunk, config.how, mapped=2), donate_argnums=0, out_shardings=(whole, whole))
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole), jax.eval_shape(init, stacked, base)
    )
    step, state = run.restore(pack, like)
    steps = config.tune.steps
    if state is None:
        state = init(stacked, base)
        run.save(pack, 0, state)
    _write_runs(config, run, pack, arms, labels, step, np.asarray(state.diverged_at))
    progress, last, losses = Progress(log, steps, step, len(arms)), time.monotonic(), []
    names, pace = [arm.run for arm in arms], Pace(step)
    with stop_requested() as signals:
        while step < steps:
            since = step % ROW_STEPS
            next_row = min(step - since + ROW_STEPS, steps)
            stop = min(next_row, step + pace.steps)
            state, loss = chunk(state, stacked, base, data, np.int32(stop - step), np.int32(since))
            loss, step = np.asarray(loss), stop
            pace.reached(step)
            pace.adapt(pace.microseconds)
            if step == next_row:
                losses.append(tidy.scalars(names, step, "train_loss", loss))
            progress.update(step, loss, None)
            if step == steps or signals or time.monotonic() - last >= checkpoint_seconds:
                if losses:
                    run.write_metrics(pack, step, pl.concat(losses))
                run.save(pack, step, state)
                _write_runs(config, run, pack, arms, labels, step, np.asarray(state.diverged_at))
                losses, last = [], time.monotonic()
                pace.reached(step)  # Writing is not training.
            if signals and step < steps:
                raise PreemptedError(f"stopped by a signal at step {step}; start again to go on")
    for arm, diverged in zip(arms, np.asarray(state.diverged_at), strict=True):
        if diverged >= 0:
            log.warning("%s diverged at step %d and stayed as it was; lower tune.learning_rate", arm.run, diverged)
    return state


def one(state: TrainState, index: int) -> PyTree:
    """The tuned arrays of one arm."""
    return jax.tree.map(lambda array: array[index], state.params)


def keyed(frame: pl.DataFrame, arm: Arm | None, step: int, labels: Mapping[str, Any]) -> pl.DataFrame:
    """The measured rows of an arm (None: of the base) with the columns that say whose they are."""
    own = {"run": "base", "arm": "before", "seed": None, "blocks": "[]"}
    if arm is not None:
        own = {"run": arm.run, "arm": arm.name, "seed": arm.seed, "blocks": json.dumps(arm.blocks)}
    types = {"seed": pl.Int64, "step": pl.Int64}
    columns = own | {"step": step} | dict(labels)
    return frame.select(*(pl.lit(value, types.get(name)).alias(name) for name, value in columns.items()), pl.all())


def movable(arm: Arm, layers: int) -> list[int]:
    """The hidden states that the arm can change: those after its first tuned block (layer l is the stream after block
    l - 1, 0 the embeddings)."""
    return list(range(min(arm.blocks) + 1, layers + 1)) if arm.blocks else []


def _write_runs(config, run, pack, arms, labels, step, diverged_at):
    done = step == config.tune.steps
    table = [
        {
            "run": arm.run, "point": arm.name, "seed": arm.seed, "step": step,
            "status": "diverged" if diverged >= 0 else "done" if done else "running",
            "diverged_at": int(diverged) if diverged >= 0 else None,
            "arm": arm.name, "patterns": json.dumps(arm.patterns), "blocks": json.dumps(arm.blocks),
        }
        | dict(labels)
        for arm, diverged in zip(arms, diverged_at, strict=True)
    ]  # fmt: skip
    run.write_runs(pack, pl.DataFrame(table, schema_overrides={"diverged_at": pl.Int64}))
