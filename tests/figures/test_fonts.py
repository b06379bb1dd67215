"""Names from users in figures: dollars are dollars, and letters of any script are drawn or named."""

import logging
from xml.etree import ElementTree

import pytest
from etils import epath
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from jaxconcepts.figures import fonts, page, style
from jaxconcepts.figures.section import Group, Section, Table


@style.styled
def figure_of(text):
    figure = Figure(figsize=(2, 1))
    axis = figure.add_subplot()
    axis.plot([0, 1], [0, 1], label=text)
    axis.set_title(text)
    axis.set_xticks([0, 1], [text, "x"])
    axis.legend()
    return figure


@pytest.mark.parametrize(
    "text", ["$", "$$", "a $x$ b", "$\\frac{$", "\\$5 or $6", "$x^$", "100 % $_{", "{}$a", "^_$%#&~$"]
)
def test_a_dollar_in_a_name_is_a_dollar(text):
    figure = figure_of(text)
    png, svg = style.render(figure)
    assert png.startswith(b"\x89PNG") and b"<svg" in svg
    assert figure.axes[0].title.get_text() == text and not figure.axes[0].title.get_parse_math()


@style.styled
def test_numbers_of_a_logarithmic_axis_need_no_math_text():
    figure = Figure()
    axis = figure.add_subplot()
    axis.plot([1e-3, 1e3], [1, 1])
    axis.set_xscale("log")
    style.set_plain_numbers(axis.xaxis)
    figure.draw_without_rendering()
    labels = [label.get_text() for label in axis.get_xticklabels()]
    assert {"0.001", "1", "1000"} <= set(labels) and not any("$" in label for label in labels)


@pytest.fixture
def font(tmp_path, monkeypatch):
    """A font that has one letter, in the library's list of fonts: an Old Turkic one, which few machines have."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "letter"])
    builder.setupCharacterMap({0x10C00: "letter"})
    pen = TTGlyphPen(None)
    for move, point in (("moveTo", (0, 0)), ("lineTo", (500, 0)), ("lineTo", (500, 700))):
        getattr(pen, move)(point)
    pen.closePath()
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "letter": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "letter": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "One Letter", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "one.ttf")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    font_manager.fontManager.addfont(tmp_path / "one.ttf")
    fonts._fallbacks.cache_clear()
    yield
    fonts._fallbacks.cache_clear()


def test_letters_that_the_font_lacks_come_from_one_that_has_them(font):
    figure = figure_of("a\U00010c00")
    assert fonts.fit(figure) == set()
    assert figure.axes[0].title.get_fontfamily() == ["DejaVu Sans", "One Letter"]
    style.render(figure)


def test_letters_that_no_font_has_are_named_with_a_package_to_install(caplog, monkeypatch):
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    for cached in (fonts._fallbacks, fonts._warn):
        cached.cache_clear()
    with caplog.at_level(logging.WARNING):
        style.render(figure_of("名詞"))
        style.render(figure_of("名詞"))
    assert caplog.text.count("no font of this machine has 名 詞") == 1 and "apt install fonts-noto-cjk" in caplog.text
    fonts._fallbacks.cache_clear()


def test_no_text_of_a_figure_or_page_is_one_that_xml_forbids(tmp_path, caplog):
    caplog.set_level("INFO", "jaxconcepts")
    bad = "a\x01\x0c\x1b\x7f\x9b\ud800\ufffe"
    figure = Figure()
    axis = figure.add_subplot(title=f"title {bad}", xlabel=bad)
    axis.plot([0, 1], [0, 1], label=bad, gid=f"line/{bad}")
    axis.set_xticks([0, 1], [bad, "b"])
    axis.set_yticks([0, 1], [bad, "b"], minor=True)
    axis.legend()
    section = Section("name", f"section {bad}", f"caption {bad}", figure, table=Table("t", ["x"], [[bad]]))
    path = page.write(
        epath.Path(tmp_path), page.Head(bad, missing=[bad]), [Group(bad, [section], [bad])], {bad: {bad: bad}}
    )
    assert caplog.messages[0].startswith("drawing section a\ufffd") and not fonts.FORBIDDEN.search(caplog.text)
    svg = (tmp_path / "figures" / "name.svg").read_text()
    ElementTree.fromstring(svg)  # noqa: S314
    assert svg.count("a\ufffd\ufffd") >= 5
    assert "line/a\ufffd" in (tmp_path / "figures" / "name.csv").read_text()
    assert not fonts.FORBIDDEN.search(path.read_text()) and path.read_text().count("a\ufffd\ufffd") >= 8
