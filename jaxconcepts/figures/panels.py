"""A grid of panels that share their axes, one a run, with one legend for all of them above."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jaxconcepts.figures import style
from jaxconcepts.figures.interactive import FLOW
from jaxconcepts.figures.tables import Curve, MissingData


class Panels:
    """A figure with a panel for every title, in reading order.

    figure: the Figure. axes: the panels' axes. Lines are drawn by `line`, `reference` and `chance`, which gather the
    legend; `finish` then sets scales and limits and places the legend. height: inches of one row. One panel is somewhat
    wider than a column of a two-column page, three take the page's full width.
    """

    def __init__(self, titles: Sequence[str], xlabel: str, ylabel: str, *, height: float = 1.75):
        columns = 2 if len(titles) == 4 else min(3, len(titles))
        rows = -(-len(titles) // columns)
        width = {1: style.ONE_COLUMN * 1.3, 2: style.TWO_COLUMNS * 0.85}.get(columns, style.TWO_COLUMNS)
        row_height = height * {1: 1.4, 2: 1.2}.get(columns, 1.0)
        self.figure = Figure(figsize=(width, row_height * rows + 0.4), layout="constrained")
        self.figure.set_gid(FLOW)
        self.figure.get_layout_engine().set(w_pad=0.05, h_pad=0.04, wspace=0.02, hspace=0.04)
        axes = list(self.figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
        for place in range(len(titles), len(axes)):
            axes[place].remove()
            axes[place - columns].tick_params(labelbottom=True)  # now the lowest of its column
        self.axes: list[Axes] = axes[: len(titles)]
        lines = [style.wrapped(title, width / columns - style.BESIDE_TITLE) for title in titles]
        for axis, title in zip(self.axes, lines, strict=True):
            axis.set_title(title)
        extra = 0.13 * rows * max((title.count("\n") for title in lines), default=0)
        self.figure.set_figheight(self.figure.get_figheight() + extra)
        self.figure.supxlabel(xlabel, fontsize=style.RC["axes.labelsize"])
        self.figure.supylabel(ylabel, fontsize=style.RC["axes.labelsize"])
        self._legend: dict[str, Line2D] = {}
        self._curves: list[tuple[Axes, Curve]] = []
        self._levels: list[float] = []

    def line(self, axis: Axes, curve: Curve, gid: str, label: str, *, divisor: float = 1.0, **look) -> None:
        """One curve; nothing is drawn of a curve without a finite value."""
        finite = np.isfinite(curve.values).sum()
        if not finite:
            return
        if finite < 3:  # a line of one point would not be seen
            look = {"marker": "o", "markersize": 3, **look}
        curve = Curve(curve.steps, curve.values / divisor)
        (line,) = axis.plot(*curve, label=label, gid=gid, **look)
        self._legend.setdefault(label, line)
        self._curves.append((axis, curve))

    def reference(self, axis: Axes, level: float, name: str, gid: str, *, vertical: bool = False) -> None:
        """A reference's level across the panel, in that reference's own dash pattern."""
        if not np.isfinite(level):
            return
        look = {"linewidth": 1.0, "label": style.REFERENCE_LABELS[name], **style.REFERENCE_STYLES[name]}
        (axis.axvline if vertical else axis.axhline)(level, gid=gid, zorder=1.5, **look)
        self._legend.setdefault(look["label"], Line2D([], [], **look))
        self._levels.append(level)

    def chance(self, axis: Axes, level: float, gid: str) -> None:
        """What something that knows nothing scores."""
        axis.axhline(level, gid=gid, **style.CHANCE_STYLE)
        self._legend.setdefault("chance", Line2D([], [], label="chance", **style.CHANCE_STYLE))

    def level(self, axis: Axes, level: float, gid: str, label: str, **look) -> None:
        """A level across the panel."""
        axis.axhline(level, gid=gid, zorder=1.5, **look)
        self._legend.setdefault(label, Line2D([], [], label=label, **look))
        self._levels.append(level)

    def finish(self, metric: str, *, step_scale: str | None = None, errors: bool | None = False) -> Figure:
        """Scales, limits and legend; returns the figure.

        step_scale: "auto", "log" or "linear" where x is the training step. errors: True: y is a squared error; False: a
        fraction; None: any number. Raises MissingData, naming `metric`, if no panel has a curve; single empty panels
        say so.
        """
        self.require(metric, bool(self._curves))
        steps = np.unique(np.concatenate([curve.steps for _, curve in self._curves]))
        heights = np.concatenate([curve.values for _, curve in self._curves] + [np.array(self._levels)])
        scale = None if step_scale is None else style.step_scale(steps, step_scale)
        for axis in self.axes:
            if scale is None:
                axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            else:
                style.set_step_axis(axis, steps, scale)
            if errors is False:
                self.fraction_axis(axis)
            elif errors and style.error_scale(heights) == "log":
                style.set_error_axis(axis, heights)
            if not any(axis is drawn for drawn, _ in self._curves):
                self.absent(axis)
        if errors and style.error_scale(heights) == "linear":
            top = np.nanmax(heights)
            self.axes[0].set_ylim(0, 1.04 * top if top > 0 else 1)
        if steps.size > 1 and scale is not None:
            self.axes[0].set_xlim(steps[0], steps[-1])
        self.legend()
        return self.figure

    def legend(self) -> None:
        """One legend for all panels, above them, in as many columns as fit."""
        if not self._legend:
            return
        inches = max(len(label) for label in self._legend) * 0.058 + 0.5
        fitting = max(1, int(self.figure.get_figwidth() / inches))
        rows = -(-len(self._legend) // fitting)
        columns = -(-len(self._legend) // rows)
        self.figure.set_figheight(self.figure.get_figheight() + 0.15 * rows + 0.1)
        handles = list(self._legend.values())
        self.figure.legend(handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.4)

    @staticmethod
    def fraction_axis(axis: Axes) -> None:
        axis.set_ylim(0, 1.03)
        axis.set_yticks([0, 0.25, 0.5, 0.75, 1])

    @staticmethod
    def absent(axis: Axes) -> None:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", va="center", color="#707070")

    @staticmethod
    def require(metric: str, found: bool) -> None:
        if not found:
            raise MissingData(f"no {metric} in the metrics table")
