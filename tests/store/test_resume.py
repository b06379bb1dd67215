"""Checkpoints and parts: a resume drops what lies past its checkpoint, and damage costs only time."""

import logging
import os
import shutil
from contextlib import ExitStack
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from jaxconcepts import store

CONFIG = {"task": {"dim": 8, "bases": "orthogonal"}, "steps": [1, 2]}


class Moments(NamedTuple):
    mean: jax.Array
    nothing: None = None


def rows(step, run="r0", value=0.5):
    return pl.DataFrame({"run": [run], "step": [step], "metric": ["loss"], "value": [value]})


def run_rows(step, run="r0", **fields):
    row = {"run": run, "point": "p", "status": "running", "seed": 3, "step": step, **fields}
    return pl.DataFrame({name: [value] for name, value in row.items()})


def state_at(step):
    return {"x": jnp.full(3, float(step))}


def train(run, pack="a", last=40, upto=None, name="r0"):
    """Writes a part at every 10 steps and a checkpoint at every 20, stopping early at `upto`."""
    step, state = run.restore(pack, state_at(0))
    start = step
    while step < (last if upto is None else upto):
        step += 10
        run.write_metrics(pack, step, rows(step, name))
        run.write_hidden(pack, step, np.full((1, 2, 3, 4), step), np.arange(3), [name])
        if step % 20 == 0:
            run.save(pack, step, state_at(step))
    return start, state


def steps_of(workdir):
    table = store.metrics(workdir)["step"].to_list()
    assert table == [snapshot.step for snapshot in store.hidden(workdir)]
    return table


@pytest.mark.parametrize("kind", ["metrics", "hidden", "runs"])
@pytest.mark.parametrize("keep", [0, 3, 0.5, -9, -1])
def test_a_truncated_part_is_a_named_error(tmp_path, kind, keep):
    with store.open_run(tmp_path, CONFIG) as run:
        train(run, upto=10)
        run.write_runs("a", run_rows(10))
    (part,) = (tmp_path / kind).iterdir()
    data = part.read_bytes()
    part.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(store.DamagedFileError, match=str(part)):
        list(getattr(store, kind)(tmp_path))


def test_a_state_comes_back_bit_for_bit(tmp_path):
    state = {
        "params": {"w": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3), "empty": {}},
        "optimizer": (Moments(jnp.ones((2, 2)) / 3), (), Moments(jnp.int32(7))),
        "keys": jax.random.split(jax.random.key(1), 3),
        "other_key": jax.random.key(2, impl="rbg"),
        "step": jnp.int32(5),
    }
    with store.open_run(tmp_path, CONFIG) as run:
        run.restore("a", state)
        run.save("a", 5, state)
    for wanted in (state, jax.eval_shape(lambda: state)):
        with store.open_run(tmp_path, CONFIG) as run:
            step, restored = run.restore("a", wanted)
        assert step == 5
        assert jax.tree.structure(restored) == jax.tree.structure(state)
        for got, given in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
            assert got.dtype == given.dtype
            if jax.dtypes.issubdtype(got.dtype, jax.dtypes.prng_key):
                got, given = jax.random.key_data(got), jax.random.key_data(given)
            np.testing.assert_array_equal(np.asarray(got), np.asarray(given))


def test_a_resume_drops_what_lies_past_its_checkpoint(tmp_path, caplog):
    with store.open_run(tmp_path, CONFIG) as run:
        train(run, upto=30)
    assert steps_of(tmp_path) == [10, 20, 30]
    with store.open_run(tmp_path, CONFIG) as run, caplog.at_level(logging.WARNING):
        step, state = run.restore("a", state_at(0))
        assert step == 20 and state["x"].tolist() == [20.0] * 3
        assert steps_of(tmp_path) == [10, 20]
        assert "a resumes at step 20; 2 later parts will be written again" in caplog.text
        with pytest.raises(ValueError, match="metrics of a at step 20 must come before the checkpoint at step 20"):
            run.write_metrics("a", 20, rows(20))
        run.write_metrics("a", 30, rows(30))
        with pytest.raises(ValueError, match="metrics of a at step 30 must be written once"):
            run.write_metrics("a", 30, rows(30))
        with pytest.raises(ValueError, match="checkpoints of a must have growing steps, got 10 after 20"):
            run.save("a", 10, state_at(10))
        run.save("a", 20, state_at(20))


