"""The store: tables and checkpoints come back as written, and exactly once whatever is killed, full or damaged."""

import json
import logging
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from jaxconcepts import store

CONFIG = {"task": {"dim": 8, "bases": "orthogonal"}, "steps": [1, 2]}
ROOT = Path(__file__).parents[1]


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


def train(run, pack="a", last=40, upto=None):
    """Writes a part at every 10 steps and a checkpoint at every 20, stopping early at `upto`."""
    step, state = run.restore(pack, state_at(0))
    start = step
    while step < (last if upto is None else upto):
        step += 10
        run.write_metrics(pack, step, rows(step))
        run.write_hidden(pack, step, np.full((1, 2, 3, 4), step), np.arange(3), ["r0"])
        if step % 20 == 0:
            run.save(pack, step, state_at(step))
    return start, state


def steps_of(workdir):
    table = store.metrics(workdir)["step"].to_list()
    assert table == [snapshot.step for snapshot in store.hidden(workdir)]
    return table


def test_tables_come_back_in_the_schema(tmp_path):
    with store.open_run(tmp_path, CONFIG) as run:
        run.restore("a", None)
        run.write_metrics("a", 5, rows(5).with_columns(layer=pl.lit(2), token=pl.lit("y"), value=pl.lit(1)))
        run.write_metrics("a", 7, rows(7))
        hidden = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
        run.write_hidden("a", 7, hidden, np.arange(4) % 2, ["r0", "r1"])
        run.write_runs("a", run_rows(5, **{"train.learning_rate": 0.1}))
        run.write_runs("a", run_rows(7, status="diverged", diverged_at=6, **{"train.learning_rate": 0.1}))
        run.write_runs("b", run_rows(7, run="r9", **{"train.learning_rate": 1, "task.dim": 8}))
    table = store.metrics(tmp_path)
    assert table.schema == store.METRICS
    assert table.rows() == [("r0", 5, "loss", 2, "y", None, None, 1.0), ("r0", 7, "loss", None, None, None, None, 0.5)]
    (snapshot,) = store.hidden(tmp_path)
    np.testing.assert_array_equal(snapshot.hidden, hidden.astype(np.float32))
    assert (snapshot.step, snapshot.run, snapshot.concepts.tolist()) == (7, ["r0", "r1"], [0, 1, 0, 1])
    assert store.runs(tmp_path).rows() == [
        ("r0", "p", "diverged", 3, 7, 6, 0.1, None),
        ("r9", "p", "running", 3, 7, None, 1.0, 8),
    ]
    assert pl.read_parquet(f"{tmp_path}/metrics/*.parquet").equals(table)  # One line of polars, no store.


def test_a_new_run_reads_as_empty_tables(tmp_path):
    with store.open_run(tmp_path, CONFIG):
        assert store.metrics(tmp_path).schema == store.METRICS
        assert store.runs(tmp_path).schema == store.RUNS
        assert list(store.hidden(tmp_path)) == []
        assert store.checkpoints(tmp_path, "a") == []


@pytest.mark.parametrize(
    "frame, message",
    [
        (rows(5).with_columns(loss=1.0), "columns must be among run, step, .*, got loss"),
        (rows(5).drop("value"), "column value is missing, got run, step, metric"),
        (rows(5).with_columns(value=pl.lit(None, pl.Float64)), "column value must have no nulls, got 1"),
        (rows(5).with_columns(layer=1.5), "column layer must be Int32, got Float64"),
        (rows(5).with_columns(run=7), "column run must be String, got Int32"),
        (rows(5).with_columns(token=pl.lit("z")), r'token must be "x", "y" or null, got \[\'z\'\]'),
        (rows(6), "part at step 5 must not be past it, got step 6"),
    ],
)
def test_metrics_out_of_the_schema_are_refused(tmp_path, frame, message):
    with store.open_run(tmp_path, CONFIG) as run:
        run.restore("a", None)
        with pytest.raises(ValueError, match=message):
            run.write_metrics("a", 5, frame)


