"""What the in-context study's figures share: their grids of panels, how a concept looks, and its legend."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxconcepts.figures import style
from jaxconcepts.figures.icl.tables import IclTables
from jaxconcepts.figures.interactive import FLOW

NULL_COLOR = "#9A9A9A"
COINCIDENT = {"color": "#BBBBBB", "alpha": 0.35, "linewidth": 0, "zorder": 0.5}


def grid(rows: int, columns: int, height: float):
    """A figure of the page's width, rows of `height` inches, and its axes [rows, columns]."""
    width = style.TWO_COLUMNS if columns > 1 else style.ONE_COLUMN * 1.3
    figure = Figure(figsize=(width, height * rows + 0.3), layout="constrained")
    figure.set_gid(FLOW)
    return figure, figure.subplots(rows, columns, squeeze=False)


def look(tables: IclTables, family: str, concept: int) -> dict:
    """Line settings of a concept: its colour and marker everywhere, Null's its own."""
    if concept == tables.null(family):
        return {"color": NULL_COLOR, "marker": "x", "markersize": 3.5, "linewidth": 0.9, "linestyle": (0, (2, 1))}
    marker = style.concept_marker(concept)
    return {**style.concept_style(concept), "marker": marker, "markersize": 3.5, "linewidth": 1.1}


def handle(tables: IclTables, family: str, concept: int) -> Line2D:
    """The concept in a legend."""
    return Line2D([], [], label=tables.labels(family)[concept], **look(tables, family, concept))


def family_legend(axis, tables: IclTables, family: str, inside: bool = False) -> None:
    """The family's name above the panel and its concepts in it or over it."""
    handles = [handle(tables, family, concept) for concept in range(len(tables.labels(family)))]
    if inside:
        axis.legend(handles=handles, loc="upper left", handlelength=1, labelspacing=0.25, fontsize=6)
        return
    axis.set_title(family, loc="left", pad=18)
    place = {"loc": "lower left", "bbox_to_anchor": (-0.02, 0.99), "ncols": len(handles), "fontsize": 6}
    legend = axis.legend(
        handles=handles, handlelength=1, columnspacing=0.8, handletextpad=0.4, borderaxespad=0.2, **place
    )
    legend.set_in_layout(False)  # it may reach over the next panel, which has no title


def across(axis, places, values, **look) -> None:
    """A line without marks over the places; where there is one place across it, or nothing would be seen."""
    if len(places) == 1:
        places, values = [places[0] - 0.4, places[0] + 0.4], list(values) * 2
    axis.plot(places, values, **look)


def chance_by_concept(axis, tables: IclTables, family: str, places, cells) -> None:
    """CD under permuted labels at each cell's headline layer, a dotted line a concept.

    Hollow crosses where all states of that layer are one point, so that CD says nothing. cells: the keys of each place.
    """
    for concept in range(len(tables.labels(family))):
        null = [tables.headline("cd_null", family, concept=concept, **keys) for keys in cells]
        line = style.CHANCE_STYLE | {"color": look(tables, family, concept)["color"], "linewidth": 0.7}
        across(axis, places, null, gid=f"{family}/chance/{concept}", **line)
    for place, keys in zip(places, cells, strict=True):
        if tables.headline("cd_coincident", family, **keys) == 1:
            axis.plot([place], [0], marker="X", color="#404040", markerfacecolor="white", gid=f"{family}/coincident")


def fraction_axes(axes, labels) -> None:
    """y axes of fractions, a label each."""
    for axis, label in zip(axes, labels, strict=True):
        axis.set_ylim(-0.02, 1.03)
        axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axis.set_ylabel(label)
