"""The command line: a run from start to report, bad input, and runs that are stopped, killed and started again."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pulses import without_pulses

import jaxconcepts
from jaxconcepts import __main__, store

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "tests" / "small_train.py"


@pytest.fixture(scope="module")
def train(server):
    return lambda workdir, *flags, **at: server("train", f"--config={CONFIG}", f"--workdir={workdir}", *flags, **at)


@pytest.fixture(scope="module")
def finished(train, tmp_path_factory):
    """A run that nothing interrupted, its output, and the number of file operations in its workdir."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    code, output, operations = train(workdir, match=str(workdir), nth=0, draw=True)
    assert code == 0, output
    return workdir, output, operations


def tables(workdir):
    metrics = store.metrics(workdir)
    assert metrics.unique(metrics.columns[:-1]).height == metrics.height
    hidden = [(s.step, s.run, s.concepts.tolist(), s.hidden.tobytes()) for s in store.hidden(workdir)]
    return metrics.sort(metrics.columns[:-1]), store.runs(workdir), sorted(hidden)


def assert_same_tables(workdir, finished):
    (metrics, runs, hidden), (expected, expected_runs, expected_hidden) = tables(workdir), tables(finished)
    assert metrics.drop("value").equals(expected.drop("value"))
    np.testing.assert_array_equal(
        metrics["value"].to_numpy().view(np.int64), expected["value"].to_numpy().view(np.int64)
    )
    assert runs.equals(expected_runs) and hidden == expected_hidden


def test_a_run_from_start_to_report(finished):
    workdir, output, _ = finished
    assert f"report: {workdir}/report.html" in output and "step 24 of 24" in output
    assert (workdir / "report.html").stat().st_size > 10_000
    assert "training 2 run(s)" in (workdir / "log.txt").read_text()
    runs = store.runs(workdir)
    assert (runs["status"].to_list(), runs["seed"].to_list(), runs["step"].to_list()) == (
        ["done"] * 2,
        [0, 1],
        [24] * 2,
    )
    assert runs["train.batch_size"].to_list() == [4, 4] and runs["run"].n_unique() == 2
    metrics = store.metrics(workdir)
    assert metrics.filter(metric="loss")["step"].unique().sort().to_list() == [0, 6, 12, 18, 24]
    counts = dict(metrics.group_by("metric").len().rows())
    assert counts.pop("train_loss") == 2 * 4 and counts.pop("cd_points") == 2
    assert counts.pop("cd") == 2 * 5 * 2 * 2 * 3 and counts.pop("loss") == 2 * 5 * 3 * 3
    for name in ("zero", "ridge", "oracle", "bayes", "lasso", "knn3", "average"):
        assert counts.pop(f"loss_{name}") == 2 * 3 * 3 and counts.pop(f"distance_{name}") == 2 * 5 * 3 * 3
    assert not counts and metrics["value"].is_finite().all()
    zero = metrics.filter(pl.col("concept").is_null(), pl.col("position").is_null(), metric="loss_zero")["value"]
    assert zero.is_between(0.5, 2).all()  # The second moment of y is the rank, 1.
    assert [(s.step, s.hidden.shape) for s in store.hidden(workdir)] == [(step, (2, 2, 48, 4)) for step in (0, 12, 24)]
    assert store.config(workdir)["num_seeds"] == 2 and "run" not in store.config(workdir)
    assert store.checkpoints(workdir, "train")[-1] == 24


def test_starting_a_finished_run_again_trains_nothing(train, finished):
    workdir, _, _ = finished
    before = tables(workdir)
    code, output, _ = train(workdir)
    assert code == 0 and "step 24 of 24" not in output
    assert all(a.equals(b) for a, b in zip(tables(workdir)[:2], before[:2], strict=True))


def test_sigterm_checkpoints_and_the_next_start_goes_on(train, finished, tmp_path):
    """Stopped as it writes the snapshot of step 12, long before a checkpoint is due."""
    workdir = tmp_path / "run"
    code, output, _ = train(
        workdir, "--config.run.checkpoint_seconds=1000", signal=int(signal.SIGTERM), match=r"hidden/train\.000000012"
    )
    assert code == 75 and "stopped by a signal at step 12; start again to continue" in output and "report" not in output
    assert store.checkpoints(workdir, "train") == [12] and store.runs(workdir)["status"].to_list() == ["running"] * 2
    assert store.metrics(workdir)["step"].max() == 12
    code, output, _ = train(workdir)
    assert code == 0 and "resuming at step 12 of 24" in output
    assert_same_tables(workdir, finished[0])


