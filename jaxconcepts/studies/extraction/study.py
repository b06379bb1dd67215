"""Hidden states of a pretrained model at the last token of thousands of prompts, streamed to disk; and their CD.

    workdir/config.json, provenance.json, log.txt   as in every run directory
            hidden.zarr                             [prompts, layers + 1, width]
            prompts/<first row>.parquet             row of the array, line of the prompts file, tokens, and its labels
            done.json                               rows written so far
            decodability.parquet                    label, layer, cd

Prompts are read, sorted by length and run a window at a time, so memory does not grow with their number. A batch is one
chunk of the array and its rows follow from the prompts file alone: after a kill the batches that are not counted in
done.json are written again, to the same places.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from etils import epath

from jaxconcepts import store
from jaxconcepts.metrics.decodability import concept_decodability
from jaxconcepts.models import language, pretrained
from jaxconcepts.models import tokenizer as tokenizer_file
from jaxconcepts.store import files

log = logging.getLogger("jaxconcepts.extraction")

WINDOW = 64  # batches


@dataclass(frozen=True)
class ExtractConfig:
    """model: folder or repository id, of `revision`. prompts: a JSON-lines file, {"prompt": text, label: value, ...} a
    line. bos: whether prompts begin with the beginning-of-sequence token. dtype: "float32" or "bfloat16", of the model
    and of what is stored. batch_size: prompts a batch. multiple: what widths of batches are rounded up to. attention:
    as in `language.hidden_states`; what "auto" comes to is recorded."""

    model: str
    prompts: str
    bos: bool
    dtype: str = "float32"
    revision: str | None = None
    batch_size: int = 16
    multiple: int = 64
    attention: str = "auto"

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
    count, digest = _scan(epath.Path(config.prompts))
    folder = pretrained.resolve(config.model, config.revision)
    tokenizer = tokenizer_file.load(folder)
    record = asdict(config) | {"prompts_sha256": digest, "num_prompts": count, "snapshot": folder.name}
    record |= {"padding": "right", "at": "last", "layer_0": "embeddings", "final_norm": False}
    # By what the model and the device allow: another one gives other roundings, so an extraction goes on with the same.
    device = (jax.devices() if mesh is None else mesh.devices.flat)[0]
    attention = language.attention_of(pretrained.read_config(folder, config.dtype), device, config.attention)
    record["attention"] = attention
    record["matmul_precision"] = "highest" if config.dtype == "float32" else "default"
    record["tokenizer"] = type(tokenizer).__name__
    device = {"platform": jax.default_backend(), "kind": jax.devices()[0].device_kind, "count": jax.device_count()}
    with store.open_run(workdir, record, device=device) as run:
        done = _done(run.workdir)
        if done == count:
            log.info("all %d prompts are there", count)
            return run.workdir
        model, params = pretrained.load_pretrained(folder, config.dtype, mesh)
        array = _open_array(run.workdir, (count, model.layers + 1, model.width), config)
        (run.workdir / "prompts").mkdir(exist_ok=True)
        batches = _batches(config, model, tokenizer, run.workdir, done)
        _stream(count, done, batches, model, params, array, run.workdir, attention)
    return run.workdir


def hidden_states(workdir: epath.PathLike):
    """The stored array [prompts, layers + 1, width], a tensorstore: index it, then `.read().result()`."""
    import tensorstore

    return tensorstore.open(_spec(epath.Path(workdir)), read=True).result()


def prompts(workdir: epath.PathLike) -> pl.DataFrame:
    """A row a prompt in the array's order: row, line, tokens, and the labels of the prompts file."""
    parts = sorted((epath.Path(workdir) / "prompts").glob("*.parquet"))
    if not parts:
        raise ValueError(f"{workdir} holds no extracted prompts; run `extract` first")
    return pl.concat([_read(part) for part in parts], how="diagonal_relaxed").sort("row")


def decodability(workdir: epath.PathLike, label: str, k: int = 10) -> pl.DataFrame:
    """CD of one label column at every layer, a layer at a time on the device; kept in decodability.parquet.

    Returns a row a layer: label, layer, cd. Raises ValueError for an unknown label and an unfinished extraction.
    """
    workdir = epath.Path(workdir)
    table, array = prompts(workdir), hidden_states(workdir)
    known = [name for name in table.columns if name not in ("row", "line", "tokens")]
    if label not in known:
        raise ValueError(f"label must be one of {', '.join(known) or '(none stored)'}, got {label!r}")
    if (done := _done(workdir)) < array.shape[0]:
        raise ValueError(f"{workdir} holds {done} of {array.shape[0]} prompts; finish with `extract` first")
    concepts = np.unique(table[label].to_numpy(), return_inverse=True)[1]
    layers = range(array.shape[1])
    states = (array[:, layer].read().result().astype(np.float32) for layer in layers)
    scores = [float(concept_decodability(jnp.asarray(layer), concepts, k)) for layer in states]
    frame = pl.DataFrame({"label": [label] * len(scores), "layer": list(layers), "cd": scores})
    path = workdir / "decodability.parquet"
    if path.exists():
        frame = pl.concat([_read(path).filter(pl.col("label") != label), frame])
    files.write(path, store.tables.to_parquet(frame))
    return frame.filter(pl.col("label") == label)


