"""The figures of a sweep: what they read off the tables, against values worked out by hand, and that they are drawn."""

import json

import numpy as np
import polars as pl
import pytest

from jaxconcepts.figures import style
from jaxconcepts.figures.regression import catalogue
from jaxconcepts.figures.sweeps import outcomes, search, verdict
from jaxconcepts.figures.sweeps import tables as sweep_tables
from jaxconcepts.figures.sweeps.tables import CD, LOSS, half_way
from jaxconcepts.figures.tables import MissingData, Study

RATES, NOISES, SEEDS, STEPS = [1e-3, 1e-2, 1e-1], [0.0, 0.5], range(3), [0, 100, 200, 300, 400]
KEYS = {"layer": pl.Int32, "token": pl.String, "concept": pl.Int32, "position": pl.Int32}


@pytest.fixture(scope="module")
def study():
    """Two concepts: the loss of concept k falls from 2 to 1 at step 100 (k + 1), its CD rises a measurement later."""
    runs, rows = [], []
    for rate in RATES:
        for noise in NOISES:
            for seed in SEEDS:
                run = f"{rate}-{noise}-{seed}"
                diverged = rate == 0.1 and seed == 0
                runs.append((run, run, "diverged" if diverged else "done", seed, 400, None, noise, rate, 2, 3))
                for step in STEPS:
                    own = [2.0 - (step >= 100 * (k + 1)) for k in range(2)]
                    cd = [0.5 + 0.5 * (step >= 100 * (k + 2)) for k in range(2)]
                    for k in range(2):
                        rows.append((run, step, "loss", None, None, k, 5, own[k]))
                        rows += [(run, step, "cd", layer, "x", k, None, cd[k] * layer / 2) for layer in (1, 2)]
                    rows.append((run, step, "loss", None, None, None, 5, np.mean(own) + noise + seed / 10))
                    rows.append((run, step, "loss", None, None, None, None, 99.0))
                    rows += [(run, step, "cd", layer, "x", None, None, np.mean(cd) * layer / 2) for layer in (1, 2)]
    names = ["run", "point", "status", "seed", "step", "diverged_at", "task.noise", "train.learning_rate", "task.rank"]
    table = pl.DataFrame(runs, [*names, "measure.count"], orient="row")
    schema = {"run": pl.String, "step": pl.Int64, "metric": pl.String} | KEYS | {"value": pl.Float64}
    metrics = pl.DataFrame(rows, schema, orient="row")
    return Study(metrics, table, {})


def test_swept_fields_are_those_in_which_runs_differ(study):
    fields = {field.name: field for field in sweep_tables.swept(study)}
    assert list(fields) == ["task.noise", "train.learning_rate", "seed"]
    assert fields["train.learning_rate"].log and not fields["task.noise"].log
    assert fields["task.noise"].values == NOISES
    assert sweep_tables.is_sweep(study)
    seeds_only = Study(study.metrics, study.runs.filter(pl.col("run").str.starts_with("0.001-0.0")), {})
    assert not sweep_tables.is_sweep(seeds_only)


def test_outcomes_are_the_last_measurement_over_the_rank(study):
    table = sweep_tables.outcomes(study)
    assert table["run"].to_list() == study.runs["run"].to_list()
    diverged = table["status"] == "diverged"
    assert table.filter(diverged)[LOSS].null_count() == table.filter(diverged)[CD].null_count() == 2
    done = table.filter(~diverged)
    np.testing.assert_allclose(done[LOSS], (1 + done["task.noise"] + done["seed"] / 10) / 2)
    np.testing.assert_allclose(done[CD], 1.0)


