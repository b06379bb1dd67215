"""How every figure looks: colours, reference lines, sizes, the step axis, and how a figure is saved.

One palette for all figures: concept k has the same colour everywhere (Okabe and Ito's colours, told apart under the
common kinds of colour blindness, then two of Paul Tol's; yellow is left out, it vanishes on white paper). References
have a colour and a dash pattern of their own, none solid, none a concept's. Figures are explicit `Figure` objects: no
pyplot, no global figure, so that several processes or threads may draw.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogFormatter, LogLocator, MaxNLocator, NullLocator

from jaxconcepts.figures import fonts

CONCEPT_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933")
# Concepts past the palette take its colours again with another dash and marker.
CONCEPT_DASHES = ("-", (0, (4, 1.2)), (0, (1, 1)), (0, (4, 1.2, 1, 1.2)))
CONCEPT_MARKERS = ("o", "^", "s", "D")

REFERENCE_STYLES = {
    "zero": {"color": "#9A9A9A", "linestyle": (0, (1, 1.6))},
    "average": {"color": "#B08D57", "linestyle": (0, (1, 2.6))},
    "knn3": {"color": "#7A8B99", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
    "ridge": {"color": "#8C510A", "linestyle": (0, (5, 2))},
    "lasso": {"color": "#B2182B", "linestyle": (0, (3, 1.4, 1, 1.4))},
    "bayes": {"color": "#000000", "linestyle": (0, (2.6, 1.3))},
    "oracle": {"color": "#542788", "linestyle": (0, (6, 1.5, 1.2, 1.5))},
}
REFERENCE_LABELS = {
    "zero": "zero",
    "average": "averaging",
    "knn3": "3-NN",
    "ridge": "ridge, all dimensions",
    "lasso": "lasso",
    "bayes": "Bayes mixture",
    "oracle": "oracle basis",
}
MODEL_COLOR = "#222222"
BEST_COLOR = "#C2185B"
CHANCE_STYLE = {"color": "#808080", "linestyle": (0, (1, 1.6)), "linewidth": 1.0}
STEP_COLORMAP = "viridis"
CD_COLORMAP = "viridis"

LEAST_SHOWN = 1e-4
"""Of the largest error of a figure, what is shown at least."""

STEP_SCALES = ("auto", "log", "linear")

BESIDE_TITLE = 0.3
"""Inches of a panel's share of the width that its title leaves free."""
ONE_COLUMN = 3.4  # inches: a column of a two-column page
TWO_COLUMNS = 7.0  # inches: the page's full width
DPI = 200

RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "text.parse_math": False,  # a "$" in a name is a dollar
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlepad": 4,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.3,
    "figure.facecolor": "white",
    "svg.hashsalt": "jaxconcepts",
}


def styled(draw: Callable) -> Callable:
    """Runs a drawing function under this module's settings, whatever the caller's matplotlibrc says."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(RC)
            return draw(*args, **kwargs)

    return wrapper


def concept_style(concept: int) -> dict:
    """Line settings of concept k, the same in every figure."""
    turn = concept // len(CONCEPT_COLORS)
    return {"color": concept_color(concept), "linestyle": CONCEPT_DASHES[turn % len(CONCEPT_DASHES)]}


def concept_color(concept: int) -> str:
    """The colour of a concept, the same in every figure; they repeat after the palette's end."""
    return CONCEPT_COLORS[concept % len(CONCEPT_COLORS)]


