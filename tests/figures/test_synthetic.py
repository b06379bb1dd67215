import numpy as np
import polars as pl
import pytest

from jaxconcepts import store
from jaxconcepts.figures import style
from jaxconcepts.figures.regression import catalogue, projection
from jaxconcepts.figures.regression import curves as synthetic
from jaxconcepts.figures.tables import MissingData, Study

RANK = 4
RUNS = ["r0", "r1", "r2"]


@pytest.fixture(scope="module")
def study(workdir):
    return Study(store.metrics(workdir), store.runs(workdir), store.config(workdir))


def lines(figure):
    """Every line of a figure that carries data, by gid."""
    return {line.get_gid(): line for axis in figure.axes for line in axis.lines if line.get_gid()}


def stored(study, run, metric, **keys):
    """(steps, values) of the table's rows with exactly these keys."""
    names = ("layer", "token", "concept", "position")
    rows = study.metrics.filter(pl.col("run") == run, pl.col("metric") == metric)
    rows = rows.filter(*(pl.col(name).eq_missing(pl.lit(keys.get(name))) for name in names)).sort("step")
    assert rows.height
    return rows["step"].to_numpy(), rows["value"].to_numpy()


def assert_drawn(line, steps, values):
    np.testing.assert_array_equal(line.get_xdata(), steps)
    np.testing.assert_allclose(line.get_ydata(), values, rtol=1e-14)


@pytest.mark.parametrize("last, position", [(True, 11), (False, None)])
def test_loss_draws_the_tables_numbers(study, last, position):
    drawn = lines(synthetic.loss(study, RUNS, last=last))
    for run in RUNS:
        for concept, name in [(None, "all"), (0, "0"), (3, "3")]:
            steps, values = stored(study, run, "loss", concept=concept, position=position)
            assert_drawn(drawn[f"{run}/loss/{name}"], steps, values / RANK)
        for reference in ("zero", "ridge", "bayes", "oracle"):
            _, values = stored(study, run, f"loss_{reference}", position=position)
            line = drawn[f"{run}/loss_{reference}/all"]
            np.testing.assert_allclose(line.get_ydata(), values[0] / RANK, rtol=1e-14)
            assert line.get_color() == style.REFERENCE_STYLES[reference]["color"]


def test_each_run_has_its_own_panel(study):
    figure = synthetic.loss(study, RUNS, last=False)
    assert [axis.get_title() for axis in figure.axes] == ["seed 0", "seed 1", "seed 2"]
    for run, axis in zip(RUNS, figure.axes, strict=True):
        assert {line.get_gid().split("/")[0] for line in axis.lines} == {run}


def test_train_loss_draws_the_tables_numbers(study):
    drawn = lines(synthetic.train_loss(study, RUNS))
    steps, values = stored(study, "r1", "train_loss")
    assert_drawn(drawn["r1/train_loss"], steps, values / RANK)


def test_loss_by_position_draws_the_tables_numbers(study):
    drawn = lines(synthetic.loss_by_position(study, RUNS, curves=4))
    steps = sorted(int(gid.split()[-1]) for gid in drawn if gid.startswith("r2/loss/step"))
    assert len(steps) == 4 and steps[0] == 0 and steps[-1] == 20000
    for step in steps:
        rows = study.metrics.filter(
            pl.col("run") == "r2", pl.col("metric") == "loss", pl.col("step") == step, pl.col("concept").is_null()
        )
        rows = rows.drop_nulls("position").sort("position")
        assert_drawn(drawn[f"r2/loss/step {step}"], rows["position"], rows["value"].to_numpy() / RANK)
    expected = [stored(study, "r2", "loss_bayes", position=i)[1][0] / RANK for i in range(12)]
    assert_drawn(drawn["r2/loss_bayes/positions"], np.arange(12), expected)


def test_distance_draws_the_tables_numbers(study):
    drawn = lines(synthetic.distance(study, RUNS))
    for reference in ("zero", "ridge", "bayes", "oracle"):
        steps, values = stored(study, "r0", f"distance_{reference}")
        assert_drawn(drawn[f"r0/distance_{reference}"], steps, values / RANK)


@pytest.mark.parametrize("token", ["x", "y"])
def test_cd_map_draws_the_tables_numbers(study, token):
    figure = synthetic.cd_map(study, RUNS, token=token)
    meshes = {mesh.get_gid(): mesh for axis in figure.axes for mesh in axis.collections}
    for run in RUNS:
        mesh = meshes[f"{run}/cd/map"]
        for layer in range(7):
            _, values = stored(study, run, "cd", layer=layer, token=token)
            np.testing.assert_array_equal(mesh.get_array()[layer], values)
        assert mesh.get_clim() == (0.25, 1)
        # Every measured step lies in its own cell.
        edges = mesh.get_coordinates()[0, :, 0]
        steps, _ = stored(study, run, "cd", layer=0, token=token)
        np.testing.assert_array_equal(np.clip(np.searchsorted(edges, steps, "right") - 1, 0, 29), np.arange(30))


