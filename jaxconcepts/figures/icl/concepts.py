"""Figures of the in-context study that tell its concepts apart: pairs of them, the rules of wrong answers, and states.

All are drawn from `icl_tables.IclTables`; what a table lacks raises MissingData.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from jaxconcepts.figures import style
from jaxconcepts.figures.icl import panels as icl_panels
from jaxconcepts.figures.icl.tables import IclTables
from jaxconcepts.figures.regression import projection
from jaxconcepts.figures.section import number
from jaxconcepts.figures.tables import MissingData


@style.styled
def matrices(tables: IclTables, metric: str) -> Figure:
    """ "pairwise_cd" or "confusion" as a matrix: a row of panels a family, at the fewest, usual and most shots."""
    families, panels = tables.families, []
    for family in families:
        shots = tables.shots(family)
        chosen = sorted({shots[0], tables.usual_shots(family), shots[-1]}) if shots else []
        panels.append([(family, count) for count in chosen])
    columns = max(map(len, panels), default=0)
    if not columns or not tables.metrics.filter(metric=metric).height:
        raise MissingData(f"no {metric} in the tables")
    figure, grid = icl_panels.grid(len(families), columns, 2.15)
    for row, cells in zip(grid, panels, strict=True):
        for axis in row[len(cells) :]:
            axis.set_axis_off()
        for axis, (family, count) in zip(row, cells, strict=False):
            image = _matrix(axis, tables, family, count, metric)
            axis.set_title(f"{family}, {count} shot{'s' if count != 1 else ''}")
    label = {"pairwise_cd": "CD of the pair alone", "confusion": "share of wrong answers"}[metric]
    bar = figure.colorbar(image, ax=grid, label=label, pad=0.015, aspect=30)
    bar.outline.set_visible(False)
    return figure


@style.styled
def hidden_states(tables: IclTables, family: str) -> Figure:
    """Principal components of the stored states, shots (rows) by layer (columns), the mean CD above each panel."""
    if tables.hidden is None:
        raise MissingData("no hidden states stored: set keep_hidden")
    cells = tables.metrics.filter(family=family, variant="plain", step=tables.steps[-1])
    runs = dict(cells.select("shots", "run").unique().sort("shots").iter_rows())
    stored = {count: tables.hidden.filter(run=run) for count, run in runs.items()}
    stored = {count: frame for count, frame in stored.items() if frame.height}
    if not stored:
        raise MissingData(f"no hidden states of {family} stored")
    columns = max(frame["layer"].n_unique() for frame in stored.values())
    width = style.TWO_COLUMNS
    figure = Figure(figsize=(width, (width - 0.6) / columns * 1.2 * len(stored) + 0.5), layout="constrained")
    for row, (count, frame) in zip(figure.subplots(len(stored), columns, squeeze=False), stored.items(), strict=True):
        layers = frame["layer"].unique().sort().to_list()
        for axis in row[len(layers) :]:
            axis.set_axis_off()
        for axis, layer in zip(row, layers, strict=False):
            points = frame.filter(layer=layer)
            scores = projection.pca(points["state"].to_numpy())
            numbers = points["concept"].to_numpy()
            for concept in np.unique(numbers):
                look = icl_panels.look(tables, family, int(concept)) | {"linestyle": "", "markersize": 2, "alpha": 0.75}
                axis.plot(*scores[numbers == concept].T, gid=f"{count} shots/layer {layer}/{concept}", **look)
            cd = tables.value("cd", family, shots=count, layer=layer)
            axis.set_title(f"layer {layer}, CD {number(cd, '.2f')}")
            axis.set(xticks=[], yticks=[])
            axis.set_box_aspect(1)
            axis.spines[["top", "right"]].set_visible(True)
        row[0].set_ylabel(f"{count} shot{'s' if count != 1 else ''}")
    handles = [icl_panels.handle(tables, family, concept) for concept in range(len(tables.labels(family)))]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=1, columnspacing=1.2)
    return figure


def _matrix(axis, tables: IclTables, family: str, shots: int, metric: str):
    labels, own = tables.labels(family), tables.concepts(family)
    rows = tables.values(metric, family, shots=shots)
    columns = [labels[c] for c in own] + ["no rule"] if metric == "confusion" else labels
    values = np.full((len(labels), len(columns)), np.nan)
    for concept, other, value in rows.select("concept", "other", "value").iter_rows():
        values[concept, len(own) if other is None else other] = value
    lowest = 0.5 if metric == "pairwise_cd" else 0.0
    image = axis.imshow(values, vmin=lowest, vmax=1, cmap="viridis", interpolation="nearest", aspect="equal")
    image.set_gid(f"{family}/{metric}/{shots} shots")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = value < lowest + 0.6 * (1 - lowest)
            text = f"{value:.2f}".lstrip("0") if value < 1 else "1"
            axis.text(j, i, text, ha="center", va="center", fontsize=5, color="white" if dark else "black")
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=6)
    axis.set_yticks(range(len(labels)), labels, fontsize=6)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return image
