"""Does Concept Decodability predict in-context accuracy? The study, on one checkpoint or a series along pretraining.

    icl.run(icl.IclConfig(shots=(1, 4)), [icl.Checkpoint(0, "path/or/repo-id")], workdir)

A *cell* is a checkpoint, a family, a number of shots and a variant of the prompt. One pass over its prompts gives
greedy answers, the log-probability of what each concept would answer, and the hidden states of all layers at the last
prompt token (the residual stream; layer 0 is the embeddings), which stay on the device: CD is what leaves it.

    WORKDIR/icl/config.json              what all cells were measured with, labels by family, digests of the examples
            icl/metrics/<cell>.parquet   a row a number: run, checkpoint, step, family, shots, variant; metric, layer,
                                         concept, other, value
            icl/fits/<...>.parquet       the same columns: CD against accuracy over all shots of a family and variant
            icl/hidden/<cell>.parquet    run, layer, concept, point, state; with keep_hidden
            icl/untrained/<shape>-<cell>.parquet  CD of an untrained model, once for checkpoints of one shape
            icl/models/<step>.parquet    checkpoint, step, and what its config.json says of its sizes
            icl/parts/<cell>-<checkpoint>/   what was read of the cell that is being measured

A cell is one file that appears whole, and one that is there is not measured again. What was read of a cell's prompts is
kept every ten seconds. So whatever is killed goes on from there, with the same tables. Concepts are numbered as in the
labels, Null last; a null concept is the mean without Null. Metrics:
    accuracy, accuracy_low, accuracy_high   exact match, 95 % interval in which prompts of one query count together
    cd, cd_low, cd_high      by layer: mean over draws that share no prompt, ties split, 95 % interval; prompts of one
                             query do not vote for each other
    cd_null, cd_null_high, cd_p   by layer: mean and 95 % point under permuted labels, permutation p-value
    cd_with_query    by layer: CD where they do
    cd_prompt_tokens, cd_shown_answers, cd_untrained   CD of the controls (`controls`), each with _low and _high; the
                     last by layer too, and at untrained_layer where layer is null
    cd_above, cd_above_low, cd_above_high   by layer: CD less the highest control, with its interval
    cd_coincident    by layer: 1 where all states are one point, so that CD says nothing
    cd_chosen_on, headline_layer  CD on the prompts set apart to choose the layer, and the layer chosen
    pairwise_cd      at the headline layer, of concept and other
    confusion        share of concept's wrong answers that other's rule gives; other null: that no rule gives
    log_prob         mean log-probability (nats) of what other would answer to concept's prompts
    r2, r2_low, r2_high, r2_adjusted, r2_null, r2_p, spearman   accuracy against CD at the headline layer, over
                     concepts (`metrics.association`); r2_with_null and so on: Null too
    queries          distinct queries of the cell
    prompts          a concept
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
import polars as pl
from etils import epath

from jaxconcepts import fields, store
from jaxconcepts.models import pretrained, sharding, through_transformers
from jaxconcepts.models import tokenizer as tokenizer_file
from jaxconcepts.prompts.family import Family
from jaxconcepts.store import files
from jaxconcepts.studies.asking import checkpoints as series
from jaxconcepts.studies.asking.checkpoints import Checkpoint
from jaxconcepts.studies.asking.passes import Parts
from jaxconcepts.studies.asking.prompt_pass import read_prompts, read_states
from jaxconcepts.studies.icl import cells as icl_cells
from jaxconcepts.studies.icl import controls as icl_controls
from jaxconcepts.studies.icl import rows as icl_rows
from jaxconcepts.studies.icl import scores as icl_scores
from jaxconcepts.studies.icl.cells import Cell, Encoded
from jaxconcepts.studies.icl.config import IclConfig, default_fields, families, from_fields
from jaxconcepts.training import initial

__all__ = ["Checkpoint", "IclConfig", "default_fields", "from_fields", "run"]

STUDY = "icl"
log = logging.getLogger("jaxconcepts.icl")


def run(
    config: IclConfig,
    checkpoints: Sequence[Checkpoint],
    workdir: epath.PathLike | store.Run,
    *,
    using: Mapping[str, Family] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    evict: bool = True,
) -> epath.Path:
    """Measures every cell that the workdir does not yet hold; returns the workdir.

    checkpoints: of pretraining, by step, or one. More may be given later, for the same workdir.
    workdir: a run directory, open (`store.Run`) or not; made if missing. What else it holds is left alone.
    using: the families by name, in place of those that config.families names.
    mesh: parameters are sharded over its "model" axis, batches over "data"; None is the first device.
    evict: delete, after its cells, what was fetched for a checkpoint; never a user's folder or cache.

    Raises ValueError before weights are read: for settings, too few examples, a tokenizer that is missing or does not
    match, prompts that do not fit the context, cells of other settings or another checkpoint; WorkdirInUseError.
    """
    ordered = series.check_series(checkpoints)
    using = families(config) if using is None else dict(using)
    wanted = icl_cells.cells(config, using)
    root = workdir.workdir if isinstance(workdir, store.Run) else epath.Path(workdir).expanduser()
    left = {
        c: [cell for cell in wanted if not store.has_result(root, STUDY, "metrics", _name(c, cell))] for c in ordered
    }
    known: dict[str, dict[Cell, Encoded]] = {}
    # What cannot work is said before the workdir is given this config.
    for checkpoint in ordered:
        if left[checkpoint] and (checkpoint.is_here or (not evict and checkpoint == ordered[0])):
            _prepared(config, using, wanted, checkpoint, pretrained.resolve(*checkpoint[1:3]), known)
    record = fields.identity(IclConfig, fields.plain(config)) | {
        "labels": {name: list(family.labels) for name, family in using.items()},
        "null": {name: family.null for name, family in using.items()},
        "examples": {name: _digest(family) for name, family in using.items()},
    }
    with contextlib.ExitStack() as held:
        _open(workdir, root, record, held)
        held.enter_context(store.open_study(root, STUDY, _plain(record)))
        _check_sources(root, ordered)
        cache = Path(root if files.is_local(root) else tempfile.gettempdir()) / "fetched"
        for number, checkpoint in enumerate(ordered):
            if left[checkpoint]:
                log.info(
                    "checkpoint %d of %d, step %d: %s", number + 1, len(ordered), checkpoint.step, checkpoint.label
                )
                with series.fetched(checkpoint, cache, evict) as folder:
                    prepared = _prepared(config, using, wanted, checkpoint, folder, known)
                    _measure(config, using, left[checkpoint], checkpoint, folder, root, prepared, mesh)
            _fits(config, using, checkpoint, root)
        # A cell that was stored just before a kill has left its parts.
        (root / STUDY / "parts").rmtree(missing_ok=True)
    return root


def _prepared(config, using, wanted, checkpoint, folder, known):
    """(model, tokenizer, every cell encoded) of a checkpoint that its prompts fit; `known`: of the last tokenizer."""
    model = pretrained.read_config(folder, config.dtype, checkpoint.through)
    tokenizer = tokenizer_file.load(folder)
    key = tokenizer_digest(tokenizer)
    if key not in known:
        known.clear()
        known[key] = icl_cells.encode_all(config, using, wanted, tokenizer)
    icl_cells.check_fits(model, tokenizer, known[key], checkpoint.label)
    pretrained.check_params(model, folder)
    return model, tokenizer, known[key]


def _measure(config, using, left, checkpoint, folder, root, prepared, mesh) -> None:
    """Every cell of `left` on one checkpoint."""
    model, tokenizer, encoded = prepared
    store.write_result(root, STUDY, "models", f"{checkpoint.step:09d}", pl.DataFrame([checkpoint.described(model)]))
    mesh = sharding.auto_mesh(mesh)
    untrained = _untrained(config, using, left, encoded, model, tokenizer, root, mesh) if config.untrained else {}
    params = pretrained.read_params(model, folder, mesh)
    start = time.monotonic()
    for done, cell in enumerate(left):
        began = time.monotonic()
        family, name = using[cell.family], _name(checkpoint, cell)
        parts = Parts(_parts_folder(root, checkpoint, name))
        found = read_prompts(config, model, params, tokenizer, encoded[cell], str(cell), parts)
        read = time.monotonic()
        averaged = len(family.concepts)
        scores = icl_scores.reduce_states(found.states, encoded[cell].queries, config, len(family.labels), averaged)
        if config.keep_hidden:
            hidden = icl_rows.hidden(name, found.states, len(family.labels), config, scores.headline)
            store.write_result(root, STUDY, "hidden", name, hidden)
        controls = _surface(config, family, encoded[cell])
        if cell in untrained:
            controls["untrained"] = icl_rows.untrained_score(untrained[cell])
        rows = icl_rows.of_cell(found, scores, controls, encoded[cell], family, config.seed)
        rows = pl.concat([rows, *([untrained[cell]] if cell in untrained else [])])
        store.write_result(root, STUDY, "metrics", name, _keyed(rows, name, checkpoint, cell))
        parts.remove()
        own, now = found.correct.reshape(len(family.labels), -1)[:averaged], time.monotonic()
        log.info(
            "%s: accuracy %.3f, CD %.3f at layer %d; %.1f prompts/s, CD of %d layers in %.1f s; cell %d of %d, %s left",
            cell, own.mean(), scores.cd[scores.headline, -1], scores.headline,
            len(found.correct) / (read - began), model.layers + 1, now - read, done + 1, len(left),
            _minutes((now - start) / (done + 1) * (len(left) - done - 1)),
        )  # fmt: skip


def _parts_folder(root, checkpoint, name) -> epath.Path:
    """Named by the checkpoint too: another one may be given for a step of which no cell is there yet."""
    label = hashlib.sha256(f"{checkpoint.label} {checkpoint.through}".encode()).hexdigest()[:12]
    return root / STUDY / "parts" / f"{name}-{label}"


def _surface(config, family, encoded) -> dict[str, icl_controls.Score]:
    """The controls on bags of tokens, by name."""
    sizes = (config.per_draw, len(family.labels), len(family.concepts))
    settings = {"k": config.k, "draws": config.draws, "seed": config.seed}
    return {
        name: icl_controls.of_bags(icl_controls.bags(texts), encoded.queries, *sizes, **settings)
        for name, texts in zip(icl_controls.SURFACE, (encoded.ids, encoded.shown), strict=True)
    }


def _untrained(config, using, left, encoded, model, tokenizer, root, mesh) -> dict[Cell, pl.DataFrame]:
    """CD of an untrained model of this shape on every cell of `left`: stored rows, made where they are missing."""
    shape = repr(dataclasses.replace(model, stop_tokens=())) + tokenizer_digest(tokenizer)
    names = {cell: f"{hashlib.sha256(shape.encode()).hexdigest()[:12]}-{cell}" for cell in left}
    missing = [cell for cell, name in names.items() if not store.has_result(root, STUDY, "untrained", name)]
    if missing:
        log.info("measuring CD of an untrained model of the same shape, in %d cell(s)", len(missing))
        params = _random(model, config.seed, mesh)
    for cell in missing:
        family, each = using[cell.family], config.prompts
        rows = (np.arange(len(family.labels))[:, None] * each + config.per_draw + np.arange(config.per_draw)).ravel()
        states = read_states(config, model, params, [encoded[cell].ids[row] for row in rows], f"{cell}, untrained")
        layer, score = icl_controls.of_states(
            states, encoded[cell].queries[rows], len(family.labels), len(family.concepts), k=config.k, seed=config.seed
        )  # fmt: skip
        frame = icl_rows.of_untrained(layer, score).select(pl.lit(names[cell]).alias("run"), pl.all())
        store.write_result(root, STUDY, "untrained", names[cell], frame)
    table = store.results(root, STUDY, "untrained")
    return {cell: table.filter(run=name).drop("run") for cell, name in names.items()}


def _random(model, seed, mesh):
    """Parameters of the model that nothing trained."""
    if isinstance(model, through_transformers.TransformersModel):
        return through_transformers.untrained(model, seed)
    init, key = partial(initial.fan_in, model), jax.random.key(seed)
    return jax.jit(init, out_shardings=sharding.specs(model, mesh, jax.eval_shape(init, key)))(key)


def _fits(config, using, checkpoint, root) -> None:
    """CD against accuracy over all shots together, for each family and variant; from the tables alone."""
    cells = icl_cells.cells(config, using)
    for family, variant in dict.fromkeys((cell.family, cell.variant) for cell in cells):
        alike = [cell for cell in cells if (cell.family, cell.variant) == (family, variant)]
        name = _name(checkpoint, alike[0]._replace(shots="all"))
        if store.has_result(root, STUDY, "fits", name):
            continue
        names = [_name(checkpoint, cell) for cell in alike]
        table = store.results(root, STUDY, "metrics").filter(pl.col("run").is_in(names))
        rows = icl_rows.fits(*icl_rows.points(table), len(using[family].concepts), config.seed)
        store.write_result(root, STUDY, "fits", name, _keyed(rows, name, checkpoint, alike[0]._replace(shots=None)))


def tokenizer_digest(tokenizer) -> str:
    """The same for tokenizers that give the same ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = repr(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
    return hashlib.sha256(f"{text}{tokenizer.bos_token_id}".encode()).hexdigest()


def _keyed(rows: pl.DataFrame, name: str, checkpoint: Checkpoint, cell: Cell) -> pl.DataFrame:
    """The rows under the columns that say which cell they are of."""
    return rows.select(
        pl.lit(name).alias("run"),
        pl.lit(checkpoint.label).alias("checkpoint"),
        pl.lit(checkpoint.step, pl.Int64).alias("step"),
        pl.lit(cell.family).alias("family"),
        pl.lit(cell.shots, pl.Int32).alias("shots"),
        pl.lit(cell.variant).alias("variant"),
        pl.all(),
    )


def _name(checkpoint: Checkpoint, cell: Cell) -> str:
    return f"{checkpoint.step:09d}-{cell}"


def _open(workdir, root, record, held) -> None:
    """Holds the run directory, unless it was given open or another study made it."""
    if isinstance(workdir, store.Run):
        return
    if (root / "config.json").exists() and store.config(root).get("study") != STUDY:
        return
    device = {"platform": jax.default_backend(), "kind": jax.devices()[0].device_kind, "count": jax.device_count()}
    held.enter_context(store.open_run(root, _plain({"study": STUDY} | record), device=device))


def _check_sources(root, ordered) -> None:
    table = store.results(root, STUDY, "metrics")
    was = {} if table is None else dict(table.select("step", "checkpoint").unique().iter_rows())
    for checkpoint in ordered:
        if (old := was.get(checkpoint.step, checkpoint.label)) != checkpoint.label:
            raise ValueError(
                f"step {checkpoint.step} of {root} is checkpoint {old}, got {checkpoint.label}: give it another workdir"
            )


def _digest(family: Family) -> str:
    examples = [[list(map(tuple, pools[c])) for c in family.labels] for pools in (family.train, family.test)]
    return hashlib.sha256(repr((examples, sorted(family.rules.items()))).encode()).hexdigest()[:16]


def _plain(record):
    """Tuples as lists, as JSON has them."""
    if isinstance(record, dict):
        return {name: _plain(value) for name, value in record.items()}
    return [_plain(value) for value in record] if isinstance(record, list | tuple) else record


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
