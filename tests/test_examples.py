"""The worked examples of docs/: a metric, a model and a study that are not the package's, each against a reference."""

import jax
import numpy as np
import polars as pl
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestCentroid

import jaxconcepts as jc
from jaxconcepts.models import language, llama, pretrained
from jaxconcepts.runs import points
from jaxconcepts.runs.loop import default_config
from tests import example_metric, example_study

pytestmark = pytest.mark.usefixtures("compiles_fast")
SIZES = {"task.pairs": 2, "task.vocab_size": 8, "task.shifts": 2, "model.layers": 2, "model.heads": 2}
SIZES |= {"model.width": 8, "model.mlp_width": 8, "measure.per_concept": 16, "measure.cd_per_concept": 8}
SIZES |= {"measure.neighbours": 3}


def point(experiment, **changed):
    config = default_config(experiment)
    for name in ("num_seeds", "run"):
        del config[name]
    if "kv_heads" in config["model"]:
        changed["model.kv_heads"] = 1
    return points.make_point(points.apply(config, SIZES | changed))


def nearest_mean_of(states, labels):
    """One point at a time, by scikit-learn."""
    right = []
    for i in range(len(labels)):
        others = np.arange(len(labels)) != i
        fitted = NearestCentroid().fit(states[others], labels[others])
        right.append(fitted.predict(states[i : i + 1])[0] == labels[i])
    return np.mean(right)


def test_a_metric_is_measured_along_a_training():
    of = point("tests/example_experiment.py:Copying", **{"measure.metrics": ["tests/example_metric.py:nearest_means"]})
    experiment, numbers = of.experiment, of.numbers
    held_out = jax.jit(experiment.held_out)(numbers, None)
    params = jax.jit(experiment.init)(numbers, None)
    params = jax.tree.map(lambda leaf: 20 * leaf, params)
    measured = jax.jit(experiment.measure)(params, held_out)["nearest_mean/shift"]
    states, labels = jax.jit(experiment.hidden)(params, held_out)
    expected = [nearest_mean_of(layer, np.asarray(labels)) for layer in np.asarray(states, np.float64)]
    assert measured.axes == ("token", "layer") and measured.chance == 0.5 and len(set(expected)) > 1
    np.testing.assert_allclose(measured.values[0], expected, atol=1e-6)


def test_a_metric_takes_any_leading_axes():
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 3
    hidden = rng.normal(size=(2, 2, 12, 4)) + labels[:, None]
    scores = np.asarray(example_metric.nearest_mean(hidden, labels, 3))
    expected = [[nearest_mean_of(layer, labels) for layer in run] for run in hidden]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.fixture(scope="module")
def gated(compiles_fast):
    of = point("tests/example_model.py:GatedCopying")
    return of.experiment, of.numbers, jax.jit(of.experiment.init)(of.numbers, None)


def test_a_model_of_gate_1_is_a_llama_and_of_gate_0_its_embeddings(gated):
    experiment, _, params = gated
    model = experiment.model
    tokens = np.arange(8).reshape(2, 4)
    plain = llama.LlamaConfig(**vars(model))
    ungated = params | {"blocks": {name: part for name, part in params["blocks"].items() if name != "block_gate"}}
    expected = language.hidden_states(plain, ungated, tokens, at="all")
    states = language.hidden_states(model, params, tokens, at="all")
    np.testing.assert_allclose(states, expected, atol=1e-6)
    shut = params | {"blocks": params["blocks"] | {"block_gate": np.zeros((2, 1), np.float32)}}
    closed = np.asarray(language.hidden_states(model, shut, tokens, at="all"))
    np.testing.assert_array_equal(closed, np.broadcast_to(closed[:1], closed.shape))
    half = params | {"blocks": params["blocks"] | {"block_gate": np.array([[0.5], [1]], np.float32)}}
    first = language.hidden_states(model, half, tokens, at="all")[1]
    np.testing.assert_allclose(first, (states[0] + states[1]) / 2, atol=1e-6)


