"""The figures of the causal study of a language model, drawn from its tables alone.

A figure is of one family, a panel of one concept. Accuracies have 95 % intervals.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxconcepts.figures import paper, style
from jaxconcepts.figures.panels import Panels
from jaxconcepts.figures.patching.panels import DIVERGING, color_bar, symmetric
from jaxconcepts.figures.tables import Curve, MissingData

CONDITION_STYLES = {
    "positive": {"color": "#C2185B", "marker": "o"},
    "negative": {"color": "#222222", "marker": "v", "linestyle": (0, (4, 1.5))},
    "other": {"color": "#E69F00", "marker": "D", "linestyle": (0, (3, 1, 1, 1))},
    "random": {"color": "#7A8B99", "marker": "s", "linestyle": (0, (1, 1.2))},
    "steered": {"color": "#C2185B", "marker": "o"},
}
BAR_ORDER = ("few-shot", "zero-shot", "task vector", "function vector", "shuffled", "shuffled, function vector")
# Of patches at one layer, with the columns of the paper's figure 20.
PATCH_BARS = ("none", "negative", "random", "positive")
PUBLISHED = {"none": "unperturbed", "negative": "negative", "positive": "positive"}
LAYER = "layer (0 = embeddings)"


@style.styled
def patching(tables) -> Figure:
    """Accuracy by layer under each patch, all concepts together and each."""
    shares = _shares_of(_with_ends(tables, "patching", "accuracy"), "accuracy", "condition", "layer")
    concepts = shares["concept"].unique(maintain_order=True).to_list()
    panels = Panels(["all concepts" if k is None else k for k in concepts], LAYER, "accuracy")
    for concept, axis in zip(concepts, panels.axes, strict=True):
        own = shares.filter(pl.col("concept").eq_missing(concept))
        panels.level(axis, _plain(own), f"{concept}/none", "no patch", color="#303030", linewidth=0.8)
        for condition, look in CONDITION_STYLES.items():
            curve = own.filter(condition=condition).sort("layer")
            if curve.is_empty():
                continue
            layers, values = curve["layer"].to_numpy(), curve["value"].to_numpy()
            panels.line(axis, Curve(layers, values), f"{concept}/{condition}", condition, markersize=3, **look)
            bars = {"color": look["color"], "linewidth": 0.7, "fmt": "none"}
            axis.errorbar(layers, values, _bars(curve), gid=f"{concept}/{condition}/interval", **bars)
    return _by_layer(panels, "accuracy of patches")


@style.styled
def patched(tables) -> Figure:
    """Bars of accuracy by concept without a patch and with each at one layer: the paper's where `tables` has its
    numbers ("paper", rows of `paper.table("fig20_patching")`), else the one where the positive patch and the negative
    one are furthest apart."""
    published = tables.get("paper")
    layer = layer_of(rows_of(tables, "patching", "accuracy"), published)
    rows = _with_ends(tables, "patching", "accuracy").filter(
        pl.col("layer").eq_missing(layer) | (pl.col("condition") == "none")
    )
    shares = _shares_of(rows, "accuracy", "condition")
    conditions = [name for name in PATCH_BARS if name in shares["condition"].to_list()]
    # Light enough for the intervals to be seen on the bars.
    colors = {name: look["color"] for name, look in CONDITION_STYLES.items()} | {
        "none": "#C4C4C4",
        "negative": "#707070",
    }
    labels = {name: f"{name} patch" for name in conditions} | {"none": "no patch"}
    figure, axis, places = _grouped(shares, conditions, [colors[name] for name in conditions], labels)
    axis.set_title(f"layer {layer}", loc="left")
    if published is not None:
        concepts = shares["concept"].drop_nulls().unique(maintain_order=True).to_list()
        for condition, column in ((c, PUBLISHED[c]) for c in conditions if c in PUBLISHED):
            known = dict(published["task", column].iter_rows())
            found = np.array([known.get(concept, np.nan) for concept in concepts]) / 100
            label, gid = paper.LABEL if condition == "none" else None, f"paper/{condition}"
            look = paper.MARK | {"color": "#000000", "marker": "D", "clip_on": False}
            axis.plot(places[condition], [*found, found.mean()], label=label, gid=gid, **look)
    figure.legend(loc="outside upper center", ncols=len(conditions) + 1, columnspacing=1.4)
    return figure


@style.styled
def vectors(tables) -> Figure:
    """Bars of accuracy by concept: few-shot, zero-shot, task vector, function vector."""
    kinds = [kind for kind in ("task_vectors", "function_vectors") if tables[kind] is not None]
    if not kinds:
        raise MissingData("no task or function vectors in the causal tables")
    rows = pl.concat([_with_ends(tables, kind, "accuracy") for kind in kinds], how="diagonal_relaxed")
    shares = _shares_of(rows, "accuracy", "condition")
    conditions = [name for name in BAR_ORDER if name in shares["condition"].to_list()]
    figure, _, _ = _grouped(shares, conditions, style.CONCEPT_COLORS, dict(zip(conditions, conditions, strict=True)))
    figure.legend(loc="outside upper center", ncols=min(6, len(conditions)))
    return figure


@style.styled
def effects(tables) -> Figure:
    """Indirect effects by block and head."""
    rows = rows_of(tables, "function_vectors", "indirect_effect")
    return _head_maps(rows, "rise of p(answer)")


@style.styled
def heads(tables) -> Figure:
    """Change of accuracy by block and head, mean ablation."""
    return _head_maps(head_changes(tables), "change of accuracy")


@style.styled
def steering(tables) -> Figure:
    """Share of answers as the other concept's, by layer, a line a scale."""
    shares = _shares_of(_with_ends(tables, "steering", "as_other"), "as_other", "condition", "layer", "scale")
    concepts = shares["concept"].unique(maintain_order=True).to_list()
    scales = shares["scale"].drop_nulls().unique().sort().to_list()
    panels = Panels(["all concepts" if k is None else k for k in concepts], LAYER, "answers of the other concept")
    for concept, axis in zip(concepts, panels.axes, strict=True):
        own = shares.filter(pl.col("concept").eq_missing(concept))
        panels.level(axis, _plain(own), f"{concept}/none", "not steered", color="#303030", linewidth=0.8)
        for place, scale in enumerate(scales):
            for condition, dash in (("steered", "-"), ("random", (0, (1, 1.2)))):
                curve = own.filter(condition=condition, scale=scale).sort("layer")
                if curve.is_empty():
                    continue
                layers, label = curve["layer"].to_numpy(), f"{condition}, scale {scale:g}"
                look = {"color": style.CONCEPT_COLORS[place], "linestyle": dash, "marker": "o", "markersize": 2}
                points = Curve(layers, curve["value"].to_numpy())
                panels.line(axis, points, f"{concept}/{condition}/{scale:g}", label, **look)
                if condition == "steered" and curve["low"].is_finite().any():
                    band = {"color": style.CONCEPT_COLORS[place], "alpha": 0.15, "linewidth": 0}
                    gid = f"{concept}/interval/{scale:g}"
                    axis.fill_between(layers, curve["low"], curve["high"], gid=gid, **band)
    return _by_layer(panels, "as_other of steering")


