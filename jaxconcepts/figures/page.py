"""The report's HTML: one file that needs nothing else, figures inlined, no scripts, nothing fetched."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from jaxconcepts.figures.tables import Study

CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1c1c1c; background: #fff;
       max-width: 1080px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
figure { margin: 0 0 1.6rem; } figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: #444; font-size: .88rem; max-width: 62rem; margin-top: .4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .45rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 1px solid #666; vertical-align: bottom; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
tr.groups th { border-bottom: none; text-align: center; padding-bottom: 0; }
.note { color: #444; font-size: .88rem; } .missing { border-left: 3px solid #D55E00; padding-left: .8rem; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .8rem; line-height: 1.4; }
summary { cursor: pointer; font-weight: 600; }
"""

TABLE_NOTE = (
    "Last measurement of every run. CD: the best layer's at the last x token (and y token), with Wilson's 95 % "
    "interval where the table tells the number of points; it is the best of all layers at that step, so it is "
    "biased upwards a little where layers are many and points few. Losses: held-out squared error divided by r, the "
    "rank of the bases, of the model and of the references on the same sequences; “model / Bayes” is 1 for a model "
    "that does as well as the Bayes-optimal mixture. A dash: not measured. Concepts and layers count from 0 as in "
    "the tables; layer 0 is the embeddings."
)


class Shown(NamedTuple):
    """A figure as the page shows it: file name without extension, heading, caption, PNG contents."""

    name: str
    title: str
    caption: str
    png: bytes


def html(
    study: Study, provenance: Mapping[str, Any], shown: Sequence[Shown], missing: Sequence[str], sections=()
) -> str:
    """The whole page. `missing`: a line for everything that could not be drawn. `sections`: HTML of other studies'
    tables, which come first; a workdir without training has these alone."""
    statuses = study.runs["status"].to_list() if study.runs.height else []
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    number = len(study.names)
    heading = f"{number} run{'s' if number != 1 else ''}{f' ({counts})' if counts else ''}"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">\n<link rel="icon" href="data:,">',
        f"<title>jaxconcepts report</title>\n<style>{CSS}</style>\n</head>\n<body>",
        f"<h1>{'Concepts in context' if sections else 'Concepts forming in training'}</h1>",
        *sections,
    ]
    if study.metrics.height:
        parts.append(f'<p class="note">{escape(heading)}, up to step {study.metrics["step"].max()}.</p>')
    if study.metrics.height and not sections:
        parts.append(
            f'<h2>Final numbers</h2>\n{_table(study)}\n<p class="note">{escape(TABLE_NOTE)}{_points(study)}</p>'
        )
    if missing:
        lines = "\n".join(f"<li>{escape(line)}</li>" for line in missing)
        parts.append(f'<div class="missing" id="missing"><p><b>Not shown</b></p>\n<ul>\n{lines}\n</ul></div>')
    for figure in shown:
        data = base64.b64encode(figure.png).decode()
        parts.append(
            f'<h2>{escape(figure.title)}</h2>\n<figure id="{escape(figure.name)}">'
            f'<img alt="{escape(figure.title)}" src="data:image/png;base64,{data}">\n'
            f"<figcaption>{escape(figure.caption)} <i>figures/{escape(figure.name)}.svg</i></figcaption></figure>"
        )
    for title, content in (("Configuration", study.config), ("Provenance", provenance)):
        text = escape(json.dumps(content, indent=2, default=str, ensure_ascii=False))
        parts.append(
            f"<h2>{title}</h2>\n<details><summary>{title} of this run directory</summary><pre>{text}</pre></details>"
        )
    return "\n".join([*parts, "</body>\n</html>\n"])


def _table(study: Study) -> str:
    groups = (
        ("", 3),
        ("CD at x", 2),
        ("CD at y", 2),
        ("loss / r, last position", 4),
        ("loss / r, mean over positions", 4),
    )
    losses = ("model", "Bayes", "ridge", "model / Bayes")
    header = ("run", "status", "step", "best", "layer", "best", "layer", *losses, *losses)
    top = "".join(f'<th colspan="{span}">{title}</th>' for title, span in groups)
    rows = [f'<tr class="groups">{top}</tr>', "<tr>" + "".join(f"<th>{title}</th>" for title in header) + "</tr>"]
    for row in study.summary().iter_rows(named=True):
        interval = f" [{row['cd_low']:.2f}, {row['cd_high']:.2f}]" if _known(row["cd_low"]) else ""
        cells = [row["label"], row["status"] or "–", _number(row["step"], "d")]
        cells += [_number(row["cd"], ".3f") + interval, _number(row["cd_layer"], "d")]
        cells += [_number(row["cd_y"], ".3f"), _number(row["cd_y_layer"], "d")]
        for where in ("last", "mean"):
            cells += [_number(row[f"{name}_{where}"], ".3g") for name in ("loss", "bayes", "ridge")]
            cells.append(_number(row[f"loss_{where}"] / (row[f"bayes_{where}"] or math.nan), ".2f"))
        rows.append(
            f'<tr id="run-{escape(row["run"])}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        )
    return '<div class="scroll"><table id="summary">\n' + "\n".join(rows) + "\n</table></div>"


def _points(study: Study) -> str:
    points = sorted({study.cd_points(run) for run in study.names} - {None})
    return escape(f" CD was computed on {' or '.join(map(str, points))} sequences.") if points else ""


def _known(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _number(value: Any, form: str) -> str:
    return format(value, form) if _known(value) else "–"
