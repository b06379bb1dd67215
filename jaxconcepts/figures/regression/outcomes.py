"""What came out, a sentence a figure of a training: computed from the tables that the figure draws, "" without them.

Each takes what the figure's drawing function takes, but for scales.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl

from jaxconcepts.figures import style, words
from jaxconcepts.figures.patching import panels as patching
from jaxconcepts.figures.regression import numbers
from jaxconcepts.figures.sweeps.tables import half_way
from jaxconcepts.figures.tables import Study

LAST = "At the last measurement"


def loss(study: Study, runs: Sequence[str], *, last: bool) -> str:
    """The last loss over the Bayes mixture's, and ridge's over it; without a mixture the first loss and the last."""
    ratios, ridges, ends = [], [], []
    for run in runs:
        position = study.last_position(run) if last else None
        values = study.curve(run, "loss", position=position).values / study.rank(run)
        if not values.size or (last and position is None):
            continue
        bayes, ridge = (study.level(run, f"loss_{name}", position=position) / study.rank(run) for name in PREDICTORS)
        known = bayes > numbers.LEAST_BAYES
        ratios.append(values[-1] / bayes if known else np.nan)
        ridges.append(ridge / bayes if known else np.nan)
        ends.append((values[0], values[-1]))
    if said := words.over_runs(ratios):
        beside = f", and ridge's is {words.mean(ridges):.2f} times it" if np.isfinite(words.mean(ridges)) else ""
        return f"{LAST} the loss is {said} times the Bayes mixture's{beside}."
    return _from_to("The loss", ends)


PREDICTORS = ("bayes", "ridge")


def train_loss(study: Study, runs: Sequence[str]) -> str:
    """The first training loss and the last."""
    curves = [study.curve(run, "train_loss").values / study.rank(run) for run in runs]
    return _from_to("The training loss", [(values[0], values[-1]) for values in curves if values.size])


def loss_by_position(study: Study, runs: Sequence[str]) -> str:
    """The loss at the first position and at the last, of the last measurement."""
    ends, examples = [], 0
    for run in runs:
        steps = study.part(run, "loss").filter(pl.col("position").is_not_null())["step"]
        positions, values = study.by_position(run, "loss", steps.max())
        ends += [(values[0] / study.rank(run), values[-1] / study.rank(run))] if values.size else []
        examples = max(examples, int(positions[-1])) if values.size else examples
    first, last = (words.over_runs(of) for of in zip(*ends, strict=True)) if ends else ("", "")
    return f"{LAST} the loss is {first} without examples and {last} after {examples}." if first and last else ""


def distance(study: Study, runs: Sequence[str]) -> str:
    """Which predictor the model ends nearest to, and since when."""
    follows = [follow for run in runs if (follow := numbers.follows(study, run))]
    if not follows:
        return ""
    name, count = Counter(name for name, _ in follows).most_common(1)[0]
    label, since = style.REFERENCE_LABELS.get(name, name), np.median([step for of, step in follows if of == name])
    many = f" in {count} of {len(follows)} runs, in the median" if len(follows) > 1 else ""
    return f"The predictions are nearest to {label}{many} from step {words.step(since)} on."


def cd(study: Study, runs: Sequence[str], *, token: str = "x") -> str:
    """The best layer's last CD, chance, and when it was half-way up."""
    curves = [study.best_cd(run, token)[0] for run in runs]
    if not (said := words.over_runs(curve.values[-1] for curve in curves if curve.values.size)):
        return ""
    middles = [half_way(curve.steps.astype(float), curve.values, falls=False) for curve in curves]
    middles = [middle for middle in middles if middle is not None]
    rise = f"half of its rise came by step {words.step(np.median(middles))}" if middles else "it has hardly risen"
    return f"{LAST} the best layer's CD is {said}, chance {_chance(study, runs)}; {rise}."


def _chance(study: Study, runs: Sequence[str]) -> str:
    """One over the number of concepts, or the least and the greatest where runs differ in it."""
    return " to ".join(dict.fromkeys(f"{1 / count:.2f}" for count in _ends({study.num_concepts(run) for run in runs})))


def _ends(counts: set[int]) -> tuple[int, int]:
    return max(counts), min(counts)


def cd_map(study: Study, runs: Sequence[str], *, token: str = "x") -> str:
    """The layer with the highest last CD, and the first one half-way there from chance; means over runs."""
    maps = [of for run in runs if (of := study.cd_map(run, token)).steps.size]
    if not maps or len({tuple(of.layers) for of in maps}) > 1 or len({study.num_concepts(run) for run in runs}) > 1:
        return ""
    profile, layers = np.mean([of.values[:, -1] for of in maps], axis=0), maps[0].layers
    if not np.isfinite(profile).all():
        return ""
    best, chance = int(profile.argmax()), 1 / study.num_concepts(runs[0])
    first = int(layers[np.argmax(profile >= (profile[best] + chance) / 2)])
    return (
        f"{LAST} CD is highest at layer {layers[best]} ({profile[best]:.2f}, chance {chance:.2f}), and layer {first} "
        "is the first that is half-way there."
    )


