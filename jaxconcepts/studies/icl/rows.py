"""What a cell of the in-context study measured, as rows of a tidy table, and CD against accuracy from such rows."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import polars as pl

from jaxconcepts.intervals import share_interval
from jaxconcepts.metrics.association import associate
from jaxconcepts.prompts.family import Family
from jaxconcepts.store import tidy
from jaxconcepts.studies.asking.prompt_pass import Read
from jaxconcepts.studies.icl import controls as icl_controls
from jaxconcepts.studies.icl import scores as icl_scores
from jaxconcepts.studies.icl.cells import Encoded
from jaxconcepts.studies.icl.config import IclConfig
from jaxconcepts.studies.icl.controls import Score
from jaxconcepts.studies.icl.scores import Decodability

SCHEMA = pl.Schema(
    {"metric": pl.String, "layer": pl.Int32, "concept": pl.Int32, "other": pl.Int32, "value": pl.Float64}
)


def of_cell(
    found: Read, scores: Decodability, controls: Mapping[str, Score], encoded: Encoded, family: Family, seed: int
) -> pl.DataFrame:
    """Every metric of a cell, in `SCHEMA`'s columns. controls: what CD is held against, by name, if anything."""
    labels, own = len(family.labels), len(family.concepts)
    right = found.correct.reshape(labels, -1)
    each = right.shape[1]
    concepts = np.repeat(np.arange(labels), each)
    accuracy, (low, high) = right.mean(1), share_interval(found.correct, concepts, encoded.queries)
    averaged = concepts < own
    all_low, all_high = (
        end[-1] for end in share_interval(found.correct[averaged], concepts[averaged], encoded.queries[averaged])
    )
    cd = scores.cd
    confusion = icl_scores.confusion(found.texts, found.correct, concepts, encoded.ruled, family.concepts, labels)
    log_probs = found.log_probs.reshape(labels, each, labels)
    known = ~np.isnan(log_probs).all(1)
    mean_log_probs = np.where(known, np.nansum(log_probs, 1) / np.maximum((~np.isnan(log_probs)).sum(1), 1), np.nan)
    return pl.concat([
        _rows("prompts", each),
        _rows("accuracy", accuracy, "concept"), _rows("accuracy", accuracy[:own].mean()),
        _rows("queries", len(np.unique(encoded.queries))),
        _rows("accuracy_low", low[:-1], "concept"), _rows("accuracy_low", all_low),
        _rows("accuracy_high", high[:-1], "concept"), _rows("accuracy_high", all_high),
        *_by_layer("cd", cd), *_by_layer("cd_low", scores.low), *_by_layer("cd_high", scores.high),
        *_by_layer("cd_null", scores.null.mean(1)), *_by_layer("cd_null_high", np.quantile(scores.null, 0.95, axis=1)),
        *_by_layer("cd_p", scores.p), *_by_layer("cd_with_query", scores.with_query),
        *_beside(scores, controls),
        _rows("cd_coincident", scores.coincident, "layer"),
        _rows("cd_chosen_on", scores.chosen_on, "layer"), _rows("headline_layer", scores.headline),
        _rows("pairwise_cd", scores.pairwise, "concept", "other").with_columns(
            pl.lit(scores.headline, pl.Int32).alias("layer")
        ).filter(pl.col("concept") != pl.col("other")),
        _rows("confusion", confusion[:, :-1], "concept", "other"), _rows("confusion", confusion[:, -1], "concept"),
        _rows("log_prob", mean_log_probs, "concept", "other"),
        fits(cd[scores.headline, :-1], accuracy, np.arange(labels), own, seed),
    ])  # fmt: skip


def _beside(scores: Decodability, controls: Mapping[str, Score]) -> list[pl.DataFrame]:
    """CD of each control, "cd_<control>", and by layer how far CD is above the highest, "cd_above"; with intervals."""
    if not controls:
        return []
    ends = ("", "_low", "_high")
    parts = [
        part for name, score in controls.items() for end, values in zip(ends, score[:3], strict=True)
        for part in (_rows(f"cd_{name}{end}", values[:-1], "concept"), _rows(f"cd_{name}{end}", values[-1]))
    ]  # fmt: skip
    above = icl_controls.above(Score(scores.cd, scores.low, scores.high, scores.halved), controls)
    return parts + [
        part for end, values in zip(ends, above[:3], strict=True) for part in _by_layer(f"cd_above{end}", values)
    ]