def test_the_verdict_is_computed_from_the_outcomes(study):
    first, second, third = verdict.sentences(study)
    assert first == f"{CD} of 16 runs: from 1 to 1, median 1."
    table = sweep_tables.outcomes(study).drop_nulls(LOSS)
    within = table.group_by("task.noise").agg(pl.col(LOSS).var(ddof=0))[LOSS].mean()
    share = 1 - within / table[LOSS].var(ddof=0)
    assert second.startswith(f"{LOSS} of 16 runs: from 0.5 to 0.85, median ")
    assert second.endswith(f"; most of it by noise ({share:.0%} of the variance).")
    # Three seeds of .5, .55 and .6: t of 2 degrees of freedom, 4.303, times .05 / sqrt(3).
    setting = "Least loss at the last position: noise 0, learning rate 0.001"
    assert third == f"{setting}: {LOSS} 0.55 [0.426, 0.674], {CD} 1 [1, 1], 3 seed(s)."
    rows = verdict.best_table(study).rows
    assert len(rows) == 6 and [row[2] for row in rows] == ["3", "3", "2"] * 2


def test_a_search_orders_the_points_by_what_it_looked_for(study, tmp_path):
    runs = [[f"{rate}-{noise}-{seed}" for seed in SEEDS] for noise in NOISES for rate in RATES]
    quantity = {"metric": "loss", "where": {"concept": None, "position": 5}, "at": "last", "reduce": "mean"}
    content = {"quantity": quantity, "goal": "maximize", "points": 6, "rounds": [[{}] * 4, [{}] * 2], "runs": runs}
    (tmp_path / "search.json").write_text(json.dumps(content))
    (tmp_path / "config.json").write_text("{}")
    aim = search.read(tmp_path)
    assert search.read(tmp_path / "other") is None and aim.rounds == [4, 2]
    figure = search.course(study, aim)
    artists = {artist.get_gid(): artist for artist in (*figure.axes[0].collections, *figure.axes[0].lines)}
    # The loss at the end is 1 + noise + a tenth of the seed; rates of .1 have a run that diverged.
    np.testing.assert_allclose(artists["search/points"].get_offsets(), [[1, 1.1], [2, 1.1], [4, 1.6], [5, 1.6]])
    np.testing.assert_allclose(artists["search/best"].get_ydata(), [1.1, 1.1, 1.6, 1.6])
    table = verdict.best_table(study, aim)
    assert list(table.header) == ["noise", "learning rate", "seeds", "loss (searched)", LOSS, CD]
    assert table.rows[0][0] == "0.5" and "most loss" in table.note
    # Two seeds of 1.6 and 1.7: t of 1 degree of freedom, 12.706, times .1 / 2.
    assert [row[3] for row in table.rows if row[1] == "0.1"] == ["1.65 [1.01, 2.29]", "1.15 [0.515, 1.79]"]
    assert verdict.sentences(study, aim)[-1].startswith("Most loss: noise 0.5, learning rate 0.1: loss (searched) 1.65")


def test_what_came_out_is_said_of_each_figure(study):
    """The loss is 1 + noise + seed / 10 over a rank of 2, CD 1 everywhere; CD moves a measurement after the loss."""
    of_loss, of_cd = outcomes.by_field(study)[:-1].split("; ")
    assert of_loss.startswith("Loss / r depends most on noise (") and of_loss.endswith("least median, 0.55, at 0")
    assert of_cd == f"{CD} depends on no field by more than 5 % of its variance"
    # Two seeds of .55 and .6 where one has diverged, three of .5, .55, .6 elsewhere.
    assert outcomes.heat_maps(study) == "The median loss / r is least, 0.55, at noise 0, learning rate 0.001."
    assert outcomes.loss_against_cd(study) == (
        "The loss was half-way down before CD was half-way up in 32 of 32 cases; in the median CD came 100 steps later."
    )
    assert outcomes.order_by_seed(study) == "Concept 0 fell first in 16 of 16 runs."


def test_half_way_marks_lie_between_measurements(study):
    table = sweep_tables.emergence(study)
    assert table.height == 2 * 16
    for k in range(2):
        own = table.filter(pl.col("concept") == k)
        np.testing.assert_allclose(own["loss_step"], 100 * k + 50)
        np.testing.assert_allclose(own["cd_step"], 100 * k + 150)


