"""The patch study over a run directory: what is patched, what is kept, and what is refused."""

import re
import shutil

import jax
import numpy as np
import polars as pl
import pytest

from jaxconcepts import store
from jaxconcepts.__main__ import main
from jaxconcepts.runs import loop as execution
from jaxconcepts.runs import packs, points
from jaxconcepts.studies.patching import runs as patching_runs
from jaxconcepts.studies.patching import study as patching
from jaxconcepts.sweeps import trained

STEPS = (2, 5)
CONFIG = patching.PatchConfig(per_concept=2, mean_per_concept=2)
FLAGS = ("--per_concept=2", "--mean_per_concept=2")


def base_config():
    config = execution.default_config()
    config.pop("run")
    config["num_seeds"] = 2
    config["task"] |= {"dim": 4, "num_concepts": 2, "rank": 1, "num_pairs": 2}
    config["model"] |= {"layers": 1, "heads": 2, "width": 4}
    config["init"] |= {"weights": 0.5, "positions": 0.5, "read_in": 0.5, "read_out": 0.5}
    config["train"] |= {"steps": 5}
    config["measure"] |= {"per_concept": 8, "cd_per_concept": 8, "neighbours": 3, "checkpoint_steps": list(STEPS)}
    return config


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """A run directory of two seeds with checkpoints of their initial weights, scaled differently at each step."""
    config, workdir = base_config(), tmp_path_factory.mktemp("trained") / "run"
    one = {name: value for name, value in config.items() if name != "num_seeds"}
    runs = [points.make_point(one | {"seed": seed}) for seed in (0, 1)]
    program = packs.make_program(runs[0].experiment, 2, packs.Layout())
    with store.open_run(workdir, config, keep_steps=STEPS) as run:
        run.restore("train", None)
        state = program.init(packs.stack_numbers(program, [point.numbers for point in runs]), None)
        for step in STEPS:
            scaled = state._replace(params=jax.tree.map(lambda a, step=step: a * (1 + 0.1 * step), state.params))
            run.save("train", step, scaled)
    return workdir, [point.run for point in runs], state.params


@pytest.fixture
def workdir(untouched, tmp_path):
    return shutil.copytree(untouched[0], tmp_path / "run")


@pytest.fixture(scope="module")
def patched(untouched, tmp_path_factory):
    """The directory after the study, and its programs."""
    workdir = shutil.copytree(untouched[0], tmp_path_factory.mktemp("patched") / "run")
    return workdir, patching_runs.patch_runs(workdir, CONFIG)


@pytest.mark.slow
def test_every_checkpoint_of_every_run_is_patched_with_one_compilation(patched, untouched):
    workdir, programs = patched
    assert [[function._cache_size() for function in program] for program in programs] == [[1, 1, 1]]
    for kind in patching_runs.KINDS:
        table = store.results(workdir, "patching", kind)
        assert sorted(table.select("run", "step").unique().rows()) == sorted(
            (run, step) for run in untouched[1] for step in STEPS
        )
        assert table["value"].is_finite().all()
    grid = store.results(workdir, "patching", "grid")
    changes = grid.filter(metric="loss_change", run=untouched[1][0], step=2)
    keys = ["layer", "positions", "mode", "patch", "target", "source", "at"]
    assert changes.height == changes.unique(keys).height == 2 * 3 * 3 * 2 * 2 * 2 * 2
    by_run = grid.filter(metric="loss", patch="none").group_by("run", "step").agg(pl.col("value").sum())
    assert by_run["value"].n_unique() == 4


def test_the_parameters_are_those_of_the_run_and_step(untouched):
    workdir, _, params = untouched
    (pack,) = trained.trained(workdir)
    assert (pack.pack, pack.steps, [point.config["seed"] for point in pack.points]) == ("train", STEPS, [0, 1])
    loaded = trained.load_params(workdir, pack, 5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 1.5 * b, rtol=1e-6), loaded, jax.device_get(params))


