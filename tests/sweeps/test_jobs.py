"""Sweeps as whole processes: killed, stopped, shared out between jobs, distributed, and resumed in another shape."""

import random
import re
import shutil
import signal
import time

import pytest

from jaxconcepts import store
from jaxconcepts.sweeps import status

pytestmark = pytest.mark.slow
RELATIVE = 1e-6
"""Between layouts: a device with one run and a device with several compile to other orders of summation."""


@pytest.fixture(scope="module")
def expected(sweep, tmp_path_factory):
    """The run directory of an uninterrupted sweep in one process on one device."""
    workdir = tmp_path_factory.mktemp("expected")
    output = sweep(workdir)
    assert "12 to run in 2 group(s) and 4 pack(s)" in output and "compiled 2 program(s)" in output
    assert output.index("sweep of 12 points") < output.index("expected time") < output.index("pack 1 of 4, step 12")
    return workdir


def test_a_killed_sweep_ends_with_the_same_tables(launch, sweep, checkpointed, expected, tmp_path, assert_same_tables):
    rng = random.Random(0)
    for packs in (1, 2, 3):
        process = launch(tmp_path)
        checkpointed(tmp_path, 4, packs)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.communicate()
    sweep(tmp_path)
    assert_same_tables(tmp_path, expected)


def test_sigterm_checkpoints_and_leaves_with_75(launch, sweep, tmp_path):
    process = launch(tmp_path, STEPS="100000000", RATES="1e-3")
    for line in process.stdout:
        if re.search(r"pack 1 of 2, step [1-9]", line):
            break
    assert status.status(tmp_path).running == 3
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 75, output
    found = status.status(tmp_path)
    assert (found.points, found.done, found.running, found.waiting) == (6, 0, 3, 3)
    assert found.jobs[0].step > 0 and "time left" in status.text(found)
    assert int(store.runs(tmp_path)["step"].max()) > 0


def test_two_shards_share_a_workdir(launch, sweep, expected, tmp_path, assert_same_tables):
    both = [launch(tmp_path, f"--shard={i}/2") for i in range(2)]
    outputs = [process.communicate(timeout=550)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert_same_tables(tmp_path, expected, RELATIVE)
    assert "12 finished, 0 to run" in sweep(tmp_path)


def test_the_same_shard_twice_is_refused(launch, sweep, tmp_path):
    process = launch(tmp_path, "--shard=0/2", STEPS="100000000")
    for line in process.stdout:
        if "expected time" in line:
            break
    for shard in ("0/2", "0/1"):
        assert "is being written by pid" in sweep(tmp_path, f"--shard={shard}", STEPS="100000000", code=2)
    process.kill()
    process.communicate()


def test_two_processes_of_four_devices_equal_one(job, sweep, expected, tmp_path, assert_same_tables):
    outputs = job(tmp_path, AT_ONCE="6")
    assert "8 cpu in 2 process(es)" in outputs[0]
    assert_same_tables(tmp_path, expected, RELATIVE)
    parts = [path.name for path in (tmp_path / "metrics").iterdir()]
    assert {re.search(r"\.(\dof2)\.", name)[1] for name in parts} == {"0of2", "1of2"}
    assert "12 finished, 0 to run" in sweep(tmp_path)


@pytest.mark.parametrize("then", ["two processes", "one process"])
def test_a_killed_job_resumes_on_any_layout(job, sweep, expected, tmp_path, then, assert_same_tables):
    for step in (4, 8):
        job(tmp_path, kill_after=step, AT_ONCE="6")
    if then == "two processes":
        job(tmp_path, AT_ONCE="6")
    else:
        sweep(tmp_path, devices=3)
    assert_same_tables(tmp_path, expected, RELATIVE)


def test_sigterm_to_one_process_stops_all_and_a_new_start_ends_with_the_same_tables(job, tmp_path, assert_same_tables):
    # Long enough that the signal comes in time; one rate, so that there are two packs.
    long = {"STEPS": "3000", "RATES": "1e-3", "AT_ONCE": "3"}
    job(tmp_path / "whole", **long)
    outputs = job(tmp_path / "stopped", signal_after=500, **long)
    assert "stopped by a signal at step" in outputs[0]
    found = status.status(tmp_path / "stopped")
    assert found.done < 6 and found.running + found.waiting == 6 - found.done
    job(tmp_path / "stopped", **long)
    # The same layout, so the same bits.
    assert_same_tables(tmp_path / "stopped", tmp_path / "whole")


def test_a_deleted_checkpoint_costs_only_time(launch, sweep, checkpointed, expected, tmp_path, assert_same_tables):
    process = launch(tmp_path)
    checkpointed(tmp_path, 4, packs=2)
    process.kill()
    process.communicate()
    for folder in (tmp_path / "checkpoints").iterdir():
        shutil.rmtree(folder)
    sweep(tmp_path)
    assert_same_tables(tmp_path, expected)