def test_other_bad_input_is_refused(tmp_path):
    with store.open_run(tmp_path, CONFIG) as run:
        with pytest.raises(ValueError, match="restore must come before anything is written for pack a"):
            run.write_metrics("a", 5, rows(5))
        run.restore("a", None)
        with pytest.raises(ValueError, match="status must be one of running, done, diverged, got .'lost'"):
            run.write_runs("a", run_rows(5, status="lost"))
        with pytest.raises(ValueError, match="run must name each run once"):
            run.write_runs("a", pl.concat([run_rows(5)] * 2))
        with pytest.raises(ValueError, match=r"got hidden \(1, 2, 3\)"):
            run.write_hidden("a", 5, np.zeros((1, 2, 3)), np.zeros(3), ["r0"])
        with pytest.raises(ValueError, match="pack must consist of letters, digits, - and _, got 'a.b'"):
            run.write_metrics("a.b", 5, rows(5))
        with pytest.raises(ValueError, match="step must be from 0 to 999 999 999, got -1"):
            run.write_metrics("a", -1, rows(-1))
        with pytest.raises(ValueError, match="leaves must be jax arrays, got ndarray at x.y"):
            run.save("a", 5, {"x": {"y": np.zeros(2)}})
        with pytest.raises(ValueError, match="leaves must have distinct paths"):
            run.save("a", 5, {"x": {"y": jnp.zeros(2)}, "x.y": jnp.zeros(2)})
    with pytest.raises(ValueError, match=f"workdir must hold a run, but there is no {tmp_path}/none/config.json"):
        store.metrics(tmp_path / "none")
    with pytest.raises(ValueError, match="config field task.dim must be a JSON value, got 1j"):
        store.open_run(tmp_path / "c", {"task": {"dim": 1j}}).__enter__()
    for field, options in {"writer": {"writer": (2, 2)}, "keep": {"keep": 0}}.items():
        with pytest.raises(ValueError, match=f"^{field} must be"):
            store.open_run(tmp_path, CONFIG, **options).__enter__()


@pytest.mark.parametrize("under", ["a regular file", "/proc"])
def test_a_workdir_that_cannot_be_written_to_is_named(tmp_path, under):
    (tmp_path / "file").touch()
    workdir = tmp_path / "file" / "run" if under == "a regular file" else Path("/proc/run")
    with pytest.raises(ValueError, match=f"workdir must be a folder that can be written to, got {workdir}"):
        store.open_run(workdir, CONFIG).__enter__()


def test_config_and_provenance(tmp_path):
    with store.open_run(tmp_path, CONFIG, command="train --x", device={"kind": "cpu", "count": 2}):
        pass
    with store.open_run(str(tmp_path), {**CONFIG, "steps": (1, 2)}, command="train --x again"):
        pass
    assert store.config(tmp_path) == CONFIG
    record = store.provenance(tmp_path)
    assert record["versions"]["jax"] == jax.__version__ and record["versions"]["python"] == sys.version.split()[0]
    assert set(record["versions"]) >= {"jaxconcepts", "jax", "jaxlib", "flax", "optax", "numpy", "polars"}
    assert (record["command"], record["device"]) == ("train --x", {"kind": "cpu", "count": 2})
    assert [resume["command"] for resume in record["resumes"]] == ["train --x again"]
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True)
        assert head.returncode or record["git_revision"].removesuffix("-dirty") == head.stdout.strip()


def test_a_changed_config_names_each_differing_field(tmp_path):
    with store.open_run(tmp_path, CONFIG):
        pass
    changed = {"task": {"dim": 16, "bases": "orthogonal", "rank": 2}, "steps": [1, 3]}
    with pytest.raises(ValueError) as refused:
        store.open_run(tmp_path, changed).__enter__()
    assert str(refused.value) == (
        f"workdir {tmp_path} was made with another config: steps: was [1, 2], now [1, 3]; "
        "task.dim: was 8, now 16; task.rank: was absent, now 2"
    )
    assert store.provenance(tmp_path)["resumes"] == []


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    hold = "from jaxconcepts import store; import sys, time\n"
    hold += f"with store.open_run(sys.argv[1], {CONFIG!r}): print('open', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(
            store.WorkdirInUseError, match=f"workdir {tmp_path} is being written by pid {holder.pid} on "
        ):
            store.open_run(tmp_path, CONFIG).__enter__()
        assert store.metrics(tmp_path).height == 0  # Reading takes no lock.
        holder.kill()
    with store.open_run(tmp_path, CONFIG):
        pass


