"""The figures of a sweep: what each field does to loss and CD, and when concepts emerge over all runs.

Every function takes a `Study` and returns a matplotlib Figure; MissingData says what the tables lack.
"""

from __future__ import annotations

import itertools

import matplotlib
import numpy as np
import polars as pl
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxconcepts.figures import style
from jaxconcepts.figures.sweeps.tables import CD, LOSS, Field, bins, emergence, influence, outcomes, short, swept
from jaxconcepts.figures.tables import MissingData, Study

MOST_FIELDS = 6
MOST_LINES = 600
MOST_SETTINGS = 6


@style.styled
def by_field(study: Study) -> Figure:
    """Final loss and CD of every run against each swept field; the line is the median, the band the middle half."""
    table, fields = _measured(study), _strongest(study, MOST_FIELDS)
    columns = len(fields)
    size = (max(style.ONE_COLUMN, 1.55 * columns + 0.6), 3.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False, sharex="col", sharey="row")
    jitter = np.random.default_rng(0)
    for (row, metric), (column, field) in itertools.product(enumerate((LOSS, CD)), enumerate(fields)):
        axis = axes[row, column]
        known = table.filter(pl.col(metric).is_not_null())
        places, values = field.places(known[field.name]), known[metric].to_numpy()
        _field_axis(axis, field)
        spread = _spread(field, places, jitter)
        look = {"color": style.MODEL_COLOR, "alpha": max(0.05, min(0.5, 40 / max(1, known.height)))}
        axis.scatter(spread, values, s=4, linewidth=0, gid=f"sweep/{metric}/{field.name}", **look)
        of, _ = bins(field, known[field.name])
        classes = np.unique(of)
        if classes.size > 1:
            middle = [np.median(places[of == c]) for c in classes]
            low, median, high = np.array([np.quantile(values[of == c], (0.25, 0.5, 0.75)) for c in classes]).T
            look = {"color": style.BEST_COLOR, "gid": f"sweep/{metric}/{field.name}/median"}
            if field.number:
                axis.fill_between(middle, low, high, color=style.BEST_COLOR, alpha=0.2, linewidth=0)
                axis.plot(middle, median, **look)
            else:  # Names have no order, so nothing joins them.
                axis.vlines(middle, low, high, color=style.BEST_COLOR, alpha=0.4, linewidth=2)
                axis.plot(middle, median, linestyle="", marker="D", markersize=3, **look)
        if column == 0:
            axis.set_ylabel(metric)
        if row == 1:
            axis.set_xlabel(field.label)
    _metric_axis(axes[0, 0], table[LOSS].drop_nulls().to_numpy(), LOSS)
    _metric_axis(axes[1, 0], table[CD].drop_nulls().to_numpy(), CD)
    return figure


@style.styled
def heat_maps(study: Study) -> Figure:
    """Median final loss and CD over each pair of the three fields that matter most."""
    table, fields = _measured(study), _strongest(study, 3)
    if len(fields) < 2:
        raise MissingData("only one swept field")
    pairs = list(itertools.combinations(fields, 2))
    figure = Figure(figsize=(max(4.4, 2.4 * len(pairs) + 0.8), 4.4), layout="constrained")
    axes = figure.subplots(2, len(pairs), squeeze=False)
    for row, metric in enumerate((LOSS, CD)):
        known = table.filter(pl.col(metric).is_not_null())
        grids = [_grid(known, metric, *pair) for pair in pairs]
        limits = {"vmin": min(np.nanmin(g) for g, _, _ in grids), "vmax": max(np.nanmax(g) for g, _, _ in grids)}
        colors = style.CD_COLORMAP if metric == CD else f"{style.CD_COLORMAP}_r"
        for column, ((one, other), (grid, x_labels, y_labels)) in enumerate(zip(pairs, grids, strict=True)):
            axis = axes[row, column]
            gid = f"sweep/{metric}/{one.name} x {other.name}"
            mesh = axis.pcolormesh(grid, cmap=colors, gid=gid, linewidth=0, **limits)
            axis.set_xticks(np.arange(len(x_labels)) + 0.5, x_labels, rotation=45 if len(x_labels) > 4 else 0)
            axis.set_yticks(np.arange(len(y_labels)) + 0.5, y_labels)
            axis.tick_params(length=0)
            axis.set(xlabel=one.label, ylabel=other.label)
        bar = figure.colorbar(mesh, ax=axes[row].tolist(), label=f"median {metric}", pad=0.015, aspect=18)
        bar.outline.set_visible(False)
    return figure


