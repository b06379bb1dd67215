"""The figures of the fine-tuning study: CD by layer before and after each arm, and what the arm gained.

They read WORKDIR/finetuning alone, which language models and trainings of the synthetic task fill alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jaxconcepts.figures import paper, style, words
from jaxconcepts.figures.panels import Panels
from jaxconcepts.figures.section import Section
from jaxconcepts.figures.tables import Curve

STUDY = "finetuning"
BEFORE = {"color": "#8A8A8A", "linestyle": (0, (2.6, 1.3))}
PAPER = paper.MARK | {"marker": "D", "color": "#000000"}
PAPER_ARMS = {"before": ("pretrained",) * 2, "first-10": ("finetune_first10", "first10")} | {
    "last-10": ("finetune_last10", "last10")
}
"""Arm -> the condition of the paper's table 1 and the column of its figure 24."""


class Cell(NamedTuple):
    """What a figure is of: the rows of one family, shots and variant; blocks: those that each arm tunes. concepts:
    without Null. pooled: how many CD tells apart, Null too. paper: whether the paper has numbers of this model and
    these prompts."""

    name: str
    title: str
    family: str
    rows: pl.DataFrame
    arms: list[str]
    blocks: dict[str, list[int]]
    concepts: list[str]
    pooled: int
    paper: bool


def sentences(table: pl.DataFrame, config: Mapping[str, Any]) -> list[str]:
    """What came out of every cell, in words."""
    return [words.after(cell.title, said) for cell in _cells(table, config) if (said := cd_outcome(cell))]


def sections(table: pl.DataFrame, config: Mapping[str, Any]) -> Iterator[Section]:
    """Two figures of every cell that was measured. table: the study's metrics; config: the run directory's."""
    for cell in _cells(table, config):
        title = f"CD before and after tuning: {cell.title}"
        name = f"finetuning_cd_{cell.name}"
        yield Section(name, title, CD_CAPTION, cd_by_layer(cell), outcome=cd_outcome(cell))
        metric = "accuracy" if (cell.rows["metric"] == "accuracy").any() else "loss_last"
        what = "Accuracy" if metric == "accuracy" else "Loss at the last position"
        title = f"{what} before and after tuning: {cell.title}"
        name = f"finetuning_gain_{cell.name}"
        yield Section(name, title, GAIN_CAPTION[metric], gain(cell, metric), outcome=gain_outcome(cell, metric))


CD_CAPTION = (
    "CD at every layer (layer 0: the embeddings, layer l: the residual stream after block l), mean over concepts "
    "without Null, before tuning and after each arm, with one line for each seed. Shaded: the layers after tuned "
    "blocks. Left of the shade nothing can change. So an arm cannot change the encoding at a layer left of its "
    "shade. Bands (language models): 95 % interval that takes shared neighbours into account. Diamonds: numbers of "
    "the paper (arXiv 2412.12276, table 1), where model and prompts are the same."
)
GAIN_CAPTION = {
    "accuracy": "Exact match of greedy answers, by concept and over all concepts without Null. Bars: 95 % interval "
    "that counts prompts with the same query as one; with several seeds, of the first seed's prompts. "
    "Diamonds: numbers of the paper (arXiv 2412.12276, figure 24 and table 1), where model and prompts "
    "are the same.",
    "loss_last": "Held-out squared error at the last position, by concept and over all. Dotted: the error of the Bayes "
    "mixture, over all concepts.",
}


def cd_outcome(cell: Cell) -> str:
    """The highest layer's CD before tuning and after each arm, means over runs."""
    best = {arm: words.over_runs(_highest(of.values) for of in _curves(cell, arm, "cd")) for arm in _all(cell)}
    after = ", ".join(f"{best[arm]} after {arm}" for arm in cell.arms if best[arm])
    return f"The best layer's CD is {best['before']} before tuning, {after}." if best["before"] and after else ""


def _highest(values: np.ndarray) -> float:
    """The highest of what is a number, NaN where nothing is."""
    return float(np.max(values, where=np.isfinite(values), initial=-np.inf)) if np.isfinite(values).any() else np.nan


