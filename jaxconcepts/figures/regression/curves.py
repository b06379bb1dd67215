"""The figures of the synthetic study: losses against the references, and how Concept Decodability (CD) grows.

Every function takes a `Study` and the runs to draw (a panel a run: seeds are shown one by one, never averaged and never
chosen), returns a matplotlib Figure, and raises MissingData where the tables do not hold its metric. Squared errors are
drawn divided by the rank r of the bases, so that predicting zero scores about 1. Each line has a gid
"<run>/<metric>/<what>", which is its element's id in the SVG. step_scale: "log", "linear" or "auto".
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from jaxconcepts.figures import style, tables
from jaxconcepts.figures.panels import Panels
from jaxconcepts.figures.tables import Curve, Study

STEP = "training step"
ERROR = tables.SQUARED_ERROR


@style.styled
def loss(study: Study, runs: Sequence[str], *, last: bool, step_scale: str = "auto") -> Figure:
    """Loss of every concept over steps, at the last position or as the mean over positions, beside the references."""
    panels = Panels([study.label(run) for run in runs], STEP, ERROR)
    for run, axis in zip(runs, panels.axes, strict=True):
        position = study.last_position(run) if last else None
        if last and position is None:
            continue
        rank = study.rank(run)
        for reference in study.references(run):
            level = study.level(run, f"loss_{reference}", position=position) / rank
            panels.reference(axis, level, reference, f"{run}/loss_{reference}/all")
        for concept in range(study.num_concepts(run)):
            curve = study.curve(run, "loss", concept=concept, position=position)
            gid, label = f"{run}/loss/{concept}", study.concept_label(concept)
            panels.line(axis, curve, gid, label, divisor=rank, **style.concept_style(concept))
        everything = study.curve(run, "loss", position=position)
        look = {"color": style.MODEL_COLOR, "linewidth": 0.9}
        panels.line(axis, everything, f"{run}/loss/all", "all concepts", divisor=rank, **look)
    return panels.finish("loss by position" if last else "loss", step_scale=step_scale, errors=True)


@style.styled
def train_loss(study: Study, runs: Sequence[str], *, step_scale: str = "auto") -> Figure:
    """Training loss, the mean over the steps since the last measurement, in the unit of what is trained."""
    panels = Panels([study.label(run) for run in runs], STEP, study.loss_unit)
    for run, axis in zip(runs, panels.axes, strict=True):
        curve, rank = study.curve(run, "train_loss"), study.rank(run)
        panels.line(axis, curve, f"{run}/train_loss", "training loss", divisor=rank, color=style.MODEL_COLOR)
    return panels.finish("train_loss", step_scale=step_scale, errors=True)


@style.styled
def loss_by_position(study: Study, runs: Sequence[str], *, curves: int = 6) -> Figure:
    """Loss after i examples, at up to `curves` steps spread over training, beside the references."""
    panels = Panels([study.label(run) for run in runs], "examples before the query", ERROR)
    steps = np.unique(np.concatenate([study.part(run, "loss")["step"].to_numpy() for run in runs]))
    panels.require("loss by position", steps.size > 0)
    chosen = steps[spread(steps.size, curves)]
    colors = matplotlib.colormaps[style.STEP_COLORMAP](np.linspace(0.12, 0.92, max(chosen.size, 2))[::-1])
    for run, axis in zip(runs, panels.axes, strict=True):
        rank = study.rank(run)
        for reference in study.references(run):
            curve = Curve(*study.by_position(run, f"loss_{reference}"))
            look = {"linewidth": 1.0, "zorder": 3, **style.REFERENCE_STYLES[reference]}
            gid = f"{run}/loss_{reference}/positions"
            panels.line(axis, curve, gid, style.REFERENCE_LABELS[reference], divisor=rank, **look)
        for step, color in zip(chosen, colors[-chosen.size :], strict=True):
            curve = Curve(*study.by_position(run, "loss", int(step)))
            look = {"color": color, "marker": "o", "markersize": 2}
            label = f"model, step {style.step_text(step)}"
            panels.line(axis, curve, f"{run}/loss/step {step}", label, divisor=rank, **look)
    return panels.finish("loss by position", errors=True)


@style.styled
def distance(study: Study, runs: Sequence[str], *, step_scale: str = "auto") -> Figure:
    """Mean squared difference between the model's predictions and each reference's, mean over positions."""
    panels = Panels([study.label(run) for run in runs], STEP, "squared difference / r")
    for run, axis in zip(runs, panels.axes, strict=True):
        for reference in study.references(run, "distance"):
            metric, label = f"distance_{reference}", f"to {style.REFERENCE_LABELS[reference]}"
            look = style.REFERENCE_STYLES[reference]
            panels.line(axis, study.curve(run, metric), f"{run}/{metric}", label, divisor=study.rank(run), **look)
    return panels.finish("distance_<reference>", step_scale=step_scale, errors=True)


@style.styled
def cd_map(study: Study, runs: Sequence[str], *, token: str = "x", step_scale: str = "auto") -> Figure:
    """CD by layer and step; colours run from chance to 1."""
    panels = Panels([study.label(run) for run in runs], STEP, "layer (0 = embeddings)")
    maps = {run: study.cd_map(run, token) for run in runs}
    panels.require(f"cd at the {token} token", any(cd.steps.size for cd in maps.values()))
    steps = np.unique(np.concatenate([cd.steps for cd in maps.values()]))
    scale = style.step_scale(steps, step_scale)
    chance = min(1 / study.num_concepts(run) for run in runs)
    look = {"cmap": style.CD_COLORMAP, "vmin": chance, "vmax": 1, "linewidth": 0}
    for run, axis in zip(runs, panels.axes, strict=True):
        cd = maps[run]
        if not cd.steps.size:
            panels.absent(axis)
            continue
        layers = np.append(cd.layers - 0.5, cd.layers[-1] + 0.5)
        mesh = axis.pcolormesh(_edges(cd.steps, scale), layers, cd.values, gid=f"{run}/cd/map", **look)
        style.set_step_axis(axis, steps, scale)
        axis.yaxis.set_major_locator(MaxNLocator(7, integer=True, steps=[1, 2, 5, 10]))
    panels.axes[0].set_xlim(*_edges(steps, scale)[[0, -1]])
    bar = panels.figure.colorbar(mesh, ax=panels.axes, label=f"CD at the {token} token", pad=0.015, aspect=18)
    bar.outline.set_visible(False)
    return panels.figure


@style.styled
def cd_curves(study: Study, runs: Sequence[str], *, token: str = "x", step_scale: str = "auto") -> Figure:
    """CD of every layer over steps, the best layer's with a 95 % interval, and chance."""
    panels = Panels([study.label(run) for run in runs], STEP, f"CD at the {token} token")
    maps = {run: study.cd_map(run, token) for run in runs}
    depth = max((int(cd.layers[-1]) for cd in maps.values() if cd.layers.size), default=0)
    colors = matplotlib.colormaps["cividis"](np.linspace(0, 0.95, depth + 1))
    for run, axis in zip(runs, panels.axes, strict=True):
        cd, (best, _) = maps[run], study.best_cd(run, token)
        if not best.steps.size:
            continue
        panels.chance(axis, 1 / study.num_concepts(run), f"{run}/chance")
        for layer, values in zip(cd.layers, cd.values, strict=True):
            look = {"color": colors[layer], "linewidth": 0.9}
            panels.line(axis, Curve(cd.steps, values), f"{run}/cd/layer {layer}", f"layer {layer}", **look)
        low, high = study.interval_of_best(run, token)
        if np.isfinite(low).any():
            look = {"color": style.BEST_COLOR, "alpha": 0.25, "linewidth": 0}
            axis.fill_between(best.steps, low, high, gid=f"{run}/cd/interval", **look)
        # Wide and behind, so that the layer that is best can be seen too.
        look = {"color": style.BEST_COLOR, "linewidth": 4, "alpha": 0.35, "zorder": 1}
        panels.line(axis, best, f"{run}/cd/best", "best layer", **look)
    return panels.finish(f"cd at the {token} token", step_scale=step_scale)


