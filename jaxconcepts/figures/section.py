"""What a page is made of: entries of a catalogue, drawn into sections, in groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from jaxconcepts.figures.tables import MissingData


class Entry(NamedTuple):
    """A figure that a page may have.

    name: its file's, and its anchor on the page. title: the question that it answers. draw(...) -> Figure, raising
    MissingData where the tables lack something. caption: what is seen and how it was computed.
    over_steps: it takes `step_scale`. each: there is one for each of several things (a run, a family), not one for all.
    kind: the table that it reads, where a study has several. lead: the page shows it at once, not folded.
    outcome(...): a sentence that says what came out, computed from what `draw` gets but for scales; "" if it can't.
    """

    name: str
    title: str
    draw: Callable[..., Figure]
    caption: str
    over_steps: bool = False
    each: bool = False
    kind: str = ""
    lead: bool = True
    outcome: Callable[..., str] | None = None


class Table(NamedTuple):
    """Numbers of a page. header: the columns' names. rows: cells as text; ids: of the rows, or none. groups: (title,
    columns) above the header, or none. note: what the columns mean. words: the cells are sentences, not numbers."""

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    ids: Sequence[str] = ()
    groups: Sequence[tuple[str, int]] = ()
    note: str = ""
    words: bool = False


def known(value: float | None) -> bool:
    """Whether a number was measured, and is one."""
    return value is not None and math.isfinite(value)


def number(value: float | None, form: str = ".3f") -> str:
    """A cell of a table: the number, or a dash where it is not `known`."""
    return format(value, form) if known(value) else "–"


class Section(NamedTuple):
    """A figure as drawn, a table, or why there is none (`missing`). outcome: what came out, in a sentence before the
    caption, which says what is drawn. on_page: the figure that the page shows in its
    place, where that is another one, such as one with a row of panels for every step (`interactive.FRAMES`)."""

    name: str
    title: str
    caption: str = ""
    figure: Figure | None = None
    table: Table | None = None
    missing: str = ""
    lead: bool = True
    on_page: Figure | None = None
    outcome: str = ""


class Group(NamedTuple):
    """Sections under one heading. sentences: what came out, in words, before any figure."""

    title: str
    sections: Iterable[Section]
    sentences: Sequence[str] = ()


def drawn(
    entry: Entry, *arguments, suffix: str = "", title: str = "", caption: str = "", lead=True, **settings
) -> Section:
    """The entry's section: its figure, or what is missing for it. suffix: of the name; title, caption: other ones.
    lead: False where it is folded whatever the entry says."""
    name, title = entry.name + suffix, title or entry.title
    try:
        figure = entry.draw(*arguments, **settings)
        said = "" if entry.outcome is None else entry.outcome(*arguments)
        return Section(name, title, caption or entry.caption, figure, lead=lead and entry.lead, outcome=said)
    except MissingData as error:
        return Section(name, title, missing=str(error))
