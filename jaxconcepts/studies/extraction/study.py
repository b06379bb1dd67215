"""Hidden states of a pretrained model at the last token of thousands of prompts, streamed to disk; and their CD.

    workdir/config.json, provenance.json, log.txt   as in every run directory
            hidden.zarr, prompts/, hashes/, done.json   see `states`
            decodability.parquet                    label, layer, cd

Prompts are read, sorted by length and run a window at a time, so memory does not grow with their number. A batch is one
chunk of the array and its rows follow from the prompts file alone: after a kill the batches that are not counted in
done.json are written again, to the same places.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from etils import epath

from jaxconcepts import store
from jaxconcepts.metrics.decodability import concept_decodability
from jaxconcepts.models import language, pretrained
from jaxconcepts.models import tokenizer as tokenizer_file
from jaxconcepts.store import files, manifest, tables
from jaxconcepts.studies.asking.passes import one_ahead
from jaxconcepts.studies.extraction import prompt_file, states
from jaxconcepts.studies.extraction.states import hidden_states, prompts, verify

__all__ = ["ExtractConfig", "decodability", "extract", "hidden_states", "prompts", "verify"]

log = logging.getLogger("jaxconcepts.extraction")

WINDOW = 64  # batches


@dataclass(frozen=True)
class ExtractConfig:
    """model: folder or repository id, of `revision`. prompts: a JSON-lines file, {"prompt": text, label: value, ...} a
    line. bos: whether prompts begin with the beginning-of-sequence token. dtype: "float32" or "bfloat16", of the model
    and of what is stored. batch_size: prompts a batch. multiple: what widths of batches are rounded up to. attention:
    as in `language.hidden_states`; what "auto" comes to is recorded. skip_missing: labels may be missing in some lines
    (null, NaN, not there). through: "transformers" for a model that PyTorch is to run."""

    model: str
    prompts: str
    bos: bool
    dtype: str = "float32"
    revision: str | None = None
    batch_size: int = 16
    multiple: int = 64
    attention: str = "auto"
    skip_missing: bool = False
    through: str | None = None

    def __post_init__(self):
        for name in ("batch_size", "multiple"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a positive integer, got {getattr(self, name)!r}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f'dtype must be "float32" or "bfloat16", got {self.dtype!r}')


def extract(config: ExtractConfig, workdir: epath.PathLike, mesh: jax.sharding.Mesh | None = None) -> epath.Path:
    """Runs every prompt that the workdir does not yet hold; returns the workdir.

    Raises ValueError for a prompts file that is not as `ExtractConfig` says, by line, and whatever `load_pretrained`
    raises; WorkdirInUseError while another process writes there.
    """
    path = files.open_path(config.prompts, "prompts")
    scan = prompt_file.scan(path, config.skip_missing)
    folder = pretrained.resolve(config.model, config.revision)
    tokenizer = tokenizer_file.load(folder)
    described = pretrained.read_config(folder, config.dtype, config.through)
    pretrained.check_params(described, folder)
    late = ("skip_missing", "through")
    record = {name: value for name, value in asdict(config).items() if name not in late or value}
    record |= {"prompts_sha256": scan.sha256, "num_prompts": scan.count, "snapshot": folder.name}
    record |= {"padding": "right", "at": "last", "layer_0": "embeddings", "final_norm": False}
    # By what the model and the device allow: another one gives other roundings, so an extraction goes on with the same.
    device = (jax.devices() if mesh is None else mesh.devices.flat)[0]
    attention = language.attention_of(described, device, config.attention)
    record["attention"] = attention
    record["matmul_precision"] = "highest" if config.dtype == "float32" else "default"
    record["tokenizer"] = type(tokenizer).__name__
    # Every prompt, before the workdir is given this file.
    prompt_file.check_tokens(path, described, tokenizer, config.bos, WINDOW * config.batch_size)
    device = {"platform": jax.default_backend(), "kind": jax.devices()[0].device_kind, "count": jax.device_count()}
    with store.open_run(workdir, record, device=device) as run:
        done = states.rows_done(run.workdir)
        if done == scan.count:
            log.info("all %d prompts are already stored", scan.count)
            return run.workdir
        model, params = pretrained.load_pretrained(folder, config.dtype, mesh, through=config.through)
        array = _open_array(run.workdir, (scan.count, model.layers + 1, model.width), config)
        for name in ("prompts", "hashes"):
            (run.workdir / name).mkdir(exist_ok=True)
        batches = _batches(config, tokenizer, run.workdir, scan.labels, done)
        _stream(scan.count, done, batches, model, params, array, run.workdir, attention)
    return run.workdir


def decodability(workdir: epath.PathLike, label: str, k: int = 10, skip_missing: bool = False) -> pl.DataFrame:
    """CD of one label column at every layer, a layer at a time on the device; kept in decodability.parquet.

    skip_missing: leave out the prompts without that label. Every batch is verified first (`states.verify`).

    Returns a row a layer: label, layer, cd. Raises ValueError for an unknown label, an unfinished extraction and a
    prompt without the label, by line.
    """
    workdir = files.existing_run(workdir)
    table, array = prompts(workdir), hidden_states(workdir)
    known = [name for name in table.columns if name not in prompt_file.COLUMNS]
    if label not in known:
        raise ValueError(f"label must be one of {', '.join(known) or '(none stored)'}, got {label!r}")
    if (done := min(states.rows_done(workdir), table.height)) < array.shape[0]:
        raise ValueError(f"{workdir} holds {done} of {array.shape[0]} prompts; finish with `extract` first")
    missing = table.filter(pl.col(label).is_null())
    if missing.height and not skip_missing:
        raise ValueError(
            f"label {label!r} is missing in {missing.height} prompts, first in line {missing['line'].min() + 1} of the "
            "prompts file; with skip_missing they are left out"
        )
    table = table.filter(pl.col(label).is_not_null())
    rows = table["row"].to_numpy()
    verify(workdir)
    concepts = np.unique(table[label].to_numpy(), return_inverse=True)[1]
    layers = range(array.shape[1])
    each = (array[:, layer].read().result()[rows].astype(np.float32) for layer in layers)
    scores = [float(concept_decodability(jnp.asarray(layer), concepts, k, ties="split")) for layer in each]
    frame = pl.DataFrame({"label": [label] * len(scores), "layer": list(layers), "cd": scores})
    path = workdir / "decodability.parquet"
    if path.exists():
        frame = pl.concat([_scores(path).filter(pl.col("label") != label), frame])
    files.write(path, tables.to_parquet(frame))
    return frame.filter(pl.col("label") == label)


def _scores(path: epath.Path) -> pl.DataFrame:
    frame = tables.read_parquet(path)
    if frame.schema != {"label": pl.String, "layer": pl.Int64, "cd": pl.Float64}:
        raise store.DamagedFileError(f"damaged {path}: columns must be label, layer, cd; delete it to make it again")
    return frame


def _stream(count, done, batches, model, params, array, workdir, attention) -> None:
    """Writes a batch while the next is computed, and says how fast it goes."""
    start, said, first, num_tokens = time.monotonic(), 0.0, done, 0
    computed = (
        (batch, language.hidden_states(model, params, batch.tokens, batch.lengths, attention=attention))
        for batch in batches
    )
    for batch, found in one_ahead(computed):
        rows = np.ascontiguousarray(np.asarray(found)[:, : batch.real].swapaxes(0, 1))
        array[batch.row : batch.row + batch.real].write(rows).result()
        _note_hash(workdir, batch, rows)
        done, num_tokens = batch.row + batch.real, num_tokens + int(batch.lengths[: batch.real].sum())
        files.write(workdir / "done.json", json.dumps({"rows": done}).encode())
        seconds = time.monotonic() - start
        if seconds - said > 5 or done == count:
            said, rate = seconds, (done - first) / seconds
            log.info(
                "%d of %d prompts  %.1f prompts/s  %.0f tokens/s  %.0f s left",
                done, count, rate, num_tokens / seconds, (count - done) / rate,
            )  # fmt: skip


class _Batch(NamedTuple):
    """The first `real` of its rows go to the array from `row` on; the others only fill it up. window: its first row."""

    window: int
    row: int
    real: int
    tokens: np.ndarray
    lengths: np.ndarray


def _note_hash(workdir: epath.Path, batch: _Batch, rows: np.ndarray) -> None:
    path = workdir / "hashes" / f"{batch.window:09d}.json"
    content = states.read_hashes(path)
    content["batches"][str(batch.row)] = (batch.row + batch.real, states.digest(rows))
    files.write(path, json.dumps(content).encode())


def _batches(config: ExtractConfig, tokenizer, workdir, labels, done: int) -> Iterator[_Batch]:
    """The batches from row `done` on; writes the table of each window, and its hash, before its first batch."""
    row, lines = 0, prompt_file.lines(epath.Path(config.prompts))
    schema = {"row": pl.Int64, "line": pl.Int64, "tokens": pl.Int64} | labels
    while window := list(itertools.islice(lines, WINDOW * config.batch_size)):
        start = row
        if row + len(window) <= done:
            row += len(window)
            continue
        ids = language.tokenize(tokenizer, [line["prompt"] for _, line in window], config.bos)
        made, order = [], []
        for indices, tokens, lengths in language.batches(ids, config.batch_size, config.multiple):
            real = int((indices >= 0).sum())
            made.append(_Batch(start, row, real, tokens, lengths))
            order += indices[:real].tolist()
            row += real
        table = [
            {"row": start + place, "line": window[i][0], "tokens": len(ids[i])} | prompt_file.labels_of(window[i][1])
            for place, i in enumerate(order)
        ]
        data = tables.to_parquet(pl.DataFrame(table, schema=schema))
        hashes = workdir / "hashes" / f"{start:09d}.json"
        files.write(workdir / "prompts" / f"{start:09d}.parquet", data)
        before = states.read_hashes(hashes)["batches"] if start < done else {}
        kept = {first: batch for first, batch in before.items() if int(first) < done}
        files.write(hashes, json.dumps({"prompts": manifest.digest(data), "batches": kept}).encode())
        yield from (batch for batch in made if batch.row >= done)


def _open_array(workdir: epath.Path, shape: tuple[int, int, int], config: ExtractConfig):
    import tensorstore

    layout = tensorstore.ChunkLayout(chunk_shape=[min(config.batch_size, shape[0]), *shape[1:]])
    return states.open_array(workdir, dtype=tensorstore.dtype(config.dtype), shape=shape, chunk_layout=layout)