def of_untrained(layer: int, score: Score) -> pl.DataFrame:
    """CD of an untrained model by layer, and the layer that stands for it, in `SCHEMA`'s columns."""
    ends = zip(("", "_low", "_high"), score[:3], strict=True)
    parts = [part for end, values in ends for part in _by_layer(f"cd_untrained{end}", values)]
    return pl.concat([*parts, _rows("untrained_layer", layer)])


def untrained_score(rows: pl.DataFrame) -> Score:
    """What `of_untrained` holds of that layer: [K1], concepts in order and last the average."""
    layer = rows.filter(metric="untrained_layer")["value"].item()
    at = rows.filter(layer=int(layer)).sort("concept", nulls_last=True)
    return Score(*(at.filter(metric=f"cd_untrained{end}")["value"].to_numpy() for end in ("", "_low", "_high")))


def points(table: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(CD at each cell's headline layer, accuracy, concept) of every concept of every cell of a table of cells."""
    headline = table.filter(pl.col("metric") == "headline_layer").select("run", pl.col("value").alias("headline"))
    per_concept = table.filter(pl.col("concept").is_not_null())
    cd = (
        per_concept.filter(pl.col("metric") == "cd")
        .join(headline, on="run")
        .filter(pl.col("layer") == pl.col("headline"))
    )
    accuracy = per_concept.filter(pl.col("metric") == "accuracy").select("run", "concept", accuracy="value")
    both = cd.join(accuracy, on=["run", "concept"]).sort("run", "concept")
    return both["value"].to_numpy(), both["accuracy"].to_numpy(), both["concept"].to_numpy()


def fits(cd: np.ndarray, accuracy: np.ndarray, concepts: np.ndarray, own: int, seed: int) -> pl.DataFrame:
    """R² and what goes with it (`metrics.association`), without Null and with it where there is one."""
    parts = []
    for suffix, chosen in (("", concepts < own), ("_with_null", concepts >= 0)):
        if suffix and chosen.sum() == (concepts < own).sum():
            continue
        found = associate(cd[chosen], accuracy[chosen], concepts[chosen], seed)._asdict()
        for name, value in found.items():
            statistic, _, end = ("r2_p" if name == "p" else name).partition("_")
            parts.append(_rows(statistic + suffix + (f"_{end}" if end else ""), value))
    return pl.concat(parts)


def hidden(run: str, states, num_concepts: int, config: IclConfig, headline: int) -> pl.DataFrame:
    """States of the first prompts after those that chose the layer, at layers spread evenly, the headline among them.

    Columns run, layer, concept, point, state.
    """
    layers = np.unique(
        np.linspace(0, states.shape[0] - 1, min(config.keep_layers, states.shape[0])).round().astype(int)
    )
    layers[np.abs(layers - headline).argmin()] = headline
    each = states.shape[1] // num_concepts
    chosen = np.arange(num_concepts)[:, None] * each + config.per_draw + np.arange(config.keep_hidden)
    kept = np.asarray(states[jnp.array(layers)][:, chosen.ravel()].astype(jnp.float32))
    layer, point = np.indices(kept.shape[:2]).reshape(2, -1)
    columns = {"layer": layers[layer], "concept": point // config.keep_hidden, "point": point % config.keep_hidden}
    frame = pl.DataFrame({name: pl.Series(values, dtype=pl.Int32) for name, values in columns.items()})
    states = pl.Series("state", kept.reshape(-1, kept.shape[-1]), pl.Array(pl.Float32, kept.shape[-1]))
    return frame.select(pl.lit(run).alias("run"), pl.all(), states)


def _by_layer(metric: str, values) -> list[pl.DataFrame]:
    """Rows of [layers, K + 1] values: each concept's, and those of the average."""
    return [_rows(metric, values[:, :-1], "layer", "concept"), _rows(metric, values[:, -1], "layer")]


def _rows(metric: str, values, *axes: str) -> pl.DataFrame:
    """A row for every finite value, its place along each axis in the column of that name."""
    places = {name: range(size) for name, size in zip(axes, np.shape(values), strict=True)}
    absent = dict.fromkeys({"layer", "concept", "other"} - set(axes))
    frame = tidy.entries(values, places, metric=metric, **absent).filter(pl.col("value").is_finite())
    return frame.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
