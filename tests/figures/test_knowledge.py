"""Figures of trainings on biographies, against the numbers in the tables."""

import numpy as np
import polars as pl
import pytest
import scipy.stats

from jaxconcepts.figures import knowledge
from jaxconcepts.figures.tables import MissingData, Study

FIELDS = {"task.tuning": "low_rank", "task.variant": "single", "model.causal": True, "train.batch_size": 10}


def study(rows, runs):
    columns = ("run", "step", "metric", "token", "label", "value")
    table = pl.DataFrame([dict(zip(columns, row, strict=True)) for row in rows], schema_overrides={"value": pl.Float64})
    return Study(table, pl.DataFrame(runs), {})


def lines(figure):
    return {line.get_gid(): line for axis in figure.axes for line in axis.lines}


def test_extraction_shows_every_seed_its_interval_and_the_commonest_answer():
    rows, runs, values = [], [], {"mixed": [0.5, 0.6, 0.8], "staged": [0.1, 0.1, 0.2]}
    for regime, of_seed in values.items():
        for seed, value in enumerate(of_seed):
            run = f"{regime}{seed}"
            runs.append({"run": run, "seed": seed, "status": "done", "task.regime": regime, "task.people": 40} | FIELDS)
            rows += [(run, 0, "majority", None, "extract", 0.15), (run, 9, "exact", "held_out", "extract", value)]
            rows += [(run, 5, "exact", "held_out", "extract", 0.0), (run, 9, "exact", "held_out", "extract:major", 0.0)]
            rows.append((run, 9, "exact", "asked", "extract", 1.0))
    drawn = lines(knowledge.extraction(study(rows, runs)))
    for name, of_seed in (("mixed", values["mixed"]), ("staged,\nlow rank", values["staged"])):
        np.testing.assert_allclose(drawn[f"{name}/held_out"].get_ydata(), of_seed)
        np.testing.assert_allclose(drawn[f"{name}/asked"].get_ydata(), [1.0] * 3)
        ends = scipy.stats.t.interval(0.95, 2, np.mean(of_seed), scipy.stats.sem(of_seed))
        np.testing.assert_allclose(drawn[f"{name}/interval"].get_ydata(), ends)
    assert set(drawn["majority"].get_ydata()) == {0.15}


def test_what_came_out_is_said_in_words():
    rows, runs = [], []
    for regime, people, value in (("mixed", 20, 0.5), ("mixed", 20, 0.7), ("staged", 40, 0.1)):
        run = f"{regime}{value}"
        runs.append({"run": run, "seed": 0, "task.regime": regime, "task.people": people, "model.width": 8} | FIELDS)
        rows += [(run, 9, "exact", side, "extract", value * (side == "held_out")) for side in ("asked", "held_out")]
        rows += [(run, 9, "bits_a_parameter", None, None, value), (run, 5, "bits_a_parameter", None, None, 1.9)]
    made = study(rows, runs)
    assert knowledge.extraction_outcome(made) == (
        "Right answers about people that no question was about: mixed: 0.60 (2 runs: 0.50 to 0.70); "
        "staged, low rank: 0.10."
    )
    assert knowledge.capacity_outcome(made) == "At most 0.70 bits a parameter are stored, 8 wide with 20 people."


def test_capacity_is_drawn_against_readings_with_its_ceiling():
    rows, runs = [], []
    for people, width in ((20, 8), (40, 16), (40, 8), (5, 8)):
        run = f"{people}x{width}"
        runs.append({"run": run, "seed": 0, "status": "done", "task.people": people, "model.width": width} | FIELDS)
        rows += [(run, step, "bits_a_parameter", None, None, step / 100) for step in (0, 20, 40)]
        rows.append((run, 0, "bits_ceiling", None, None, 1.5))
    figure = knowledge.capacity(study(rows, runs))
    drawn = lines(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["5", "20", "40"]
    np.testing.assert_allclose(drawn["20x8"].get_xdata(), [0, 10, 20])
    np.testing.assert_allclose(drawn["40x16"].get_xdata(), [0, 5, 10])
    np.testing.assert_allclose(drawn["40x16"].get_ydata(), [0, 0.2, 0.4])
    assert drawn["20x8/ceiling"].get_ydata() == [1.5]


def test_what_is_missing_is_named():
    with pytest.raises(MissingData, match="no exact answers"):
        knowledge.extraction(study([("a", 0, "loss", None, "x", 1.0)], [{"run": "a", "seed": 0} | FIELDS]))
    with pytest.raises(MissingData, match="no bits a parameter"):
        knowledge.capacity(study([("a", 0, "loss", None, "x", 1.0)], [{"run": "a", "seed": 0} | FIELDS]))


def test_readings_count_the_texts_of_a_window_and_no_questions():
    """Of runs with questions in between no table says how many windows had biographies."""
    runs, rows = [], []
    for run, fields in (
        ("alone", {"task.regime": "mixed", "task.qa_share": 0.0}),
        ("between", {"task.regime": "mixed", "task.qa_share": 0.5}),
        ("staged", {"task.regime": "staged", "task.qa_share": 0.5, "task.tuning_share": 0.5}),
    ):
        about = {"run": run, "seed": 0, "status": "done", "task.people": 20, "model.width": 8, "train.steps": 40}
        runs.append(about | FIELDS | {"task.tuning_share": 0.6} | fields)
        rows += [(run, step, "bits_a_parameter", None, None, step / 100) for step in (0, 20, 40)]
        rows += [(run, 0, "bits_ceiling", None, None, 1.5), (run, 0, "texts_a_window", None, None, 3.0)]
    drawn = lines(knowledge.capacity(study(rows, runs)))
    np.testing.assert_allclose(drawn["alone"].get_xdata(), [0, 30, 60])
    np.testing.assert_allclose(drawn["staged"].get_xdata(), [0, 30, 30])
    assert "between" not in drawn
    of_questions = study([row for row in rows if row[0] == "between"], runs[1:2])
    with pytest.raises(MissingData, match="no bits a parameter of a run without questions in between"):
        knowledge.capacity(of_questions)


def test_diverged_runs_are_no_seeds_of_an_arm():
    runs = [{"run": str(seed), "seed": seed, "status": status, "task.regime": "mixed", "task.people": 40} | FIELDS
            for seed, status in enumerate(("done", "diverged", "done"))]  # fmt: skip
    rows = [(run["run"], 9, "exact", "held_out", "extract", 0.2 * run["seed"]) for run in runs]
    np.testing.assert_allclose(lines(knowledge.extraction(study(rows, runs)))["mixed/held_out"].get_ydata(), [0, 0.4])
    assert "mixed: 0.20 (2 runs" in knowledge.extraction_outcome(study(rows, runs))
