"""The sections of trainings: sweeps, courses of training, patches and projections, one figure at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from etils import epath

from jaxconcepts import store
from jaxconcepts.figures import quantities
from jaxconcepts.figures.interactive import FRAMES
from jaxconcepts.figures.regression import catalogue, numbers, outcomes, projection
from jaxconcepts.figures.section import Entry, Section, drawn
from jaxconcepts.figures.sweeps import search, verdict
from jaxconcepts.figures.sweeps.tables import is_sweep
from jaxconcepts.figures.tables import Study

RUNS_PER_FIGURE = 12
MOST_MOVING, MOST_FRAMES = 3, 12
"""Of how many runs the page has a projection with a slider over steps, and over how many."""
LIGHT = ("loss_last", "cd_curves", "train_loss")


def light(study: Study, step_scale: str, runs: list[str]) -> Iterator[Section]:
    """The two curves that say whether a training works, where they have been measured."""
    entries = (entry for entry in catalogue.ENTRIES if entry.name in LIGHT)
    made = (drawn(entry, study, runs, step_scale=step_scale) for entry in entries)
    yield from itertools.islice((section for section in made if section.figure is not None), 2)


def of_training(
    root: epath.Path, study: Study, step_scale: str, runs: list[str], umap: bool | None
) -> Iterator[Section]:
    """Everything that the tables of a training or sweep allow, for the first `runs`; what is missing is said."""
    of_sweep = is_sweep(study)
    if of_sweep:
        aim = search.read(root)
        yield Section("best_points", "The best points", table=verdict.best_table(study, aim))
        if aim is not None:
            yield drawn(search.ENTRY, study, aim)
    yield Section("numbers", "Final numbers", table=numbers.table(study), lead=not of_sweep)
    for entry in catalogue.SWEEP_ENTRIES if of_sweep else ():
        yield drawn(entry, study)
    yield from courses(study, step_scale, runs, lead=not of_sweep)
    yield from _patches(root, study, runs)
    yield from _projections(root, study, runs, projection.umap_installed() if umap is None else umap)


def courses(study: Study, step_scale: str, runs: list[str], lead: bool = True) -> Iterator[Section]:
    """How losses and CD went, a panel a run. lead: not all of them folded."""
    counts = sorted({k for run in runs if (k := study.setting(run, "measure.neighbours"))})
    said = " or ".join(map(str, counts)) if counts else "k"
    entries = [entry._replace(caption=entry.caption.replace("{k}", said)) for entry in catalogue.ENTRIES]
    yield from _paged(study, (*entries, *quantities.entries(study)), step_scale, runs, lead)


def of_language(study: Study, step_scale: str, runs: list[str]) -> Iterator[Section]:
    """How a training went that has no regression's references: its training loss, and folded what was measured."""
    entries = [entry for entry in catalogue.ENTRIES if entry.name == "train_loss"]
    entries += [entry._replace(lead=False) for entry in quantities.entries(study)]
    yield from _paged(study, entries, step_scale, runs, True)


def _paged(study: Study, entries: Iterable[Entry], step_scale: str, runs: list[str], lead: bool) -> Iterator[Section]:
    pages = [runs[start : start + RUNS_PER_FIGURE] for start in range(0, len(runs), RUNS_PER_FIGURE)]
    for entry in entries:
        for number, of_page in enumerate(pages, 1):
            suffix = "" if number == 1 else f"_{number}"
            title = entry.title + (f" ({number} of {len(pages)})" if len(pages) > 1 else "")
            settings = {"step_scale": step_scale} if entry.over_steps else {}
            settings |= {"suffix": suffix, "title": title, "lead": lead and number == 1}
            outcome = entry.outcome and partial(_of_healthy, entry.outcome)
            yield drawn(entry._replace(outcome=outcome), study, of_page, **settings)


def _of_healthy(outcome: Callable[..., str], study: Study, runs: list[str]) -> str:
    """What came out of the runs that did not diverge: the others are measured as they were frozen."""
    healthy = [run for run in runs if not study.diverged(run)]
    said, gone = outcome(study, healthy) if healthy else "", len(runs) - len(healthy)
    left_out = f" {gone} run{'s' * (gone > 1)} diverged, and {'is' if gone == 1 else 'are'} left out."
    return said + left_out if said and gone else said


def _patches(root: epath.Path, study: Study, runs: list[str]) -> Iterator[Section]:
    """The figures of the patch study, where it has been made: of the runs that it was made for."""
    tables = {kind: store.results(root, "patching", kind) for kind in ("summary", "grid", "heads")}
    for entry in catalogue.PATCH_ENTRIES:
        table = tables[entry.kind]
        if table is None:
            continue
        patched = [run for run in runs if run in set(table["run"])]
        wholes = [(f"_{number}", run) for number, run in enumerate(patched)] if entry.each else [("", patched[:6])]
        for suffix, of in wholes:
            title = f"{entry.title}: {study.label(of)}" if entry.each else entry.title
            yield drawn(entry, study, of, table, suffix=suffix, title=title)


def _projections(root: epath.Path, study: Study, runs: list[str], umap: bool) -> Iterator[Section]:
    snapshots = _snapshots(root, runs)
    if not snapshots:
        yield Section("projection_pca", "Projections of hidden states", missing="no snapshots in hidden/")
    elif not projection.umap_installed():
        reason = 'umap-learn is not installed (pip install "jaxconcepts[umap]")'
        yield Section("projection_umap", "UMAP projections", missing=reason)
    for method, sizes in (("pca", {}), ("umap", {"steps": 3, "layers": 3}))[: 1 + umap]:
        for number, run in enumerate(run for run in runs if run in snapshots):
            title = f"Hidden states, {method.upper()}: {study.label(run)}"
            caption = catalogue.PROJECTION_CAPTION.format(how=catalogue.PROJECTION_HOW[method])
            figure = projection.projection(study, run, snapshots[run], method=method, **sizes)
            moving = None
            if method == "pca" and number < MOST_MOVING and len(snapshots[run]) > 1:
                moving = projection.projection(study, run, snapshots[run], steps=MOST_FRAMES, each_titled=True)
                moving.set_gid(FRAMES)
            lead = number == 0 and method == "pca"
            said = outcomes.projection(study, run)
            name = f"projection_{method}_{number}"
            yield Section(name, title, caption, figure, lead=lead, on_page=moving, outcome=said)


def _snapshots(root: epath.Path, runs: list[str]) -> dict[str, list[projection.Snapshot]]:
    """The stored hidden states by run."""
    by_run: dict[str, list[projection.Snapshot]] = {}
    for snapshot in store.hidden(root):
        for run, hidden in zip(snapshot.run, snapshot.hidden, strict=True):
            if run in runs:
                by_run.setdefault(run, []).append(projection.Snapshot(snapshot.step, hidden, snapshot.concepts))
    return by_run
