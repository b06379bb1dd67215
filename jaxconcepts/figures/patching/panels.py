"""The figures of the patch study: loss changes, source by target; which predictor a patched model follows; heads.

Each takes a `Study` (for labels), the runs to draw and a table of the study (`store.results`), and returns a Figure.
Grids share one diverging colour scale, centred at zero. Losses and distances are divided by the rank r.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxconcepts.figures import style
from jaxconcepts.figures.panels import Panels
from jaxconcepts.figures.tables import Curve, MissingData, Study

DIVERGING = "RdBu_r"
POSITIONS = ("query", "x", "all")
POSITION_LABELS = {"query": "query token", "x": "all x tokens", "all": "all tokens"}
# The patches as they are told apart in the figures; "mean" is the one that is tested, the others are controls.
PATCH_STYLES = {
    "mean": {"color": "#C2185B", "marker": "o", "markersize": 3},
    "random": {"color": "#7A8B99", "linestyle": (0, (1, 1.2)), "marker": "s", "markersize": 2.5},
    "own": {"color": "#0072B2", "linestyle": (0, (4, 1.5)), "marker": "^", "markersize": 2.5},
    "third": {"color": "#E69F00", "linestyle": (0, (3, 1, 1, 1)), "marker": "D", "markersize": 2.5},
}
PATCH_LABELS = {
    "mean": "target's mean",
    "random": "random direction",
    "own": "source's own mean",
    "third": "a third concept's mean",
}


@style.styled
def grids_by_layer(study: Study, run: str, grid: pl.DataFrame, *, mode: str) -> Figure:
    """Loss change at the query, K x K, a column a layer and a row a setting of positions, at the run's last step."""
    changes = changes_of(grid, run).filter(pl.col("mode") == mode)
    changes = changes.filter(pl.col("step") == pl.col("step").max())
    return _grids(study, run, changes, "layer", lambda layer: f"layer {layer}")


@style.styled
def grids_over_training(study: Study, run: str, grid: pl.DataFrame, *, mode: str) -> Figure:
    """The same, a column a checkpoint, at the layer whose loss changes most at the last one."""
    changes = changes_of(grid, run).filter(pl.col("mode") == mode)
    if changes["step"].n_unique() < 2:
        raise MissingData("no second checkpoint in the patching tables")
    layer = _strongest_layer(changes)
    changes = changes.filter(pl.col("layer") == layer)
    return _grids(study, run, changes, "step", lambda step: f"step {style.step_text(step)}", f"layer {layer}")


@style.styled
def followed(
    study: Study, runs: Sequence[str], summary: pl.DataFrame, *, mode: str, positions: str, metric: str = "distance"
) -> Figure:
    """By layer, how far the patched model's predictions are from the oracle of the source and of the target (or, metric
    "weight", their coefficients on both), for the patch and its controls, at each run's last step."""
    references = ("source oracle", "target oracle")
    cells = [(run, reference) for reference in references for run in runs]
    titles = [f"{study.label(run)}: {reference}" for run, reference in cells]
    label = {"distance": "squared distance / r", "weight": "weight on the oracle"}[metric]
    panels = Panels(titles, "layer (0 = embeddings)", label, height=1.6)
    for (run, reference), axis in zip(cells, panels.axes, strict=True):
        own = summary.filter(pl.col("run") == run, pl.col("at") == "query", pl.col("metric") == metric)
        own = own.filter(pl.col("step") == pl.col("step").max())
        divisor = study.rank(run) if metric == "distance" else 1.0
        level = own.filter(pl.col("patch") == "none", pl.col("reference") == reference)["value"]
        if len(level):
            gid = f"{run}/{reference}/none"
            panels.level(axis, level[0] / divisor, gid, "no patch", color="#303030", linewidth=0.8)
        for patch, look in PATCH_STYLES.items():
            cell = {"patch": patch, "mode": mode, "positions": positions, "reference": reference}
            curve = _by_layer(own, cell)
            panels.line(axis, curve, f"{run}/{reference}/{patch}", PATCH_LABELS[patch], divisor=divisor, **look)
    figure = panels.finish(f"{metric} of {mode} patches at {positions}", errors=True if metric == "distance" else None)
    for axis in panels.axes:
        axis.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    return figure


