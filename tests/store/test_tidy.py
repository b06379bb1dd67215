"""Arrays with named axes as rows: every entry, every mean, and what a summary keeps."""

import numpy as np
import polars as pl
import pytest

from jaxconcepts import store
from jaxconcepts.store import tidy
from jaxconcepts.training.experiment import Named, check_named

LOSS = np.arange(2 * 2 * 3, dtype=np.float32).reshape(2, 2, 3)  # two runs, two concepts, three positions
CD = np.arange(2 * 2 * 3 * 2, dtype=np.float32).reshape(2, 2, 3, 2)  # runs, tokens, layers, concepts
BOTH = ("concept", "position")
MEASURED = {
    "loss": Named(LOSS, BOTH, means=BOTH),
    "distance_ridge": Named(LOSS, BOTH, means=BOTH, brief="mean"),
    "cd": Named(CD, ("token", "layer", "concept"), means=("concept",), names=(("token", ("x", "y")),)),
}


def table(frame, *columns):
    made = {tuple(row[name] for name in columns): row["value"] for row in frame.iter_rows(named=True)}
    assert len(made) == frame.height
    return made


def test_every_entry_and_every_mean_is_a_row():
    frame = tidy.rows(["a", "b"], 7, MEASURED)
    assert frame.schema == store.METRICS and frame["step"].unique().to_list() == [7]
    losses = table(frame.filter(metric="loss"), "run", "concept", "position")
    assert len(losses) == 2 * 3 * 4
    for place, run in enumerate("ab"):
        for k in (0, 1, None):
            for i in (0, 1, 2, None):
                part = LOSS[place][slice(None) if k is None else k, ...][..., slice(None) if i is None else i]
                assert losses[run, k, i] == part.mean(), (run, k, i)
    cd = table(frame.filter(metric="cd"), "run", "token", "layer", "concept")
    assert len(cd) == 2 * 2 * 3 * 3
    assert cd["b", "y", 2, 1] == CD[1, 1, 2, 1] and cd["a", "x", 1, None] == CD[0, 0, 1].mean()
    assert frame.filter(metric="cd")["position"].null_count() == len(cd)
    (row,) = tidy.scalars(["r"], 3, "train_loss", [0.25]).rows()
    assert row == ("r", 3, "train_loss", None, None, None, None, None, 0.25)


def test_a_summary_keeps_the_last_position_and_the_means():
    frame = tidy.rows(["a", "b"], 7, MEASURED, "summary")
    losses = table(frame.filter(metric="loss"), "run", "concept", "position")
    assert {key[1:] for key in losses} == {(k, i) for k in (0, 1, None) for i in (2, None)}
    (distance,) = frame.filter(metric="distance_ridge", run="a").rows(named=True)
    assert (distance["concept"], distance["position"], distance["value"]) == (None, None, LOSS[0].mean())
    cd = table(frame.filter(metric="cd", run="a"), "token", "layer", "concept")
    assert set(cd) == {("x", layer, k) for layer in range(3) for k in (0, 1, None)} | {("y", n, None) for n in range(3)}


def test_a_label_comes_from_the_metric_or_from_an_axis():
    pairs = Named(np.ones((1, 2, 2)), ("concept", "label"), names=(("label", ("plural", "past")),))
    frame = tidy.rows(["a"], 0, {"cd/number": Named(np.ones((1, 2)), ("layer",)), "pairs": pairs, "size": Named([3.0])})
    assert frame.filter(metric="cd")["label"].to_list() == ["number"] * 2
    assert frame.filter(metric="pairs")["label"].to_list() == ["plural", "past"] * 2
    assert frame.filter(metric="size").rows() == [("a", 0, "size", None, None, None, None, None, 3.0)]


def test_no_runs_give_no_rows():
    assert tidy.rows([], 0, {"loss": Named(np.zeros((0, 2, 3)), BOTH, means=BOTH)}).height == 0


def test_parts_without_a_column_for_labels_are_read(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics").mkdir()
    old = tidy.scalars(["r"], 3, "train_loss", [0.25]).drop("label")
    old.write_parquet(tmp_path / "metrics" / "a.000000003.parquet")
    assert store.metrics(tmp_path).equals(old.insert_column(7, pl.lit(None, pl.String).alias("label")))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (np.ones(3), "metric m must be a Named array, got ndarray"),
        (Named(np.ones(3), ("head",)), "metric m has the unknown axis 'head'; axes are layer, token, concept"),
        (
            Named(np.ones((3, 2)), ("layer",)),
            r"metric m names the axes \('layer',\), but its values have shape \(3, 2\)",
        ),
        (Named(np.ones(2), ("token",)), "metric m must name the 2 entries of its axis token"),
    ],
)
def test_what_is_not_named_well_is_refused(named, message):
    with pytest.raises(ValueError, match=message):
        check_named({"m": named})
