"""Sweeps started in this process or in others, which share what they compile."""

import os
import signal
import socket
import time
from pathlib import Path

import compiling
import numpy as np
import pytest
from forked import Forked

from jaxconcepts import store

CONFIG = Path(__file__).with_name("small_sweep.py")


@pytest.fixture(scope="session")
def launch():
    """launch(workdir, *flags, devices=1, **environment) -> process of a sweep of `small_sweep.py`."""

    def start(workdir, *arguments, devices=1, **environment):
        command = ["sweep", f"--config={CONFIG}", f"--workdir={workdir}", f"--config.run.cpu_devices={devices}"]
        return Forked([*command, *arguments], os.environ | compiling.PROCESS | environment)

    return start


@pytest.fixture(scope="session")
def sweep(launch):
    """sweep(workdir, ..., code=0) -> output of a sweep run to its end."""

    def run(*arguments, code=0, **keywords):
        process = launch(*arguments, **keywords)
        output, _ = process.communicate(timeout=550)
        assert process.returncode == code, output
        return output

    return run


@pytest.fixture(scope="session")
def checkpointed():
    return wait_for_checkpoint


@pytest.fixture(scope="session")
def start_job(launch):
    """start_job(workdir, ...) -> two processes of four devices each, as one job."""

    def start(workdir, **keywords):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        flags = [f"--coordinator=localhost:{port}", "--num_processes=2"]
        return [launch(workdir, *flags, f"--process_id={i}", devices=4, **keywords) for i in range(2)]

    return start


@pytest.fixture(scope="session")
def job(start_job):
    """job(workdir, kill_after=None, ...) -> outputs of such a job; with `kill_after` both processes are killed once a
    checkpoint at that step is there. signal_after: SIGTERM to the second process then, and both must leave with 75."""

    def run(workdir, kill_after=None, signal_after=None, **keywords):
        both = start_job(workdir, **keywords)
        try:
            if kill_after is not None:
                wait_for_checkpoint(workdir, kill_after)
                return []
            if signal_after is not None:
                wait_for_checkpoint(workdir, signal_after)
                both[1].send_signal(signal.SIGTERM)
            outputs = [process.communicate(timeout=550)[0] for process in both]
            assert [process.returncode for process in both] == [0 if signal_after is None else 75] * 2, outputs
            return outputs
        finally:
            for process in both:
                process.kill()
                process.communicate()

    return run


@pytest.fixture(scope="session")
def assert_same_tables():
    """assert_same_tables(workdir, expected, relative=0.0): of two run directories; values may differ by so much."""

    def compare(workdir, expected, relative=0.0):
        (metrics, runs), (wanted, wanted_runs) = tables(workdir), tables(expected)
        assert runs.equals(wanted_runs)
        assert metrics.drop("value").equals(wanted.drop("value"))
        np.testing.assert_allclose(metrics["value"], wanted["value"], rtol=relative, atol=relative)

    return compare


def tables(workdir):
    metrics, runs = store.metrics(workdir), store.runs(workdir)
    return metrics.sort(metrics.columns[:-1]), runs.sort("run").select(sorted(runs.columns))


def wait_for_checkpoint(workdir, step, packs=1):
    """Returns once so many packs have a checkpoint at `step` or later."""
    for _ in range(3000):
        found = [path for path in Path(workdir).glob("checkpoints/*/*") if path.name.isdigit()]
        if len({path.parent for path in found if int(path.name) >= step}) >= packs:
            return
        time.sleep(0.1)
    raise TimeoutError(f"no checkpoint at step {step} in {workdir}")