@style.styled
def followed_over_training(study: Study, runs: Sequence[str], summary: pl.DataFrame, *, mode: str) -> Figure:
    """At every checkpoint, the weights on source's and target's oracle after the target's mean is patched in, at the
    layer and positions with the largest weight on the target's at the last one (named above each panel)."""
    weights = summary.filter(pl.col("at") == "query", pl.col("metric") == "weight", pl.col("mode") == mode)
    best = {run: _best_cell(weights.filter(pl.col("run") == run)) for run in runs}
    titles = [
        study.label(run) + (f": layer {cell['layer']}, {POSITION_LABELS[cell['positions']]}" if cell else "")
        for run, cell in best.items()
    ]
    panels = Panels(titles, "training step", "weight on the oracle")
    looks = {"target oracle": "-", "source oracle": (0, (4, 1.5))}
    for run, axis in zip(runs, panels.axes, strict=True):
        if best[run] is None:
            continue
        for reference, dash in looks.items():
            for patch in ("mean", "random"):
                rows = weights.filter(pl.col("run") == run, pl.col("patch") == patch, pl.col("reference") == reference)
                rows = rows.filter(*(pl.col(name) == value for name, value in best[run].items())).sort("step")
                look = PATCH_STYLES[patch] | {"linestyle": dash}
                curve = Curve(rows["step"].to_numpy(), rows["value"].to_numpy())
                label = f"{PATCH_LABELS[patch]}: {reference}"
                panels.line(axis, curve, f"{run}/{reference}/{patch}", label, **look)
    return panels.finish("weight of patches", step_scale="auto", errors=None)


@style.styled
def head_map(study: Study, run: str, heads: pl.DataFrame, *, ablation: str) -> Figure:
    """Loss change by block and head at the run's last step: all concepts together, and each one."""
    own = heads.filter(
        pl.col("run") == run, pl.col("ablation") == ablation, pl.col("at") == "mean", pl.col("metric") == "loss_change"
    )
    own = own.filter(pl.col("step") == pl.col("step").max())
    if not own.height:
        raise MissingData(f"no {ablation} ablation of heads in the patching tables")
    concepts = [None, *range(study.num_concepts(run))]
    width = min(style.TWO_COLUMNS, 1.0 + 1.15 * len(concepts))
    figure = Figure(figsize=(width, 0.9 + 0.24 * own["layer"].n_unique()), layout="constrained")
    axes = figure.subplots(1, len(concepts), sharey=True, squeeze=False)[0]
    blocks, columns = own["layer"].unique().sort(), own["head"].unique().sort()
    norm = symmetric(own["value"].to_numpy() / study.rank(run))
    for axis, concept in zip(axes, concepts, strict=True):
        values = np.full((len(blocks), len(columns)), np.nan)
        for row in own.filter(pl.col("concept").eq_missing(pl.lit(concept))).iter_rows(named=True):
            values[blocks.index_of(row["layer"]), columns.index_of(row["head"])] = row["value"] / study.rank(run)
        image = axis.imshow(
            values, origin="lower", aspect="auto", cmap=DIVERGING, norm=norm, interpolation="nearest",
            gid=f"{run}/heads/{concept}",
        )  # fmt: skip
        axis.set_xticks(range(len(columns)), columns.to_list())
        axis.set_yticks(range(len(blocks)), blocks.to_list())
        axis.set_title("all concepts" if concept is None else study.concept_label(concept))
        _frame(axis)
    figure.supxlabel("head", fontsize=style.RC["axes.labelsize"])
    axes[0].set_ylabel("block")
    color_bar(figure, image, axes, "change of loss / r")
    return figure


