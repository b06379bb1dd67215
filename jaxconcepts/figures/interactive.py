"""Figures as data for the page's script, which draws them again with Plotly, to hover over and to take apart.

`described` reads a matplotlib Figure: panels with their axes, and what is drawn in each as traces. Nothing is drawn
twice by hand, so whatever a study draws is interactive too. Values go to the page as they are, with five digits.
"""

from __future__ import annotations

import base64
import functools
import gzip
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.collections import Collection, LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import AutoLocator, MaxNLocator

SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "d": "diamond-tall", "x": "x-thin-open"}
SYMBOLS |= {"v": "triangle-down", "|": "line-ns-open", "+": "cross-thin-open", ".": "circle"}
NAMED_DASHES = {"--": "dash", ":": "dot", "-.": "dashdot"}
FLOW, FRAMES = "flow", "frames"
"""A figure's gid. FLOW: its panels may stand in any number of columns. FRAMES: a row of panels is a step, of which the
page shows one, to be chosen."""


def described(figure: Figure) -> dict[str, Any] | None:
    """The figure as JSON has it, None where it shows something that has no counterpart here."""
    bars = [axis._colorbar for axis in figure.axes if hasattr(axis, "_colorbar")]
    axes = [axis for axis in figure.axes if not hasattr(axis, "_colorbar") and axis.axison]
    if not axes:
        return None
    grid = axes[0].get_subplotspec().get_gridspec()
    panels, traces, seen = [], [], set()
    for number, axis in enumerate(axes):
        if not _known(axis):
            return None
        spec, labels = axis.get_subplotspec(), _labels(figure, axis)
        panels.append({
            "row": spec.rowspan.start, "column": spec.colspan.start, "title": _title(axis),
            "x": _axis(axis.xaxis, axes, axis.get_shared_x_axes()),
            "y": _axis(axis.yaxis, axes, axis.get_shared_y_axes()),
            "equal": axis.get_aspect() == 1.0, "notes": list(_notes(axis)),
        })  # fmt: skip
        for trace in _traces(axis, labels):
            trace |= {"panel": number, "legend": trace["name"] in labels.values() and trace["name"] not in seen}
            seen.add(trace["name"])
            traces.append(trace)
    if not traces:
        return None
    return {
        "rows": grid.nrows, "columns": grid.ncols, "kind": figure.get_gid() or "", "panels": panels, "traces": traces,
        "x": figure.get_supxlabel(), "y": figure.get_supylabel(),
        "bar": _bar(bars[0]) if bars else None,
        "inches": [float(size) for size in figure.get_size_inches()],
    }  # fmt: skip


def packed(content: Any) -> str:
    """JSON, or text, as the page holds it: compressed, in base64."""
    if not isinstance(content, str):
        # Properties of artists may be NumPy's scalars.
        content = json.dumps(content, separators=(",", ":"), allow_nan=False, default=lambda scalar: scalar.item())
    return base64.b64encode(gzip.compress(content.encode(), 9, mtime=0)).decode()


