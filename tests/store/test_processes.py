"""Checkpoints of several devices and processes: resumed on fewer, and by jobs killed midway."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts import store

ROOT = Path(__file__).parents[2]


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
