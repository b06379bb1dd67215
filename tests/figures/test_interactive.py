"""What the page's script is given of a figure: names from the right legend, and what is behind first."""

import numpy as np
from matplotlib.figure import Figure

from jaxconcepts.figures import interactive


def test_a_panel_is_named_by_the_legend_of_its_own_row():
    figure = Figure()
    axes = figure.subplots(2, 2, squeeze=False)
    for row, name in zip(axes, ("AND", "Noun"), strict=True):
        row[0].plot([0, 1], [0, 1], color="C0", marker="o", label=name)
        row[0].legend()
        # Without a label: the second panel has no legend; nor have marks a line.
        row[1].plot([0, 1], [1, 0], color="C0", marker="o")
        row[1].plot([0.5], [0.5], color="C0", marker="o", linestyle="")
    traces = interactive.described(figure)["traces"]
    assert [(trace["panel"], trace["name"]) for trace in traces] == [
        (0, "AND"), (1, "AND"), (1, "AND"), (2, "Noun"), (3, "Noun"), (3, "Noun"),
    ]  # fmt: skip
    assert [trace["name"] for trace in traces if trace["legend"]] == ["AND", "Noun"]


def test_what_lies_behind_comes_first():
    figure = Figure()
    axis = figure.subplots()
    axis.fill_between([0, 1], [0, 0], np.ones(2), color="#C2185B", alpha=0.15)
    axis.axvspan(0, 1, color="#F2D7A6", zorder=0)
    axis.plot([0, 1], [0, 1])
    kinds = [(trace["kind"], trace["color"]) for trace in interactive.described(figure)["traces"]]
    assert kinds[0] == ("area", "#f2d7a6") and kinds[1][0] == "area" and kinds[2][0] == "line"
