"""Rows of the causal tables: how many answers are right, by concept and replicate, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from jaxconcepts.intervals import share_interval
from jaxconcepts.studies.causal.edited_pass import Answered, Asked

SCHEMA = {
    "condition": pl.String, "concept": pl.String, "layer": pl.Int64, "head": pl.Int64, "scale": pl.Float64,
    "replicate": pl.Int64, "metric": pl.String, "value": pl.Float64,
}  # fmt: skip


def of_answers(
    asked: Sequence[Asked],
    answered: Sequence[Answered],
    per_replicate: int,
    layers: Mapping[str, int] | None = None,
    **named,
) -> list[dict]:
    """Rows of one condition, whose prompts are `asked` in parts, each answered.

    "accuracy", and "as_other" among prompts where the other concept's answer is known: the share of answers by concept
    and replicate. "accuracy_low" and so on: the ends of its interval over all replicates, by concept, and of all
    concepts together where the concept is null. Prompts of one query count as one (`share_interval`).
    layers: the layer that each concept was changed at, where they differ. named: what else all rows are named by.
    """
    prompts = [prompt for part in asked for prompt in part.prompts]
    known = np.array([bool(other) for part in asked for other in part.other])
    right, as_other = (np.concatenate([getattr(part, name) for part in answered]) for name in ("correct", "as_other"))
    concepts, queries = (np.array(part) for part in zip(*((p.concept, p.query.input) for p in prompts), strict=True))
    replicate = np.zeros(len(prompts), int)
    for concept in np.unique(concepts):
        replicate[concepts == concept] = np.arange(np.sum(concepts == concept)) // per_replicate
    rows = []
    for metric, shares, among in (("accuracy", right, np.ones(len(prompts), bool)), ("as_other", as_other, known)):
        if not among.any():
            continue
        names = list(dict.fromkeys(concepts[among].tolist()))
        strata = np.array([names.index(concept) for concept in concepts[among].tolist()])
        ends = share_interval(shares[among], strata, queries[among])
        for place, concept in enumerate([*names, None]):
            layer = {"layer": layers[concept]} if layers and concept else {}
            keys = named | layer | {"concept": concept}
            rows += [
                keys | {"metric": f"{metric}_{end}", "value": float(of_end[place])}
                for end, of_end in zip(("low", "high"), ends, strict=True)
            ]
            own = among & (concepts == concept)
            rows += [
                keys | {"metric": metric, "replicate": int(r), "value": float(shares[own & (replicate == r)].mean())}
                for r in np.unique(replicate[own])
            ]
    return rows


def frame(rows: Sequence[dict]) -> pl.DataFrame:
    """The rows as a table."""
    return pl.DataFrame(rows, SCHEMA)