@style.styled
def parallel(study: Study) -> Figure:
    """Parallel coordinates: a line a run through its fields to its loss and CD, coloured by CD."""
    table, fields = _measured(study), _strongest(study, MOST_FIELDS)
    table = table.filter(pl.col(LOSS).is_not_null(), pl.col(CD).is_not_null())
    if not table.height:
        raise MissingData("no run with both loss and cd")
    table = table.gather_every(-(-table.height // MOST_LINES)).sort(CD)
    metrics = [Field(name, sorted(table[name].unique().to_list()), True, False, name) for name in (LOSS, CD)]
    axes = [*fields, *metrics]
    places = []
    for field in axes:
        raw, grid = field.places(table[field.name]), field.places(pl.Series(field.values))
        scale = np.log if field.log else (lambda x: x)
        low, high = scale(grid.min()), scale(grid.max())
        places.append((scale(raw) - low) / (high - low or 1))
    # Runs with the same value would lie on one another.
    rng = np.random.default_rng(0)
    drawn = [p + (0 if f in metrics else rng.uniform(-0.02, 0.02, p.size)) for p, f in zip(places, axes, strict=True)]
    figure = Figure(figsize=(style.TWO_COLUMNS, 2.8), layout="constrained")
    axis = figure.subplots()
    lines = np.stack([np.broadcast_to(np.arange(len(axes)), (table.height, len(axes))), np.stack(drawn, 1)], -1)
    norm = Normalize(table[CD].min(), max(table[CD].max(), table[CD].min() + 1e-6))
    alpha = max(0.12, min(0.8, 60 / table.height))
    collection = LineCollection(
        lines, array=table[CD].to_numpy(), cmap=style.CD_COLORMAP, norm=norm, gid="sweep/parallel"
    )
    collection.set(alpha=alpha, linewidth=0.7)
    axis.add_collection(collection)
    axis.set(xlim=(-0.15, len(axes) - 0.85), ylim=(-0.05, 1.05))
    for place, field in enumerate(axes):
        axis.axvline(place, color="#444444", linewidth=0.6)
        shown = field.values if len(field.values) <= 8 else [field.values[0], field.values[-1]]
        grid = field.places(pl.Series(field.values))
        scale = np.log if field.log else (lambda x: x)
        for value, at in zip(shown, field.places(pl.Series(shown)), strict=True):
            low, high = scale(grid.min()), scale(grid.max())
            height = (scale(at) - low) / (high - low or 1)
            box = {"facecolor": "white", "alpha": 0.75, "pad": 0.6, "linewidth": 0}
            axis.text(place + 0.04, height, short(value), fontsize=6, va="center", bbox=box)
    axis.set_xticks(range(len(axes)), [field.label for field in axes])
    axis.tick_params(length=0)
    axis.set_yticks([])
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(norm, style.CD_COLORMAP), ax=axis, label=CD, pad=0.01, aspect=18)
    bar.outline.set_visible(False)
    return figure


@style.styled
def loss_against_cd(study: Study) -> Figure:
    """When CD rises against when loss falls: the step at which each crosses its half-way mark, per run and concept."""
    table = emergence(study)
    both = table.filter(pl.col("loss_step").is_not_null(), pl.col("cd_step").is_not_null())
    if not both.height:
        raise MissingData("no concept whose loss and cd both moved")
    figure = Figure(figsize=(style.ONE_COLUMN * 1.2, style.ONE_COLUMN * 1.2), layout="constrained")
    axis = figure.subplots()
    values = np.concatenate([both["loss_step"].to_numpy(), both["cd_step"].to_numpy()])
    low, high = max(values.min(), 1e-9) * 0.8, values.max() * 1.2
    axis.plot([low, high], [low, high], **style.CHANCE_STYLE)
    for (concept,), part in sorted(both.group_by("concept"), key=lambda item: item[0]):
        axis.scatter(
            part["loss_step"], part["cd_step"], s=9, linewidth=0, alpha=max(0.15, min(0.8, 150 / both.height)),
            color=style.concept_color(concept), marker=style.concept_marker(concept),
            label=study.concept_label(concept), gid=f"sweep/half-way/{concept}",
        )  # fmt: skip
    if high > 20 * low:
        axis.set(xscale="log", yscale="log")
        style.set_plain_numbers(axis.xaxis)
        style.set_plain_numbers(axis.yaxis)
    axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axis.set(xlabel="step at which the loss is half-way down", ylabel="step at which CD is half-way up")
    axis.set_title(f"{both.height} of {table.height} concepts in {table['run'].n_unique()} runs moved in both")
    handles, labels = axis.get_legend_handles_labels()
    for handle in (legend := axis.legend(handles, labels, loc="lower right")).legend_handles:
        handle.set_alpha(1)
    legend.set_zorder(5)
    return figure


@style.styled
def order_by_seed(study: Study) -> Figure:
    """In which order the concepts' losses fall, seed by seed, in the settings in which most concepts fell."""
    table = emergence(study).filter(pl.col("loss_step").is_not_null())
    labels = {field.name: field.label for field in swept(study) if field.name != "seed"}
    fields = list(labels)
    table = table.join(study.runs.select("run", "seed", *fields), "run")
    settings = sorted(table.group_by(*fields), key=lambda item: -item[1].height)[:MOST_SETTINGS]
    if not settings:
        raise MissingData("no concept whose loss fell")
    columns = min(3, len(settings))
    rows = -(-len(settings) // columns)
    seeds = sorted(table["seed"].unique().to_list())
    height = rows * (0.9 + 0.12 * min(len(seeds), 12)) + 0.4
    figure = Figure(figsize=(max(style.ONE_COLUMN * 1.3, 2.33 * columns), height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).flat
    concepts = set()
    for axis, (values, part) in zip(axes, settings, strict=False):
        title = ", ".join(f"{labels[n]} {short(v)}" for n, v in zip(fields, values, strict=True))
        axis.set_title(style.wrapped(title, figure.get_figwidth() / columns - 0.3))
        own = sorted(part["seed"].unique().to_list())
        for (concept,), dots in part.group_by("concept"):
            concepts.add(concept)
            look = {"color": style.concept_color(concept), "marker": style.concept_marker(concept)}
            axis.scatter(dots["loss_step"], [own.index(s) for s in dots["seed"]], s=14, linewidth=0, zorder=3, **look)
        axis.hlines(range(len(own)), *_ends(part, own), color="#B0B0B0", linewidth=0.7)
        axis.set_yticks(range(len(own)), own, fontsize=min(7, 80 / len(own)))
        axis.set_ylim(len(own) - 0.5, -0.5)
    for axis in list(axes):
        axis.remove()
    figure.supxlabel("step at which the concept's loss is half-way down", fontsize=style.RC["axes.labelsize"])
    figure.supylabel("seed", fontsize=style.RC["axes.labelsize"])
    handles = [
        Line2D([], [], color=style.concept_color(c), marker=style.concept_marker(c), linestyle="none", markersize=4)
        for c in sorted(concepts)
    ]
    figure.legend(handles, [study.concept_label(c) for c in sorted(concepts)], loc="outside upper center", ncols=4)
    return figure


def _measured(study: Study) -> pl.DataFrame:
    table = outcomes(study)
    if not table[LOSS].count() or not table[CD].count():
        raise MissingData("no loss or cd of a run that did not diverge")
    return table


def _strongest(study: Study, most: int) -> list[Field]:
    """The swept fields that loss and CD depend on most, at most so many; the seed comes last."""
    table, fields = _measured(study), swept(study)
    weight = {f.name: max(influence(table, f, metric) for metric in (LOSS, CD)) for f in fields}
    chosen = sorted(fields, key=lambda f: (f.name == "seed" and len(fields) > 2, -weight[f.name]))[:most]
    if not chosen:
        raise MissingData("no swept field")
    return chosen


def _grid(known: pl.DataFrame, metric: str, one: Field, other: Field):
    (x, x_labels), (y, y_labels) = bins(one, known[one.name]), bins(other, known[other.name])
    grid = np.full((len(y_labels), len(x_labels)), np.nan)
    values = known[metric].to_numpy()
    for row, column in itertools.product(range(grid.shape[0]), range(grid.shape[1])):
        if (chosen := (x == column) & (y == row)).any():
            grid[row, column] = np.median(values[chosen])
    return grid, x_labels, y_labels


def _field_axis(axis, field: Field) -> None:
    if field.log:
        axis.set_xscale("log")
        style.set_plain_numbers(axis.xaxis)
    if not field.number:
        each = -(-len(field.values) // 8)
        at, rotation = range(0, len(field.values), each), 0 if field.name == "seed" else 30
        axis.set_xticks(at, [short(field.values[place]) for place in at], rotation=rotation)
    elif len(field.values) <= 5:
        axis.set_xticks(field.values, [short(v) for v in field.values])
        axis.minorticks_off()
    if field.number and all(isinstance(v, int) for v in field.values) and len(field.values) > 5:
        axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4, integer=True))


def _spread(field: Field, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places moved a little, so that runs with the same value can be told apart."""
    grid = np.unique(places)
    if field.log:
        return places * np.exp(rng.uniform(-0.25, 0.25, places.size) * np.min(np.diff(np.log(grid)), initial=0.5))
    return places + rng.uniform(-0.25, 0.25, places.size) * np.min(np.diff(grid), initial=1.0)


def _metric_axis(axis, values: np.ndarray, metric: str) -> None:
    if metric == CD:
        axis.set_ylim(0, 1.03)
    elif style.error_scale(values) == "log":
        style.set_error_axis(axis, values)


def _ends(part: pl.DataFrame, seeds: list) -> tuple[list[float], list[float]]:
    ends = {s: (g["loss_step"].min(), g["loss_step"].max()) for (s,), g in part.group_by("seed")}
    return [ends[s][0] for s in seeds], [ends[s][1] for s in seeds]
