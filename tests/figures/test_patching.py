"""The figures of the patch study, from made-up tables."""

import itertools

import numpy as np
import polars as pl
import pytest

from jaxconcepts import store
from jaxconcepts.figures.patching import panels as patching
from jaxconcepts.figures.regression import catalogue, outcomes
from jaxconcepts.figures.report import write_report
from jaxconcepts.figures.tables import MissingData, Study

RUNS, STEPS, LAYERS, CONCEPTS = ("r0", "r1"), (100, 20000), (0, 1, 2), range(4)
CELLS = list(itertools.product(RUNS, STEPS, LAYERS, patching.POSITIONS, ("replace", "add", "add x4")))


def change(layer, target, source):
    return 0.0 if target == source else 0.4 * layer + 0.1 * target - 0.05 * source


@pytest.fixture(scope="module")
def tables():
    """What the study writes, with values that are known."""
    named = ["run", "step", "layer", "positions", "mode"]
    rows = [
        (*cell, "mean", target, source, "query", "loss_change", change(cell[2], target, source))
        for cell in CELLS
        for target, source in itertools.product(CONCEPTS, CONCEPTS)
    ]
    grid = pl.DataFrame(rows, [*named, "patch", "target", "source", "at", "metric", "value"], orient="row")
    rows = [
        (*cell, patch, "query", metric, reference, 1.0 * place + (reference == "target oracle"))
        for cell in CELLS
        for place, patch in enumerate(patching.PATCH_STYLES)
        for metric in ("distance", "weight")
        for reference in ("source oracle", "target oracle", "bayes")
    ]
    rows += [
        (run, step, None, None, None, "none", "query", metric, reference, 0.5)
        for run, step in itertools.product(RUNS, STEPS)
        for metric in ("distance", "weight")
        for reference in ("source oracle", "target oracle")
    ]
    summary = pl.DataFrame(
        rows, [*named, "patch", "at", "metric", "reference", "value"], orient="row", infer_schema_length=None
    )
    rows = [
        (run, step, block, head, ablation, concept, "mean", "loss_change", block + 0.1 * head)
        for run, step, block, head in itertools.product(RUNS, STEPS, (1, 2), range(3))
        for ablation in ("zero", "mean")
        for concept in (None, *CONCEPTS)
    ]
    heads = pl.DataFrame(
        rows, ["run", "step", "layer", "head", "ablation", "concept", "at", "metric", "value"], orient="row"
    )
    return {"grid": grid, "summary": summary, "heads": heads}


@pytest.fixture(scope="module")
def study(workdir):
    return Study(store.metrics(workdir), store.runs(workdir), store.config(workdir))


def images(figure):
    return [axis.images[0] for axis in figure.axes if axis.images]


def test_grids_share_one_scale_centred_at_zero(study, tables):
    figure = patching.grids_by_layer(study, "r0", tables["grid"], mode="add")
    found = images(figure)
    assert len(found) == len(LAYERS) * len(patching.POSITIONS)
    assert len({(image.norm.vmin, image.norm.vmax) for image in found}) == 1
    assert found[0].norm.vmin == -found[0].norm.vmax == pytest.approx(-change(2, 3, 0) / 4)
    at = next(image for image in found if image.get_gid() == "r0/query/layer 2").get_array()
    expected = [[change(2, target, source) / 4 for target in CONCEPTS] for source in CONCEPTS]
    np.testing.assert_allclose(at, expected)


def test_grids_over_training_are_of_the_layer_that_matters_most(study, tables):
    found = images(patching.grids_over_training(study, "r0", tables["grid"], mode="add"))
    assert {image.get_gid() for image in found} == {f"r0/{p}/step {s}" for p in patching.POSITIONS for s in STEPS}
    assert found[0].get_array()[0, 3] == pytest.approx(change(2, 3, 0) / 4)
    with pytest.raises(MissingData, match="second checkpoint"):
        patching.grids_over_training(study, "r0", tables["grid"].filter(step=100), mode="add")