@pytest.mark.parametrize(
    ("values", "falls", "step"),
    [
        ([4, 2, 1, 0.5], True, 10 * (4 - 2.25) / 2),
        ([1, 0.95, 0.95, 0.95], True, None),  # hardly fell
        ([1, 2, 3, 4], True, None),
        ([0.25, 0.25, 1.0, 0.9], False, 15.0),
        ([0.25, 0.3, 0.3, 0.3], False, None),
        ([0.5, np.nan, 0.0, 0.0], True, 10.0),
        ([np.nan, np.nan, np.nan, 1.0], True, None),
    ],
)
def test_half_way(values, falls, step):
    found = half_way(np.arange(0, 40, 10.0), np.array(values, float), falls)
    assert found is None if step is None else found == pytest.approx(step)


def test_influence_is_the_variance_between_values(study):
    table = sweep_tables.outcomes(study)
    noise, rate, seed = sweep_tables.swept(study)
    shares = [sweep_tables.influence(table, field, LOSS) for field in (noise, rate, seed)]
    assert shares[0] > 0.7 > 0.3 > shares[2] > shares[1]


def test_many_values_are_put_into_classes():
    field = sweep_tables.Field("train.learning_rate", [10.0**-i for i in range(20)], True, True)
    of, labels = sweep_tables.bins(field, pl.Series([10.0**-i for i in range(20)]))
    assert len(labels) == 8 and (np.diff(of) <= 0).all() and set(of) == set(range(8))


@pytest.mark.parametrize("entry", catalogue.SWEEP_ENTRIES, ids=lambda entry: entry.name)
def test_every_figure_is_drawn(study, entry):
    figure = entry.draw(study)
    assert figure.axes and entry.caption
    if entry.name == "sweep_emergence":
        dots = {c.get_gid(): c.get_offsets() for c in figure.axes[0].collections}
        np.testing.assert_allclose(dots["sweep/half-way/1"], [[150.0, 250.0]] * 16)
        assert figure.axes[0].get_title().startswith("32 of 32")
    if entry.name == "sweep_pairs":
        grid = next(c for c in figure.axes[0].collections if c.get_gid())
        assert f"{LOSS}/task.noise" in grid.get_gid()
        assert (np.diff(grid.get_array().reshape(-1, 2), axis=1) > 0).all()
    assert style.render(figure)[0].startswith(b"\x89PNG")


def test_a_sweep_in_which_nothing_moved_says_so(study):
    still = Study(study.metrics.filter(pl.col("step") == 0), study.runs, {})
    for entry in catalogue.SWEEP_ENTRIES[-2:]:
        with pytest.raises(MissingData, match="moved|fell"):
            entry.draw(still)


@pytest.mark.parametrize("values", [(None, 0.1, 0.2), (None, "a", "b"), (None, "a", "a")])
def test_a_field_that_is_none_in_some_runs_is_swept(study, values):
    """Such as masks that one point has: each value is a setting of its own, and None is one."""
    one = study.runs.filter(pl.col("task.noise") == 0, pl.col("train.learning_rate") == 0.001)
    some = Study(study.metrics, one.with_columns(pl.Series("task.masks", values)), {})
    (field,) = [field for field in sweep_tables.swept(some) if field.name != "seed"]
    assert field.values == [*dict.fromkeys(values[1:]), None] and not field.number
    assert sweep_tables.is_sweep(some)
    points = verdict.best_points(some)
    assert dict(points.select("task.masks", "seeds").iter_rows()) == {of: values.count(of) for of in values}
    # The loss grows with the seed, and None has the first.
    assert "with the least median, 0.5, at None" in outcomes.by_field(some)
    for entry in catalogue.SWEEP_ENTRIES:
        if entry.name != "sweep_pairs" or len(sweep_tables.swept(some)) > 1:
            style.render(entry.draw(some))


def test_fields_whose_names_end_alike_are_told_apart(study):
    runs = study.runs.with_columns(pl.col("task.noise").alias("train.noise"))
    labels = [field.label for field in sweep_tables.swept(Study(study.metrics, runs, {}))]
    assert labels == ["task.noise", "learning rate", "train.noise", "seed"]
    table = verdict.best_table(Study(study.metrics, runs, {}))
    assert table.header[:3] == ["task.noise", "learning rate", "train.noise"]
    assert "Runs that diverged are left out" in table.note
