"""Letters that the figures' own font lacks: another font of the machine has them, or it is said which to install."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator

from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

log = logging.getLogger("jaxconcepts")

PACKAGES = {"CJK": "fonts-noto-cjk", "HIRAGANA": "fonts-noto-cjk", "KATAKANA": "fonts-noto-cjk"}
PACKAGES |= {"HANGUL": "fonts-noto-cjk", "FULLWIDTH": "fonts-noto-cjk", "IDEOGRAPHIC": "fonts-noto-cjk"}
OTHER_PACKAGE = "fonts-noto-core"
# Controls but tab and line ends, halves of surrogate pairs and non-characters: neither XML nor HTML may hold them.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def legal(text: object) -> str:
    """The text with a replacement character in place of each that no figure or page may hold.

    What is no text, such as the number that a formatter of ticks returns, is written as text.
    """
    return FORBIDDEN.sub("\ufffd", str(text))


def fit(figure: Figure) -> set[str]:
    """Gives every text of the figure whose font lacks letters the fonts that have them.

    Returns the letters that no font has, which are drawn as boxes; a warning names a package of fonts, once for each.
    """
    lacking: set[str] = set()
    artists = figure.findobj()
    _make_legal(artists)
    for text in (artist for artist in artists if isinstance(artist, Text)):
        path = findfont(text.get_fontproperties())
        missing = frozenset(c for c in text.get_text() if c.isprintable() and ord(c) not in _letters(path))
        if missing:
            families, left = _fallbacks(missing)
            text.set_fontfamily([FontProperties(fname=path).get_name(), *families])
            lacking |= left
    _warn(frozenset(lacking))
    return lacking


@contextlib.contextmanager
def boxes_are_known() -> Iterator[None]:
    """Without the plotting library's own warning for every letter that no font has."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
        yield


def _make_legal(artists: Iterable[Artist]) -> None:
    """Makes every text of a figure's artists `legal`: what is drawn, and the names that go to its files."""
    for artist in artists:
        if isinstance(artist, Text):
            artist.set_text(legal(artist.get_text()))
        artist.set_gid(artist.get_gid() and legal(str(artist.get_gid())))
        if not isinstance(artist, Axis):  # Its label is a text.
            artist.set_label(legal(str(artist.get_label() or "")))
            continue
        # Texts of ticks come from these when the figure is drawn.
        for formatter in (artist.get_major_formatter(), artist.get_minor_formatter()):
            if isinstance(formatter, FuncFormatter):
                formatter.func = functools.partial(_legal_tick, formatter.func)


def _legal_tick(write: Callable[[float, int | None], str], value: float, position: int | None = None) -> str:
    return legal(write(value, position))


@functools.cache
def _fallbacks(missing: frozenset[str]) -> tuple[list[str], set[str]]:
    """Names of fonts that together have the letters, and the letters that are left."""
    left, families = set(missing), []
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.style != "normal", entry.name)):
        # That one has a box for every letter.
        if not entry.name.startswith("Last Resort") and any(ord(c) in _letters(entry.fname) for c in left):
            families.append(entry.name)
            left = {c for c in left if ord(c) not in _letters(entry.fname)}
        if not left:
            break
    return families, left


@functools.cache
def _letters(path: str) -> frozenset[int]:
    try:
        return frozenset(get_font(path).get_charmap())
    except (RuntimeError, OSError):  # A font without outlines, such as one of coloured pictures.
        return frozenset()


@functools.cache
def _warn(lacking: frozenset[str]) -> None:
    if lacking:
        scripts = {unicodedata.name(c, "").partition(" ")[0].partition("-")[0] for c in lacking}
        packages = sorted({PACKAGES.get(script, OTHER_PACKAGE) for script in scripts})
        log.warning(
            "no font of this machine has %s: figures show boxes; install fonts, e.g. apt install %s, and delete "
            "matplotlib's font cache",
            " ".join(sorted(lacking)[:10]), " ".join(packages),
        )  # fmt: skip