def test_another_pack_is_left_alone(tmp_path):
    with store.open_run(tmp_path, CONFIG) as run:
        train(run, "a", upto=30)
        train(run, "a-1", upto=30, name="r1")
    with store.open_run(tmp_path, CONFIG) as run:
        run.restore("a", state_at(0))
    assert sorted(p.name for p in (tmp_path / "metrics").iterdir()) == [
        *(f"a-1.{step:09d}.parquet" for step in (10, 20, 30)),
        *(f"a.{step:09d}.parquet" for step in (10, 20)),
    ]


def truncate_largest(checkpoint):
    for file in [path for path in checkpoint.rglob("*") if path.is_file()]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage, resumed_at, message",
    [
        (lambda folder: shutil.rmtree(folder / "000000040"), 20, "a resumes at step 20; 4 later parts"),
        (lambda folder: truncate_largest(folder / "000000040"), 20, "000000040, now 000000040.unreadable: "),
        (lambda folder: (shutil.rmtree(folder / "000000040"), (folder / "000000040").mkdir()), 20, "000000040.unread"),
        (shutil.rmtree, 0, "a resumes at the beginning (no checkpoint); 8 later parts will be written again"),
        (lambda folder: [truncate_largest(path) for path in folder.iterdir()], 0, "000000020.unreadable: "),
    ],
)
def test_a_deleted_or_damaged_checkpoint_costs_only_time(tmp_path, caplog, damage, resumed_at, message):
    with store.open_run(tmp_path, CONFIG) as run:
        train(run)
    damage(tmp_path / "checkpoints" / "a")
    with store.open_run(tmp_path, CONFIG) as run, caplog.at_level(logging.WARNING):
        start, state = train(run)
    assert start == resumed_at and (state is None) == (resumed_at == 0)
    assert message in caplog.text
    assert steps_of(tmp_path) == [10, 20, 30, 40]
    assert store.checkpoints(tmp_path, "a") == [20, 40]


@pytest.mark.parametrize("damaged_step, resumed_at", [(10, 0), (30, 20), (40, 20), (50, 40)])
@pytest.mark.parametrize("part", ["metrics/a.{:09d}.parquet", "hidden/a.{:09d}.npz"])
def test_a_damaged_part_is_written_again(tmp_path, caplog, damaged_step, resumed_at, part):
    with store.open_run(tmp_path, CONFIG) as run:
        train(run, last=50)
    path = tmp_path / part.format(damaged_step)
    path.write_bytes(path.read_bytes()[:-5])
    with store.open_run(tmp_path, CONFIG) as run, caplog.at_level(logging.WARNING):
        start, _ = train(run, last=50)
    assert start == resumed_at
    assert damaged_step == 50 or f"damaged {path}" in caplog.text
    assert steps_of(tmp_path) == [10, 20, 30, 40, 50]


def test_a_checkpoint_of_another_program_is_refused_and_nothing_is_dropped(tmp_path):
    with store.open_run(tmp_path, CONFIG) as run:
        train(run, upto=30)
    with (
        store.open_run(tmp_path, CONFIG) as run,
        pytest.raises(ValueError, match=r"x: stored float32\[3\], expected float32\[4\]; y: stored nothing, expected"),
    ):
        run.restore("a", {"x": jnp.zeros(4), "y": jnp.zeros(2)})
    assert steps_of(tmp_path) == [10, 20, 30]