def test_importing_and_reading_need_neither_jax_nor_orbax(tmp_path):
    with store.open_run(tmp_path, CONFIG):
        pass
    read = "import sys; from jaxconcepts import store; store.metrics(sys.argv[1]); store.runs(sys.argv[1])\n"
    read += "print(sorted({'jax', 'orbax', 'tensorstore'} & {name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", read, tmp_path], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"


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
        assert "a goes on from step 20; 2 parts past it will be written again" in caplog.text
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
        train(run, "a-1", upto=30)
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
        (lambda folder: shutil.rmtree(folder / "000000040"), 20, "a goes on from step 20; 4 parts"),
        (lambda folder: truncate_largest(folder / "000000040"), 20, "000000040, now 000000040.unreadable: "),
        (lambda folder: (shutil.rmtree(folder / "000000040"), (folder / "000000040").mkdir()), 20, "000000040.unread"),
        (shutil.rmtree, 0, "a goes on from the beginning (no checkpoint); 8 parts past it will be written again"),
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
        train(second, "own")
    assert store.metrics(tmp_path).filter(step=20)["run"].to_list() == ["r0", "r0", "r1"]
    assert len(store.provenance(tmp_path)["resumes"]) == 1
    with store.open_run(tmp_path, CONFIG) as alone:
        assert alone.restore("shared", state_at(0))[0] == 10
        assert store.runs(tmp_path)["run"].to_list() == ["r0", "r1"]
        alone.write_metrics("shared", 20, pl.concat([rows(20, "r0"), rows(20, "r1")]))
        alone.write_runs("shared", pl.concat([run_rows(20, "r0"), run_rows(20, "r1")]))
    assert store.metrics(tmp_path).filter(step=20)["run"].to_list() == ["r0", "r0", "r1"]
    assert store.metrics(tmp_path).filter(step=10)["run"].to_list() == ["r0", "r0", "r1"]
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


RESHARD = """
import sys, jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jaxconcepts import store
def placed(count):
    mesh = jax.make_mesh((count,), ("runs",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    over = NamedSharding(mesh, P("runs"))
    return jax.device_put({"x": jnp.arange(16.0).reshape(8, 2), "key": jax.random.split(jax.random.key(0), 8)}, over)
with store.open_run(sys.argv[1], {}) as run:
    run.restore("a", placed(8))
    run.save("a", 1, placed(8))
    for count in (8, 4, 1):
        like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), placed(count))
        _, state = run.restore("a", like)
        assert len(state["x"].sharding.device_set) == len(state["key"].sharding.device_set) == count
        assert state["x"].sharding == like["x"].sharding
        np.testing.assert_array_equal(state["x"], np.arange(16.0).reshape(8, 2))
"""


def test_a_checkpoint_of_eight_devices_resumes_on_fewer(tmp_path):
    settings = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", "-c", RESHARD, tmp_path]
    done = subprocess.run(command, env=settings, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with store.open_run(tmp_path, {}) as run:  # In this process, on whatever devices it has.
        step, state = run.restore("a", {"x": jnp.zeros((8, 2)), "key": jax.random.split(jax.random.key(5), 8)})
    np.testing.assert_array_equal(state["x"], np.arange(16.0).reshape(8, 2))
    assert step == 1 and jax.random.key_data(state["key"]).tolist() == jax.random.key_data(
        jax.random.split(jax.random.key(0), 8)
    ).tolist()  # fmt: skip


DISTRIBUTED = """
import os, signal, sys, jax, jax.numpy as jnp, polars as pl
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jaxconcepts import store
workdir, address, index, dies_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
jax.distributed.initialize(address, 2, index)
mesh = jax.make_mesh((4,), ("runs",), axis_types=(AxisType.Auto,))
over = NamedSharding(mesh, P("runs"))
init = jax.jit(lambda: {"x": jnp.zeros(8), "key": jax.random.split(jax.random.key(0), 8)}, out_shardings=over)
with store.open_run(workdir, {}, writer=(index, 2)) as run:
    step, state = run.restore("a", jax.eval_shape(init) if jax.process_count() == 1 else init())
    state = init() if state is None else state
    while step < 60:
        state, step = {**state, "x": state["x"] + 1}, step + 10
        for shard in state["x"].addressable_shards:
            first = shard.index[0].start
            rows = {"run": [str(first), str(first + 1)], "step": step, "metric": "loss", "value": shard.data.tolist()}
            tables = [pl.DataFrame(rows)] if first % 4 == 0 else [*tables, pl.DataFrame(rows)]
        run.write_metrics("a", step, pl.concat(tables))
        if step == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if step % 20 == 0:
            run.save("a", step, state)
"""


def distributed(workdir, dies_at):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    settings = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DISTRIBUTED, workdir, address, str(index), str(dies_at if index == 1 else 0)],
            env=settings, cwd=ROOT, stderr=subprocess.DEVNULL,
        )
        for index in range(2)
    ]  # fmt: skip
    if dies_at:
        assert processes[1].wait(120) == -signal.SIGKILL
        processes[0].kill()
    return [process.wait(120) for process in processes]