def kill_and_finish(train, workdir, finished, kills, seed):
    """Kills starts of one run as they begin random file operations, then lets it finish. Returns how many were hit."""
    rng, hit = random.Random(seed), 0
    for _ in range(kills):
        code, output, _ = train(workdir, match=str(workdir), nth=rng.randrange(1, finished[2]))
        assert code in (0, -9), output
        hit += code == -9
    code, output, _ = train(workdir)
    assert code == 0, output
    assert_same_tables(workdir, finished[0])
    return hit


@pytest.mark.slow
def test_a_run_killed_twice_ends_with_the_same_tables(train, finished, tmp_path):
    """Once with step 12 in the tables and not yet in a checkpoint, once wherever it may be."""
    code, output, _ = train(tmp_path / "run", match=r"checkpoints/train/000000012")
    assert code == -9 and store.metrics(tmp_path / "run")["step"].max() == 12, output
    kill_and_finish(train, tmp_path / "run", finished, kills=1, seed=4)


@pytest.mark.slow
def test_runs_killed_at_twenty_random_moments_end_with_the_same_tables(train, finished, tmp_path):
    assert sum(kill_and_finish(train, tmp_path / str(i), finished, kills=4, seed=i) for i in range(5)) >= 10


@pytest.mark.parametrize(
    "free", [0, 60_000, *(pytest.param(free, marks=pytest.mark.slow) for free in (20_000, 90_000, 120_000, 200_000))]
)
def test_a_full_disk_ends_in_one_line_and_the_same_command_goes_on(train, finished, small_disk, free):
    workdir = small_disk / "run"
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - free))
    code, output, _ = train(workdir)
    assert code == 1 and "Traceback" not in output and "Logging error" not in output, output
    named = rf"error: the disk is full, while writing {workdir}/\S+; everything up to the last checkpoint is kept: .*"
    assert re.fullmatch(named, output.splitlines()[-1])
    (small_disk / "ballast").unlink()
    code, output, _ = train(workdir)
    assert code == 0, output
    assert_same_tables(workdir, finished[0])


def test_a_diverging_run_is_marked_and_reported(train, server, tmp_path):
    workdir = tmp_path / "run"
    code, output, _ = train(workdir, "--config.train.learning_rate=1e38")
    assert code == 0, output
    assert output.count("diverged at step 0: its loss or update was not finite") == 2
    runs = store.runs(workdir)
    assert (runs["status"].to_list(), runs["diverged_at"].to_list()) == (["diverged"] * 2, [0, 0])
    code, output, _ = server("report", f"--workdir={workdir}", draw=True)
    assert code == 0 and output.endswith(f"report: {workdir}/report.html\n") and (workdir / "report.html").exists()


