"""The same questions to trained and to pretrained models in one figure, against the numbers in the tables."""

import numpy as np
import polars as pl
import pytest
import scipy.stats

from jaxconcepts import store
from jaxconcepts.figures import comparison, questions
from jaxconcepts.figures.icl.tables import IclTables
from jaxconcepts.figures.tables import MissingData, Study

LABELS = ["Next", "Previous", "Number", "Parity", "Number, parity"]
REVERSED, PARITY = [0.0, 0.1, 0.05], [0.6, 0.7, 0.8]


@pytest.fixture(scope="module")
def trained():
    rows, runs = [], []
    for seed in range(3):
        run = f"toy/seed{seed}"
        runs.append({"run": run, "seed": seed, "task.regime": "mixed", "task.variant": "single", "model.causal": True})
        answers = {("exact", "reverse"): REVERSED, ("answer", "classify:birth_month:2 hint"): PARITY}
        for (metric, label), values in (answers | {("exact", "dual"): PARITY}).items():
            for side in ("asked", "held_out"):
                rows.append((run, 9, metric, side, label, values[seed] * (side == "held_out")))
            rows.append((run, 5, metric, "held_out", label, 1.0))
        rows.append((run, 0, "majority", None, "reverse", 0.01 + 0.01 * seed))
    table = pl.DataFrame(rows, ["run", "step", "metric", "token", "label", "value"], orient="row")
    return Study(table, pl.DataFrame(runs), {})


@pytest.fixture(scope="module")
def pretrained():
    rows = []
    for shots in (1, 4):
        for concept, share in ((0, 0.2), (1, 0.1), (3, 0.5)):
            for end, shift in (("", 0.0), ("_low", -0.05), ("_high", 0.1)):
                value = share + shots / 100 + shift
                rows.append((0, "facts", shots, "plain", f"accuracy{end}", None, concept, None, value))
    columns = ["step", "family", "shots", "variant", "metric", "layer", "concept", "other", "value"]
    types = {"layer": pl.Int32, "other": pl.Int32}
    table = pl.DataFrame(rows, columns, orient="row", schema_overrides=types)
    config = {"labels": {"facts": LABELS}, "null": {"facts": None}, "variants": ["plain"]}
    return IclTables(table, table.clear(), pl.DataFrame(), None, config)


def test_kinds_stand_side_by_side_with_their_intervals(trained, pretrained):
    figure = questions.questions(questions.Asked(trained, {"small": pretrained}))
    left, right = ({line.get_gid(): line for line in axis.lines} for axis in figure.axes)
    ends = scipy.stats.t.interval(0.95, 2, np.mean(PARITY), scipy.stats.sem(PARITY))
    np.testing.assert_allclose(left["mixed/reversed"].get_ydata(), REVERSED)
    np.testing.assert_allclose(left["mixed/parity,\nfacts first"].get_ydata(), PARITY)
    np.testing.assert_allclose(left["mixed/parity,\nfacts first/interval"].get_ydata(), ends)
    for shots in (1, 4):
        name = f"small, {shots} shot{'s' * (shots > 1)}"
        for kind, share in (("forward", 0.2), ("reversed", 0.1), ("parity", 0.5)):
            np.testing.assert_allclose(right[f"{name}/{kind}"].get_ydata(), [share + shots / 100])
            ends = [share + shots / 100 - 0.05, share + shots / 100 + 0.1]
            np.testing.assert_allclose(right[f"{name}/{kind}/interval"].get_ydata(), ends)
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["forward", "reversed", "parity", "parity,\nfacts first"]
    assert {gid for gid in left if gid.startswith("guess")} == {"guess/reversed", "guess/parity,\nfacts first"}
    np.testing.assert_allclose(left["guess/reversed"].get_ydata(), 0.02)
    assert {gid for gid in right if gid.startswith("guess")} == {"guess/parity"}
    assert not {line.get_color() for line in left.values() if line.get_linestyle() == "None"} & {
        line.get_color() for line in right.values() if line.get_linestyle() == "None"
    }


def test_what_came_out_is_said(trained, pretrained):
    assert questions.outcome(questions.Asked(trained, {"small": pretrained})) == (
        "Right answers, mixed: reversed 0.05, parity, facts first 0.70; small, 1 shot: forward 0.21, reversed 0.11; "
        "small, 4 shots: forward 0.24, reversed 0.14."
    )


def test_one_side_alone_is_not_drawn(trained, pretrained):
    with pytest.raises(MissingData, match="no answers of pretrained models"):
        questions.questions(questions.Asked(trained, {}))
    nothing = Study(trained.metrics.clear(), trained.runs, {})
    with pytest.raises(MissingData, match="no answers of models trained on biographies"):
        questions.questions(questions.Asked(nothing, {"small": pretrained}))


def test_the_page_of_both_has_it(pretrained, make_workdir, monkeypatch):
    toy, model = (make_workdir(seeds=1, measurements=2, layers=1, pairs=2) for _ in range(2))
    toy, model = toy.rename(toy.parent / "toy"), model.rename(model.parent / "model")
    metrics, runs = store.metrics, store.runs

    def with_answers(root):
        answer = {"metric": "exact", "label": "reverse", "token": "held_out"}
        row = metrics(root).head(1).with_columns(pl.lit(text).alias(name) for name, text in answer.items())
        return pl.concat([metrics(root), row], how="vertical_relaxed")

    def with_arms(root):
        arm = {"task.regime": "mixed", "task.variant": "single"}
        return runs(root).with_columns(pl.lit(text).alias(name) for name, text in arm.items())

    monkeypatch.setattr(store, "metrics", with_answers)
    monkeypatch.setattr(store, "runs", with_arms)
    monkeypatch.setattr(comparison.icl, "load", lambda root: pretrained if root.name == "model" else None)
    html = comparison.write_comparison([toy, model], toy.parent / "page").read_text()
    assert '<figure id="questions">' in html and "model, 4 shots: forward 0.24, reversed 0.14." in html