@style.styled
def interchange(tables) -> Figure:
    """Layer x token heat maps of what a state restores, a panel a concept."""
    rows = tables["interchange"]
    if rows is None or not rows.height:
        raise MissingData("no interchange patches in the causal tables")
    concepts = rows["concept"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(style.TWO_COLUMNS, 0.5 + 0.85 * len(concepts)), layout="constrained")
    axes = figure.subplots(len(concepts), 1, squeeze=False, sharex=True)[:, 0]
    norm = symmetric(rows["value"].to_numpy())
    for axis, concept in zip(axes, concepts, strict=True):
        own = rows.filter(concept=concept)
        values = np.full((own["layer"].max() + 1, -own["token"].min()), np.nan)
        values[own["layer"].to_numpy(), own["token"].to_numpy()] = own["value"].to_numpy()
        extent = (-values.shape[1] - 0.5, -0.5, -0.5, len(values) - 0.5)
        look = {"origin": "lower", "aspect": "auto", "cmap": DIVERGING, "norm": norm, "interpolation": "nearest"}
        image = axis.imshow(values, extent=extent, gid=f"{concept}/interchange", **look)
        axis.set_title(f"{concept} ({own['pairs'][0]} pairs)")
        axis.set_ylabel("layer")
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[-1].set_xlabel("token, counted from the prompt's end")
    color_bar(figure, image, axes, "share restored")
    return figure


def head_changes(tables) -> pl.DataFrame:
    """Each head's accuracy with its mean in its place, less the concept's without; MissingData where there is none."""
    rows = rows_of(tables, "heads", "accuracy")
    plain = rows.filter(condition="none").group_by("concept").agg(pl.mean("value").alias("plain"))
    ablated = rows.filter(condition="mean").join(plain, on="concept")
    return ablated.with_columns(value=pl.col("value") - pl.col("plain"))


def rows_of(tables, kind: str, metric: str) -> pl.DataFrame:
    """The rows of a metric; MissingData where there are none."""
    return _with_ends(tables, kind, metric).filter(metric=metric)


def _with_ends(tables, kind: str, metric: str) -> pl.DataFrame:
    """The rows of a metric and of the ends of its intervals; MissingData where the metric has none."""
    table = tables[kind]
    if table is None or metric not in table["metric"].to_list():
        raise MissingData(f"no {metric} of {kind.replace('_', ' ')} in the causal tables")
    return table.filter(pl.col("metric").is_in([metric, f"{metric}_low", f"{metric}_high"]))


