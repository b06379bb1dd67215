"""Scores of the patch study as tidy tables of one checkpoint of one run.

grid      a row a layer, positions, mode, patch, target, source, place and metric: "loss", "loss_change" (against the
          unpatched model), "distance" to a `reference` ("oracle": of `concept`), and "weight" on the oracle of
          `concept`. patch "none" is the model without a patch; its layer, positions, mode and target are null.
summary   means over all ordered pairs (source, target) of different concepts, the references named from the pair's
          point of view ("source oracle", "target oracle"), and "nearest": the share of pairs in which that reference
          is the closest one. patch: "mean", "random", and the controls "own" (the source's own mean) and "third" (the
          mean of neither), both judged by the target's oracle all the same.
heads     a row a head (layer: its block, from 1), ablation, source concept (null: their mean), place and metric.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from jaxconcepts.interventions.heads import ABLATIONS
from jaxconcepts.interventions.patching import POSITIONS
from jaxconcepts.store import tidy
from jaxconcepts.studies.patching.study import AT, PATCHES, Scores

References = Sequence[tuple[str, int | None]]


def grid(
    run: str,
    step: int,
    layers: Sequence[int],
    modes: Sequence[str],
    references: References,
    clean: Scores,
    found: Scores,
):
    """The grid table; `found` as `Patching.grid` gives it, in NumPy."""
    concepts = range(found.loss.shape[-2])
    axes = {"layer": layers, "positions": POSITIONS, "mode": modes, "patch": PATCHES, "target": concepts}
    axes |= {"source": concepts, "at": AT}
    alone = {"source": concepts, "at": AT}
    frames = []
    for scores, named in ((clean, alone), (found, axes)):
        frames.append(tidy.entries(scores.loss, named, metric="loss"))
        if named is axes:
            frames.append(tidy.entries(scores.loss - clean.loss, named, metric="loss_change"))
        for place, (name, concept) in enumerate(references):
            frames.append(
                tidy.entries(scores.distance[..., place], named, metric="distance", reference=name, concept=concept)
            )
        for concept in concepts if scores.weight is not None else ():
            frames.append(
                tidy.entries(scores.weight[..., concept], named, metric="weight", reference="oracle", concept=concept)
            )
    return _named(run, step, pl.concat(frames, how="diagonal_relaxed").with_columns(pl.col("patch").fill_null("none")))


def summary(
    run: str,
    step: int,
    layers: Sequence[int],
    modes: Sequence[str],
    references: References,
    clean: Scores,
    found: Scores,
):
    """The summary table."""
    count = found.loss.shape[-2]
    pairs = [(target, source) for target in range(count) for source in range(count) if target != source]
    thirds = [(k, target, source) for target, source in pairs for k in range(count) if k not in (target, source)]
    # (patched concept, concept of the target oracle, source) of each control.
    kinds = {
        "none": (None, [(0, target, source) for target, source in pairs]),
        "mean": (0, [(target, target, source) for target, source in pairs]),
        "random": (1, [(target, target, source) for target, source in pairs]),
        "own": (0, [(source, target, source) for target, source in pairs]),
        "third": (0, thirds),
    }
    frames = []
    for kind, (patch, cells) in kinds.items():
        if not cells:
            continue
        patched, target, source = np.array(cells).T
        pick = lambda a, p=patch, j=patched, s=source: a[s] if p is None else a[:, :, :, p, j, s]  # noqa: E731
        axes = {"at": AT} if patch is None else {"layer": layers, "positions": POSITIONS, "mode": modes, "at": AT}
        change = pick(found.loss - clean.loss) if patch is not None else np.zeros((len(cells), len(AT)))
        frames.append(tidy.entries(change.mean(-2), axes, metric="loss_change", patch=kind))
        distance, named = _from_pairs(pick(found.distance if patch is not None else clean.distance), references, cells)
        nearest = distance.argmin(-1)
        for place, name in enumerate(named):
            how = {"patch": kind, "reference": name}
            frames.append(tidy.entries(distance[..., place].mean(-2), axes, metric="distance", **how))
            frames.append(tidy.entries((nearest == place).mean(-2), axes, metric="nearest", **how))
        if found.weight is not None:
            weights = pick(found.weight if patch is not None else clean.weight)
            for name, concept in (("source oracle", source), ("target oracle", target)):
                own = np.take_along_axis(weights, _index(concept, weights), -1)[..., 0]
                frames.append(tidy.entries(own.mean(-2), axes, metric="weight", patch=kind, reference=name))
    return _named(run, step, pl.concat(frames, how="diagonal_relaxed"))


def heads(run: str, step: int, pairs: Sequence[tuple[int, int]], clean: Scores, found: Scores) -> pl.DataFrame:
    """The table of heads; `pairs`: (block, head) in the order of `found`, as `Patching.heads` gives it, in NumPy."""
    concepts = range(found.loss.shape[-2])
    axes = {"ablation": ABLATIONS, "pair": range(len(pairs)), "concept": concepts, "at": AT}
    frames = []
    for metric, values in (("loss", found.loss), ("loss_change", found.loss - clean.loss)):
        every = {name: axis for name, axis in axes.items() if name != "concept"}
        frames += [tidy.entries(values, axes, metric=metric), tidy.entries(values.mean(-2), every, metric=metric)]
    table = pl.concat(frames, how="diagonal_relaxed")
    block, head = np.array(pairs).T
    return _named(
        run,
        step,
        table.with_columns(
            pl.Series("layer", block[table["pair"].to_numpy()], pl.Int32),
            pl.Series("head", head[table["pair"].to_numpy()], pl.Int32),
        ).drop("pair"),
    )


def _from_pairs(distance, references: References, cells):
    """Distances [..., pairs, at, references] with the oracles named by their part in the pair, and their names."""
    plain = [place for place, (_, concept) in enumerate(references) if concept is None]
    names = [references[place][0] for place in plain]
    parts = [distance[..., plain]]
    first = len(plain)
    if len(references) > first:
        _, target, source = np.array(cells).T
        for name, concept in (("source oracle", source), ("target oracle", target)):
            parts.append(np.take_along_axis(distance, _index(first + concept, distance), -1))
            names.append(name)
    return np.concatenate(parts, axis=-1), names


def _index(concept, values):
    """[pairs] as an index of the last axis of values [..., pairs, at, K]."""
    shape = [1] * values.ndim
    shape[-3] = len(concept)
    return np.broadcast_to(concept.reshape(shape), (*values.shape[:-1], 1))


def _named(run: str, step: int, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        pl.lit(run).alias("run"), pl.lit(step, pl.Int64).alias("step"), pl.all().exclude("value"), pl.col("value")
    )