def test_an_unknown_field_is_named_by_the_installed_command(environment, tmp_path):
    command = [sys.executable, "-m", "jaxconcepts", "train", f"--config={CONFIG}", f"--workdir={tmp_path}/run"]
    done = subprocess.run([*command, "--config.task.dimm=3"], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert without_pulses(done.stderr).startswith("error: unknown config field") and "dimm" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.tsk.dim=3"], "unknown config field tsk.dim; did you mean task.dim?"),
        (["--config.task.dim=three"], "task.dim must be an integer from 1 to 65536, got 'three'"),
        (
            ["--config.task.rank=3"],
            "orthogonal bases need task.rank * task.num_concepts <= task.dim, got 3 * 2 = 6 > 4",
        ),
        (["--config.task.num_pairs=0"], "task.num_pairs must be an integer from 1 to 65536, got 0"),
        (["--config.model.heads=3"], "model.heads must divide model.width = 4, got 3"),
        (["--config.measure.neighbours=48"], "measure.neighbours must be below the number of points, 48, got 48"),
        (["--config.num_seeds=0"], "num_seeds must be an integer from 1 to 1048576, got 0"),
        (["--config.run.how=pmap"], "run.how must be one of auto, vmap, map, got 'pmap'"),
        (["--config.run.data=3"], "run.data must divide the number of devices, 1, got 3"),
        (["--config.run.cpu_devices=0"], "run.cpu_devices must be an integer from 1 to 1024, got 0"),
        (["--workdr=x"], "unknown flag --workdr; did you mean --workdir?"),
        (["steps=3"], "arguments must be flags of the form --name=value, got 'steps=3'"),
    ],
)
def test_bad_input_is_named(train, tmp_path, flags, message):
    code, output, _ = train(tmp_path / "run", *flags)
    assert code == 2 and message in output and output.startswith("error: ") and "Traceback" not in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", f"--config={CONFIG}"], "workdir"),
        (["train", "--workdir=x"], "--config=FILE is needed"),
        (["train", "--workdir=x", "--config=configs/no_such_config.py"], "no_such_config.py"),
        (["report", "--workdir=no_such_run"], "workdir must hold a run, but there is no "),
        (
            ["train", f"--config={CONFIG}", "--workdir=/proc/run"],
            "workdir must be a folder that can be written to, got /proc",
        ),
    ],
)
def test_bad_files_are_named(server, arguments, message):
    code, output, _ = server(*arguments, draw=True)
    assert code == 2 and message in output and output.startswith("error: ") and "Traceback" not in output


def test_commands_are_listed(server):
    code, output, _ = server("trian")
    assert (code, output) == (2, "error: unknown command 'trian'; did you mean train?\n")
    code, output, _ = server()
    assert code == 0 and output == server("--help")[1]
    assert "usage: jaxconcepts COMMAND" in output and "  train " in output and "  report " in output
    examples = [line for line in output.splitlines() if line.startswith("  jaxconcepts ")]
    assert len(examples) == 3 and "  jaxconcepts train --config=quickstart --workdir=runs/first" in examples
    assert server("--version")[:2] == (0, f"jaxconcepts {jaxconcepts.__version__}\n")


def test_a_changed_config_on_a_used_workdir_names_the_fields(train, finished):
    workdir, _, _ = finished
    before = tables(workdir)[0]
    code, output, _ = train(workdir, "--config.train.learning_rate=0.5", "--config.num_seeds=3")
    assert code == 2 and "Traceback" not in output
    assert f"workdir {workdir} was made with another config: num_seeds: was 2, now 3; " in output
    assert "train.learning_rate: was 0.0001, now 0.5" in output
    assert tables(workdir)[0].equals(before)


def test_a_finished_run_is_made_longer(train, finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    longer = ["--config.train.steps=36", "--config.measure.count=7"]
    code, output, _ = train(workdir, *longer)
    assert code == 2 and "train.steps: was 24, now 36; " in output and "or --extend to make the runs" in output
    code, output, _ = train(workdir, *longer, "--extend")
    assert code == 0 and "step 36 of 36" in output and "compiling" in output, output
    former, metrics = store.metrics(finished[0]), store.metrics(workdir)
    assert metrics.filter(pl.col("step") <= 24).equals(former)
    assert metrics.filter(metric="loss")["step"].unique().sort().to_list() == [0, 6, 12, 18, 24, 30, 36]
    code, output, _ = train(tmp_path / "none", *longer, "--extend")
    assert code == 2 and output.startswith("error: --extend needs a workdir that holds a run, but there is no ")
    assert not (tmp_path / "none").exists()


def test_a_second_process_is_refused(train, tmp_path):
    with store.open_run(tmp_path, {}):
        code, output, _ = train(tmp_path)
    assert code == 2 and f"workdir {tmp_path} is being written by pid {os.getpid()} on " in output
    assert "Traceback" not in output
    assert isinstance(store.metrics(tmp_path), pl.DataFrame)


@pytest.mark.parametrize("command", sorted(__main__.COMMANDS))
def test_every_command_lists_its_flags(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["jaxconcepts", command, "--help"])
    out = capsys.readouterr().out
    assert stopped.value.code == 0 and f"usage: jaxconcepts {command} [--flag=value ...]" in out
    assert "  --workdir " in out or command == "plan"