def test_a_model_is_trained_and_saved(gated, tmp_path, monkeypatch):
    experiment, numbers, params = gated
    batch = experiment.batch(numbers, None, 0)
    slopes = jax.jit(jax.grad(lambda params: experiment.loss(params, batch)[0]))(params)["blocks"]["block_gate"]
    assert slopes.shape == (2, 1) and np.all(np.asarray(slopes) != 0)
    monkeypatch.setitem(pretrained.FAMILIES, "gated_llama", type(experiment.model))
    changed = params | {"blocks": params["blocks"] | {"block_gate": np.array([[0.5], [2]], np.float32)}}
    jc.save_pretrained(experiment.model, changed, tmp_path)
    model, loaded = jc.load_pretrained(tmp_path)
    assert model == experiment.model
    jax.tree.map(np.testing.assert_array_equal, changed, loaded)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    config = {"train.steps": 4, "train.batch_size": 4, "train.warmup_steps": 0, "measure.count": 2, "num_seeds": 2}
    config |= {"measure.metrics": ["loss"], "measure.checkpoint_steps": [2]}
    config = jc.config(default_config("tests/example_experiment.py:Copying"), SIZES | config)
    return jc.train(config, tmp_path_factory.mktemp("trained") / "run").workdir


@pytest.mark.slow
def test_a_study_measures_every_checkpoint_once(trained, monkeypatch):
    table = example_study.study(trained)
    assert table.group_by("run", "step").len().height == 4 and table.height == 4 * 3 * 3
    assert set(table["step"]) == {2, 4} and table["cd"].is_between(0, 1).all()
    untouched = table.filter(removed=0, layer=2, step=4)["cd"]
    of = jc.open_run(trained)
    for run, score in zip(table.filter(removed=0, layer=2, step=4)["run"], untouched, strict=True):
        made = points.make_point({name: value for name, value in of.config.items() if name != "num_seeds"})
        held_out = made.experiment.held_out(made.numbers, None)
        hidden, labels = made.experiment.hidden(of.params(run), held_out)
        assert score == pytest.approx(float(jc.concept_decodability(hidden[2], labels, k=3)), abs=1e-6)
    monkeypatch.setattr(example_study, "measure", None)  # Nothing is measured again.
    assert example_study.study(trained).equals(table)


def test_a_study_removes_principal_directions():
    hidden = np.random.default_rng(0).normal(size=(20, 6)) * np.arange(1, 7)
    fitted = PCA(2).fit(hidden)
    expected = hidden - fitted.inverse_transform(fitted.transform(hidden))
    np.testing.assert_allclose(example_study.without(hidden.astype(np.float32), 2), expected, atol=1e-4)


@pytest.mark.slow
def test_a_study_has_a_page(trained):
    example_study.study(trained)
    path = example_study.report(trained)
    assert "Does CD outlive the largest directions?" in path.read_text()
    data = pl.read_csv(str(path.parent / "figures" / "directions.csv"))
    assert data.height == 9


def test_a_bank_is_read_once_and_its_rows_are_the_sequences(tmp_path):
    bank = np.random.default_rng(0).integers(0, 16, (5, 8))
    np.save(tmp_path / "bank.npy", bank)
    config = default_config("tests/example_bank.py:Bank")
    config = {name: part for name, part in config.items() if name not in ("num_seeds", "run")}
    changed = {"task.bank": str(tmp_path / "bank.npy"), "measure.hidden_count": 0, "train.batch_size": 32}
    of = points.make_point(points.apply(config, changed))
    batch = of.experiment.batch(of.numbers, of.experiment.data(), 3)
    drawn = {tuple(row) for row in np.asarray(batch.tokens).tolist()}
    assert drawn == {tuple(row) for row in bank.tolist()} and batch.loss_mask.shape == (32, 8)
