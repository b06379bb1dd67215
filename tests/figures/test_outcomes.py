"""Sentences that say what came out: each from a small table, with the numbers worked out by hand."""

import numpy as np
import polars as pl
import pytest

from jaxconcepts.figures import quantities, words
from jaxconcepts.figures.finetuning import panels as finetuning
from jaxconcepts.figures.regression import catalogue, outcomes, sections
from jaxconcepts.figures.section import drawn
from jaxconcepts.figures.tables import Study
from jaxconcepts.store import METRICS, QUANTITIES

RUNS, STEPS = ("r0", "r1"), (0, 100, 200)
# Of both runs, at three steps; raw squared errors, which the rank of 2 divides.
LAST = {"r0": (4.0, 2.0, 1.2), "r1": (4.0, 3.0, 2.0)}
MEAN = {"r0": (4.0, 2.0, 1.5), "r1": (4.0, 3.0, 2.0)}
TO_BAYES = {"r0": (3.0, 1.0, 0.5), "r1": (3.0, 3.0, 0.5)}
CD = {
    "r0": {0: (0.5, 0.5, 0.5), 1: (0.5, 0.5, 0.8), 2: (0.5, 0.6, 0.9)},
    "r1": {0: (0.5, 0.5, 0.5), 1: (0.5, 0.5, 0.6), 2: (0.5, 0.5, 0.7)},
}


def row(run, step, metric, value, **keys):
    return {"run": run, "step": step, "metric": metric, "value": value} | keys


@pytest.fixture(scope="module")
def study():
    rows = []
    for run in RUNS:
        for at, step in enumerate(STEPS):
            rows.append(row(run, step, "loss", MEAN[run][at]))
            rows.append(row(run, step, "loss", 4.0, position=0))
            rows.append(row(run, step, "loss", LAST[run][at], position=1))
            rows.append(row(run, step, "distance_bayes", TO_BAYES[run][at]))
            rows.append(row(run, step, "distance_ridge", 1.0 + (step > 0)))
            rows.append(row(run, step, "solving", 0.25 + 0.001 * step, label="easy", token="z"))
            rows.append(row(run, step, "solving", 0.25 + 0.002 * step * (run == "r0"), label="hard", token="z"))
            for layer, values in CD[run].items():
                rows.append(row(run, step, "cd", values[at], layer=layer, token="x"))
                rows += [
                    row(run, step, "cd", values[at] + 0.05 * (1 - 2 * concept), layer=layer, token="x", concept=concept)
                    for concept in range(2)
                ]
        rows += [row(run, step, "train_loss", (8.0 + 4 * (run == "r1")) * 50 / step) for step in STEPS[1:]]
        for metric, value in (("loss_bayes", 1.0), ("loss_ridge", 3.0)):
            rows += [row(run, 0, metric, value), row(run, 0, metric, value, position=1)]
    metrics = pl.DataFrame(rows, METRICS)
    runs = pl.DataFrame({"run": RUNS, "point": RUNS, "status": ["done"] * 2, "seed": [0, 1], "step": [200] * 2})
    about = pl.DataFrame([(run, "solving", None, "fraction", 0.25) for run in RUNS], QUANTITIES, orient="row")
    return Study(metrics, runs, {"task": {"num_concepts": 2, "rank": 2}}, about)


SAID = {
    "loss_last": "At the last measurement the loss is 1.60 (2 runs: 1.20 to 2.00) times the Bayes mixture's, and "
    "ridge's is 3.00 times it.",
    "loss_mean": "At the last measurement the loss is 1.75 (2 runs: 1.50 to 2.00) times the Bayes mixture's, and "
    "ridge's is 3.00 times it.",
    "loss_by_position": "At the last measurement the loss is 2.00 (2 runs: 2.00 to 2.00) without examples and 0.80 "
    "(2 runs: 0.60 to 1.00) after 1.",
    # From step 100 in one, 200 in the other.
    "distance": "The predictions are nearest to Bayes mixture in 2 of 2 runs, in the median from step 150 on.",
    # Means of the layers .5, .7, .8, of which .65 is half-way from chance.
    "cd_map_x": "At the last measurement CD is highest at layer 2 (0.80, chance 0.50), and layer 1 is the first that "
    "is half-way there.",
    # Half-way at 100 + 100 / 3 and at 150.
    "cd_curves": "At the last measurement the best layer's CD is 0.80 (2 runs: 0.70 to 0.90), chance 0.50; half of its "
    "rise came by step 142.",
    "cd_concepts": "At the last measurement CD is highest for concept 0 (0.85) and lowest for concept 1 (0.75).",
    # The loss half-way at 62.5 and at 100.
    "cd_against_loss": "CD is half-way up by step 142, the loss half-way down by step 81.",
    "train_loss": "The training loss goes from 2.5 (2 runs: 2 to 3) to 1.25 (2 runs: 1 to 1.5).",
    "cd_map_y": "",
}


