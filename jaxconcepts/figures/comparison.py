"""Several run directories on one page: their runs in the same axes, a colour a directory, and where configs differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import polars as pl
from etils import epath
from matplotlib.figure import Figure

from jaxconcepts import nested, store
from jaxconcepts.figures import page, questions, style
from jaxconcepts.figures.icl import tables as icl
from jaxconcepts.figures.panels import Panels
from jaxconcepts.figures.regression import numbers, sections
from jaxconcepts.figures.section import Entry, Group, Section, Table, drawn
from jaxconcepts.figures.tables import Curve, Study

MOST_RUNS = 12


class Compared(Study):
    """The tables of several run directories; a run is called <directory>/<run>."""

    def label(self, run: str) -> str:
        return f"{directory(run)}: {super().label(run)}"


def write_comparison(workdirs: Sequence[epath.PathLike], out: epath.PathLike) -> epath.Path:
    """Writes report.html and figures/ that compare run directories into the folder `out`; returns the page's path.

    Raises ValueError for fewer than two, and naming one where there is no run.
    """
    if len({str(workdir) for workdir in workdirs}) < 2:
        raise ValueError(
            f"workdir must name at least two run directories to compare, got {', '.join(map(str, workdirs))}"
        )
    roots = dict(zip(_names(workdirs), (epath.Path(workdir).expanduser() for workdir in workdirs), strict=True))
    configs = {name: store.config(root) for name, root in roots.items()}
    metrics = {name: _of(name, store.metrics(root)) for name, root in roots.items()}
    measured = [name for name, table in metrics.items() if table.height]
    if not measured:
        raise ValueError(f"workdir must hold measurements, but there are no rows in {' or '.join(map(str, workdirs))}")
    study = Compared(
        pl.concat(metrics.values()),
        pl.concat([_of(name, store.runs(root)) for name, root in roots.items()], how="diagonal_relaxed"),
        configs[measured[0]],
    )
    asked = questions.Asked(study, {name: made for name, root in roots.items() if (made := icl.load(root)) is not None})
    group = Group("Comparison", _sections(study, configs, asked), _sentences(study))
    state = f"{len(study.names)} runs of {len(roots)} directories: {', '.join(map(str, roots.values()))}."
    head = page.Head("Runs compared", state=state)
    root = epath.Path(out).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    return page.write(root, head, [group], {f"Configuration of {name}": made for name, made in configs.items()})


def directory(run: str) -> str:
    """Which directory a run of `Compared` is of."""
    return run.partition("/")[0]


@style.styled
def best_cd(study: Study) -> Figure:
    """The best layer's CD of every run over steps."""
    panels = Panels([""], "training step", "best-layer CD at the x token", height=2.2)
    curves = {run: study.best_cd(run)[0] for run in study.names}
    return _together(study, panels, curves).finish("cd at the x token", step_scale="auto")


@style.styled
def last_loss(study: Study) -> Figure:
    """The loss of every run over steps, at the last position where it is stored, else of the training batches."""
    panels, curves = Panels([""], "training step", study.loss_unit, height=2.2), {}
    for run in study.names:
        known = [study.curve(run, "loss", position=study.last_position(run)), study.curve(run, "train_loss")]
        curve = next((curve for curve in known if curve.values.size), known[0])
        curves[run] = Curve(curve.steps, curve.values / study.rank(run))
    return _together(study, panels, curves).finish("loss", step_scale="auto", errors=True)


CAPTION = "A line a run, a colour a directory: {what}, over training. Click a directory to hide it."
ENTRIES = (
    Entry(
        "compared_loss", "Loss", last_loss, CAPTION.format(what="the held-out loss at the last position, divided by r")
    ),
    Entry(
        "compared_cd", "Concept decodability", best_cd, CAPTION.format(what="CD of the layer that is best at that step")
    ),
)


def _together(study: Study, panels: Panels, curves: Mapping[str, Curve]) -> Panels:
    names = list(dict.fromkeys(map(directory, study.names)))
    for run, curve in curves.items():
        look = {"color": style.concept_color(names.index(directory(run))), "linewidth": 1.1}
        panels.line(panels.axes[0], curve, run, directory(run), **look)
    return panels


def _sections(study: Study, configs: Mapping[str, Mapping[str, Any]], asked: questions.Asked) -> Iterator[Section]:
    if asked.pretrained and study.has("exact"):
        yield drawn(questions.ENTRY, asked)
    flat = {name: _texts(config) for name, config in configs.items()}
    fields = sorted({field for made in flat.values() for field in made})
    rows = [[field, *(flat[name].get(field, "–") for name in flat)] for field in fields]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    table = Table("differences", ["field", *flat], rows, note="" if rows else "The configurations are the same.")
    yield Section("differences", "Where the configurations differ", table=table)
    for entry in ENTRIES:
        yield drawn(entry, study)
    yield Section("numbers", "Final numbers", table=numbers.table(study), lead=len(study.names) <= MOST_RUNS)
    for section in sections.courses(study, "auto", study.names[:MOST_RUNS]):
        yield section._replace(lead=False)


def _sentences(study: Study) -> list[str]:
    """A line a directory: how many runs, and the range of their final CD and loss."""
    summary, lines = study.summary(), []
    for name in dict.fromkeys(map(directory, study.names)):
        own = summary.filter(pl.col("run").str.starts_with(f"{name}/"))
        parts = [
            f"{what} {_range(own[column].to_numpy())}"
            for what, column in (("best-layer CD", "cd"), ("loss / r at the last position", "loss_last"))
            if np.isfinite(own[column].cast(pl.Float64).to_numpy()).any()
        ]
        lines.append(f"{name}: {own.height} run(s){', ' if parts else ''}{'; '.join(parts)}.")
    return lines


def _range(values: np.ndarray) -> str:
    values = values[np.isfinite(values)]
    return f"{values.mean():.3g}" + (f" ({values.min():.3g} to {values.max():.3g})" if values.size > 1 else "")


def _of(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    columns = [column for column in ("run", "point") if column in frame.columns]
    return frame.with_columns(pl.concat_str(pl.lit(f"{name}/"), pl.col(column)).alias(column) for column in columns)


def _names(workdirs: Sequence[epath.PathLike]) -> list[str]:
    """The folders' last parts that tell them apart, at least one."""
    parts = [PurePath(str(workdir)).parts for workdir in workdirs]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["·".join(own[-count:]).strip("/·") for own in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"workdir names one run directory twice: {', '.join(map(str, workdirs))}")


def _texts(config: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in nested.flat(config).items()}
