"""Whatever is killed or full: the tables hold every row, and hold it once."""

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxconcepts import store

ROOT = Path(__file__).parents[2]


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
