"""Is fine-tuning's gain from encoding? Tune some layers of a language model, and see what CD and accuracy do.

    finetuning.finetune(finetuning.from_fields(fields), "path/or/repo-id", workdir)

For each family of tasks the arms (first n blocks, last n, all, none) are tuned together on the answers of in-context
prompts, their adapters side by side over one copy of the weights. Before and after, CD at every layer and accuracy are
measured as in the in-context study. Hidden states below an arm's first tuned block cannot move: an arm whose CD is
headed there leaves it as it is by construction, and the tables say which layers those are.

    WORKDIR/config.json, runs/, metrics/, checkpoints/   a run an arm: train_loss by step, adapters
            finetuning/metrics/<run>-<cell>.parquet      run, arm, seed, tuned_blocks, step, model, family, shots,
                                                         variant, metric, layer, concept, other, value
            adapters/<run>/                              in PEFT's format
            models/<run>/                                merged weights as a checkpoint folder, where asked for
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxconcepts import store
from jaxconcepts.models import pretrained, sharding
from jaxconcepts.models import tokenizer as tokenizer_file
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.prompts import render
from jaxconcepts.prompts.family import Family
from jaxconcepts.store import files
from jaxconcepts.studies.asking import checkpoints
from jaxconcepts.studies.asking.prompt_pass import read_prompts
from jaxconcepts.studies.finetuning import arms as finetuning_arms
from jaxconcepts.studies.finetuning.config import Arm, FinetuneConfig, default_fields, from_fields, make_arms, recorded
from jaxconcepts.studies.icl import cells as icl_cells
from jaxconcepts.studies.icl import config as icl_config
from jaxconcepts.studies.icl import rows as icl_rows
from jaxconcepts.studies.icl import scores as icl_scores
from jaxconcepts.training import lora, tuning
from jaxconcepts.training.answer_loss import Examples, answer_loss, batch_of_step, examples

__all__ = ["FinetuneConfig", "default_fields", "finetune", "from_fields"]

STUDY = "finetuning"
log = logging.getLogger("jaxconcepts")


class Prepared(NamedTuple):
    """What a tuning needs beside weights: of the checkpoint its folder, model and tokenizer; the families by name, and
    of each its arms and training examples; the prompts that are measured, by cell."""

    folder: Path
    model: Decoder
    tokenizer: Any
    families: dict[str, Family]
    arms: dict[str, list[Arm]]
    encoded: dict[icl_cells.Cell, Any]
    data: dict[str, Examples]


def prepare(
    config: FinetuneConfig, source: str, revision: str | None = None, using: Mapping[str, Family] | None = None
) -> Prepared:
    """Reads all of a checkpoint but its weights; arguments and errors as of `finetune`."""
    using = icl_config.families(config.measure) if using is None else dict(using)
    folder = pretrained.resolve(source, revision)
    model, tokenizer = pretrained.read_config(folder, config.measure.dtype), tokenizer_file.load(folder)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    arms = {name: make_arms(config, model, shapes, name) for name in using}
    cells = icl_cells.cells(config.measure, using)
    encoded = icl_cells.encode_all(config.measure, using, cells, tokenizer)
    icl_cells.check_fits(model, tokenizer, encoded, source)
    pretrained.check_params(model, folder)
    data = {name: training_examples(config, model, family, tokenizer) for name, family in using.items()}
    return Prepared(folder, model, tokenizer, using, arms, encoded, data)


def finetune(
    config: FinetuneConfig,
    source: str,
    workdir: epath.PathLike,
    *,
    revision: str | None = None,
    using: Mapping[str, Family] | None = None,
    prepared: Prepared | None = None,
    mesh: jax.sharding.Mesh | None = None,
    checkpoint_seconds: float = 60.0,
    device: Mapping[str, Any] | None = None,
) -> epath.Path:
    """Tunes and measures every arm that the workdir does not yet hold; returns the workdir.

    source, revision: the checkpoint, as of `load_pretrained`. using: the families by name, in place of those that
    config.measure names. prepared: what `prepare` gave for these, where it was called before. mesh: parameters are
    sharded over its "model" axis.

    Raises ValueError before weights are read for settings, arms, prompts and a tokenizer that do not fit the model;
    PreemptedError after SIGTERM or SIGINT; WorkdirInUseError.
    """
    prepared = prepare(config, source, revision, using) if prepared is None else prepared
    folder, model, _, using, arms, _, data = prepared
    checkpoint = checkpoints.Checkpoint(0, source, revision).label
    record = _plain(recorded(config) | {"model": checkpoint, "model_type": model.MODEL_TYPE})
    record |= {name: getattr(model, name) for name in ("layers", "width", "heads", "kv_heads", "vocab_size")}
    record["labels"] = {name: list(family.labels) for name, family in using.items()}
    record["null"] = {name: family.null for name, family in using.items()}
    with (
        store.open_run(workdir, _without_execution(record), device=device) as run,
        store.open_study(workdir, STUDY, _without_execution(record)),
    ):
        base = pretrained.read_params(model, folder, sharding.auto_mesh(mesh))
        for name in using:
            measure = partial(_measure, config, prepared, name, run.workdir, checkpoint)
            measure(base, None, 0)
            log.info("%s: tuning %s", name, ", ".join(arm.run for arm in arms[name]))
            made = tuning.make_tuning(config.tune, model)
            shared = tuning.Shared(base, data[name])
            tuned_together = tuning.Tuned(model, config.tune, partial(_objective, model, config), shared)
            labels = {"model": checkpoint, "family": name, "train_shots": config.shots}
            state = finetuning_arms.tune(
                config, tuned_together, arms[name], run, files.safe_name(name), checkpoint_seconds, labels
            )
            stacked = tuning.stack_arms([arm.hparams for arm in arms[name]])
            for index, arm in enumerate(arms[name]):
                tuned, hparams = finetuning_arms.one(state, index), jax.tree.map(lambda a, i=index: a[i], stacked)
                measure(made.with_tuned(base, tuned, hparams), arm, config.tune.steps)
                merged = partial(made.merged, base, tuned, hparams)
                _export(config, prepared, arm, tuned, hparams.masks, merged, Path(run.workdir), source)
    return epath.Path(workdir)


def training_examples(config: FinetuneConfig, model: Decoder, family: Family, tokenizer) -> Examples:
    """The family's training prompts, each with its answer and the separator that ends it, in token arrays.

    Raises ValueError as `render` does, where there are fewer than a batch, and for prompts beyond the context.
    """
    each = config.samples // len(family.concepts)
    if each * len(family.concepts) < config.tune.batch_size:
        raise ValueError(
            f"samples must be at least tune.batch_size = {config.tune.batch_size} and {len(family.concepts)} concepts "
            f"of {family.name} in equal parts, got {config.samples}"
        )
    template = config.measure.template
    prompts = [
        prompt._replace(answer=prompt.answer + template.separator)
        for concept in family.concepts
        for prompt in render.prompts(
            family, concept, config.shots, each, seed=config.measure.seed, template=template, split="train"
        )
    ]
    ids, answers = render.encode(tokenizer, prompts, config.measure.bos)
    return examples(model, ids, answers)


def _objective(model, config, params, data, seed, step):
    return answer_loss(model, params, batch_of_step(data, config.tune.batch_size, seed, step), config.remat)


def _measure(config, prepared: Prepared, family_name, root, checkpoint, params, arm: Arm | None, step: int) -> None:
    """CD at every layer and accuracy, of every cell of a family that is not there yet."""
    model, family = prepared.model, prepared.families[family_name]
    run = f"{family.name}-before" if arm is None else arm.run
    for cell, prompts in prepared.encoded.items():
        name = f"{files.safe_name(run)}-{cell}"
        if cell.family != family_name or store.has_result(root, STUDY, "metrics", name):
            continue
        found = read_prompts(config.measure, model, params, prepared.tokenizer, prompts, name)
        measure, own = config.measure, len(family.concepts)
        scores = icl_scores.reduce_states(found.states, prompts.queries, measure, len(family.labels), own)
        labels = {"model": checkpoint} | cell._asdict()
        frame = icl_rows.of_cell(found, scores, {}, prompts, family, measure.seed)
        store.write_result(root, STUDY, "metrics", name, finetuning_arms.keyed(frame, arm, step, labels))
        cd = scores.cd[:, -1]
        accuracy = found.correct.reshape(len(family.labels), -1)[:own].mean()
        log.info("%s: accuracy %.3f, CD %s", name, accuracy, _by_part(cd, arm, model.layers))


def _by_part(cd: np.ndarray, arm: Arm | None, layers: int) -> str:
    """The best CD of the layers that an arm cannot change, and of those that it can change."""
    best = lambda rows: f"{max(cd[row] for row in rows):.3f}"  # noqa: E731
    moving = [] if arm is None else finetuning_arms.movable(arm, layers)
    fixed = [layer for layer in range(layers + 1) if layer not in moving]
    parts = [f"at most {best(fixed)} in layers 0 to {fixed[-1]}{'' if arm is None else ', which cannot change'}"]
    return "; ".join(parts + ([f"at most {best(moving)} in layers {moving[0]} to {moving[-1]}"] if moving else []))


def _export(config, prepared: Prepared, arm: Arm, tuned, masks, merged, root: Path, source: str) -> None:
    folder, model = prepared.folder, prepared.model
    if config.tune.lora is not None and arm.blocks:
        lora.save_peft(config.tune.lora, model, tuned, masks, root / "adapters" / arm.run, source)
    if arm.name in config.merged:
        target = root / "models" / arm.run
        pretrained.save_pretrained(model, merged(), target)
        if folder.is_file():  # A GGUF file holds its tokenizer.
            tokenizer_file.load(folder).save_pretrained(target)
        for name in (*checkpoints.TOKENIZER_FILES, "special_tokens_map.json", "merges.txt", "added_tokens.json"):
            if (folder / name).exists():
                shutil.copy(folder / name, target / name)
        log.info("merged weights of %s: %s", arm.run, target)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(config, default=list))


def _without_execution(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("how", "remat")}
