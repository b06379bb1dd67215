"""Any task in text as a family: a file with one example a line, {"input": ..., "output": ..., "concept": ...}."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from jaxconcepts.prompts import text_files
from jaxconcepts.prompts.family import Example, Family

FIELDS = ("input", "output", "concept")


def family(
    path: str | Path,
    seed: int = 0,
    *,
    null: str | None = None,
    test_share: float = 0.2,
    rules: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    skip_missing: bool = False,
) -> Family:
    """The family that a JSONL file (UTF-8) holds; its name is the file's stem.

    Concepts are in the order in which the file names them. An input goes to one side with all its concepts: of each
    concept's inputs that no earlier concept had, `test_share`, drawn from the seed, are for test. Outputs are stripped
    of spaces around them. Lines that repeat an example are taken once (Null's apart), other keys are left alone.
    null: the name of the concept whose outputs carry no information, if there is one.
    skip_missing: leave out lines whose concept is null, NaN or not there.
    rules, names: concept -> the rule in words; the operator's name (default: the concept's own).

    `answers` knows the inputs of the file under which every concept has one output.

    Raises ValueError naming file and line for a line that is no such object, or an output that is empty; and where
    null, rules or names hold a concept that the file does not, or a concept has too few inputs for two sides.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"jsonl.test_share must be above 0 and below 1, got {test_share!r}")
    pools = _pools(path, null, skip_missing)
    given = {} if null is None else {null: "null"}
    given |= dict.fromkeys(rules or (), "rules") | dict.fromkeys(names or (), "names")
    for concept, field in given.items():
        if concept not in pools:
            raise ValueError(f"{path} has the concepts {', '.join(pools)}; {field} names {concept!r}")
    asked = _asked(path, pools, test_share, np.random.default_rng(seed))
    concepts = tuple(concept for concept in pools if concept != null)
    return Family(
        name=Path(path).stem,
        concepts=concepts,
        null=null,
        train={concept: tuple(e for e in pool if e.input not in asked) for concept, pool in pools.items()},
        test={concept: tuple(e for e in pool if e.input in asked) for concept, pool in pools.items()},
        rules=dict(rules or {}),
        names={**{concept: concept for concept in pools}, **(names or {})},
        answers=partial(_answers, _table(pools, concepts)),
    )


def _pools(path, null, skip_missing) -> dict[str, list[Example]]:
    examples: list[Example] = []
    for number, line in enumerate(text_files.read_lines(path), 1):
        if line.strip() and (example := _example(line, f"{path}, line {number}", skip_missing)) is not None:
            examples.append(example)
    if not examples:
        raise ValueError(f"{path} holds no example")
    pools: dict[str, list[Example]] = {example.concept: [] for example in examples}
    met = set()
    for example in examples:
        if example.concept == null or example not in met:
            pools[example.concept].append(example)
        met.add(example)
    return pools


def _example(line, where, skip_missing) -> Example | None:
    row = text_files.json_object(line, where, f"an object with {', '.join(FIELDS)}")
    concept = row.get("concept")
    if skip_missing and (concept is None or concept != concept):  # null or NaN.
        return None
    for field in FIELDS:
        value = row.get(field)
        if not isinstance(value, str) or not value.strip():
            got = text_files.shown(value) if field in row else "nothing"
            hint = "" if field != "concept" or isinstance(value, str) else "; jsonl_skip_missing leaves out such lines"
            raise ValueError(f"{where}: {field!r} must be a string that is not empty, found {got}{hint}")
    return Example(row["input"], row["output"].strip(), row["concept"])


def _asked(path, pools, share, rng):
    """The inputs for test."""
    placed: set[str] = set()
    asked: set[str] = set()
    for pool in pools.values():
        new = sorted({example.input for example in pool} - placed)
        count = round(share * len(new))
        if not asked & {example.input for example in pool}:
            count = max(count, 1)
        asked |= {new[i] for i in rng.permutation(len(new))[:count]}
        placed |= set(new)
    for concept, pool in pools.items():
        inputs = {example.input for example in pool}
        if not inputs & asked or not inputs - asked:
            raise ValueError(
                f"{path}: concept {concept!r} needs at least one input to show and one to ask; it has {len(inputs)} "
                f"different ones, {len(inputs & asked)} of them for test"
            )
    return asked


def _table(pools, concepts):
    """Input -> concept -> outputs met."""
    table: dict[str, dict[str, set[str]]] = {}
    for concept in concepts:
        for example in pools[concept]:
            table.setdefault(example.input, {}).setdefault(concept, set()).add(example.output)
    return {
        text: {concept: next(iter(outputs)) for concept, outputs in of_input.items()}
        for text, of_input in table.items()
        if len(of_input) == len(concepts) and all(len(outputs) == 1 for outputs in of_input.values())
    }


def _answers(table, text):
    return dict(table.get(text, {}))
