"""Hidden states seen in two dimensions, step by layer, with the CD of each panel written beside it.

A projection can show clusters that nearest neighbours in the full width do not have, and hide ones that they do; so no
panel stands without its CD. PCA is computed here (singular value decomposition of the centred points); UMAP needs the
`umap` extra.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxconcepts.figures import style
from jaxconcepts.figures.regression.curves import spread
from jaxconcepts.figures.tables import MissingData, Study

METHODS = ("pca", "umap")
NEIGHBORS, MIN_DIST, SEED = 15, 0.1, 0


class Snapshot(NamedTuple):
    """One run's hidden states at one step, at the last x token; hidden[l] is layer l's (0: the embeddings)."""

    step: int
    hidden: Float[np.ndarray, "layers points width"]
    concepts: Int[np.ndarray, " points"]


@style.styled
def projection(
    study: Study,
    run: str,
    snapshots: Sequence[Snapshot],
    *,
    method: str = "pca",
    steps: int = 4,
    layers: int = 5,
    each_titled: bool = False,
) -> Figure:
    """A panel for every step (row) and layer (column), at most steps x layers; layers evenly spread, steps by how much
    the best CD changes from each to the next, so that the transition is among them.

    The layer that has the best CD at the run's last measurement is always among them. each_titled: every panel names
    its layer, for a row that is seen alone.

    Raises MissingData without snapshots, ValueError for a method that is not in METHODS or not installed.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if not snapshots:
        raise MissingData("no hidden states stored")
    snapshots = sorted(snapshots, key=lambda snapshot: snapshot.step)
    snapshots = [snapshots[i] for i in _telling(study, run, snapshots, steps)]
    chosen = spread(len(snapshots[0].hidden), layers)
    for best in study.best_cd(run)[1][-1:]:
        chosen = _with(chosen, best) if best < len(snapshots[0].hidden) else chosen
    columns = chosen.size
    width = min(style.TWO_COLUMNS, max(style.ONE_COLUMN, 1.7 * columns))
    figure = Figure(figsize=(width, (width - 0.4) / columns * 1.08 * len(snapshots) + 0.9), layout="constrained")
    grid = figure.subplots(len(snapshots), columns, squeeze=False)
    project = umap if method == "umap" else pca
    for row, snapshot in zip(grid, snapshots, strict=True):
        row[0].set_ylabel(f"step {style.step_text(snapshot.step)}")
        for axis, layer, points in zip(row, chosen, snapshot.hidden[chosen], strict=True):
            _panel(axis, points, snapshot.concepts, project)
            score = _cd(study, run, snapshot.step, int(layer))
            axis.set_title((f"layer {layer}\n" if each_titled or axis in grid[0] else "") + score, linespacing=1.5)
    names = {"pca": "principal component", "umap": "UMAP axis"}
    figure.supxlabel(f"{names[method]} 1 →", fontsize=style.RC["axes.labelsize"])
    figure.supylabel(f"{names[method]} 2 →", fontsize=style.RC["axes.labelsize"])
    concepts = np.unique(snapshots[0].concepts)
    handles = [Line2D([], [], linestyle="", label=study.concept_label(int(k)), **_marker(int(k))) for k in concepts]
    columns = min(len(handles), max(1, int(figure.get_figwidth() / 0.95)))
    look = {"ncols": columns, "handlelength": 1, "title": study.label(run), "title_fontsize": style.RC["font.size"]}
    figure.legend(handles=handles, loc="outside upper center", **look)
    return figure


def pca(points: Float[np.ndarray, "points width"]) -> Float[np.ndarray, "points 2"]:
    """The first two principal components' scores; each component's largest loading is made positive."""
    centred = np.asarray(points, np.float64) - points.mean(axis=0, dtype=np.float64)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    components = components[:2]
    largest = np.abs(components).argmax(axis=1)[:, None]
    components = components * np.sign(np.take_along_axis(components, largest, axis=1))
    scores = centred @ components.T
    return np.pad(scores, ((0, 0), (0, 2 - scores.shape[1])))  # one point, or width 1


def umap(points: Float[np.ndarray, "points width"]) -> Float[np.ndarray, "points 2"]:
    """UMAP (McInnes et al. 2018, arXiv 1802.03426): 15 neighbours, min_dist 0.1, a fixed seed."""
    if not umap_installed():
        raise ValueError("method 'umap' needs umap-learn: install jaxconcepts[umap]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn of parts that are not used here
        from umap import UMAP

        neighbors = min(NEIGHBORS, len(points) - 1)
        return UMAP(n_neighbors=neighbors, min_dist=MIN_DIST, random_state=SEED, n_jobs=1).fit_transform(points)


def umap_installed() -> bool:
    """Whether the extra `umap` is there."""
    return importlib.util.find_spec("umap") is not None


def _telling(study: Study, run: str, snapshots: Sequence[Snapshot], wanted: int) -> list[int]:
    """The first and the last snapshot, and those at which the best CD comes nearest to even parts of its way."""
    best, _ = study.best_cd(run)
    known = dict(zip(best.steps.tolist(), best.values.tolist(), strict=True))
    scores = np.array([known.get(snapshot.step, np.nan) for snapshot in snapshots])
    if len(snapshots) <= wanted or not np.isfinite(scores).all():
        return spread(len(snapshots), wanted).tolist()
    # A little for time too, so that a CD that stands still is shown as well.
    moved = np.abs(np.diff(scores))
    way = np.append(0, np.cumsum(moved + 0.1 * max(moved.sum(), 1e-9) / len(moved)))
    taken = {0, len(snapshots) - 1}
    for goal in np.linspace(0, way[-1], wanted)[1:-1]:
        left = [place for place in range(len(snapshots)) if place not in taken]
        taken.add(min(left, key=lambda place, goal=goal: abs(way[place] - goal)))
    return sorted(taken)


def _with(chosen: np.ndarray, one: int) -> np.ndarray:
    """The same indices, the one nearest to `one` (the first and last only if there is no other) replaced by it."""
    inner = chosen[1:-1] if chosen.size > 2 else chosen
    nearest = inner[np.abs(inner - one).argmin()]
    return chosen if one in chosen else np.where(chosen == nearest, one, chosen)


def _panel(axis, points: np.ndarray, concepts: np.ndarray, project) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_box_aspect(1)
    for side in axis.spines.values():
        side.set(visible=True, color="#B0B0B0")
    if not np.isfinite(points).all():
        axis.text(0.5, 0.5, "not finite", transform=axis.transAxes, ha="center", va="center", color="#707070")
        return
    scores = project(points)
    for concept in np.unique(concepts):
        chosen = scores[concepts == concept]
        style_of = {"linestyle": "", "alpha": 0.75, "gid": f"concept {concept}", **_marker(int(concept))}
        axis.plot(chosen[:, 0], chosen[:, 1], **{**style_of, "markersize": 1.9, "markeredgewidth": 0})
    axis.set_aspect("equal", adjustable="datalim")


def _marker(concept: int) -> dict:
    return {"marker": style.concept_marker(concept), "color": style.concept_color(concept), "markersize": 4}


def _cd(study: Study, run: str, step: int, layer: int) -> str:
    curve = study.curve(run, "cd", layer=layer, token="x")
    found = curve.values[curve.steps == step]
    return f"CD {found[0]:.2f}" if found.size else "CD not measured"