@functools.cache
def library() -> str:
    """Plotly's own bundle, as `packed`."""
    return packed((resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8"))


def _known(axis: Axes) -> bool:
    """Whether everything in the axes can be drawn again."""
    kinds = (PathCollection, PolyCollection, LineCollection, QuadMesh)
    return all(isinstance(part, kinds) for part in axis.collections) and all(
        isinstance(part, Rectangle) for part in axis.patches
    )


def _title(axis: Axes) -> str:
    return axis.get_title() or axis.get_title(loc="left")


def _labels(figure: Figure, axis: Axes) -> dict[tuple, str]:
    """look of a legend's handle -> its label, for a panel: its own legend goes before those of its row and of others.

    Marks without a line have the label of the line with their colour and marker.
    """
    spec = axis.get_subplotspec()
    beside = [of for of in figure.axes if of.get_subplotspec() and of.get_subplotspec().rowspan == spec.rowspan]
    legends = [*figure.legends, *(of.get_legend() for of in (axis, *beside, *figure.axes))]
    pairs = [
        (_look(handle), text.get_text())
        for legend in legends
        if legend is not None
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True)
    ]
    labels = dict(reversed(pairs))
    marks = {(look[0], "", look[2]): text for look, text in reversed(pairs) if len(look) == 3 and look[2] != "None"}
    return marks | labels


def _look(artist) -> tuple:
    """What tells the elements of a legend apart: colour, dashes and marker."""
    if isinstance(artist, Line2D):
        dash = "" if artist.get_linestyle() in ("None", "") else _dash(artist)
        return to_hex(artist.get_color()), dash, str(artist.get_marker())
    face = artist.get_facecolor()
    return (to_hex(face[0] if np.ndim(face) == 2 else face),) if np.size(face) else ()


def _dash(line: Line2D) -> str:
    if (pattern := getattr(line, "_unscaled_dash_pattern", (0, None))[1]) is not None:
        return ",".join(f"{max(1.0, length * 1.5):.3g}px" for length in pattern)
    return NAMED_DASHES.get(line.get_linestyle(), "solid")


def _axis(axis: Axis, axes: list[Axes], shared) -> dict[str, Any]:
    """Label, limits and ticks. Of other scales than linear and log places are as drawn."""
    scale, low_high = axis.get_scale(), axis.get_view_interval()
    plain = scale == "linear" and type(axis.get_major_locator()) in (MaxNLocator, AutoLocator)
    ticks = np.asarray(axis.get_majorticklocs(), float)
    texts = axis.get_major_formatter().format_ticks(ticks) if len(ticks) else []
    same = [place for place, other in enumerate(axes) if shared.joined(axis.axes, other)]
    return {
        "label": axis.get_label_text(), "scale": scale, "limits": _numbers(_placed(axis, low_high)),
        "inverted": bool(axis.get_inverted()), "ticks": None if plain else _numbers(_placed(axis, ticks)),
        "texts": None if plain else list(texts), "shared": min(same, default=-1), "several": len(same) > 1,
        "integer": plain and all(float(tick).is_integer() for tick in ticks),
    }  # fmt: skip


def _placed(axis: Axis, values) -> np.ndarray:
    """Values on a linear or logarithmic axis as they are, on others as the scale puts them."""
    values = np.asarray(values, float)
    return values if axis.get_scale() in ("linear", "log") else np.asarray(axis.get_transform().transform(values))


def _xy(axis: Axes, x, y) -> dict[str, Any]:
    """Places of points; shown: what to say of them where the places are not the values."""
    x, y = (np.ma.filled(np.ma.asarray(values, float), np.nan) for values in (x, y))
    found = {"x": _numbers(_placed(axis.xaxis, x)), "y": _numbers(_placed(axis.yaxis, y))}
    if axis.get_xscale() not in ("linear", "log"):
        found["shown"] = _numbers(x)
    return found


def _traces(axis: Axes, labels: dict[tuple, str]) -> Iterator[dict[str, Any]]:
    # As matplotlib draws them: what is behind comes first.
    for part in sorted((*axis.collections, *axis.images, *axis.patches, *axis.lines), key=lambda part: part.zorder):
        if isinstance(part, Collection):
            yield from _collection(axis, part, labels)
        elif isinstance(part, AxesImage):
            yield _heatmap(axis, part, *_cells_of_image(part))
        else:
            yield _line(axis, part, labels) if isinstance(part, Line2D) else _bar_or_band(axis, part, labels)


def _bar_or_band(axis: Axes, bar: Rectangle, labels: dict[tuple, str]) -> dict[str, Any]:
    x, y, width, height = bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()
    band = not bar.get_transform().contains_branch_seperately(axis.transData)[1]
    low, high = axis.get_ylim() if band else (y, y + height)
    corners = _xy(axis, [x, x + width, x + width, x, x], [low, low, high, high, low])
    text = "" if band else f"{height:.4g}"
    return {"kind": "area", "name": _name(bar, labels), "color": _hex(bar.get_facecolor()), "text": text, **corners}


def _line(axis: Axes, line: Line2D, labels: dict[tuple, str]) -> dict[str, Any]:
    x, y = line.get_data(orig=True)
    of_data = line.get_transform().contains_branch_seperately(axis.transData)
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    if not all(of_data):  # A level across the panel, at points that can be hovered over.
        inner = axis.yaxis if not of_data[1] else axis.xaxis
        low, high = inner.get_view_interval()
        across = np.geomspace(low, high, 9) if inner.get_scale() == "log" else np.linspace(low, high, 9)
        x, y = (across, np.full(9, y[0])) if not of_data[0] else (np.full(9, x[0]), across)
    drawn = line.get_linestyle() not in ("None", "")
    marker = SYMBOLS.get(str(line.get_marker()), "circle" if line.get_marker() not in ("None", "", None) else "")
    if marker and str(line.get_markerfacecolor()) == "none" and not marker.endswith("-open"):
        marker += "-open"
    return {
        "kind": "line", "name": _name(line, labels), **_xy(axis, x, y),
        "color": _hex(line.get_color(), line.get_alpha()),
        "width": float(line.get_linewidth()) if drawn else 0, "dash": _dash(line) if drawn else "solid",
        "symbol": marker,
        "size": 1.6 * float(line.get_markersize()) if marker else 0,
    }  # fmt: skip


def _collection(axis: Axes, part: Collection, labels: dict[tuple, str]) -> Iterator[dict[str, Any]]:
    if isinstance(part, QuadMesh):
        grid = np.asarray(part.get_coordinates())
        yield _heatmap(axis, part, _placed(axis.xaxis, grid[0, :, 0]), _placed(axis.yaxis, grid[:, 0, 1]))
    elif isinstance(part, PathCollection):
        x, y = np.ma.getdata(part.get_offsets()).T
        values = part.get_array()
        colors = part.to_rgba(values) if values is not None else part.get_facecolor()
        many = len(colors) == len(x) > 1
        yield {"kind": "line", "name": _name(part, labels), **_xy(axis, x, y), "width": 0, "dash": "solid",
               "symbol": _marker_of(part, labels), "size": 1.5 * float(np.sqrt(np.mean(part.get_sizes()))),
               "color": [to_hex(color) for color in colors] if many else _hex(colors[0], part.get_alpha()),
               "values": _numbers(values) if values is not None else None}  # fmt: skip
    elif isinstance(part, LineCollection):
        yield from _segments(axis, part, labels)
    else:
        for path in part.get_paths():
            yield {"kind": "area", "name": _name(part, labels), "color": _hex(part.get_facecolor()[0]), "text": "",
                   **_xy(axis, *path.vertices.T)}  # fmt: skip


def _segments(axis: Axes, part: LineCollection, labels: dict[tuple, str]) -> Iterator[dict[str, Any]]:
    """Lines of one colour together, with gaps between them; colours of a scale in 16 classes."""
    colors = part.get_colors() if part.get_array() is None else part.to_rgba(part.get_array())
    hexes = [to_hex(color) for color in colors]
    if len(set(hexes)) > 16:
        order = np.argsort(np.argsort(np.asarray(part.get_array()), kind="stable")) * 16 // len(hexes)
        middle = {k: hexes[np.flatnonzero(order == k)[0]] for k in set(order.tolist())}
        hexes = [middle[k] for k in order.tolist()]
    segments = part.get_segments()
    for color in dict.fromkeys(hexes):
        own = [segments[i] for i in range(len(segments)) if hexes[i % len(hexes)] == color and len(segments[i])]
        if own:
            joined = np.concatenate([row for segment in own for row in (segment, [[np.nan, np.nan]])])
            width = float(np.mean(part.get_linewidth()))
            yield {"kind": "line", "name": _name(part, labels), "color": _hex(color, part.get_alpha()), "symbol": "",
                   "size": 0, "width": width, "dash": "solid", **_xy(axis, *joined.T)}  # fmt: skip


def _heatmap(axis: Axes, part: ScalarMappable, x, y) -> dict[str, Any]:
    values = np.ma.filled(np.ma.asarray(part.get_array(), float), np.nan)
    shades = np.ma.filled(np.ma.asarray(part.norm(values), float), np.nan)
    colors = [[float(at), to_hex(part.cmap(at))] for at in np.linspace(0, 1, 17)]
    return {"kind": "cells", "name": "", "x": _numbers(x), "y": _numbers(y), "colors": colors,
            "z": [_numbers(row) for row in shades], "shown": [_numbers(row) for row in values]}  # fmt: skip


def _cells_of_image(image: AxesImage) -> tuple[np.ndarray, np.ndarray]:
    """The cells' edges."""
    left, right, bottom, top = image.get_extent()
    rows, columns = np.shape(image.get_array())[:2]
    y = np.linspace(bottom, top, rows + 1) if image.origin == "lower" else np.linspace(top, bottom, rows + 1)
    return np.linspace(left, right, columns + 1), y


def _bar(bar) -> dict[str, Any]:
    ticks = [tick for tick in bar.get_ticks() if 0 <= float(bar.norm(tick)) <= 1]
    return {"label": bar.ax.get_ylabel() or bar.ax.get_xlabel(), "ticks": _numbers([bar.norm(tick) for tick in ticks]),
            "texts": [f"{tick:.3g}" for tick in ticks],
            "colors": [[float(at), to_hex(bar.cmap(at))] for at in np.linspace(0, 1, 17)]}  # fmt: skip


def _notes(axis: Axes) -> Iterator[dict[str, Any]]:
    """Texts within the panel."""
    for text in axis.texts:
        if text.get_text():
            x, y = text.get_position()
            of_data = text.get_transform() == axis.transData
            place = _xy(axis, [x], [y]) if of_data else {"x": [float(x)], "y": [float(y)]}
            yield {"text": text.get_text(), "x": place["x"][0], "y": place["y"][0], "of_data": of_data,
                   "anchor": text.get_ha(), "color": to_hex(text.get_color())}  # fmt: skip


def _name(artist, labels: dict[tuple, str]) -> str:
    """The element's label, that of its look in the legend, or its gid."""
    label = str(artist.get_label() or "")
    return (
        label if label and not label.startswith("_") else labels.get(_look(artist)) or artist.get_gid() or ""
    ).strip()


def _marker_of(part: PathCollection, labels: dict[tuple, str]) -> str:
    corners = len(part.get_paths()[0].vertices)
    return {4: "triangle-up", 5: "square"}.get(corners, "circle")


def _hex(color, alpha: float | None = None) -> str:
    made = to_hex(color if alpha is None else (*to_rgb(color), alpha), keep_alpha=True)
    return made[:7] if made.endswith("ff") else made


def _numbers(values) -> list[float | None]:
    """Five digits of each; null where it is not finite."""
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in np.asarray(values, float).ravel()]
