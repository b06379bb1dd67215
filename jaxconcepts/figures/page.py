"""The page of a run directory: one HTML file that needs nothing else, figures and script inlined, nothing fetched.

`write` draws the groups' sections one at a time, writes each figure as PNG and SVG with the data that it shows as CSV,
and fills in `page.html.j2`, whose script `page.js` draws the figures again to be hovered over.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import jinja2
from etils import epath

from jaxconcepts.figures import figure_data, fonts, interactive, style
from jaxconcepts.figures.section import Group, Section, Table
from jaxconcepts.store import files

log = logging.getLogger("jaxconcepts")

LONGEST_NAME = 160
"""Bytes of a figure's name; file systems take 255 with what is added."""


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
    files: list[str]
    table: Table | None
    described: dict[str, Any] | None
    lead: bool
    outcome: str


def write(
    root: epath.Path, head: Head, groups: Sequence[Group], texts: Mapping[str, Any], files_too: bool = True
) -> epath.Path:
    """Writes figures/ and report.html into a run directory; returns the page's path. texts: title -> content as JSON,
    such as the configuration, at the page's end. files_too: write figures/, which takes most of the time."""
    folder = root / "figures"
    folder.mkdir(parents=True, exist_ok=True) if files_too else None
    shown, missing = [], []
    for group in groups:
        sections = []
        for section in group.sections:
            if section.missing:
                missing.append(f"{section.title}: {section.missing}")
                continue
            sections.append(_shown(folder if files_too else None, section))
        if not any(section.lead and not section.table for section in sections):
            sections = [section._replace(lead=True) for section in sections]
        if sections:
            shown.append({"title": group.title, "sentences": list(group.sentences), "sections": sections})
    described = {one.name: one.described for group in shown for one in group["sections"] if one.described}
    html = _template().render(
        figures=interactive.packed(described) if described else "", library=interactive.library() if described else "",
        script=_resource("page.js") if described else "",
        title=f"{head.title} · jaxconcepts", heading=head.title, command=head.command, state=head.state,
        running=head.running, groups=shown, missing=[*missing, *head.missing],
        texts=[(name, json.dumps(part, indent=2, default=str, ensure_ascii=False)) for name, part in texts.items()],
    )  # fmt: skip
    path = root / "report.html"
    files.write(path, fonts.legal(html).encode())  # Whole or not at all: a run may be stopped as it draws.
    return path


def _shown(folder: epath.Path | None, section: Section) -> _Shown:
    """What the page shows of a section, whose figure is written into the folder, if one is given."""
    encoded, kinds, described, name = "", [], None, file_name(section.name)
    if section.figure is not None:
        described = interactive.described(section.on_page or section.figure)
        if folder is not None:
            log.info("drawing %s", fonts.legal(section.title))
            png, svg = style.render(section.figure)
            contents = {"png": png, "svg": svg, "csv": figure_data.csv(section.figure).encode()}
            kinds = [kind for kind, content in contents.items() if content]
            for kind in kinds:
                files.write(folder / f"{name}.{kind}", contents[kind])
            encoded = "" if described else base64.b64encode(png).decode()
    text = name, section.title, section.caption
    return _Shown(*text, encoded, kinds, section.table, described, section.lead, section.outcome)


def file_name(name: str) -> str:
    """The name if any disk takes it, else what is left of it and a hash: no two names become the same.

    Names of metrics and families are the user's, and may hold a "/" or be long.
    """
    kept = "".join(c if c.isalnum() or c in "_-" else "_" for c in name)
    if kept == name and len(name.encode()) <= LONGEST_NAME:
        return name
    short = kept.encode()[: LONGEST_NAME // 2].decode(errors="ignore")
    return f"{short}_{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_resource("page.html.j2"))


def _resource(name: str) -> str:
    return (resources.files("jaxconcepts") / "figures" / name).read_text(encoding="utf-8")