def cd_concepts(study: Study, runs: Sequence[str]) -> str:
    """The concepts that are decoded best and worst at the end, in each run's best layer; means over runs."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for layer in study.best_cd(run)[1][-1:].tolist():
            for concept in range(study.num_concepts(run)):
                level = study.level(run, "cd", layer=layer, token="x", concept=concept)
                found.setdefault(concept, []).append(level)
    means = {concept: words.mean(levels) for concept, levels in found.items()}
    means = {concept: value for concept, value in means.items() if np.isfinite(value)}
    if len(means) < 2:
        return ""
    best, worst = max(means, key=means.get), min(means, key=means.get)
    said = [f"{study.concept_label(concept)} ({means[concept]:.2f})" for concept in (best, worst)]
    return f"{LAST} CD is highest for {said[0]} and lowest for {said[1]}."


def cd_against_loss(study: Study, runs: Sequence[str]) -> str:
    """When CD was half-way up and the loss half-way down, medians over the runs in which both moved."""
    pairs = []
    for run in runs:
        of_loss, of_cd = study.curve(run, "loss"), study.best_cd(run)[0]
        pair = (
            half_way(of_cd.steps.astype(float), of_cd.values, False),
            half_way(of_loss.steps.astype(float), of_loss.values, True),
        )
        pairs += [pair] if None not in pair else []
    if not pairs:
        return ""
    up, down = (words.step(np.median(of)) for of in zip(*pairs, strict=True))
    return f"CD is half-way up by step {up}, the loss half-way down by step {down}."


def projection(study: Study, run: str) -> str:
    """The best layer's first CD and last."""
    best, _ = study.best_cd(run)
    if best.steps.size < 2:
        return ""
    first, last = (f"{best.values[at]:.2f} at step {words.step(best.steps[at])}" for at in (0, -1))
    return f"The best layer's CD goes from {first} to {last}."


def followed(
    study: Study, runs: Sequence[str], summary: pl.DataFrame, *, mode: str, positions: str, metric: str
) -> str:
    """What the patch does to the target's oracle in the layer where it does most, and what a random direction does."""
    rows = summary.filter(pl.col("run").is_in(list(runs)), at="query", metric=metric, reference="target oracle").filter(
        pl.col("step") == pl.col("step").max().over("run")
    )
    ranks = pl.DataFrame(
        {"run": list(runs), "rank": [study.rank(run) if metric == "distance" else 1.0 for run in runs]}
    )
    rows = rows.join(ranks, on="run").with_columns(pl.col("value") / pl.col("rank"))
    means = rows.filter(mode=mode, positions=positions).group_by("patch", "layer").agg(pl.col("value").mean())
    of_patch = means.filter(patch="mean").sort("value", "layer", descending=[metric == "weight", False])
    plain = rows.filter(patch="none")["value"].mean()
    if not of_patch.height or plain is None:
        return ""
    layer, value = of_patch["layer"][0], of_patch["value"][0]
    control = means.filter(patch="random", layer=layer)["value"]
    beside = f"; a random direction to {control[0]:.2f}" if len(control) else ""
    what = {"weight": "weight on", "distance": "distance to"}[metric]
    return (
        f"At layer {layer}, where it does most, the patch takes the {what} the target's oracle from {plain:.2f} to "
        f"{value:.2f}{beside}."
    )


def grids(study: Study, run: str, grid: pl.DataFrame, *, mode: str) -> str:
    """Where the loss rises most after a patch, the mean over pairs of concepts."""
    changes = patching.changes_of(grid, run).filter(pl.col("source") != pl.col("target"), mode=mode)
    changes = changes.filter(pl.col("step") == pl.col("step").max())
    means = changes.group_by("layer", "positions").agg(pl.col("value").mean()).sort("value", "layer", "positions")
    if not means.height:
        return ""
    layer, positions, value = means.row(-1)
    return (
        f"The loss changes most, by {value / study.rank(run):+.2g} in the mean over pairs, for a patch at layer "
        f"{layer} and {patching.POSITION_LABELS[positions]}."
    )


def heads(study: Study, run: str, table: pl.DataFrame, *, ablation: str) -> str:
    """The head whose loss matters most, beside the median one."""
    own = table.filter(run=run, ablation=ablation, at="mean", metric="loss_change").filter(pl.col("concept").is_null())
    own = own.filter(pl.col("step") == pl.col("step").max()).sort("value", "layer", "head")
    if not own.height:
        return ""
    most, rank = own.row(-1, named=True), study.rank(run)
    return (
        f"Head {most['head']} of block {most['layer']} matters most: without it the loss changes by "
        f"{most['value'] / rank:+.2g}, without the median head by {own['value'].median() / rank:+.2g}."
    )


def _from_to(what: str, ends: Sequence[tuple[float, float]]) -> str:
    if not ends:
        return ""
    first, last = (words.over_runs(of, ".3g") for of in zip(*ends, strict=True))
    return f"{what} goes from {first} to {last}." if first and last else ""
