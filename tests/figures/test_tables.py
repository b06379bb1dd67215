import math

import numpy as np
import polars as pl
import pytest

from jaxconcepts import store
from jaxconcepts.figures.regression import curves as synthetic
from jaxconcepts.figures.tables import Study


@pytest.fixture(scope="module")
def study(workdir):
    return Study(store.metrics(workdir), store.runs(workdir), store.config(workdir))


def test_the_unit_of_losses_is_that_of_what_is_trained(study):
    assert study.loss_unit == "squared error / r"
    language = Study(study.metrics, study.runs.select("run"), {"task": {"families": ["bitwise"]}})
    assert language.loss_unit == "cross-entropy (nats a token)"
    assert synthetic.train_loss(language, ["r0"]).get_supylabel() == language.loss_unit


def test_without_an_interval_in_the_tables_none_is_made_up(study):
    low, high = study.interval_of_best("r0")
    assert (low < study.best_cd("r0")[0].values).all() and (high > low).all()
    without = Study(study.metrics.filter(~pl.col("metric").is_in(["cd_low", "cd_high"])), study.runs, study.config)
    assert np.isnan(without.interval_of_best("r0")).all() and all(map(math.isnan, without.summary()["cd_low"]))


def test_curve_takes_only_the_rows_asked_for(study):
    rows = study.metrics.filter(pl.col("run") == "r1", pl.col("metric") == "loss", pl.col("position") == 3)
    for concept in (None, 2):
        own = rows.filter(pl.col("concept").eq_missing(pl.lit(concept))).sort("step")
        curve = study.curve("r1", "loss", concept=concept, position=3)
        assert curve.steps.tolist() == own["step"].to_list()
        assert curve.values.tolist() == own["value"].to_list()


def test_best_layer_is_the_best_of_the_map(study):
    cd = study.metrics.filter(
        pl.col("run") == "r0", pl.col("metric") == "cd", pl.col("token") == "x", pl.col("concept").is_null()
    )
    best, layers = study.best_cd("r0")
    expected = cd.group_by("step").agg(pl.col("value").max(), pl.col("layer").sort_by("value").last()).sort("step")
    assert best.values.tolist() == expected["value"].to_list()
    assert layers.tolist() == expected["layer"].to_list()


def test_summary_is_the_last_measurement_divided_by_the_rank(study):
    row = study.summary().row(by_predicate=pl.col("run") == "r2", named=True)
    last = study.metrics.filter(pl.col("run") == "r2", pl.col("step") == 20000, pl.col("concept").is_null())
    loss = last.filter(pl.col("metric") == "loss")
    assert row["loss_mean"] == loss.filter(pl.col("position").is_null())["value"].item() / 4
    assert row["loss_last"] == loss.filter(pl.col("position") == 11)["value"].item() / 4
    assert row["cd"] == last.filter(pl.col("metric") == "cd", pl.col("token") == "x")["value"].max()
    assert row["cd_low"] < row["cd"] < row["cd_high"]
    assert (row["label"], row["status"], row["step"]) == ("seed 2", "done", 20000)


def test_labels_name_what_differs(study):
    runs = study.runs.with_columns(
        pl.Series("train.learning_rate", [1e-3, 1e-3, 3e-4]),
        pl.Series("status", ["done", "done", "diverged"]),
        pl.Series("diverged_at", [None, None, 700]),
    )
    changed = Study(study.metrics, runs, study.config)
    assert changed.label("r0") == "learning_rate 0.001, seed 0"
    assert changed.label("r2") == "learning_rate 0.0003, seed 2, diverged at 700"


def test_non_finite_values_become_nan(study):
    broken = study.metrics.with_columns(
        value=pl.when(pl.col("step") == 20000).then(pl.lit(math.inf)).otherwise(pl.col("value"))
    )
    changed = Study(broken, study.runs, study.config)
    values = changed.curve("r0", "loss").values
    assert math.isnan(values[-1]) and math.isfinite(values[-2])
    assert changed.level("r0", "loss") == values[-2]
    best, layers = changed.best_cd("r0")
    assert best.steps[-1] < 20000 and layers.size == best.steps.size


def test_without_a_configured_task_ranks_and_concepts_come_from_the_table(study):
    bare = Study(study.metrics, study.runs.drop("task.rank", "task.num_concepts"), {})
    assert bare.rank("r0") == 1
    assert bare.num_concepts("r0") == 4
    assert bare.concept_label(2) == "concept 2"
    families = Study(study.metrics, study.runs, {"task": {"families": ["linear", "leaky_relu"]}})
    assert families.concept_label(1) == "leaky relu"


def test_labels_tell_fields_and_values_apart(study):
    runs = study.runs.with_columns(
        pl.Series("train.eps", [1e-8, 1e-8, 1e-6]),
        pl.Series("model.eps", [1e-5, 1e-5, 1e-5 + 1e-13]),
    )
    changed = Study(study.metrics, runs, study.config)
    assert changed.label("r0") == "train.eps 1e-08, model.eps 1e-05, seed 0"
    assert changed.label("r2") == f"train.eps 1e-06, model.eps {1e-5 + 1e-13}, seed 2"


def test_a_last_measurement_that_is_no_number_has_none(study):
    """The numbers of an earlier step would stand beside the last one."""
    last = (pl.col("step") == 20000) & pl.col("metric").is_in(["loss", "cd"])
    broken = study.metrics.with_columns(value=pl.when(last).then(math.nan).otherwise("value"))
    row = Study(broken, study.runs, study.config).summary().row(0, named=True)
    assert row["step"] == 20000 and row["bayes_last"] > 0
    assert np.isnan([row[name] for name in ("cd", "cd_y", "loss_last", "loss_mean")]).all()
