"""`write_report`: every figure that a run directory's tables allow, and one self-contained HTML page that shows them.

Reads through `jaxconcepts.store` only, so it works while the run is still being written, and on tables copied from
elsewhere. What the tables lack is named on the page; the rest is drawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath
from matplotlib.figure import Figure

from jaxconcepts import store
from jaxconcepts.figures import page, style
from jaxconcepts.figures.finetuning import panels as finetuning
from jaxconcepts.figures.icl import catalogue as icl_catalogue
from jaxconcepts.figures.icl import tables as icl_tables
from jaxconcepts.figures.regression import catalogue, projection
from jaxconcepts.figures.sweeps.tables import is_sweep
from jaxconcepts.figures.tables import MissingData, Study

RUNS_PER_FIGURE = 12


class Drawn(NamedTuple):
    """A figure of the report: its file name without extension, heading, caption, and the Figure."""

    name: str
    title: str
    caption: str
    figure: Figure


def write_report(
    workdir: epath.PathLike, *, step_scale: str = "auto", max_runs: int = 24, umap: bool | None = None
) -> epath.Path:
    """Writes figures/<name>.png and .svg and report.html into a run directory; returns the page's path.

    workdir: a run directory, local or gs://; its run may be unfinished.
    step_scale: "log", "linear", or "auto": log where measurements are closer together early in training.
    max_runs: figures show the first so many runs, in the order of point and seed (the page says how many it leaves
        out); the page's table has them all.
    umap: draw UMAP projections beside the PCA (about a second a panel); None: where umap-learn is installed.

    Raises ValueError, naming the folder, where there is no run or nothing has been measured yet.
    """
    if step_scale not in style.STEP_SCALES:
        raise ValueError(f"step_scale must be one of {', '.join(style.STEP_SCALES)}, got {step_scale!r}")
    if max_runs < 1:
        raise ValueError(f"max_runs must be at least 1, got {max_runs}")
    root = epath.Path(workdir).expanduser()
    study = Study(store.metrics(root), store.runs(root), store.config(root))
    in_context = icl_tables.load(root)
    if not study.metrics.height and in_context is None:
        raise ValueError(f"workdir must hold measurements, but there are no rows in {root / 'metrics'}")

    missing: list[str] = []
    shown: list[page.Shown] = []
    (root / "figures").mkdir(parents=True, exist_ok=True)
    sections = [] if in_context is None else [icl_catalogue.section(in_context)]
    bare = in_context is None and not (root / finetuning.STUDY).exists()
    # Of a language model's training its loss is all that there is to draw: what else it lacks is nothing to name.
    trained = _figures(root, study, step_scale, max_runs, umap, missing if bare else [])
    studied = () if in_context is None else icl_catalogue.figures(in_context, missing)
    for name, title, caption, figure in itertools.chain(
        studied, finetuning.figures(root), trained if study.metrics.height else ()
    ):
        png, svg = style.render(figure)
        (root / "figures" / f"{name}.png").write_bytes(png)
        (root / "figures" / f"{name}.svg").write_bytes(svg)
        shown.append(page.Shown(name, title, caption, png))
    if len(study.names) > max_runs:
        missing.append(f"Figures of {len(study.names) - max_runs} of {len(study.names)} runs (the table has them all)")

    path = root / "report.html"
    path.write_text(page.html(study, store.provenance(root), shown, missing, sections))
    return path


def _figures(
    root: epath.Path, study: Study, step_scale: str, max_runs: int, umap: bool | None, missing: list[str]
) -> Iterator[Drawn]:
    """Draws one figure at a time; what cannot be drawn goes to `missing`."""
    runs = study.names[:max_runs]
    pages = [runs[start : start + RUNS_PER_FIGURE] for start in range(0, len(runs), RUNS_PER_FIGURE)]
    for entry in catalogue.SWEEP_ENTRIES if is_sweep(study) else ():
        try:
            yield Drawn(entry.name, entry.title, entry.caption, entry.draw(study))
        except MissingData as error:
            missing.append(f"{entry.title}: {error}")
    for entry in catalogue.ENTRIES:
        for number, chosen in enumerate(pages, 1):
            suffix = "" if number == 1 else f"_{number}"
            title = entry.title + (f" ({number} of {len(pages)})" if len(pages) > 1 else "")
            settings = {"step_scale": step_scale} if entry.over_steps else {}
            try:
                yield Drawn(entry.name + suffix, title, entry.caption, entry.draw(study, chosen, **settings))
            except MissingData as error:
                missing.append(f"{title}: {error}")
    yield from _patch_figures(root, study, runs, missing)
    umap = projection.umap_installed() if umap is None else umap
    snapshots = _snapshots(root, runs)
    if not snapshots:
        missing.append("Projections of hidden states: no snapshots in hidden/")
    elif not projection.umap_installed():
        missing.append("UMAP projections: umap-learn is not installed (pip install jaxconcepts[umap])")
    for method, sizes in (("pca", {}), ("umap", {"steps": 3, "layers": 3}))[: 1 + umap]:
        for number, run in enumerate(run for run in runs if run in snapshots):
            title = f"Hidden states, {method.upper()}: {study.label(run)}"
            caption = catalogue.PROJECTION_CAPTION.format(how=catalogue.PROJECTION_HOW[method])
            figure = projection.projection(study, run, snapshots[run], method=method, **sizes)
            yield Drawn(f"projection_{method}_{number}", title, caption, figure)


def _patch_figures(root: epath.Path, study: Study, runs: list[str], missing: list[str]) -> Iterator[Drawn]:
    """The figures of the patch study, where it has been made: of the runs that it was made for."""
    tables = {kind: store.results(root, "patching", kind) for kind in ("summary", "grid", "heads")}
    for entry in catalogue.PATCH_ENTRIES:
        table = tables[entry.kind]
        if table is None:
            continue
        patched = [run for run in runs if run in set(table["run"])]
        wholes = [(f"_{place}", run) for place, run in enumerate(patched)] if entry.each else [("", patched[:6])]
        for suffix, of in wholes:
            title = f"{entry.title}: {study.label(of)}" if entry.each else entry.title
            try:
                yield Drawn(entry.name + suffix, title, entry.caption, entry.draw(study, of, table))
            except MissingData as error:
                missing.append(f"{title}: {error}")


def _snapshots(root: epath.Path, runs: list[str]) -> dict[str, list[projection.Snapshot]]:
    """The stored hidden states by run."""
    found: dict[str, list[projection.Snapshot]] = {}
    for snapshot in store.hidden(root):
        for run, hidden in zip(snapshot.run, snapshot.hidden, strict=True):
            if run in runs:
                found.setdefault(run, []).append(projection.Snapshot(snapshot.step, hidden, snapshot.concepts))
    return found