def _stream(count, done, batches, model, params, array, workdir, attention) -> None:
    """Writes a batch while the next is computed, and says how fast it goes."""
    start, said, first, num_tokens, waiting = time.monotonic(), 0.0, done, 0, None
    for batch in itertools.chain(batches, [None]):
        # Dispatched before the batch in front of it is waited for.
        states = None
        if batch is not None:
            states = language.hidden_states(model, params, batch.tokens, batch.lengths, attention=attention)
        if waiting is not None:
            row, real = waiting[0].row, waiting[0].real
            array[row : row + real].write(np.asarray(waiting[1])[:, :real].swapaxes(0, 1)).result()
            done, num_tokens = row + real, num_tokens + int(waiting[0].lengths[:real].sum())
            files.write(workdir / "done.json", json.dumps({"rows": done}).encode())
            seconds = time.monotonic() - start
            if seconds - said > 10 or done == count:
                said, rates = seconds, ((done - first) / seconds, num_tokens / seconds)
                log.info("%d of %d prompts, %.1f prompts/s, %.0f tokens/s", done, count, *rates)
        waiting = (batch, states)
        if batch is None:
            return


class _Batch(NamedTuple):
    """The first `real` of its rows go to the array from `row` on; the others only fill it up."""

    row: int
    real: int
    tokens: np.ndarray
    lengths: np.ndarray


def _batches(config: ExtractConfig, model, tokenizer, workdir, done: int) -> Iterator[_Batch]:
    """The batches from row `done` on; writes the table of each window before its first batch."""
    row, lines = 0, _lines(epath.Path(config.prompts))
    while window := list(itertools.islice(lines, WINDOW * config.batch_size)):
        start = row
        if row + len(window) <= done:
            row += len(window)
            continue
        ids = language.tokenize(tokenizer, [line["prompt"] for _, line in window], config.bos)
        for (number, _), tokens in zip(window, ids, strict=True):
            if not 1 <= len(tokens) <= model.context:
                place = f"{config.prompts}, line {number + 1}"
                raise ValueError(f"{place}: a prompt must have 1 to {model.context} tokens, got {len(tokens)}")
        found, order = [], []
        for indices, tokens, lengths in language.batches(ids, config.batch_size, config.multiple):
            real = int((indices >= 0).sum())
            found.append(_Batch(row, real, tokens, lengths))
            order += indices[:real].tolist()
            row += real
        table = []
        for place, i in enumerate(order):
            labels = {name: value for name, value in window[i][1].items() if name != "prompt"}
            table.append({"row": start + place, "line": window[i][0], "tokens": len(ids[i])} | labels)
        frame = pl.DataFrame(table, infer_schema_length=None)
        files.write(workdir / "prompts" / f"{start:09d}.parquet", store.tables.to_parquet(frame))
        yield from (batch for batch in found if batch.row >= done)


def _lines(path: epath.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 0, object) of each line; ValueError naming the line that is not an object with a "prompt"."""
    with path.open("r") as file:
        for number, text in enumerate(file):
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if not isinstance(line, dict) or not isinstance(line.get("prompt"), str):
                raise ValueError(
                    f'{path}, line {number + 1}: expected a JSON object with a text "prompt", got {text[:80]!r}'
                )
            if taken := {"row", "line", "tokens"} & set(line):
                raise ValueError(
                    f"{path}, line {number + 1}: the label {min(taken)!r} has the name of a column of ours"
                )
            yield number, line


def _scan(path: epath.Path) -> tuple[int, str]:
    """Number of prompts and SHA-256 of the file; checks every line before anything runs."""
    if not path.exists():
        raise ValueError(f"prompts must be a JSON-lines file, and {path} does not exist")
    count = sum(1 for _ in _lines(path))
    if not count:
        raise ValueError(f"{path} holds no prompts")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return count, digest.hexdigest()


def _read(path: epath.Path) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(path.read_bytes()))


def _done(workdir: epath.Path) -> int:
    path = workdir / "done.json"
    return files.read_json(path)["rows"] if path.exists() else 0


def _spec(workdir: epath.Path) -> dict[str, Any]:
    path = str(workdir / "hidden.zarr")
    return {"driver": "zarr", "kvstore": path if "://" in path else {"driver": "file", "path": path}}


def _open_array(workdir: epath.Path, shape: tuple[int, int, int], config: ExtractConfig):
    import tensorstore

    chunks = [min(config.batch_size, shape[0]), *shape[1:]]
    dtype = tensorstore.dtype(config.dtype)
    layout = tensorstore.ChunkLayout(chunk_shape=chunks)
    spec = _spec(workdir)
    return tensorstore.open(spec, open=True, create=True, dtype=dtype, shape=shape, chunk_layout=layout).result()
