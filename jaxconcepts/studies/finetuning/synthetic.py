"""Fine-tuning restricted to layers, of a checkpoint of a training's run directory, on the task that it was trained on.

The same arms and tables as of language models (`finetuning`). A checkpoint of before the concepts are encoded is the
one to ask: which layers must learn for CD to rise? Metrics: cd (by layer and concept, at the last x token), loss and
loss_last (held-out squared error, mean over positions and at the last), loss_bayes and loss_last_bayes.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from etils import epath

from jaxconcepts import store
from jaxconcepts.experiments import regression as synthetic
from jaxconcepts.store import files
from jaxconcepts.studies.finetuning import arms as finetuning_arms
from jaxconcepts.studies.finetuning.config import Arm, FinetuneConfig, make_arms, recorded
from jaxconcepts.studies.icl import rows as icl_rows
from jaxconcepts.sweeps import trained
from jaxconcepts.tasks import curriculum, regression
from jaxconcepts.training import train, tuning

STUDY, PACK = "finetuning", "regression"
UNUSED = ("how", "remat", "measure", "samples", "shots", "merged")
log = logging.getLogger("jaxconcepts")


def finetune(
    config: FinetuneConfig,
    source: epath.PathLike,
    workdir: epath.PathLike,
    *,
    run: str = "",
    step: int = -1,
    per_concept: int = 250,
    checkpoint_seconds: float = 60.0,
    device: Mapping[str, Any] | None = None,
) -> epath.Path:
    """Tunes and measures every arm that the workdir does not yet hold; returns the workdir.

    source: the run directory of `train` or `sweep`. run: one of its runs, by the beginning of its name ("" for the
    first). step: of a checkpoint, -1 for the last. per_concept: held-out sequences of each concept.

    Raises ValueError for a directory without checkpoints, an unknown run or step, and arms that do not fit the model.
    """
    found = trained.trained(source)
    first = [run] if run else [found[0].points[0].run]
    work = trained.chosen(found, first, [] if step == -1 else [step])
    pack, step, names = work[-1]
    point = next(point for point in pack.points if point.run == names[0])
    measured = dataclasses.replace(
        point.experiment.measuring, per_concept=per_concept, cd_per_concept=min(100, per_concept)
    )
    experiment = dataclasses.replace(point.experiment, measuring=measured)
    task, model = experiment.task, experiment.model
    place = [p.run for p in pack.points].index(point.run)
    base = jax.tree.map(lambda a: jnp.asarray(a[place]), trained.load_params(source, pack, step))
    arms = make_arms(config, model, base, point.run)
    record = json.loads(json.dumps(recorded(config), default=list))
    record |= {"model": epath.Path(source).name, "model_type": "regression", "layers": model.layers}
    record |= {"run": point.run, "step": step, "per_concept": per_concept, "labels": {PACK: _concepts(task)}}
    record |= {"width": model.width, "null": {PACK: None}, "task": dataclasses.asdict(task)}
    record = {name: value for name, value in record.items() if name not in UNUSED}

    # As at the end of a curriculum: everything is drawn.
    numbers = curriculum.at_step(point.numbers.curriculum, point.numbers.task, np.float32(2**30))

    def objective(params, task_numbers, seed, tuned_steps):
        # Another stream than that of the training, whose seed may be the same.
        key = jax.random.fold_in(jax.random.fold_in(train.data_key(seed), 1), tuned_steps)
        batch = regression.sample(task, task_numbers, key, config.tune.batch_size)
        return synthetic.objective_and_mse(model, experiment.train.loss, params, batch)[0]

    made = tuning.make_tuning(config.tune, model)
    tuned = tuning.Tuned(model, config.tune, objective, tuning.Shared(base, numbers))
    measure, held_out = jax.jit(experiment.measure), jax.jit(experiment.held_out)(point.numbers, None)
    constant = {name: named.values for name, named in synthetic.reference_losses(experiment, held_out, None).items()}
    labels = {"model": epath.Path(source).name, "family": PACK, "shots": task.num_pairs - 1, "variant": "plain"}

    def write(root, params, arm: Arm | None, tuned_steps):
        name = "before" if arm is None else files.safe_name(arm.run)
        if store.has_result(root, STUDY, "metrics", name):
            return
        values = {name: named.values for name, named in jax.device_get(measure(params, held_out)).items()}
        frame = _rows(values, jax.device_get(constant))
        store.write_result(root, STUDY, "metrics", name, finetuning_arms.keyed(frame, arm, tuned_steps, labels))
        cd = values["cd"][0].mean(-1)
        log.info(
            "%s: loss at the last position %.4f (Bayes mixture %.4f), CD by layer %s",
            name, values["loss"][:, -1].mean(), np.asarray(constant["loss_bayes"])[:, -1].mean(),
            " ".join(f"{value:.2f}" for value in cd),
        )  # fmt: skip

    with (
        store.open_run(workdir, record, device=device) as out,
        store.open_study(workdir, STUDY, record),
    ):
        write(out.workdir, base, None, 0)
        state = finetuning_arms.tune(config, tuned, arms, out, PACK, checkpoint_seconds, labels)
        stacked = tuning.stack_arms([arm.hparams for arm in arms])
        for index, arm in enumerate(arms):
            hparams = jax.tree.map(lambda a, i=index: a[i], stacked)
            params = made.merged(base, finetuning_arms.one(state, index), hparams)
            write(out.workdir, params, arm, config.tune.steps)
    return epath.Path(workdir)


def _rows(values: Mapping[str, np.ndarray], constant: Mapping[str, np.ndarray]) -> pl.DataFrame:
    cd = np.asarray(values["cd"][0])
    table = [*_of("cd", cd, "layer", "concept"), *_of("cd", cd.mean(1), "layer")]
    for suffix, loss in (("", values["loss"]), ("_bayes", constant["loss_bayes"])):
        for name, by_concept in (("loss", np.mean(loss, axis=1)), ("loss_last", np.asarray(loss)[:, -1])):
            table += [*_of(name + suffix, by_concept, "concept"), *_of(name + suffix, by_concept.mean())]
    return pl.DataFrame(table, schema=icl_rows.SCHEMA)


def _of(metric: str, values, *axes: str) -> list[dict[str, Any]]:
    """A row for every value, its place along each axis under that name."""
    places = np.ndenumerate(np.asarray(values, np.float64))
    return [{"metric": metric, "value": float(value)} | dict(zip(axes, at, strict=True)) for at, value in places]


def _concepts(task: regression.RegressionConfig) -> list[str]:
    return list(task.families) or [f"basis {concept + 1}" for concept in range(task.num_concepts)]