def test_checkpoints_kept_can_be_loaded(tmp_path):
    with store.open_run(tmp_path, CONFIG, keep=1, keep_steps=range(40, 90, 40)) as run:
        train(run, last=120)
    assert store.checkpoints(tmp_path, "a") == [40, 80, 120]
    assert store.load_checkpoint(tmp_path, "a", 40, state_at(0))["x"].tolist() == [40.0] * 3
    with pytest.raises(ValueError, match=r"step must be one of a's checkpoints \[40, 80, 120\], got 60"):
        store.load_checkpoint(tmp_path, "a", 60, state_at(0))
    truncate_largest(tmp_path / "checkpoints" / "a" / "000000080")
    with pytest.raises(store.DamagedFileError, match=f"damaged checkpoint {tmp_path}/checkpoints/a/000000080"):
        store.load_checkpoint(tmp_path, "a", 80, state_at(0))


def test_leftovers_of_a_killed_process_are_removed_on_open(tmp_path):
    with store.open_run(tmp_path, CONFIG) as run:
        train(run)
    leftovers = ["config.json.tmp", "metrics/a.000000050.parquet.tmp", "runs/a.parquet.tmp", "hidden/b.1.npz.tmp"]
    for name in leftovers:
        (tmp_path / name).touch()
    for name in ("checkpoints/a/000000000.tmp", "checkpoints/a/000000060.orbax-checkpoint-tmp"):
        shutil.copytree(tmp_path / "checkpoints/a/000000040", tmp_path / name)
    assert steps_of(tmp_path) == [10, 20, 30, 40]
    with store.open_run(tmp_path, CONFIG):
        pass
    assert [path for path in tmp_path.rglob("*") if "tmp" in path.relative_to(tmp_path).as_posix()] == []


def test_several_processes_write_one_workdir(tmp_path):
    with ExitStack() as opened:
        first, second = (opened.enter_context(store.open_run(tmp_path, CONFIG, writer=(i, 2))) for i in range(2))
        for writer in ((1, 2), (0, 1), (2, 3)):
            with pytest.raises(store.WorkdirInUseError, match=f"by pid {os.getpid()} on "):
                store.open_run(tmp_path, CONFIG, writer=writer).__enter__()
        for run in (first, second):  # Together: in a distributed job restore waits for all.
            run.restore("shared", state_at(0))
        for name, run in (("r0", first), ("r1", second)):
            for step in (10, 20):
                run.write_metrics("shared", step, rows(step, name))
            run.write_runs("shared", run_rows(20, name))
        first.save("shared", 10, state_at(10))  # Its part at 20 is not covered.
        train(second, "own", name="own")
    assert store.metrics(tmp_path).filter(step=20)["run"].to_list() == ["own", "r0", "r1"]
    assert len(store.provenance(tmp_path)["resumes"]) == 1
    with store.open_run(tmp_path, CONFIG) as alone:
        assert alone.restore("shared", state_at(0))[0] == 10
        assert store.runs(tmp_path)["run"].to_list() == ["r0", "r1"]
        alone.write_metrics("shared", 20, pl.concat([rows(20, "r0"), rows(20, "r1")]))
        alone.write_runs("shared", pl.concat([run_rows(20, "r0"), run_rows(20, "r1")]))
    assert store.metrics(tmp_path).filter(step=20)["run"].to_list() == ["own", "r0", "r1"]
    assert store.metrics(tmp_path).filter(step=10)["run"].to_list() == ["own", "r0", "r1"]
    assert store.runs(tmp_path)["run"].to_list() == ["r0", "r1"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["shared.parquet"]


def test_a_bucket_needs_no_lock_and_no_rename(tmp_path, monkeypatch):
    """The path that gs:// takes, on a local folder: no bucket can be reached from a test."""
    monkeypatch.setattr(store.files, "is_local", lambda path: False)
    with store.open_run(tmp_path, CONFIG) as run:
        train(run, last=60, upto=50)
    assert not list(tmp_path.glob(".lock*"))
    folder = tmp_path / "checkpoints" / "a"  # Newer Orbax writes the commit file on local disks too.
    (folder / "000000020" / "commit_success.txt").touch()
    (folder / "000000040" / "commit_success.txt").unlink(missing_ok=True)
    with store.open_run(tmp_path, CONFIG) as run:
        assert train(run, last=60)[0] == 20
    assert steps_of(tmp_path) == [10, 20, 30, 40, 50, 60]
