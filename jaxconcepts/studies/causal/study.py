"""The causal study of a language model: does changing the state that encodes a concept change what the model answers?

Patches (arXiv 2412.12276, section 5), task vectors (Hendel et al. 2023), function vectors (Todd et al. 2024), steering,
head ablation and interchange patching, each a function in `causal_experiments`, on every family of tasks. Tables go to
WORKDIR/causal/<experiment>/<family>.parquet and are not made again where they are there; WORKDIR/causal/models says
which model they are of.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence

import numpy as np
import polars as pl
from etils import epath

from jaxconcepts import fields, store
from jaxconcepts.models import pretrained, sharding
from jaxconcepts.models import tokenizer as tokenizer_file
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.prompts import render
from jaxconcepts.prompts.family import Family
from jaxconcepts.store import files
from jaxconcepts.studies.asking import checkpoints
from jaxconcepts.studies.causal import edited_pass as causal_pass
from jaxconcepts.studies.causal import experiments as causal_experiments
from jaxconcepts.studies.causal.config import EXPERIMENTS, OF_HEADS, CausalConfig
from jaxconcepts.studies.causal.edited_pass import Session
from jaxconcepts.studies.causal.experiments import Prepared
from jaxconcepts.studies.icl import config as icl_config

log = logging.getLogger("jaxconcepts")

STUDY = "causal"


def run(config: CausalConfig, model: str, workdir: epath.PathLike, revision: str | None = None) -> None:
    """The whole study of a checkpoint folder (or repository id); needs transformers for its tokenizer.

    Raises ValueError, before weights are read, for families without prompts enough, and for a workdir that was made
    with another config or model.
    """
    families = icl_config.families(config)
    for name, family in families.items():
        _check(config, name, family)
    described = json.loads(json.dumps(fields.identity(CausalConfig, fields.plain(config)))) | {
        "model": str(model),
        "revision": revision,
    }
    how = {name: value for name, value in described.items() if name not in ("experiments", "batch_size")}
    todo = [
        (name, experiment)
        for name in families
        for experiment in config.experiments
        if not store.has_result(workdir, STUDY, experiment, _part(name))
    ]
    if todo:
        # What is wrong with the checkpoint is said before the workdir is given this config.
        folder = pretrained.resolve(model, revision)
        loaded, tokenizer = pretrained.read_config(folder, config.dtype), tokenizer_file.load(folder)
        pretrained.check_params(loaded, folder)
        _check_heads(loaded, [experiment for _, experiment in todo])
    with store.open_study(workdir, STUDY, how):
        if not todo:
            log.info("all experiments are done")
            return
        session = Session(config, loaded, pretrained.read_params(loaded, folder, sharding.auto_mesh(None)), tokenizer)
        row = checkpoints.Checkpoint(0, str(model), revision).described(session.model)
        store.write_result(workdir, STUDY, "models", "model", pl.DataFrame([row]))
        started, number = time.monotonic(), 0
        for name, family in families.items():
            wanted = [experiment for of, experiment in todo if of == name]
            if not wanted:
                continue
            prepared = prepare(session, family)
            store.write_result(workdir, STUDY, "concepts", _part(name), _concepts(name, family, prepared))
            if not prepared.concepts:
                log.warning("%s: no concept has a correctly answered prompt; nothing can be patched", name)
                continue
            for experiment in wanted:
                table = getattr(causal_experiments, experiment)(session, family, prepared)
                table = table.select(pl.lit(name).alias("family"), pl.all())
                store.write_result(workdir, STUDY, experiment, _part(name), table)
                number += 1
                seconds = time.monotonic() - started
                left = seconds / number * (len(todo) - number)
                log.info("%s: %s (%d of %d), %.0f s, %.0f s left", name, experiment, number, len(todo), seconds, left)


def prepare(session: Session, family: Family) -> Prepared:
    """Test prompts, and the mean states of prompts that are answered rightly, of every concept that has one.

    Concepts without one are skipped, named and counted.
    """
    config = session.config
    others = {k: family.concepts[(i + 1) % len(family.concepts)] for i, k in enumerate(family.concepts)}
    counts, states, heads, heads_mean = {}, {}, {}, {}
    for concept in family.labels:
        prompts = render.prompts(
            family, concept, config.shots, config.for_means,
            seed=config.seed + 1, template=config.template, split="train",
        )  # fmt: skip
        asked = causal_pass.encode(session, family, prompts, others)
        # The answers of the concept without information cannot be right but by chance.
        rows = np.arange(len(prompts))
        if concept != family.null:
            rows = np.flatnonzero(causal_pass.ask(session, asked, what=f"{family.name}: {concept}").correct)
        counts[concept] = len(rows)
        if not len(rows):
            log.warning(
                "%s: %s is skipped: none of its %d prompts has a correct answer", family.name, concept, len(prompts)
            )
            continue
        found = causal_pass.capture(session, causal_pass.take(asked, rows))
        states[concept], heads[concept] = found.states.mean(1), found.heads.mean(1)
        heads_mean[concept] = found.heads_mean.mean(1)
    concepts = [concept for concept in family.concepts if concept in states]
    skipped = len(family.concepts) - len(concepts)
    log.info("%s: %d concepts, %d skipped", family.name, len(concepts), skipped)
    # The other concept of each is the next one that was not skipped.
    others = {k: concepts[(i + 1) % len(concepts)] for i, k in enumerate(concepts)} if len(concepts) > 1 else {}
    test = []
    for concept in concepts:
        test += render.prompts(
            family, concept, config.shots, config.test_prompts, seed=config.seed, template=config.template
        )
    asked = causal_pass.encode(session, family, test, others)
    null = states.get(family.null)
    return Prepared(concepts, others, asked, counts, states, null, heads, heads_mean)


def _concepts(name: str, family: Family, prepared: Prepared) -> pl.DataFrame:
    rows = [(name, k, count, k in prepared.states) for k, count in prepared.counts.items()]
    return pl.DataFrame(rows, ["family", "concept", "behind_mean", "used"], orient="row")


def _check_heads(model: Decoder, experiments: Sequence[str]) -> None:
    if model.ATTENDS or not (of_heads := [name for name in experiments if name in OF_HEADS]):
        return
    others = ",".join(name for name in EXPERIMENTS if name not in OF_HEADS)
    raise ValueError(
        f"a {model.MODEL_TYPE} model has no attention heads, which the experiment {of_heads[0]} changes; "
        f"--config.experiments={others} asks for what it has"
    )


def _check(config: CausalConfig, name: str, family: Family) -> None:
    if len(family.concepts) < 2:
        raise ValueError(f"{name}: the causal study needs at least two concepts, got {len(family.concepts)}")
    for concept in family.labels:
        render.prompts(family, concept, config.shots, 1, seed=0, template=config.template, split="train")


def _part(name: str) -> str:
    return files.safe_name(name)