@pytest.mark.slow
def test_a_distributed_job_killed_midway_resumes_as_two_processes_or_as_one(tmp_path):
    assert distributed(tmp_path, dies_at=30)[1] == -signal.SIGKILL
    assert distributed(tmp_path, dies_at=50)[1] == -signal.SIGKILL
    with store.open_run(shutil.copytree(tmp_path, tmp_path / "copy"), {}) as alone:
        like = {"x": jnp.zeros(8), "key": jax.random.split(jax.random.key(0), 8)}
        step, state = alone.restore("a", like)
        assert step == 40 and state["x"].tolist() == [4.0] * 8
        assert store.metrics(tmp_path / "copy")["step"].max() == 40
    assert distributed(tmp_path, dies_at=0) == [0, 0]
    table = store.metrics(tmp_path).sort("step", "run")
    expected = [(str(run), step, step / 10) for step in range(10, 70, 10) for run in range(8)]
    assert table.select("run", "step", "value").rows() == expected


class Runs:
    """Starts the run of interrupted_run.py again and again."""

    def __init__(self, log):
        script = Path(__file__).with_name("interrupted_run.py")
        self._server = subprocess.Popen(
            [sys.executable, "-W", "error", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
            env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip

    def __call__(self, workdir, event=None, seconds=None):
        """Runs once; reads the tables all the while; returns the exit code."""
        print(json.dumps({"workdir": str(workdir), "event": event, "seconds": seconds}), file=self._server.stdin)
        while not select.select([self._server.stdout], [], [], 0.05)[0]:
            if (Path(workdir) / "config.json").exists():
                final_tables(workdir)
        return int(self._server.stdout.readline())

    def close(self):
        with self._server:  # Ends its input, so it ends.
            pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with (tmp_path_factory.mktemp("log") / "stderr").open("w+") as log:
        started = Runs(log)
        started.log = Path(log.name)
        yield started
        started.close()


@pytest.fixture(scope="module")
def uninterrupted(runs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert runs(workdir) == 0
    tables = final_tables(workdir)
    assert len(tables[0]) == 2 * 2 * 12 * 4 and len(tables[1]) == 4 and len(tables[2]) == 6
    assert store.checkpoints(workdir, "a") == [20, 40, 60]
    return tables


def final_tables(workdir):
    metrics, runs = store.metrics(workdir), store.runs(workdir)
    assert not metrics.select("run", "step", "metric", "layer", "concept").is_duplicated().any()
    assert not runs["run"].is_duplicated().any()
    hidden = sorted((tuple(s.run), s.step, s.hidden.tobytes()) for s in store.hidden(workdir))
    return sorted(metrics.rows(), key=str), sorted(runs.rows(), key=str), hidden


def kill_and_resume(runs, folder, uninterrupted, kills, draw):
    """Runs, killed as drawn, until done; compares; and again in a new workdir until that many have been killed."""
    killed = 0
    while killed < kills:
        workdir, code = folder / f"after_{killed}", None
        while code != 0:
            code = runs(workdir, **(draw() if killed < kills else {}))
            assert code in (0, -signal.SIGKILL), runs.log.read_text()
            killed += code != 0
        assert final_tables(workdir) == uninterrupted
        assert [path for path in workdir.rglob("*") if path.name.endswith("tmp")] == []


def test_kill_9_loses_and_doubles_nothing(runs, uninterrupted, tmp_path):
    events = iter((30, 75, 120, 7))
    kill_and_resume(runs, tmp_path, uninterrupted, 4, lambda: {"event": next(events)})


@pytest.mark.slow
def test_kill_9_at_twenty_random_moments(runs, uninterrupted, tmp_path):
    drawn = random.Random(0)
    kill_and_resume(runs, tmp_path, uninterrupted, 20, lambda: {"seconds": drawn.uniform(0.01, 0.8)})


@pytest.mark.slow
def test_kill_9_at_forty_random_file_operations(runs, uninterrupted, tmp_path):
    drawn = random.Random(1)
    kill_and_resume(runs, tmp_path, uninterrupted, 40, lambda: {"event": drawn.randint(1, 200)})


@pytest.mark.parametrize(
    "free", [0, 60_000, *(pytest.param(free, marks=pytest.mark.slow) for free in (90_000, 120_000, 200_000))]
)
def test_a_full_disk_is_named_and_costs_nothing_once_there_is_space(runs, uninterrupted, small_disk, free):
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - free))
    before = len(runs.log.read_text())
    assert runs(small_disk / "run") == 1
    message = runs.log.read_text()[before:].strip().splitlines()[-1]
    assert "No space left on device" in message and str(small_disk / "run") in message, message
    (small_disk / "ballast").unlink()
    assert runs(small_disk / "run") == 0
    assert final_tables(small_disk / "run") == uninterrupted