def _grids(study: Study, run: str, changes: pl.DataFrame, column: str, title, above: str = "") -> Figure:
    """K x K images: a row a setting of positions, a column a value of `column`."""
    if not changes.height:
        raise MissingData("no loss_change in the patching tables")
    positions = [name for name in POSITIONS if name in changes["positions"].unique().to_list()]
    values = changes[column].unique().sort().to_list()
    concepts, rank = study.num_concepts(run), study.rank(run)
    figure = Figure(figsize=(min(style.TWO_COLUMNS, 1.3 + 1.05 * len(values)), 0.6 + 1.0 * len(positions)))
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03)
    axes = figure.subplots(len(positions), len(values), squeeze=False, sharex=True, sharey=True)
    norm = symmetric(changes["value"].to_numpy() / rank)
    for row, name in enumerate(positions):
        for place, value in enumerate(values):
            cells = changes.filter(pl.col("positions") == name, pl.col(column) == value)
            image = np.full((concepts, concepts), np.nan)
            image[cells["source"].to_numpy(), cells["target"].to_numpy()] = cells["value"].to_numpy() / rank
            shown = axes[row, place].imshow(
                image, cmap=DIVERGING, norm=norm, interpolation="nearest", gid=f"{run}/{name}/{column} {value}"
            )
            axes[row, place].set_xticks(range(concepts))
            axes[row, place].set_yticks(range(concepts))
            _frame(axes[row, place])
            if row == 0:
                axes[row, place].set_title(title(value))
        axes[row, 0].set_ylabel(f"{POSITION_LABELS[name]}\nsource")
    done = "mean is written" if changes["mode"][0] == "replace" else "difference of means is added"
    figure.supxlabel(f"target: whose {done}" + (f" ({above})" if above else ""), fontsize=8)
    color_bar(figure, shown, axes, "change of loss / r at the query")
    return figure


def changes_of(grid: pl.DataFrame, run: str) -> pl.DataFrame:
    """The rows of a run's loss changes at the query after the target's mean is patched in."""
    own = (pl.col("run") == run) & (pl.col("patch") == "mean") & (pl.col("at") == "query")
    return grid.filter(own & (pl.col("metric") == "loss_change"))


def _strongest_layer(changes: pl.DataFrame) -> int:
    last = changes.filter(pl.col("step") == pl.col("step").max(), pl.col("source") != pl.col("target"))
    return last.group_by("layer").agg(pl.col("value").mean()).sort("value", "layer")["layer"][-1]


def _best_cell(weights: pl.DataFrame) -> dict | None:
    last = weights.filter(pl.col("patch") == "mean", pl.col("reference") == "target oracle")
    last = last.filter(pl.col("step") == pl.col("step").max())
    return last.sort("value", descending=True).select("layer", "positions").row(0, named=True) if last.height else None


def _by_layer(rows: pl.DataFrame, cell: dict) -> Curve:
    chosen = rows.filter(*(pl.col(name) == value for name, value in cell.items())).sort("layer")
    return Curve(chosen["layer"].to_numpy(), chosen["value"].to_numpy())


def symmetric(values: np.ndarray) -> Normalize:
    """Symmetric about zero; where a few cells tower over the rest, linear around zero and logarithmic beyond."""
    sizes = np.abs(values[np.isfinite(values)])
    largest = max(float(sizes.max(initial=0.0)), 1e-6)
    typical = float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else largest
    if largest > 20 * typical:
        return SymLogNorm(linthresh=max(typical, largest / 100), vmin=-largest, vmax=largest)
    return Normalize(-largest, largest)


def color_bar(figure: Figure, image, axes, label: str) -> None:
    """Draws the bar of an image whose scale is `symmetric`, with ticks that do not overlap."""
    bar = figure.colorbar(image, ax=axes, label=label, pad=0.015, aspect=22)
    bar.outline.set_visible(False)
    if isinstance(image.norm, SymLogNorm):
        # Decades within the linear part would be written over the zero.
        low, high = image.norm.linthresh, image.norm.vmax
        bar.set_ticks([tick for tick in bar.get_ticks() if tick == 0 or low <= abs(tick) <= high])


def _frame(axis) -> None:
    axis.tick_params(length=0, labelsize=6)
    for spine in axis.spines.values():
        spine.set_visible(False)
