"""A task that is not the package's, in one file: trained, swept, killed and resumed, planned, measured, reported."""

import importlib.util
import json

import jax
import numpy as np
import polars as pl
import pytest

from jaxconcepts import experiments, store
from jaxconcepts.figures import quantities
from jaxconcepts.figures.tables import Study
from jaxconcepts.models import language
from jaxconcepts.runs import points
from jaxconcepts.runs.loop import default_config
from jaxconcepts.training.experiment import Named

EXAMPLE = "tests/example_experiment.py:Copying"


def config(**changed):
    made = default_config(EXAMPLE)
    for name in ("num_seeds", "run"):
        del made[name]
    made["task"] |= {"pairs": 3, "vocab_size": 8, "shifts": 2}
    made["model"] |= {"layers": 2, "heads": 2, "width": 16}
    made["measure"] |= {"per_concept": 24, "cd_per_concept": 24, "neighbours": 3}
    return points.apply(made, changed)


@pytest.fixture(scope="module")
def sweep(server):
    return lambda workdir, **at: server("sweep", "--config=tests/example_config.py", f"--workdir={workdir}", **at)


@pytest.fixture(scope="module")
def finished(sweep, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    code, output, _ = sweep(workdir)
    assert code == 0, output
    return workdir, output


def tables(workdir):
    metrics = store.metrics(workdir)
    return metrics.sort(metrics.columns[:-1]), store.runs(workdir).sort("run")


def test_two_of_its_numbers_are_swept_in_one_compilation(finished):
    workdir, output = finished
    assert "compiled 1 program(s)" in output
    runs = store.runs(workdir)
    assert runs["status"].to_list() == ["done"] * 4 and runs["task.noise"].to_list() == [0, 0, 0.5, 0.5]
    metrics = store.metrics(workdir)
    assert metrics.filter(metric="guesses_shift").height == 4 * 3
    cd = metrics.filter(metric="cd")
    assert cd["label"].unique().to_list() == ["shift"] and cd["token"].unique().to_list() == ["query"]
    assert cd.height == 4 * 3 * 2 * 3  # runs, steps, layers, concepts and their mean
    last = metrics.filter(metric="train_loss", step=12)
    assert last["value"].n_unique() == 4


def test_its_evaluator_is_drawn_with_its_unit_and_chance(finished):
    workdir, _ = finished
    study = Study(store.metrics(workdir), store.runs(workdir), store.config(workdir), store.quantities(workdir))
    about = study.quantities.filter(metric="guesses_shift")
    assert about.height == 4 and set(about["unit"]) == {"fraction"} and set(about["chance"]) == {1 / 8}
    assert study.quantities.filter(metric="cd")["label"].unique().to_list() == ["shift"]
    named = {entry.name: entry for entry in quantities.entries(study)}
    assert set(named) == {"measured_cd", "measured_guesses_shift"}  # The losses have figures of their own.
    runs = study.names[:2]
    figure = named["measured_guesses_shift"].draw(study, runs)
    assert figure.get_supylabel() == "guesses shift (fraction)"
    lines = {line.get_gid(): line for axis in figure.axes for line in axis.lines}
    for run in runs:
        rows = study.metrics.filter(run=run, metric="guesses_shift").sort("step")
        drawn = lines[f"{run}/guesses_shift///model"]
        np.testing.assert_array_equal(drawn.get_xdata(), rows["step"])
        np.testing.assert_array_equal(drawn.get_ydata(), rows["value"])
        assert set(lines[f"{run}/guesses_shift/None/chance"].get_ydata()) == {1 / 8}
    figure = named["measured_cd"].draw(study, runs[:1])
    lines = {line.get_gid(): line for axis in figure.axes for line in axis.lines}
    for layer in (0, 1):
        rows = study.metrics.filter(pl.col("concept").is_null(), run=runs[0], metric="cd", layer=layer).sort("step")
        np.testing.assert_array_equal(lines[f"{runs[0]}/cd/shift/query/{layer}"].get_ydata(), rows["value"])
    assert set(lines[f"{runs[0]}/cd/shift/chance"].get_ydata()) == {0.5}


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_tables(sweep, finished, tmp_path):
    code, _, _ = sweep(tmp_path / "run", match=r"checkpoints/.*000000006", nth=2)
    assert code == -9
    code, output, _ = sweep(tmp_path / "run")
    assert code == 0, output
    for ours, expected in zip(tables(tmp_path / "run"), tables(finished[0]), strict=True):
        assert ours.equals(expected)


@pytest.mark.slow
def test_it_is_reported(server, finished):
    code, output, _ = server("report", f"--workdir={finished[0]}", draw=True)
    assert code == 0, output
    assert "guesses_shift" in (finished[0] / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install '.[plan]'")
def test_it_is_planned_for_chips_that_are_not_here(server):
    code, output, _ = server("plan", "--config=tests/example_config.py", "--topology=v5p:2x2x1")
    assert code == 0, output
    assert "copying, gpt2 of 1 layers x 8 wide" in output and "4 run(s) in 1 group(s) on 4 x TPU v5p" in output


def test_it_is_measured_as_independent_code_measures_it(compiles_fast):
    point = points.make_point(config())
    experiment, numbers = point.experiment, point.numbers
    params = jax.jit(experiment.init)(numbers, None)
    params["blocks"] = jax.tree.map(lambda a: 20 * a, params["blocks"])
    held_out = jax.jit(experiment.held_out)(numbers, None)
    measured = jax.device_get(jax.jit(experiment.measure)(params, held_out))
    tokens, labels = np.asarray(held_out.batch.tokens), np.asarray(held_out.batch.labels["shift"])
    np.testing.assert_array_equal(tokens[:, 1::2], (tokens[:, ::2] + 1 + labels[:, None]) % 8)
    states, logits = language.hidden_states(experiment.model, params, tokens, at="all", with_logits=True)
    logits = np.asarray(logits, np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    right = [log_probs[i, t, tokens[i, t + 1]] for i in range(24) for t in (0, 2, 4)]
    assert measured["loss"].values == pytest.approx(-np.mean(right), rel=1e-5)
    guesses = logits[:, 4].argmax(-1) == (tokens[:, 4] + 1 + labels) % 8
    assert measured["guesses_shift"].values == pytest.approx(guesses.mean())
    for layer in range(3):
        query, votes = np.asarray(states)[layer, :, 4].astype(np.float64), np.empty(24)
        for i in range(24):
            others = np.delete(np.arange(24), i)
            # Of three votes, those at the third distance share what is left (many queries are the same token).
            distance = ((query[others] - query[i]) ** 2).sum(-1)
            third = np.sort(distance)[2]
            inside, at = distance < third - 1e-12, abs(distance - third) <= 1e-12
            share = np.bincount(labels[others], inside + (3 - inside.sum()) / at.sum() * at, 2).round(9)
            votes[i] = (share[labels[i]] == share.max()) / (share == share.max()).sum()
        expected = [votes[labels == k].mean() for k in (0, 1)]
        np.testing.assert_allclose(measured["cd/shift"].values[0, layer], expected, atol=1e-6)


def test_a_llama_learns_the_same_task(compiles_fast):
    made = default_config(EXAMPLE)
    values = {"experiment": EXAMPLE, "model": {"family": "llama"}}
    llama = experiments.find(EXAMPLE).default_config(values)
    assert "kv_heads" in llama["model"] and "qk_norm" in made["model"] and not llama["init"]
    llama["model"] |= {"layers": 1, "heads": 2, "kv_heads": 1, "width": 8}
    point = points.make_point(json.loads(json.dumps(llama)))
    assert point.experiment.model.MODEL_TYPE == "llama" and point.experiment.model.head_dim == 4
    params = jax.eval_shape(point.experiment.init, point.numbers, None)
    assert params["blocks"]["k"]["kernel"].shape == (1, 8, 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task.noise": 2.0}, "task.noise must be .*, got 2.0"),
        ({"measure.metrics": ["loss", "speed"]}, "measure.metrics must be among .*guesses_shift.*, got 'speed'"),
        ({"measure.metrics": ["no_module:f"]}, "evaluator no_module:f cannot be imported: ModuleNotFoundError"),
        ({"measure.neighbours": 24}, "measure.neighbours must be below the number of points, 24, got 24"),
        ({"experiment": "copying"}, "experiment must be one of .*regression.*got 'copying'"),
        ({"experiment": "nowhere.py:Copying"}, "experiment nowhere.py:Copying cannot be imported: FileNotFoundError"),
        ({"experiment": "json:loads"}, "experiment json:loads must be a subclass of"),
        ({"experiment": "jaxconcepts.training.experiment:Experiment"}, "lacks the method default_config"),
    ],
)
def test_bad_input_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        points.make_point(config(**changed))


def unknown_axis(states, outputs, held_out):
    return {"odd": Named(outputs[0], ("head", "word"))}


def test_an_evaluator_with_an_unknown_axis_is_named(compiles_fast):
    point = points.make_point(config(**{"measure.metrics": [f"{__file__}:unknown_axis"]}))
    held_out = jax.eval_shape(point.experiment.held_out, point.numbers, None)
    params = jax.eval_shape(point.experiment.init, point.numbers, None)
    with pytest.raises(ValueError, match=r"evaluator .*:unknown_axis: metric odd has the unknown axis 'head'"):
        jax.eval_shape(point.experiment.measure, params, held_out)