def concept_marker(concept: int) -> str:
    """The marker that tells concepts of one colour apart."""
    return CONCEPT_MARKERS[concept // len(CONCEPT_COLORS) % len(CONCEPT_MARKERS)]


def step_scale(steps: np.ndarray, scale: str = "auto") -> str:
    """ "log" or "linear": "auto" takes log where the measured steps are closer together early on."""
    if scale not in STEP_SCALES:
        raise ValueError(f"step_scale must be one of {', '.join(STEP_SCALES)}, got {scale!r}")
    positive = np.unique(steps[steps > 0])
    if positive.size < 2:
        return "linear"
    if scale != "auto":
        return scale
    return "log" if np.median(positive) < 0.3 * positive[-1] and positive[-1] / positive[0] > 20 else "linear"


def set_step_axis(axis: Axes, steps: np.ndarray, scale: str) -> None:
    """The x axis of a figure over training; a log axis keeps step 0, at its left end."""
    positive = np.unique(steps[steps > 0])
    if scale == "log" and positive.size > 1:
        zero = bool((steps <= 0).any())
        axis.set_xscale("symlog", linthresh=float(positive[0]), linscale=0.5) if zero else axis.set_xscale("log")
        decades = 10.0 ** np.arange(np.ceil(np.log10(positive[0])), np.floor(np.log10(positive[-1])) + 1)
        decades = decades[:: -(-decades.size // 5)]
        axis.xaxis.set_major_locator(FixedLocator(([0.0] if zero else []) + decades.tolist()))
        minor = np.concatenate([decades * m for m in range(2, 10)] + [decades[:1] / 10 * m for m in range(2, 10)])
        inside = (minor > positive[0]) & (minor < positive[-1])
        axis.xaxis.set_minor_locator(FixedLocator(minor[inside].tolist()))
    elif steps.size == 1:
        axis.set_xlim(steps[0] - 0.5, steps[0] + 0.5)
        axis.xaxis.set_major_locator(FixedLocator(steps.tolist()))
    else:
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: step_text(value)))
    axis.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def wrapped(title: str, inches: float) -> str:
    """A title in lines that fit into so many inches."""
    return "\n".join(textwrap.wrap(title, max(12, int(inches / 0.066))) or [title])


def fit_titles(figure: Figure) -> None:
    """Breaks titles that are wider than their panel into lines: names in them are the user's, and may be long."""
    for axis in figure.axes:
        if (place := axis.get_subplotspec()) is None:
            continue
        inches = figure.get_figwidth() * len(place.colspan) / place.get_gridspec().ncols - BESIDE_TITLE
        titles = {axis.get_title(side) for side in ("left", "center", "right")} - {""}
        for text in axis.findobj(Text):
            if text.get_text() in titles:
                text.set_text("\n".join(wrapped(line, inches) for line in text.get_text().split("\n")))


def step_text(step: float) -> str:
    """A step in few letters: 800, 1.5k, 80k, 2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(step) >= size:
            return f"{step / size:.3g}{letter}"
    return f"{step:g}"


def set_plain_numbers(axis: Axis) -> None:
    """Numbers of a logarithmic axis without powers in math text; between decades where there are few of those."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(LogFormatter(labelOnlyBase=False))


def error_scale(values: np.ndarray) -> str:
    """ "log" where the errors of a figure span more than a factor of ten, else "linear"."""
    positive = values[np.isfinite(values) & (values > 0)]
    return "log" if positive.size and positive.max() > 10 * positive.min() else "linear"


def set_error_axis(axis: Axes, values: np.ndarray) -> None:
    """A logarithmic y axis with plain numbers at 1, 2 and 5 of every decade."""
    axis.set_yscale("log")
    positive = values[np.isfinite(values) & (values > 0)]
    # What is far below says no more than that, and would squeeze the rest.
    positive = positive[positive >= LEAST_SHOWN * positive.max()]
    axis.set_ylim(0.8 * positive.min(), 1.3 * positive.max())
    decades = positive.max() / positive.min()
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 200 else (1.0, 2.0, 5.0)))
    axis.yaxis.set_minor_locator(LogLocator(subs=range(2, 10)) if decades > 200 else NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))


@styled
def render(figure: Figure) -> tuple[bytes, bytes]:
    """The figure as PNG (200 dpi) and SVG files' contents, the same layout in both."""
    png, svg = BytesIO(), BytesIO()
    fonts.fit(figure)
    fit_titles(figure)
    figure.set_facecolor("white")
    dpi = figure.dpi
    # Not `savefig`, which draws each file twice, the first time for a size that is known here.
    with fonts.boxes_are_known():
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
        figure.set_layout_engine("none")  # the places are found: a second search would cost as much as the drawing
        figure.set_dpi(dpi)
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    return png.getvalue(), svg.getvalue()