def test_cd_curves_draw_the_tables_numbers(study):
    figure = synthetic.cd_curves(study, RUNS)
    drawn = lines(figure)
    by_layer = [stored(study, "r1", "cd", layer=layer, token="x")[1] for layer in range(7)]
    for layer, values in enumerate(by_layer):
        np.testing.assert_array_equal(drawn[f"r1/cd/layer {layer}"].get_ydata(), values)
    best = np.max(by_layer, axis=0)
    np.testing.assert_array_equal(drawn["r1/cd/best"].get_ydata(), best)
    assert set(drawn["r1/chance"].get_ydata()) == {0.25}
    (band,) = [c for axis in figure.axes for c in axis.collections if c.get_gid() == "r1/cd/interval"]
    low, high = best - 0.03, best + 0.03
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(low.min()) and heights.max() == pytest.approx(high.max())


def test_cd_concepts_draw_the_final_best_layer(study):
    figure = synthetic.cd_concepts(study, RUNS)
    drawn = lines(figure)
    layer = int(figure.axes[0].get_title().split("layer ")[1])
    final = [stored(study, "r0", "cd", layer=other, token="x")[1][-1] for other in range(7)]
    assert layer == int(np.argmax(final))
    for concept in range(4):
        assert_drawn(drawn[f"r0/cd/{concept}"], *stored(study, "r0", "cd", layer=layer, token="x", concept=concept))


def test_cd_against_loss_pairs_the_same_steps(study):
    # One CD measurement less than losses: the pairs must still be of the same step.
    fewer = study.metrics.filter((pl.col("metric") != "cd") | (pl.col("step") != 0))
    changed = Study(fewer, study.runs, study.config)
    line = lines(synthetic.cd_against_loss(changed, RUNS))["r2/cd against loss"]
    best = np.max([stored(changed, "r2", "cd", layer=layer, token="x")[1] for layer in range(7)], axis=0)
    assert_drawn(line, stored(study, "r2", "loss")[1][1:] / RANK, best)


def test_a_concept_has_the_same_color_in_every_figure(study):
    figures = [synthetic.loss(study, RUNS, last=last) for last in (True, False)] + [synthetic.cd_concepts(study, RUNS)]
    for figure in figures:
        drawn = lines(figure)
        for run in RUNS:
            for concept in range(4):
                line = next(
                    line for gid, line in drawn.items() if gid in (f"{run}/loss/{concept}", f"{run}/cd/{concept}")
                )
                assert line.get_color() == style.CONCEPT_COLORS[concept]
        handles = {line.get_label(): line.get_color() for line in figure.legends[0].get_lines()}
        assert [handles[f"concept {k}"] for k in range(4)] == list(style.CONCEPT_COLORS[:4])
    points = projection.Snapshot(0, np.random.default_rng(0).normal(size=(3, 20, 5)), np.arange(20) % 4)
    panel = projection.projection(study, "r0", [points]).axes[0]
    assert {line.get_gid(): line.get_color() for line in panel.lines} == {
        f"concept {k}": style.CONCEPT_COLORS[k] for k in range(4)
    }


def test_concepts_have_their_colors_where_others_are_not_measured(study):
    fewer = study.metrics.filter(pl.col("concept").is_null() | (pl.col("concept") >= 2))
    drawn = lines(synthetic.loss(Study(fewer, study.runs, study.config), RUNS, last=False))
    assert "r0/loss/0" not in drawn
    assert drawn["r0/loss/2"].get_color() == style.CONCEPT_COLORS[2]


def test_errors_say_that_they_are_divided_by_the_rank(study):
    for figure in (synthetic.loss(study, RUNS, last=True), synthetic.loss_by_position(study, RUNS)):
        assert figure.get_supylabel() == "squared error / r"
    assert synthetic.distance(study, RUNS).get_supylabel() == "squared difference / r"


@pytest.mark.parametrize("entry", catalogue.ENTRIES, ids=lambda entry: entry.name)
def test_missing_metrics_are_named(study, entry):
    nothing = Study(study.metrics.filter(pl.col("metric") == "cd_points"), study.runs, study.config)
    with pytest.raises(MissingData, match="^no .*(cd|loss|distance_).* in the metrics table$"):
        entry.draw(nothing, RUNS)


@pytest.mark.parametrize("entry", catalogue.ENTRIES, ids=lambda entry: entry.name)
def test_a_run_without_measurements_has_an_empty_panel(study, entry):
    without = Study(study.metrics.filter(pl.col("run") != "r1"), study.runs, study.config)
    figure = entry.draw(without, RUNS)
    assert [text.get_text() for text in figure.axes[1].texts] == ["not measured"]
    assert not figure.axes[0].texts
