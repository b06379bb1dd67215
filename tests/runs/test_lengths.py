"""Runs that are made longer equal those that were as long from the start, or are refused by name."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import polars as pl
import pytest

import jaxconcepts as jc
from jaxconcepts import store
from jaxconcepts.experiments.biographies import Biographies
from jaxconcepts.runs import lengths, points
from jaxconcepts.runs.events import CallbackError
from jaxconcepts.store import opening
from jaxconcepts.sweeps import membership, status
from jaxconcepts.training import optimizers
from jaxconcepts.training.train import TrainConfig

BASE = {
    "train.warmup_steps": 6,
    "train.optimizer": "adamw",
    "train.learning_rate": 0.01,
    "measure.hidden_count": 2,
    "measure.metrics": ["loss"],
}
CONFIG = jc.config(str(__file__).replace("runs/test_lengths.py", "small_train.py"), BASE)
SHORT = {"train.steps": 24, "measure.count": 5}
LONG = {"train.steps": 48, "measure.count": 9}
"""Of twice as many steps, measured as often."""


@pytest.fixture(scope="module", autouse=True)
def fast(compiles_fast):
    """Both programs are compiled in the same way."""


def config(*changed, **fields):
    for more in changed:
        fields |= more
    return jc.config(CONFIG, fields)


def table(run, **only):
    """All that was measured, with seeds in place of names, which are hashes of the first config."""
    frame = run.metrics.filter(**only).with_columns(pl.col("run").str.extract(r"^(seed\d+)-"))
    return frame.sort(frame.columns[:-1])


def assert_equal(longer, whole):
    assert table(longer).equals(table(whole)) and table(longer).height
    rows = [run.runs.drop("run", "point").sort("seed") for run in (longer, whole)]
    assert rows[0].equals(rows[1])
    for seed in ("seed0", "seed1"):
        assert jax.tree.all(jax.tree.map(np.array_equal, longer.params(seed), whole.params(seed)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return jc.train(config(LONG), tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return jc.train(config(SHORT), tmp_path_factory.mktemp("short") / "run")


@pytest.fixture(scope="module")
def longer(short, tmp_path_factory):
    workdir = shutil.copytree(short.workdir, tmp_path_factory.mktemp("longer") / "run")
    with pytest.raises(ValueError, match="measure.count: was 5, now 9; train.steps: was 24, now 48; .* or --extend to"):
        jc.train(config(LONG), workdir)
    extended = jc.train(config(LONG), workdir, extend=True)
    assert extended.runs["run"].equals(short.runs["run"]) and extended.config["train"]["steps"] == 48
    return extended


def test_a_run_made_longer_equals_one_that_was_long_from_the_start(longer, whole):
    assert_equal(longer, whole)
    assert {snapshot.step for snapshot in store.hidden(longer.workdir)} == {0, 24, 48}


def test_the_same_command_goes_on_with_it_as_with_any_run(longer):
    before = table(longer)
    assert table(jc.train(config(LONG), longer.workdir, extend=True)).equals(before)
    assert table(jc.train(config(LONG), longer.workdir)).equals(before)
    assert [of["train"]["steps"] for of in lengths.there(longer.workdir)] == [24, 48]


@pytest.mark.slow
def test_where_other_steps_are_measured_those_of_both_are_equal(tmp_path, whole):
    """A run that was stopped on its way, made longer twice; a row of the loss in training is a mean since the last."""

    def stop(event):
        if event.step == 12:
            raise RuntimeError("stopped")

    with pytest.raises(CallbackError):
        jc.train(config(SHORT), tmp_path, callbacks=[stop])
    jc.train(config(**{"train.steps": 36, "measure.steps": [30, 36]}), tmp_path, extend=True)
    run = jc.train(config(LONG), tmp_path, extend=True)
    assert sorted(set(table(run, metric="loss")["step"])) == [0, 6, 12, 18, 24, 30, 36, 42, 48]
    assert_equal(run, whole)
    # Every second of its measurements alone: rows of the loss in training are then means over other steps.
    sparse = jc.train(config({"train.steps": 48, "measure.count": 5}), tmp_path / "sparse")
    both = pl.col("step").is_in([0, 12, 24, 36, 48]) & (pl.col("metric") != "train_loss")
    assert table(sparse).filter(both).equals(table(run).filter(both))


def test_killed_between_it_is_of_the_old_length_or_of_the_new(short, whole, tmp_path, monkeypatch):
    workdir, honest = shutil.copytree(short.workdir, tmp_path / "run"), opening.write

    def killed(at, written):
        def write(path, data):
            if path.name != at or written:
                honest(path, data)
            if path.name == at:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(opening, "write", write)
            jc.train(config(LONG), workdir, extend=True)
        return [of["train"]["steps"] for of in lengths.there(workdir)]

    assert killed("earlier.json", False) == killed("earlier.json", True) == killed("config.json", False) == [24]
    assert table(jc.train(config(SHORT), workdir)).equals(table(short))
    assert killed("config.json", True) == [24, 48]
    with pytest.raises(ValueError, match="train.steps: was 48, now 24"):
        jc.train(config(SHORT), workdir)
    assert_equal(jc.train(config(LONG), workdir), whole)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train.steps": 23}, "train.steps must be more than the 24 of .* with --extend, got 23"),
        ({"measure.count": 7}, "train.steps must be more than the 24"),
        (
            LONG | {"task.noise": 0.5, "seed": 1},
            r"but for train.steps, measure.count, .*; got another seed, task.noise",
        ),
        (
            LONG | {"measure.steps": [6, 7, 40]},
            r"measure.steps must be as it was up to step 24, among \[0, 6,.*, got 7",
        ),
        (
            LONG | {"measure.checkpoint_steps": [10, 30]},
            r"measure.checkpoint_steps must be as it was .*\[\], got 10",
        ),
    ],
)
def test_other_changes_are_refused_by_name(tmp_path, changed, message):
    with store.open_run(tmp_path, points.stored(without(config(SHORT))) | {"num_seeds": 2}):
        pass
    with pytest.raises(ValueError, match=message):
        jc.train(config(SHORT, changed), tmp_path, extend=True)
    assert jc.open_run(tmp_path).config["train"]["steps"] == 24


def test_there_must_be_a_run(tmp_path):
    with pytest.raises(ValueError, match="--extend needs a workdir that holds a run, but there is no .*config.json"):
        jc.train(config(LONG), tmp_path / "none", extend=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", optimizers.SCHEDULES)
@pytest.mark.parametrize(("warmup", "fraction"), [(0, 1.0), (6, 0.5), (6, 0.1), (20, 0.9), (40, 0.5)])
def test_a_schedule_is_refused_from_the_first_step_whose_rate_another_length_changes(name, warmup, fraction):
    """Against the rates of both lengths, step by step."""
    settings = {
        "batch_size": 1,
        "optimizer": "adam",
        "schedule": name,
        "warmup_steps": warmup,
        "decay_fraction": fraction,
    }
    made = TrainConfig(steps=24, **settings)
    short, long = (np.asarray(optimizers.schedule(name, steps, warmup, fraction)(np.arange(24))) for steps in (24, 48))
    for done in range(1, 25):
        if np.array_equal(short[:done], long[:done]) and warmup <= 24:
            optimizers.check_longer(made, done)
        elif done > 1:
            with pytest.raises(ValueError, match="train.schedule must be constant|train.warmup_steps must be at most"):
                optimizers.check_longer(made, done)


def test_a_decay_and_stages_are_refused_before_anything_is_written(tmp_path):
    falling = {"train.schedule": "cosine"}
    with store.open_run(tmp_path, points.stored(without(config(SHORT, falling))) | {"num_seeds": 2}):
        (tmp_path / "checkpoints" / "train" / "000000024").mkdir(parents=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    with pytest.raises(ValueError, match="train.schedule must be constant to extend a run of 24 steps from step 24"):
        jc.train(config(LONG, falling), tmp_path, extend=True)
    kept = {path: stamp for path, stamp in before.items() if path.name != "provenance.json"}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    staged = SimpleNamespace(task=SimpleNamespace(regime="staged"), train=SimpleNamespace(steps=24))
    with pytest.raises(ValueError, match="task.regime must be mixed to go on to more than 24 steps, got staged"):
        Biographies.check_longer(staged, 1)


def without(values):
    return {name: part for name, part in values.items() if name not in ("run", "num_seeds")}


@pytest.mark.slow
def test_a_sweep_is_made_longer_pack_by_pack(tmp_path):
    space = jc.product(**{"train.learning_rate": [1e-3, 1e-2], "task.rank": [1, 2]})
    one = {"num_seeds": 1, "run.at_once": 2, "measure.detail": "summary", "measure.hidden_count": 0}
    begun = jc.sweep(config(SHORT, one), space, tmp_path / "sweep")
    names = set(begun.runs["run"])

    class Stopped(Exception):
        pass

    honest, packs = membership.record, []

    def stop_at_the_second(workdir, pack):
        packs.append(pack)
        if len(packs) == 2:
            raise Stopped
        honest(workdir, pack)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(membership, "record", stop_at_the_second)
        jc.sweep(config(LONG, one), space, tmp_path / "sweep", extend=True)
    counts = status.status(tmp_path / "sweep")
    assert (counts.points, counts.done, counts.waiting) == (4, 2, 2)
    run = jc.sweep(config(LONG, one), space, tmp_path / "sweep")
    whole = jc.sweep(config(LONG, one), space, tmp_path / "whole")
    assert set(run.runs["run"]) == names and status.status(tmp_path / "sweep").done == 4
    fields = ["task.rank", "train.learning_rate", "train.steps", "step", "status"]
    joined = [
        each.metrics.join(each.runs.select("run", *fields), on="run")
        .drop("run", "value")
        .with_columns(value=each.metrics.join(each.runs.select("run"), on="run")["value"])
        for each in (run, whole)
    ]
    joined = [frame.sort(frame.columns[:-1]) for frame in joined]
    assert joined[0].equals(joined[1]) and joined[0]["train.steps"].unique().to_list() == [48]
    with pytest.raises(ValueError, match="--extend takes sweeps that do not vary train.steps"):
        jc.sweep(
            config(LONG, one, {"train.steps": 96}), jc.product(**{"train.steps": [3]}), tmp_path / "sweep", extend=True
        )


def test_a_damaged_record_is_named(tmp_path):
    with store.open_run(tmp_path, {"a": 1}):
        (tmp_path / "earlier.json").write_text(json.dumps({"configs": [3]}))
        with pytest.raises(store.DamagedFileError, match="earlier.json"):
            store.earlier(tmp_path)