@pytest.mark.parametrize("entry", catalogue.ENTRIES, ids=lambda entry: entry.name)
def test_what_came_out_of_a_training(study, entry):
    assert entry.outcome(study, list(RUNS)) == SAID[entry.name]
    nothing = Study(study.metrics.clear(), study.runs, study.config)
    assert entry.outcome(nothing, list(RUNS)) == ""


def test_without_a_mixture_the_loss_is_followed_from_its_start(study):
    metrics = study.metrics.filter(pl.col("metric") != "loss_bayes")
    said = outcomes.loss(Study(metrics, study.runs, study.config), ["r0"], last=True)
    assert said == "The loss goes from 2 to 0.6."


def test_it_comes_before_the_caption(study):
    section = drawn(catalogue.ENTRIES[0], study, list(RUNS), step_scale="linear")
    assert section.outcome == SAID["loss_last"] and section.caption.startswith("Held-out loss of each concept")
    assert outcomes.projection(study, "r0") == "The best layer's CD goes from 0.50 at step 0 to 0.90 at step 200."


def test_what_came_out_of_a_user_s_metric(study):
    """easy: .25 + .2 in both; hard: .25 + .4 in one."""
    (entry,) = quantities.entries(study)
    easy, hard = "0.45 (2 runs: 0.45 to 0.45) for easy, z", "0.45 (2 runs: 0.25 to 0.65) for hard, z"
    assert entry.outcome(study, list(RUNS)) == f"At the last measurement solving is {easy}, {hard}; chance is 0.25."
    assert entry.outcome(study, ["r0"]).startswith("At the last measurement solving is 0.65 for hard, z, 0.45 for easy")


def test_what_came_out_of_a_tuning():
    """The best layer is 1 before, 2 after; accuracy of two runs an arm."""
    rows = [
        {"run": f"{arm}{run}", "arm": arm, "concept": None, "metric": metric, "layer": layer, "value": value + run / 10}
        for arm, run, of_arm in (("before", 0, (0.5, 0.2)), ("first", 0, (0.6, 0.3)), ("first", 1, (0.6, 0.3)))
        for metric, layer, value in (
            ("cd", 1, of_arm[0]), ("cd", 2, 2 * of_arm[0] - 0.55), ("accuracy", None, of_arm[1]),
        )
    ]  # fmt: skip
    table = pl.DataFrame(rows, schema_overrides={"concept": pl.Int32}, infer_schema_length=None)
    cell = finetuning.Cell("x", "x", "bitwise", table, ["first"], {"first": [1]}, ["AND"], 2, False)
    assert finetuning.cd_outcome(cell) == (
        "The best layer's CD is 0.50 before tuning, 0.70 (2 runs: 0.65 to 0.75) after first."
    )
    assert finetuning.gain_outcome(cell, "accuracy") == (
        "Accuracy over all concepts is 0.20 before tuning, 0.35 after first."
    )
    # A run without a number anywhere has no best layer, and none of the others loses its own.
    broken = table.with_columns(value=pl.when(pl.col("run") == "first1").then(float("nan")).otherwise("value"))
    assert finetuning.cd_outcome(cell._replace(rows=broken)) == (
        "The best layer's CD is 0.50 before tuning, 0.65 after first."
    )


def test_numbers_in_words():
    assert words.over_runs([0.5]) == "0.50" and words.over_runs([np.nan, None]) == ""
    assert words.over_runs([1.0, np.nan, 2.0], ".1f") == "1.5 (2 runs: 1.0 to 2.0)"
    assert words.step(12345.6) == "12 346"


def test_chance_is_that_of_each_run(study):
    runs = study.runs.with_columns(pl.Series("task.num_concepts", [2, 4]))
    several = Study(study.metrics, runs, study.config)
    assert "chance 0.25 to 0.50; " in outcomes.cd(several, RUNS)
    assert outcomes.cd_map(several, RUNS) == ""
    assert "chance 0.50; " in outcomes.cd(several, RUNS[:1])


def test_sentences_leave_out_runs_that_diverged(study):
    """Their panels say so, and their numbers are a frozen model's."""
    runs = study.runs.with_columns(pl.Series("status", ["done", "diverged"]))
    one = Study(study.metrics, runs, study.config)
    said = {part.name: part.outcome for part in sections.courses(one, "auto", list(RUNS))}
    assert said["train_loss"] == f"{outcomes.train_loss(study, RUNS[:1])} 1 run diverged, and is left out."
    none = Study(study.metrics, runs.with_columns(status=pl.lit("diverged")), study.config)
    assert {part.outcome for part in sections.courses(none, "auto", list(RUNS))} == {""}
