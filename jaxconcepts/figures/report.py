"""`write_report`: every figure that a run directory's tables allow, and one self-contained HTML page that shows them.

Reads through `jaxconcepts.store` only, so it works while the run is still being written, and on tables copied from
elsewhere. What the tables lack is named on the page; the rest is drawn. Each study gives a group of sections.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
from etils import epath

from jaxconcepts import store
from jaxconcepts.figures import claim_panels, claims, knowledge, language, page, style
from jaxconcepts.figures.causal import catalogue as causal
from jaxconcepts.figures.finetuning import panels as finetuning
from jaxconcepts.figures.icl import catalogue as icl
from jaxconcepts.figures.icl import tables as icl_tables
from jaxconcepts.figures.regression import numbers, sections
from jaxconcepts.figures.section import Entry, Group, Section, Table, drawn
from jaxconcepts.figures.sweeps import search
from jaxconcepts.figures.tables import Study

CLAIMS = Entry("claims", "Claims, by seed", claim_panels.draw, claim_panels.CAPTION)


def write_report(
    workdir: epath.PathLike,
    *,
    step_scale: str = "auto",
    max_runs: int = 24,
    umap: bool | None = None,
    light: bool = False,
) -> epath.Path:
    """Writes figures/<name>.png, .svg and .csv and report.html into a run directory; returns the page's path.

    workdir: a run directory, local or gs://; its run may be unfinished.
    step_scale: "log", "linear", or "auto": log where measurements are closer together early in training.
    max_runs: figures show the first so many runs, in the order of point and seed (the page says how many it leaves
        out); the page's table has them all.
    umap: draw UMAP projections beside the PCA (about a second a panel); None: where umap-learn is installed.
    light: only what says whether a training works, of its first runs, as it goes on.

    Raises ValueError, naming the folder, where there is no run or nothing has been measured yet.
    """
    if step_scale not in style.STEP_SCALES:
        raise ValueError(f"step_scale must be one of {', '.join(style.STEP_SCALES)}, got {step_scale!r}")
    if max_runs < 1:
        raise ValueError(f"max_runs must be at least 1, got {max_runs}")
    root = epath.Path(workdir).expanduser()
    if light:
        study = Study(store.metrics(root), store.runs(root), store.config(root))
        part = sections.light(study, step_scale, study.names[: sections.RUNS_PER_FIGURE])
        made = [Group("Concepts forming in training", part, numbers.sentences(study, search.read(root)))]
        return page.write(
            root, _head(study, made, store.provenance(root), sections.RUNS_PER_FIGURE), made, {}, files_too=False
        )
    made = groups(root, step_scale, max_runs, umap)
    # A causal study of a checkpoint keeps its settings with its tables, so its run directory need hold no run.
    if not (root / "config.json").exists():
        return page.write(root, page.Head(made[0].title), made, {})
    study = Study(store.metrics(root), store.runs(root), store.config(root), store.quantities(root))
    provenance = store.provenance(root)
    texts = {"Configuration": study.config, "Provenance": provenance}
    return page.write(root, _head(study, made, provenance, max_runs), made, texts)


def sentences(workdir: epath.PathLike) -> list[str]:
    """What came out of a training, in words, as the page's head says it."""
    root = epath.Path(workdir).expanduser()
    study = Study(store.metrics(root), store.runs(root), store.config(root))
    return numbers.sentences(study, search.read(root))


def groups(root: epath.Path, step_scale: str = "auto", max_runs: int = 24, umap: bool | None = None) -> list[Group]:
    """The groups of sections of a run directory's page, of which each is drawn as it is reached; see `write_report`."""
    of_cause = causal.group(root)
    if of_cause is not None and not (root / "config.json").exists():
        return [of_cause]
    study = Study(store.metrics(root), store.runs(root), store.config(root), store.quantities(root))
    made = [group for group in (_claims(root, study), *_studies(root, study), of_cause) if group is not None]
    if study.metrics.height:
        made.append(_training(root, study, step_scale, max_runs, umap, alone=not made))
    if not made:
        raise ValueError(f"workdir must hold measurements, but there are no rows in {root / 'metrics'}")
    return made


def _head(study: Study, groups: list[Group], provenance: dict[str, Any], max_runs: int) -> page.Head:
    statuses = study.runs["status"].to_list() if study.runs.height else []
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    number, left_out = len(study.names), len(study.names) - max_runs
    state = f"{number} run{'s' if number != 1 else ''}{f' ({counts})' if counts else ''}" if number else ""
    state += f", up to step {study.metrics['step'].max()}" if study.metrics.height else ""
    missing = [f"Figures of {left_out} of {number} runs (the table has them all)"] if left_out > 0 else []
    return page.Head(
        groups[0].title, str(provenance.get("command") or ""), state and f"{state}.", "running" in statuses, missing
    )


def _claims(root: epath.Path, study: Study) -> Group | None:
    made = claims.read(root)
    if not made:
        return None
    verdicts = [claims.decide(claim, study.metrics, study.runs) for claim in made]
    lines = [claim_panels.sentence(claim, verdict) for claim, verdict in zip(made, verdicts, strict=True)]
    return Group("Claims", [_claim_table(claim_panels.table(made, verdicts)), drawn(CLAIMS, made, verdicts)], lines)


def _claim_table(rows: pl.DataFrame) -> Section:
    table = Table("claim-table", rows.columns, [[str(cell) for cell in row] for row in rows.iter_rows()], words=True)
    return Section("claims_table", "Claims and their verdicts", table=table)


def _studies(root: epath.Path, study: Study) -> Iterator[Group]:
    experiment = study.config.get("experiment")
    if experiment == "biographies":
        yield Group("Knowledge", knowledge.sections(study))
    elif experiment in language.ENTRIES and study.metrics.height:
        sentences = language.sentences(study, experiment)
        yield Group(language.TITLES[experiment], language.sections(study, experiment), sentences)
    in_context = icl_tables.load(root)
    if in_context is not None:
        yield Group("Concepts in context", icl.sections(in_context), icl.sentences(in_context))
    tuned = store.results(root, finetuning.STUDY, "metrics")
    if tuned is not None:
        said = finetuning.sentences(tuned, study.config)
        yield Group("Tuning some layers", finetuning.sections(tuned, study.config), said)


def _training(root, study: Study, step_scale: str, max_runs: int, umap: bool | None, alone: bool) -> Group:
    title = "Concepts forming in training"
    if study.config.get("experiment") in (*language.ENTRIES, "biographies"):
        # What came out stands above: these are its courses, and nothing that they lack is missed.
        courses = sections.of_language(study, step_scale, study.names[:max_runs])
        return Group("Training", (part for part in courses if part.figure is not None))
    of_training = sections.of_training(root, study, step_scale, study.names[:max_runs], umap)
    if alone or study.has("cd"):
        return Group(title, of_training, numbers.sentences(study, search.read(root)))
    # Of a language model's training its loss is all that there is to draw: what else it lacks is nothing to name.
    return Group("Training", (part for part in of_training if part.figure is not None))