def gain_outcome(cell: Cell, metric: str) -> str:
    """What is measured over all concepts, before tuning and after each arm."""
    values = {arm: _by_concept(cell, arm, metric)[-1] for arm in _all(cell)}
    after = ", ".join(f"{values[arm]:.2f} after {arm}" for arm in cell.arms if np.isfinite(values[arm]))
    what = "Accuracy" if metric == "accuracy" else "The loss"
    known = after and np.isfinite(values["before"])
    return f"{what} over all concepts is {values['before']:.2f} before tuning, {after}." if known else ""


@style.styled
def cd_by_layer(cell: Cell) -> Figure:
    """A panel an arm: CD by layer before (broken) and after (a line a seed), the tuned layers shaded."""
    panels = Panels([_panel_title(cell, arm) for arm in cell.arms], "layer", "CD")
    before = _curves(cell, "before", "cd")[0]
    for axis, arm in zip(panels.axes, cell.arms, strict=True):
        for block in cell.blocks[arm]:
            axis.axvspan(block - 0.5, block + 0.5, color="#F2D7A6", linewidth=0, zorder=0, gid=f"tuned/{arm}/{block}")
        panels.chance(axis, 1 / cell.pooled, f"chance/{arm}")
        panels.line(axis, before, f"cd/before/{arm}", "before", **BEFORE)
        for number, curve in enumerate(_curves(cell, arm, "cd")):
            panels.line(axis, curve, f"cd/{arm}/{number}", "after", color=style.BEST_COLOR)
        low, high = _curves(cell, arm, "cd_low"), _curves(cell, arm, "cd_high")
        if len(low) == len(high) == 1:
            axis.fill_between(
                low[0].steps, low[0].values, high[0].values, color=style.BEST_COLOR, alpha=0.15, linewidth=0
            )
        for name, color in (("before", BEFORE["color"]), (arm, style.BEST_COLOR)):
            if (mean := _paper_mean(cell, name)) is not None:
                look = PAPER | {"color": color}
                axis.plot([paper.LAYERS[cell.family]], [mean.cd], **look, gid=f"paper/{name}/{arm}")
    figure = panels.finish("cd")
    extra = [Patch(color="#F2D7A6", linewidth=0, label="tuned")]
    extra += [Line2D([], [], label=paper.LABEL, **PAPER)] if cell.paper else []
    legend = figure.legends[0]
    handles = [*legend.legend_handles, *extra]
    legend.remove()
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), columnspacing=1.4)
    return figure


@style.styled
def gain(cell: Cell, metric: str) -> Figure:
    """Grouped bars: each concept, and their mean, before and after each arm."""
    groups, arms = [*cell.concepts, "mean"], ["before", *cell.arms]
    figure = Figure(
        figsize=(max(style.ONE_COLUMN * 1.3, 0.22 * len(groups) * len(arms) + 1), 2.4), layout="constrained"
    )
    axis, width = figure.subplots(), 0.8 / len(arms)
    for place, arm in enumerate(arms):
        color = BEFORE["color"] if arm == "before" else style.CONCEPT_COLORS[(place - 1) % len(style.CONCEPT_COLORS)]
        at = np.arange(len(groups)) + (place - (len(arms) - 1) / 2) * width
        values = _by_concept(cell, arm, metric)
        axis.bar(at, values, width * 0.9, color=color, label=arm, gid=f"gain/{arm}")
        if metric == "accuracy":
            ends = np.stack([_by_concept(cell, arm, f"accuracy_{end}", first=True) for end in ("low", "high")])
            middle = _by_concept(cell, arm, metric, first=True)
            axis.errorbar(at, middle, np.abs(ends - middle), fmt="none", color="#222222", linewidth=0.7)
        if cell.paper and metric == "accuracy":
            label = paper.LABEL if arm == "before" else None
            axis.plot(at, _paper_accuracy(cell, arm), **PAPER, label=label, gid=f"paper/{arm}")
    if metric == "loss_last":
        level = _by_concept(cell, "before", "loss_last_bayes")[-1]
        axis.axhline(level, label=style.REFERENCE_LABELS["bayes"], linewidth=1, **style.REFERENCE_STYLES["bayes"])
    axis.set_xticks(range(len(groups)), groups)
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel("accuracy" if metric == "accuracy" else "squared error")
    if metric == "accuracy":
        Panels.fraction_axis(axis)
    figure.legend(loc="outside upper center", ncols=min(6, len(arms) + 1), columnspacing=1.4)
    return figure


