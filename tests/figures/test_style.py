import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from jaxconcepts.figures import style

# Simulated dichromacy in linear RGB (Viénot, Brettel and Mollon 1999, Color Research and Application 24, eq. 4 to 6).
DEUTERANOPIA = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
PROTANOPIA = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])


def lab(color, matrix):
    """CIELAB of an sRGB colour as a dichromat sees it (D65)."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(matrix @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("matrix", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["all", "deuteranopia", "protanopia"])
@pytest.mark.parametrize("count, least", [(6, 12), (8, 8)])
def test_concept_colors_are_told_apart(matrix, count, least):
    # Two colours 2.3 apart in CIELAB are just noticeably different; lines of one point want several times that.
    colors = [lab(color, matrix) for color in style.CONCEPT_COLORS[:count]]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colors, 2)) > least


def test_every_concept_has_a_look_of_its_own():
    looks = [(style.concept_color(k), style.concept_style(k)["linestyle"], style.concept_marker(k)) for k in range(32)]
    assert len(set(map(str, looks))) == 32
    assert looks[0] == (style.CONCEPT_COLORS[0], "-", "o")


def test_references_do_not_look_like_concepts_or_each_other():
    colors = [look["color"] for look in style.REFERENCE_STYLES.values()]
    assert len(set(colors)) == len(colors) == len(style.REFERENCE_LABELS)
    assert not set(colors) & set(style.CONCEPT_COLORS)
    dashes = [look["linestyle"] for look in style.REFERENCE_STYLES.values()]
    assert len(set(dashes)) == len(dashes)
    assert "-" not in dashes


@pytest.mark.parametrize(
    "steps, scale",
    [(np.arange(0, 1001, 50), "linear"), (np.append(0, np.geomspace(10, 1e5, 30)), "log"), (np.array([0]), "linear")],
)
def test_step_scale_follows_the_spacing(steps, scale):
    assert style.step_scale(steps) == scale


def test_step_scale_can_be_given():
    steps = np.arange(0, 1001, 50)
    assert style.step_scale(steps, "log") == "log"
    with pytest.raises(ValueError, match="step_scale must be one of auto, log, linear, got 'cubic'"):
        style.step_scale(steps, "cubic")


@pytest.mark.parametrize("step, text", [(0, "0"), (800, "800"), (1500, "1.5k"), (80000, "80k"), (2e6, "2M")])
def test_step_text(step, text):
    assert style.step_text(step) == text


def test_drawing_ignores_and_keeps_the_callers_settings():
    @style.styled
    def draw():
        return matplotlib.rcParams["font.size"]

    with matplotlib.rc_context({"font.size": 33}):
        assert draw() == style.RC["font.size"]
        assert matplotlib.rcParams["font.size"] == 33


@style.styled
def test_long_titles_of_panels_side_by_side_do_not_meet():
    figure = Figure(figsize=(6, 3), layout="constrained")
    panels = figure.subplots(1, 3)
    name = "grade school problems with many things, 10 shots"
    for panel, side in zip(panels, ("left", "center", "right"), strict=True):
        panel.set_title(f"{name}\nR² .18", loc=side, pad=12)
    style.render(figure)
    boxes = [panel.get_tightbbox() for panel in panels]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    lines = panels[0].get_title("left").split("\n")
    assert " ".join(lines[:-1]) == name and lines[-1] == "R² .18" and len(lines) > 2


def test_rendering_twice_gives_the_same_files():
    def draw():
        figure = Figure(figsize=(2, 2), layout="constrained")
        figure.subplots().plot([0, 1], [1, 3], gid="line")
        return style.render(figure)

    assert draw() == draw()
