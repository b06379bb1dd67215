"""A run directory of before there were labels, experiments and lists of parts: it opens, and its run goes on."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

import jaxconcepts as jc
from jaxconcepts import store

ARCHIVE = Path(__file__).parents[1] / "data" / "run_before_labels.tar.gz"


@pytest.fixture
def earlier(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return jc.open_run(tmp_path / "run")


def test_it_opens(earlier):
    metrics = earlier.metrics
    assert metrics.schema == store.METRICS and metrics["label"].null_count() == metrics.height
    assert metrics.filter(metric="cd")["step"].unique().sort().to_list() == [0, 6, 12]
    assert earlier.runs["status"].to_list() == ["done"] and earlier.runs["run"].to_list() == ["seed0-d19874976a99"]
    assert earlier.params("seed0", step=6)["positions"].shape == (4, 4)
    (snapshot,) = store.hidden(earlier.workdir)
    assert snapshot.hidden.shape == (1, 2, 48, 4)
    assert "loss_last" in earlier.figures()


def test_it_goes_on_under_its_name(earlier, compiles_fast):
    before = earlier.metrics.sort(earlier.metrics.columns[:-1])
    shutil.rmtree(earlier.workdir / "checkpoints" / "train" / "000000012")
    config = str(Path(__file__).parents[1] / "small_train.py")
    config = jc.config(config, {"train.steps": 12, "measure.count": 3, "num_seeds": 1, "measure.hidden_count": 1})
    again = jc.train(config, earlier.workdir)
    after = again.metrics.sort(again.metrics.columns[:-1])
    assert again.runs["run"].to_list() == earlier.runs["run"].to_list()
    assert after.drop("value").equals(before.drop("value"))
    # Another machine may add up in another order.
    np.testing.assert_allclose(after["value"], before["value"], rtol=1e-3, atol=1e-4)