@style.styled
def cd_concepts(study: Study, runs: Sequence[str], *, step_scale: str = "auto") -> Figure:
    """Each concept's own CD over steps at the x token, in the layer that is best at the run's last measurement."""
    layers = {run: study.best_cd(run)[1][-1:].tolist() for run in runs}
    titles = [", ".join([study.label(run)] + [f"layer {layer}" for layer in layers[run]]) for run in runs]
    panels = Panels(titles, STEP, "CD at the x token")
    for run, axis in zip(runs, panels.axes, strict=True):
        for layer in layers[run]:
            panels.chance(axis, 1 / study.num_concepts(run), f"{run}/chance")
            for concept in range(study.num_concepts(run)):
                curve = study.curve(run, "cd", layer=layer, token="x", concept=concept)
                label = study.concept_label(concept)
                panels.line(axis, curve, f"{run}/cd/{concept}", label, **style.concept_style(concept))
    return panels.finish("cd by concept", step_scale=step_scale)


@style.styled
def cd_against_loss(study: Study, runs: Sequence[str], *, step_scale: str = "auto") -> Figure:
    """The path of training: best-layer CD against the loss averaged over positions, coloured by step."""
    titles = [study.label(run) for run in runs]
    panels = Panels(titles, f"{ERROR}, mean over positions", "best-layer CD at the x token")
    paths = {run: _path(study, run) for run in runs}
    panels.require("cd and loss at the same steps", any(at.size for at, _, _ in paths.values()))
    steps = np.unique(np.concatenate([at for at, _, _ in paths.values()]))
    logarithmic = style.step_scale(steps, step_scale) == "log"
    norm = (LogNorm if logarithmic else Normalize)(steps[steps > 0].min() if logarithmic else steps[0], steps[-1], True)
    for run, axis in zip(runs, panels.axes, strict=True):
        at, losses, scores = paths[run]
        panels.fraction_axis(axis)
        if not at.size:
            panels.absent(axis)
            continue
        panels.chance(axis, 1 / study.num_concepts(run), f"{run}/chance")
        for reference in ("ridge", "bayes"):
            level = study.level(run, f"loss_{reference}") / study.rank(run)
            panels.reference(axis, level, reference, f"{run}/loss_{reference}/all", vertical=True)
        axis.plot(losses, scores, color="#B0B0B0", linewidth=0.7, zorder=2, gid=f"{run}/cd against loss")
        look = {"norm": norm, "cmap": f"{style.STEP_COLORMAP}_r", "s": 11, "zorder": 3, "linewidth": 0}
        dots = axis.scatter(losses, scores, c=at, **look)
    panels.legend()
    bar = panels.figure.colorbar(dots, ax=panels.axes, label=STEP, pad=0.015, aspect=18)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.step_text(value)))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    if steps.size == 1:
        bar.set_ticks(steps)
    return panels.figure


def spread(available: int, wanted: int) -> np.ndarray:
    """Indices of up to `wanted` of `available` measurements, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, available - 1, min(available, wanted)).round().astype(int))


def _path(study: Study, run: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps at which both are measured, the loss / r and the best CD there."""
    curve, best = study.curve(run, "loss"), study.best_cd(run)[0]
    steps, first, second = np.intersect1d(curve.steps, best.steps, return_indices=True)
    return steps, curve.values[first] / study.rank(run), best.values[second]


def _edges(steps: np.ndarray, scale: str) -> np.ndarray:
    """Cell borders half-way between neighbouring steps, as seen on the step axis; the outer ones at the outer steps."""
    if steps.size == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    low, high = steps[:-1].astype(float), steps[1:].astype(float)
    middles = np.sqrt(low * high) if scale == "log" else (low + high) / 2
    # The step axis is linear between 0 and the first positive step.
    middles = np.where(low > 0, middles, (low + high) / 2)
    return np.concatenate([steps[:1], middles, steps[-1:]])
