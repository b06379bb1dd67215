"""What came out, a sentence a figure of a sweep; "" where the tables do not say."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl

from jaxconcepts.figures.sweeps.tables import CD, LOSS, bins, emergence, influence, outcomes, swept
from jaxconcepts.figures.tables import Study


def by_field(study: Study) -> str:
    """For loss and CD the field that most of its variance lies between, and the value with the best median."""
    table, parts = outcomes(study), []
    for metric, best, how in ((LOSS, np.argmin, "least"), (CD, np.argmax, "greatest")):
        known = table.filter(pl.col(metric).is_not_null())
        fields = [field for field in swept(study) if field.name != "seed"]
        share, field = max(((influence(table, of, metric), of) for of in fields), key=lambda pair: pair[0])
        if share < 0.05:
            parts.append(f"{metric} depends on no field by more than 5 % of its variance")
            continue
        of, labels = bins(field, known[field.name])
        medians = [
            np.median(known[metric].to_numpy()[of == c]) if (of == c).any() else np.nan for c in range(len(labels))
        ]
        at = int(best(np.nan_to_num(medians, nan=np.inf if best is np.argmin else -np.inf)))
        parts.append(
            f"{metric} depends most on {field.label} ({share:.0%} of the variance), with the {how} median, "
            f"{medians[at]:.2g}, at {labels[at]}"
        )
    return f"{_capital('; '.join(parts))}."


def heat_maps(study: Study) -> str:
    """The pair of values with the least median loss, of the two fields that the loss depends on most."""
    table = outcomes(study).filter(pl.col(LOSS).is_not_null())
    fields = sorted((f for f in swept(study) if f.name != "seed"), key=lambda f: -influence(table, f, LOSS))[:2]
    if len(fields) < 2 or not table.height:
        return ""
    classes = [bins(field, table[field.name]) for field in fields]
    medians = {}
    for pair in itertools.product(*(range(len(labels)) for _, labels in classes)):
        chosen = (classes[0][0] == pair[0]) & (classes[1][0] == pair[1])
        if chosen.any():
            medians[pair] = float(np.median(table[LOSS].to_numpy()[chosen]))
    best = min(medians, key=medians.get)
    at = ", ".join(f"{f.label} {labels[i]}" for f, (_, labels), i in zip(fields, classes, best, strict=True))
    return f"The median {LOSS} is least, {medians[best]:.2g}, at {at}."


def loss_against_cd(study: Study) -> str:
    """Which of the two moved first, over all concepts of all runs."""
    both = emergence(study).drop_nulls(["loss_step", "cd_step"])
    if not both.height:
        return ""
    first = int((both["loss_step"] < both["cd_step"]).sum())
    ahead = (both["cd_step"] - both["loss_step"]).median()
    return (
        f"The loss was half-way down before CD was half-way up in {first} of {both.height} cases; in the median CD "
        f"came {abs(ahead):.0f} steps {'later' if ahead >= 0 else 'earlier'}."
    )


def order_by_seed(study: Study) -> str:
    """The concept whose loss fell first most often, over all runs in which two or more fell."""
    fallen = emergence(study).drop_nulls("loss_step").filter(pl.len().over("run") > 1).sort("loss_step", "concept")
    if not fallen.height:
        return ""
    first = fallen.group_by("run", maintain_order=True).first()["concept"].value_counts().sort("count", "concept")
    concept, count = first.row(-1)
    return f"{_capital(study.concept_label(concept))} fell first in {count} of {first['count'].sum()} runs."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
