"""What trackers show is what the tables hold, each point once, also where a training was stopped."""

import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

import jaxconcepts as jc
from jaxconcepts.runs import trackers as tracking
from jaxconcepts.runs.events import CallbackError
from jaxconcepts.runs.programs import Programs

CONFIG = str(Path(__file__).parents[1] / "small_train.py")
CHANGED = {"train.steps": 8, "measure.count": 3, "measure.hidden_count": 0, "run.checkpoint_seconds": 1e6}


def train(workdir, trackers, stopped):
    """A training that a callback ends at step 4, which leaves rows behind a checkpoint, and that then goes on."""

    def stop(event):
        if event.step == 4 and stopped:
            raise RuntimeError("enough")

    config = jc.config(CONFIG, CHANGED | {"run.trackers": trackers})
    if stopped:
        with pytest.raises(CallbackError):
            jc.train(config, workdir, callbacks=[stop])
    return jc.train(config, workdir)


def points(run):
    """(run, name, step, value) of the table's means."""
    rows = run.metrics.filter(pl.col("concept").is_null(), pl.col("position").is_null())
    layer = pl.format("layer_{}", "layer")
    names = pl.concat_str(["metric", "label", "token", layer], separator="/", ignore_nulls=True)
    return sorted(rows.select("run", names.alias("name"), "step", "value").rows())


@pytest.mark.parametrize("stopped", [False, True])
def test_tensorboard_reads_back_every_point_once(tmp_path, compiles_fast, stopped):
    pytest.importorskip("tensorboardX")
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = train(tmp_path, ("tensorboard",), stopped)
    shown = []
    for name in run.runs["run"]:
        events = accumulators.EventAccumulator(str(tmp_path / "tensorboard" / name)).Reload()
        for tag in events.Tags()["scalars"]:
            shown += [(name, tag, event.step, event.value) for event in events.Scalars(tag)]
    expected = points(run)
    assert [point[:3] for point in sorted(shown)] == [point[:3] for point in expected]
    assert [point[3] for point in sorted(shown)] == pytest.approx([point[3] for point in expected], rel=1e-6)


@pytest.mark.parametrize("library", ["wandb", "trackio"])
def test_an_online_tracker_gets_every_point_once(tmp_path, compiles_fast, monkeypatch, library):
    """Against a stand-in that keeps what it gets between starts, as the service does."""
    kept, finished = {}, []

    def init(**options):
        steps = kept.setdefault(options["name"], {})

        def log(values, step):
            assert step not in steps
            steps[step] = values

        return SimpleNamespace(log=log, finish=lambda: finished.append(options["name"]))

    monkeypatch.setitem(sys.modules, library, SimpleNamespace(init=init))
    run = train(tmp_path, (library,), stopped=True)
    shown = [
        (name, tag, step, value) for name, steps in kept.items() for step in steps for tag, value in steps[step].items()
    ]
    assert sorted(shown) == points(run) and len(finished) == 4


def test_a_library_that_is_missing_is_named_before_anything_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setattr(Programs, "get", None)
    with pytest.raises(ValueError, match=r'run.trackers = trackio needs trackio: pip install "jaxconcepts\[trackio\]"'):
        train(tmp_path, ("trackio",), stopped=False)
    with pytest.raises(ValueError, match="run.trackers must be .*, got 'tensorbored'"):
        jc.config(CONFIG, {"run.trackers": ("tensorbored",)})


def test_tensorboard_needs_a_local_workdir():
    pytest.importorskip("tensorboardX")
    with pytest.raises(ValueError, match="tensorboard needs a local workdir, got gs://bucket/run"):
        tracking.check(("tensorboard",), "gs://bucket/run")
