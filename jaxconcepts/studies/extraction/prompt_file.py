"""The prompts of an extraction: JSON lines, {"prompt": text, label: value, ...}, all checked before anything runs."""

from __future__ import annotations

import codecs
import hashlib
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl
from etils import epath

from jaxconcepts.models import language
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.prompts import text_files
from jaxconcepts.store import files

COLUMNS = ("row", "line", "tokens")
"""Columns of the tables of prompts that are not labels."""
KINDS = {str: "text", bool: "true or false", int: "a number", float: "a number"}


class Scan(NamedTuple):
    """count: of prompts. sha256: of the file. labels: name -> type of its column."""

    count: int
    sha256: str
    labels: dict[str, pl.DataType]


def lines(path: epath.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 0, object) of each line; a byte order mark and blank lines are left out.

    Raises ValueError naming file and line for what is no object with a text "prompt" and labels that are text, numbers,
    true, false or null.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file):
            raw = raw.removeprefix(codecs.BOM_UTF8) if number == 0 else raw
            if raw.strip():
                yield number, _line(raw, f"{path}, line {number + 1}")


def scan(path: epath.Path, skip_missing: bool = False) -> Scan:
    """Checks every line. skip_missing: a label may be missing in a line: null, NaN or not there.

    Raises ValueError naming file, line and label.
    """
    if not files.is_file(path):
        raise ValueError(
            f"prompts must be a JSON-lines file, and {path} is {'no file' if path.exists() else 'not there'}"
        )
    count, kinds, first, without = 0, {}, {}, {}
    for number, line in lines(path):
        count += 1
        values = labels_of(line)
        for name, value in values.items():
            first.setdefault(name, number)
            if value is None:
                without.setdefault(name, number)
            elif (kind := kinds.setdefault(name, (type(value), number)))[0] is not type(value):
                kinds[name] = _common(path, name, kind, (type(value), number)), number
        without.setdefault(frozenset(values), number)
    if not count:
        raise ValueError(f"{path} holds no prompts")
    if not skip_missing:
        _refuse_missing(path, first, without)
    types = {str: pl.String, bool: pl.Boolean, int: pl.Int64, float: pl.Float64, None: pl.String}
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return Scan(count, digest.hexdigest(), {name: types[kinds.get(name, (None,))[0]] for name in first})


def check_tokens(path: epath.Path, model: Decoder, tokenizer, bos: bool, window: int) -> None:
    """Raises ValueError naming the line of a prompt that does not fit the model's context or vocabulary."""
    numbered = lines(path)
    while some := list(itertools.islice(numbered, window)):
        ids = language.tokenize(tokenizer, [line["prompt"] for _, line in some], bos)
        for (number, _), tokens in zip(some, ids, strict=True):
            where = f"{path}, line {number + 1}"
            if not 1 <= len(tokens) <= model.context:
                raise ValueError(f"{where}: a prompt must have 1 to {model.context} tokens, got {len(tokens)}")
            if max(tokens) >= model.vocab_size:
                raise ValueError(
                    f"{where}: tokens must be below the vocabulary of {model.vocab_size}, got {max(tokens)}"
                )


def labels_of(line: dict[str, Any]) -> dict[str, Any]:
    """The labels of a line; a missing one, null or NaN, as None."""
    labels = {name: value for name, value in line.items() if name != "prompt"}
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in labels.items()}


def _line(raw: bytes, where: str) -> dict[str, Any]:
    line = text_files.json_object(raw, where, 'a JSON object with a text "prompt"')
    if not isinstance(line.get("prompt"), str):
        raise ValueError(
            f'{where}: expected a JSON object with a text "prompt", got {text_files.shown(raw.decode().strip())}'
        )
    if taken := sorted(set(COLUMNS) & set(line)):
        raise ValueError(f"{where}: the label {taken[0]!r} has the name of a column of ours")
    for name, value in line.items():
        if value is not None and type(value) not in KINDS:
            raise ValueError(
                f"{where}: the label {name!r} must be text, a number, true or false, got {text_files.shown(value)}"
            )
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"{where}: the label {name!r} must fit 64 bits, got {text_files.shown(value)}")
    return line


def _common(path, name: str, kind: tuple[type, int], other: tuple[type, int]) -> type:
    """The type of a label that is whole in one line and broken in another."""
    if {kind[0], other[0]} == {int, float}:
        return float
    raise ValueError(
        f"{path}, line {other[1] + 1}: the label {name!r} must be {KINDS[kind[0]]} as in line {kind[1] + 1}, got "
        f"{KINDS[other[0]]}"
    )


def _refuse_missing(path, first: dict[str, int], without: dict[Any, int]) -> None:
    """first: label -> the first line with it. without: label -> the first line where it is null or NaN; and labels of a
    line -> the first such line."""
    lacking = [(number, name) for name, number in without.items() if isinstance(name, str)]
    of_lines = [(number, names) for names, number in without.items() if not isinstance(names, str)]
    lacking += [(number, name) for number, names in of_lines for name in first if name not in names]
    if lacking:
        number, name = min(lacking)
        raise ValueError(
            f"{path}, line {number + 1}: the label {name!r} is missing; with skip_missing such prompts are extracted, "
            "and can be left out of that label's CD"
        )
