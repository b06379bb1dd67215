"""The data that a figure shows, as CSV: a row a point of every named line and bar, a corner of every band, and a cell
of every image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure


def csv(figure: Figure) -> str:
    """Columns panel, element, x, y, value; empty where the figure has no line, bar, scatter or image.

    panel: the panel's title. element: the line's gid or label. Of an image x and y are its column and row.
    """
    rows = [row for number, axis in enumerate(figure.axes, 1) for row in _rows(axis, f"panel {number}")]
    schema = {"panel": pl.String, "element": pl.String, "x": pl.Float64, "y": pl.Float64, "value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").write_csv() if rows else ""


def _rows(axis: Axes, number: str) -> Iterator[tuple]:
    panel = axis.get_title(loc="left") or axis.get_title() or number
    for line in axis.lines:
        if (name := _name(line)) and len(line.get_xdata(orig=False)) == len(line.get_ydata(orig=False)):
            for x, y in zip(line.get_xdata(orig=False), line.get_ydata(orig=False), strict=True):
                yield panel, name, float(x), float(y), None
    for bars in axis.containers:
        for bar in getattr(bars, "patches", ()):
            yield panel, _name(bars) or "bar", bar.get_x() + bar.get_width() / 2, float(bar.get_height()), None
    for points in axis.collections:
        offsets, name = np.ma.getdata(points.get_offsets()), _name(points)
        if name and isinstance(points, PathCollection) and points.get_array() is None:
            for x, y in offsets:
                yield panel, name, float(x), float(y), None
        elif name and isinstance(points, PolyCollection):
            for x, y in (corner for path in points.get_paths() for corner in path.vertices):
                yield panel, name, float(x), float(y), None
        elif points.get_array() is not None and np.ndim(points.get_array()) == 2:
            yield from _cells(panel, name, points.get_array())
    for image in axis.images:
        yield from _cells(panel, _name(image), image.get_array())


def _cells(panel: str, name: str, values) -> Iterator[tuple]:
    values = np.ma.filled(np.ma.asarray(values, float), np.nan)
    if values.ndim == 2:
        for (row, column), value in np.ndenumerate(values):
            yield panel, name or "image", float(column), float(row), float(value)


def _name(artist) -> str:
    """The element's gid, or its label where a legend would show it."""
    label = str(artist.get_label() or "")
    gid = artist.get_gid() if hasattr(artist, "get_gid") else None
    return str(gid or ("" if label.startswith("_") else label))