def _shares_of(rows: pl.DataFrame, metric: str, *keys: str) -> pl.DataFrame:
    """A share and the ends of its 95 % interval ("value", "low", "high") by `keys` and concept.

    Null stands first among the concepts: it is the mean over them. The ends are NaN in the tables of a study that wrote
    none.
    """
    keys = (*keys, "concept")
    means = rows.filter(pl.col("metric") == metric).group_by(keys, maintain_order=True).agg(pl.mean("value"))
    together = means.group_by(keys[:-1], maintain_order=True).agg(pl.mean("value"))
    shares = pl.concat([together, means], how="diagonal_relaxed").select(*keys, "value")
    for end in ("low", "high"):
        of_end = rows.filter(pl.col("metric") == f"{metric}_{end}").group_by(keys).agg(pl.mean("value").alias(end))
        shares = shares.join(of_end, on=keys, how="left", nulls_equal=True, maintain_order="left")
    return shares.with_columns(pl.col("low", "high").fill_null(np.nan))


def _plain(shares: pl.DataFrame) -> float:
    values = shares.filter(condition="none")["value"]
    return values.item() if values.len() else np.nan


def _bars(shares: pl.DataFrame) -> np.ndarray:
    """[2, n]: how far an interval reaches below its value and above, as matplotlib takes it."""
    value, low, high = (shares[column].to_numpy() for column in ("value", "low", "high"))
    return np.nan_to_num([value - low, high - value]).clip(0)


def layer_of(rows: pl.DataFrame, published: pl.DataFrame | None) -> int:
    """The layer that the paper patched, where its numbers are given; else the one where the positive patch and the
    negative one (or the other concept's) differ most, over concepts."""
    if published is not None:
        return paper.LAYERS[published["family"][0]]
    means = rows.drop_nulls("layer").group_by("condition", "layer").agg(pl.mean("value"))
    wide = means.pivot("condition", index="layer", values="value").sort("layer")
    opposite = next((name for name in ("negative", "other") if name in wide.columns), None)
    if opposite is None or "positive" not in wide.columns:
        raise MissingData("no positive patches and opposite ones in the causal tables")
    return int(wide["layer"][int((wide["positive"] - wide[opposite]).abs().arg_max())])


def _grouped(shares: pl.DataFrame, conditions, colors, labels) -> tuple[Figure, Axes, dict[str, np.ndarray]]:
    """A group of bars a concept, and last one of all, with intervals; where each condition's bars stand."""
    concepts = [*shares["concept"].drop_nulls().unique(maintain_order=True).to_list(), None]
    figure = Figure(figsize=(style.TWO_COLUMNS, 2.4), layout="constrained")
    axis, width, places = figure.subplots(), 0.8 / len(conditions), {}
    for number, condition in enumerate(conditions):
        bars = pl.DataFrame({"concept": concepts}, {"concept": pl.String}).join(
            shares.filter(condition=condition), on="concept", how="left", nulls_equal=True, maintain_order="left"
        )
        places[condition] = np.arange(len(concepts)) + (number - (len(conditions) - 1) / 2) * width
        look = {"color": colors[number], "label": labels[condition], "error_kw": {"elinewidth": 0.7}}
        axis.bar(places[condition], bars["value"].fill_null(np.nan), width * 0.92, yerr=_bars(bars), **look)
    axis.set_xticks(range(len(concepts)), ["all" if k is None else k for k in concepts])
    Panels.fraction_axis(axis)
    axis.set_ylabel("accuracy")
    return figure, axis, places


def _head_maps(rows: pl.DataFrame, label: str) -> Figure:
    concepts = [None, *rows["concept"].unique(maintain_order=True).to_list()]
    columns = min(4, len(concepts))
    lines = -(-len(concepts) // columns)
    blocks, count = int(rows["layer"].max()), int(rows["head"].max()) + 1
    size = (style.TWO_COLUMNS, 0.5 + lines * (0.55 + 0.16 * min(blocks, 32)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    means = rows.group_by("concept", "layer", "head").agg(pl.mean("value"))
    norm = symmetric(means["value"].to_numpy())
    for axis in axes[len(concepts) :]:
        axis.remove()
    for axis, concept in zip(axes, concepts, strict=False):
        own = means if concept is None else means.filter(concept=concept)
        values = np.full((blocks, count), np.nan)
        for layer, head, value in own.group_by("layer", "head").agg(pl.mean("value")).iter_rows():
            values[layer - 1, head] = value
        extent = (-0.5, count - 0.5, 0.5, blocks + 0.5)
        look = {"origin": "lower", "aspect": "auto", "cmap": DIVERGING, "norm": norm, "interpolation": "nearest"}
        image = axis.imshow(values, extent=extent, gid=f"{concept}/heads", **look)
        axis.set_title("all concepts" if concept is None else concept)
        for locator in (axis.xaxis, axis.yaxis):
            locator.set_major_locator(MaxNLocator(5, integer=True))
    figure.supxlabel("head", fontsize=style.RC["axes.labelsize"])
    figure.supylabel("block", fontsize=style.RC["axes.labelsize"])
    color_bar(figure, image, axes[: len(concepts)].tolist(), label)
    return figure


def _by_layer(panels: Panels, metric: str) -> Figure:
    figure = panels.finish(metric)
    for axis in panels.axes:
        axis.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    return figure
