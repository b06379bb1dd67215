"""The page of a run directory: one HTML file that needs nothing else, figures inlined, no scripts, nothing fetched.

`write` draws the groups' sections one at a time, writes each figure as PNG and SVG with the data that it shows as CSV,
and fills in `page.html.j2`.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import jinja2
from etils import epath

from jaxconcepts.figures import figure_data, fonts, style
from jaxconcepts.figures.section import Group, Section, Table
from jaxconcepts.store import files


class Head(NamedTuple):
    """What stands above the groups. command: that made the run directory; state: how far it is; running: it still goes
    on, so that the page loads itself again; missing: what is left out for another reason than absent data."""

    title: str
    command: str = ""
    state: str = ""
    running: bool = False
    missing: Sequence[str] = ()


class _Shown(NamedTuple):
    name: str
    title: str
    caption: str
    png: str
    data: bool
    table: Table | None


def write(root: epath.Path, head: Head, groups: Sequence[Group], texts: Mapping[str, Any]) -> epath.Path:
    """Writes figures/ and report.html into a run directory; returns the page's path. texts: title -> content as JSON,
    such as the configuration, at the page's end."""
    folder = root / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    shown, missing = [], []
    for group in groups:
        sections = []
        for section in group.sections:
            if section.missing:
                missing.append(f"{section.title}: {section.missing}")
                continue
            sections.append(_files(folder, section))
        if sections:
            shown.append({"title": group.title, "sentences": list(group.sentences), "sections": sections})
    html = _template().render(
        title=f"{head.title} · jaxconcepts", heading=head.title, command=head.command, state=head.state,
        running=head.running, groups=shown, missing=[*missing, *head.missing],
        texts=[(name, json.dumps(part, indent=2, default=str, ensure_ascii=False)) for name, part in texts.items()],
    )  # fmt: skip
    path = root / "report.html"
    files.write(path, fonts.legal(html).encode())  # Whole or not at all: a run may be stopped as it draws.
    return path


def _files(folder: epath.Path, section: Section) -> _Shown:
    """Writes a section's figure, and gives what the page shows of it."""
    encoded, data = "", ""
    if section.figure is not None:
        png, svg = style.render(section.figure)
        data = figure_data.csv(section.figure)
        for kind, content in (("png", png), ("svg", svg), ("csv", data.encode())):
            if content:
                (folder / f"{section.name}.{kind}").write_bytes(content)
        encoded = base64.b64encode(png).decode()
    return _Shown(section.name, section.title, section.caption, encoded, bool(data), section.table)


@functools.cache
def _template() -> jinja2.Template:
    text = (resources.files("jaxconcepts") / "figures" / "page.html.j2").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