def _cells(table: pl.DataFrame, config) -> Iterator[Cell]:
    same = paper.model_of(config, str(config.get("model"))) == paper.LLAMA_31_8B
    keys = ("family", "shots", "variant")
    for key in table.select(keys).unique(maintain_order=True).iter_rows():
        rows = table.filter(pl.col(name) == value for name, value in zip(keys, key, strict=True))
        family, shots, variant = key
        if not (rows["arm"] == "before").any():
            continue
        # "blocks" of earlier tables counts them from 0.
        column, first = ("tuned_blocks", 0) if "tuned_blocks" in rows.columns else ("blocks", 1)
        tuned = dict(rows.select("arm", column).unique("arm").iter_rows())
        blocks = {arm: [block + first for block in json.loads(text)] for arm, text in tuned.items()}
        arms = [arm for arm in _split(config["arms"]) if arm in blocks]
        labels = config["labels"][family]
        concepts = labels[: -1 if config["null"][family] is not None else None]
        title = family if family == "regression" else f"{family}, {shots} shot{'s' * (shots != 1)}, {variant}"
        name = f"{family}_{shots}_{variant}"
        compared = same and family in paper.LAYERS and (shots, variant) == (paper.SHOTS, "plain")
        yield Cell(name, title, family, rows, arms, blocks, concepts, len(labels), compared)


def _all(cell: Cell) -> list[str]:
    return ["before", *cell.arms]


def _split(arms) -> list[str]:
    return [arms] if isinstance(arms, str) else list(arms)


def _panel_title(cell: Cell, arm: str) -> str:
    tuned = cell.blocks[arm]
    return f"{arm}: {len(tuned)} block{'' if len(tuned) == 1 else 's'} tuned"


def _curves(cell: Cell, arm: str, metric: str) -> list[Curve]:
    """CD or one of its bounds by layer, mean over concepts, one curve a run of the arm."""
    rows = cell.rows.filter(pl.col("arm") == arm, pl.col("metric") == metric, pl.col("concept").is_null())
    parts = rows.sort("layer").partition_by("run", maintain_order=True)
    return [Curve(part["layer"].to_numpy(), part["value"].to_numpy()) for part in parts]


def _by_concept(cell: Cell, arm: str, metric: str, first: bool = False) -> np.ndarray:
    """Each concept's value and, last, that of all, mean over the arm's runs (`first`: the first run's)."""
    rows = cell.rows.filter(pl.col("arm") == arm, pl.col("metric") == metric)
    if first:
        rows = rows.filter(pl.col("run") == rows["run"].sort().first())
    mean = rows.group_by("concept").agg(pl.col("value").mean())
    values = dict(mean.iter_rows())
    return np.array([values.get(concept, np.nan) for concept in (*range(len(cell.concepts)), None)])


def _paper_mean(cell: Cell, arm: str) -> paper.Mean | None:
    return paper.mean(PAPER_ARMS[arm][0], cell.family) if cell.paper and arm in PAPER_ARMS else None


def _paper_accuracy(cell: Cell, arm: str) -> np.ndarray:
    mean = _paper_mean(cell, arm)
    if mean is None:
        return np.full(len(cell.concepts) + 1, np.nan)
    rows = paper.table("fig24_finetune").filter(family=cell.family)
    values = dict(rows.select("task", PAPER_ARMS[arm][1]).iter_rows())
    return np.array([*(values.get(concept, np.nan) / 100 for concept in cell.concepts), mean.accuracy])