@pytest.mark.parametrize(("metric", "divisor"), [("distance", 4), ("weight", 1)])
def test_what_is_followed_has_the_patch_and_its_controls(study, tables, metric, divisor):
    how = {"mode": "add", "positions": "x", "metric": metric}
    figure = patching.followed(study, ["r0", "r1"], tables["summary"], **how)
    lines = {line.get_gid(): line.get_ydata() for axis in figure.axes for line in axis.lines}
    for run, (place, patch) in itertools.product(RUNS, enumerate(patching.PATCH_STYLES)):
        np.testing.assert_allclose(lines[f"{run}/target oracle/{patch}"], [(place + 1) / divisor] * 3)
        np.testing.assert_allclose(lines[f"{run}/source oracle/{patch}"], [place / divisor] * 3)
        np.testing.assert_allclose(lines[f"{run}/source oracle/none"], [0.5 / divisor] * 2)
    with pytest.raises(MissingData, match=f"no {metric} of add patches at x"):
        patching.followed(study, ["r0"], tables["summary"].filter(pl.col("mode") != "add"), **how)


def test_over_training_every_run_shows_its_own_best_cell(study, tables):
    summary = tables["summary"].with_columns(
        value=pl.when((pl.col("run") == "r1") & (pl.col("layer") == 1)).then(9.0).otherwise("value")
    )
    figure = patching.followed_over_training(study, ["r0", "r1"], summary, mode="add")
    assert "layer 1" in figure.axes[1].get_title()
    line = next(line for line in figure.axes[1].lines if line.get_gid() == "r1/target oracle/mean")
    assert line.get_xdata().tolist() == list(STEPS) and line.get_ydata().tolist() == [9.0, 9.0]


def test_the_head_map_has_a_panel_a_concept(study, tables):
    found = images(patching.head_map(study, "r1", tables["heads"], ablation="zero"))
    assert [image.get_gid() for image in found] == ["r1/heads/None"] + [f"r1/heads/{k}" for k in CONCEPTS]
    np.testing.assert_allclose(found[0].get_array(), np.array([[1, 1.1, 1.2], [2, 2.1, 2.2]]) / 4)
    with pytest.raises(MissingData, match="no zero ablation"):
        patching.head_map(study, "r1", tables["heads"].filter(ablation="mean"), ablation="zero")


def test_what_came_out_is_said_of_each_figure(study, tables):
    """By `change` and the places of the patches: the mean over pairs at layer 2 is .8 + .1 * 1.5 - .05 * 1.5."""
    how = {"mode": "add", "positions": "x"}
    said = outcomes.followed(study, ["r0", "r1"], tables["summary"], metric="distance", **how)
    # No patch .5, the patch 1, a random direction 2, over a rank of 4.
    assert said == (
        "At layer 0, where it does most, the patch takes the distance to the target's oracle from 0.12 to 0.25; a "
        "random direction to 0.50."
    )
    said = outcomes.grids(study, "r0", tables["grid"], mode="add")
    assert said == (
        f"The loss changes most, by {(0.8 + 0.15 - 0.075) / 4:+.2g} in the mean over pairs, for a patch at layer 2 and "
        "all x tokens."
    )
    assert outcomes.heads(study, "r1", tables["heads"], ablation="zero") == (
        f"Head 2 of block 2 matters most: without it the loss changes by {2.2 / 4:+.2g}, without the median head by "
        f"{1.6 / 4:+.2g}."
    )


@pytest.mark.slow
def test_the_report_has_them_when_the_tables_are_there(make_workdir, tables):
    workdir = make_workdir(seeds=2, measurements=3, layers=1, pairs=3)
    before = write_report(workdir, umap=False).read_text()
    assert 'id="patch_' not in before and "patch" not in before.lower()
    for kind, table in tables.items():
        store.write_result(workdir, "patching", kind, "r0", table.filter(run="r0"))
    html = write_report(workdir, umap=False).read_text()
    for entry in catalogue.PATCH_ENTRIES:
        assert f'<figure id="{entry.name}{"_0" if entry.each else ""}">' in html
    assert '<figure id="patch_grid_add_1">' not in html  # r1 has not been patched