def test_the_tables_hold_what_the_programs_give(patched, untouched):
    workdir, (program,) = patched
    (pack,) = trained.trained(workdir)
    params = jax.tree.map(lambda a: a[1], trained.load_params(workdir, pack, 5))
    prepared = program.prepare(pack.points[1].numbers.task)
    clean, found = jax.tree.map(np.asarray, program.grid(params, prepared))
    own = {"run": untouched[1][1], "step": 5}
    cell = {"layer": 1, "positions": "x", "mode": "add", "patch": "random", "target": 0, "source": 1, "at": "mean"}
    rows = store.results(workdir, "patching", "grid").filter(**own, **cell)
    at = (1, 1, 1, 1, 0, 1, 1)
    value = lambda **keys: rows.filter(**keys)["value"].item()  # noqa: E731
    assert value(metric="loss") == pytest.approx(float(found.loss[at]))
    assert value(metric="loss_change") == pytest.approx(float(found.loss[at] - clean.loss[1, 1]), abs=1e-9)
    assert value(metric="distance", reference="ridge") == pytest.approx(float(found.distance[at][1]))
    assert value(metric="distance", reference="oracle", concept=0) == pytest.approx(float(found.distance[at][3]))
    assert value(metric="weight", concept=1) == pytest.approx(float(found.weight[at][1]))
    summary = store.results(workdir, "patching", "summary").filter(**own)
    cell = {"layer": 1, "positions": "x", "mode": "add", "at": "mean", "metric": "distance"}
    for patch, patched_with in (("mean", (0, [0, 1])), ("random", (1, [0, 1])), ("own", (0, [1, 0]))):
        kind, concept = patched_with
        picked = found.distance[1, 1, 1, kind, concept, [1, 0], 1]  # by (patched concept, source) of both pairs
        for reference, place in (("source oracle", [4, 3]), ("target oracle", [3, 4])):
            shown = summary.filter(**cell, patch=patch, reference=reference)["value"].item()
            assert shown == pytest.approx(float(picked[[0, 1], place].mean()))
    assert not summary.filter(patch="third").height  # there are but two concepts
    shares = summary.filter(metric="nearest").group_by("layer", "positions", "mode", "patch", "at").agg(pl.sum("value"))
    assert shares["value"].to_list() == pytest.approx([1.0] * shares.height)
    heads = store.results(workdir, "patching", "heads").filter(**own, ablation="zero", at="query", metric="loss_change")
    clean, found = jax.tree.map(np.asarray, program.heads(params, prepared))
    change = found.loss[0, 1, :, 0] - clean.loss[:, 0]
    assert heads.filter(layer=1, head=1, concept=1)["value"].item() == pytest.approx(float(change[1]), abs=1e-9)
    mean = heads.filter(pl.col("concept").is_null(), layer=1, head=1)["value"].item()
    assert mean == pytest.approx(float(change.mean()), abs=1e-9)


def test_what_is_there_is_not_computed_again(patched, tmp_path, monkeypatch):
    workdir = shutil.copytree(patched[0], tmp_path / "run")
    computed = []
    tables = patching_runs._tables
    monkeypatch.setattr(patching_runs, "_tables", lambda *given: computed.append(given[2:4]) or tables(*given))
    assert patching_runs.patch_runs(workdir, CONFIG) and not computed
    gone = next((workdir / "patching" / "summary").glob("seed1-*.000000002.parquet"))
    before = gone.read_bytes()
    gone.unlink()
    patching_runs.patch_runs(workdir, CONFIG)
    assert [(point.config["seed"], step) for point, step in computed] == [(1, 2)]
    assert gone.read_bytes() == before
    with pytest.raises(ValueError, match="another config: per_concept: was 2, now 3"):
        patching_runs.patch_runs(workdir, patching.PatchConfig(per_concept=3, mean_per_concept=2))


def test_the_command_patches_what_it_is_asked_for_and_draws_the_report(workdir, untouched, capsys, monkeypatch):
    monkeypatch.setattr("jaxconcepts.figures.report.write_report", lambda path: f"{path}/report.html")
    assert main(["jaxconcepts", "patch", f"--workdir={workdir}", "--run=seed1", "--step=2", "--layer=0", *FLAGS]) == 0
    output = capsys.readouterr().out
    assert f"{untouched[1][1]} step 2 (1 of 1)" in output and f"report: {workdir}/report.html" in output
    assert "patching 1 checkpoint(s) of 1 run(s)" in (workdir / "log.txt").read_text()
    grid = store.results(workdir, "patching", "grid")
    assert set(grid["run"]) == {untouched[1][1]} and set(grid["step"]) == {2}
    assert set(grid["layer"].drop_nulls()) == {0}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run=seed7"], r"run must be one of seed0-\w+, seed1-\w+, .* got 'seed7'"),
        (["--step=3"], "step must be one of the checkpoints 2, 5, got 3"),
        (["--step=two"], "--step must be a tuple, each element an integer of at least 0, got 'two'"),
        (["--layer=2"], r"layer must be from 0 \(the embeddings\) to 1 \(the last block\), got 2"),
        (["--head=1.2"], r"head 1\.2: the head must be from 0 to 1, got 2"),
        (["--head=2.0"], r"head 2\.0: the block must be from 1 to 1, got 2"),
        (["--head=2"], r"--head must be BLOCK\.HEAD, e\.g\. 1\.0, got '2'"),
        (["--per_concept=1"], "--per_concept must be an integer from 2 to 1000000, got 1"),
    ],
)
def test_bad_input_is_named_before_anything_is_computed(workdir, capsys, flags, message):
    assert main(["jaxconcepts", "patch", f"--workdir={workdir}", *flags]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (workdir / "patching").exists()


def test_a_directory_without_run_or_checkpoints_is_named(workdir, tmp_path, capsys):
    assert main(["jaxconcepts", "patch", f"--workdir={tmp_path / 'none'}"]) == 2
    assert "workdir must hold a run" in capsys.readouterr().err
    shutil.rmtree(workdir / "checkpoints")
    assert main(["jaxconcepts", "patch", f"--workdir={workdir}"]) == 2
    assert "has no checkpoints: train in it first (python -m jaxconcepts train" in capsys.readouterr().err


def test_two_at_once_are_refused(workdir):
    with (
        store.open_study(workdir, "patching", {}),
        pytest.raises(store.WorkdirInUseError, match="patching is being written by pid"),
    ):
        patching_runs.patch_runs(workdir, CONFIG)
