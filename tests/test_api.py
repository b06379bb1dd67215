"""The package from Python, as in a notebook: train with callbacks, sweep, open, load; arrays of other libraries."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import jaxconcepts as jc
from jaxconcepts import store
from jaxconcepts.commands import config_files
from jaxconcepts.figures import claims
from jaxconcepts.runs import loop
from jaxconcepts.runs.events import CallbackError

CONFIG = str(Path(__file__).with_name("small_train.py"))
GRAMMAR = str(Path(__file__).with_name("experiments") / "small_grammar.py")
QUICK = {"train.steps": 8, "measure.count": 3, "measure.hidden_count": 0, "run.checkpoint_seconds": 1e6}


@pytest.fixture(scope="module", autouse=True)
def fast(compiles_fast):
    """Nothing here compares last digits with another program's."""


@pytest.fixture(scope="module")
def seen():
    return []


@pytest.fixture(scope="module")
def run(seen, tmp_path_factory):
    def see(event):
        norms = [float(np.sqrt(np.square(event.params(name)["positions"]).sum())) for name in ("seed0", "seed1")]
        event.log("norm", norms)
        event.log("only_second", 7.0, run="seed1")
        seen.append((event.step, event.metrics, norms))

    return jc.train(jc.config(CONFIG, QUICK), tmp_path_factory.mktemp("api") / "run", callbacks=[see])


def test_a_config_is_changed_by_dotted_fields():
    config = jc.config("quickstart", {"train.steps": 200, "task.noise": 0})
    assert (config["train"]["steps"], config["task"]["noise"], config["model"]["layers"]) == (200, 0.0, 4)
    assert jc.config(config) == json.loads(json.dumps(config))
    with pytest.raises(ValueError, match="unknown config field train.stepz; did you mean train.steps?"):
        jc.config("quickstart", {"train.stepz": 200})


def test_callbacks_see_every_measured_step(run, seen):
    assert [step for step, *_ in seen] == [0, 4, 8]
    for step, metrics, norms in seen:
        stored = run.metrics.filter(step=step)
        assert metrics.filter(metric="loss").equals(stored.filter(metric="loss")) and metrics.height
        assert stored.filter(metric="norm")["value"].to_list() == pytest.approx(norms)
        assert stored.filter(metric="only_second").select("run", "value").rows() == [(run.runs["run"][1], 7.0)]
    last = run.params("seed1")["positions"]
    assert np.sqrt(np.square(last).sum()) == pytest.approx(seen[-1][2][1])


def test_a_run_directory_is_opened(run):
    again = jc.open_run(run.workdir)
    assert isinstance(again.metrics, pl.DataFrame) and again.metrics.equals(store.metrics(run.workdir))
    assert again.runs["status"].to_list() == ["done", "done"] and again.config["train"]["steps"] == 8
    assert again.params(step=8)["positions"].shape == (4, 4)
    with pytest.raises(ValueError, match="step must be one of the checkpoints 8, got 3"):
        again.params("seed0", step=3)
    names = again.figures()
    assert again.figure(names[0]).get_axes()
    with pytest.raises(ValueError, match=f"figure must be one of {names[0]}, .*got 'curves'"):
        again.figure("curves")


def test_a_trained_run_is_measured_again(run):
    """With the metrics of the training it gives the training's rows; others are added without training again."""
    again = run.measure(["loss", "cd"], "seed1", step=8).filter(pl.col("metric").is_in(["loss", "cd"]))
    of_training = run.metrics.join(again.drop("value"), on=again.drop("value").columns, nulls_equal=True)
    order = ["metric", "layer", "token", "concept", "position", "label"]
    assert set(again["metric"]) == {"loss", "cd"} and set(again["run"]) == {run.runs["run"][1]}
    values, expected = (frame.sort(order)["value"].to_list() for frame in (again, of_training))
    assert values == pytest.approx(expected, abs=1e-6)
    assert set(run.measure(["untrained"])["metric"]) == {"cd_untrained"}
    with pytest.raises(ValueError, match="measure.metrics must be among .*, got 'clarity'"):
        run.measure(["clarity"])


def test_a_callback_that_raises_is_named_and_the_run_goes_on_after_it(run, tmp_path):
    def fails(event):
        if event.step == 4:
            raise KeyError("no such layer")

    config = jc.config(CONFIG, QUICK)
    with pytest.raises(CallbackError, match=r"callback .*fails raised at step 4: KeyError: 'no such layer'; every"):
        jc.train(config, tmp_path, callbacks=[fails])
    assert jc.open_run(tmp_path).runs["step"].to_list() == [4, 4]
    with pytest.raises(ValueError, match="run must be one of seed0-.*, seed1-.*, or the beginning of one, got 'seed7'"):
        try:
            jc.train(config, tmp_path, callbacks=[lambda event: event.params("seed7")])
        except CallbackError as error:
            raise error.__cause__ from None
    finished = jc.train(config, tmp_path)
    ours = finished.metrics.filter(~pl.col("metric").is_in(["norm", "only_second"]))
    expected = run.metrics.filter(~pl.col("metric").is_in(["norm", "only_second"]))
    assert ours.sort(ours.columns).equals(expected.sort(ours.columns))


def test_a_sweep_from_python(tmp_path):
    space = jc.product(**{"train.learning_rate": [1e-3, 3e-3], "seed": range(2)})
    run = jc.sweep(jc.config(CONFIG, QUICK | {"num_seeds": 1}), space, tmp_path)
    assert run.runs["status"].to_list() == ["done"] * 4
    assert sorted(run.runs["train.learning_rate"].to_list()) == [1e-3, 1e-3, 3e-3, 3e-3]
    assert claims.read(run.workdir) == []
    pytest.importorskip("optuna")
    fields = {"train.learning_rate": jc.choice([1e-3, 3e-3])}
    search = jc.Search(fields=fields, quantity=jc.Quantity("loss"), points=1, round=1)
    run = jc.sweep(jc.config(CONFIG, QUICK | {"num_seeds": 2}), search, tmp_path / "search")
    assert run.runs["status"].to_list() == ["done"] * 2 and run.runs["train.learning_rate"].n_unique() == 1


def test_claims_are_those_of_a_named_config_or_given(tmp_path, monkeypatch):
    """Nothing is trained: what is asked is whether the run directory has them, as after the command."""
    monkeypatch.setattr(loop, "run_pack", lambda *_, **__: None)
    monkeypatch.setattr("jaxconcepts.sweeps.sweep.run_sweep", lambda *_, **__: None)
    written = config_files.load(GRAMMAR).claims()
    assert written and written == claims.read(jc.train(GRAMMAR, tmp_path / "train").workdir)
    space = jc.product(**{"task.noise_share": [0.0, 1.0]})
    assert claims.read(jc.sweep(jc.config(GRAMMAR), space, tmp_path / "sweep", claims=written).workdir) == written
    with pytest.raises(ValueError, match=r"claims must be figures\.claims\.Claim, got 'it grows'"):
        jc.train(GRAMMAR, tmp_path / "wrong", claims=["it grows"])


def test_a_pretrained_model_with_its_tokenizer(tmp_path):
    from jaxconcepts.experiments import prompt_corpus
    from jaxconcepts.models import llama

    pytest.importorskip("transformers")
    sizes = {"vocab_size": 300, "width": 8, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 4, "mlp_width": 16}
    model = llama.LlamaConfig(**sizes, context=64, rope_scaling=None, tied=True)
    import jax

    jc.save_pretrained(model, model.init(jax.random.key(0)), tmp_path)
    tokenizer = prompt_corpus.train_tokenizer(["a prompt", "another one"], 300)
    tokenizer.save_pretrained(tmp_path)
    loaded = jc.load(str(tmp_path))
    states = loaded.hidden_states(["a prompt", "another"], at="last", bos=True)
    assert states.shape == (3, 2, 8)
    ids = [tokenizer.bos_token_id, *tokenizer("another", add_special_tokens=False)["input_ids"]]
    alone = jc.hidden_states(loaded.model, loaded.params, [ids], at="last")
    np.testing.assert_allclose(states[:, 1], alone[:, 0], rtol=1e-5, atol=1e-6)
    assert len(loaded.generate(["a prompt"], max_new_tokens=3)) == 1
    with pytest.raises(ValueError, match="prompts must be a list of at least one text, got 'a prompt'"):
        loaded.hidden_states("a prompt")


def test_metrics_take_arrays_of_other_libraries():
    import jax.numpy as jnp

    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(3, 40, 5)).astype(np.float32)
    labels = rng.integers(0, 3, 40)
    expected = np.asarray(jc.concept_decodability(hidden, labels, k=5))
    tensor = torch.tensor(hidden, requires_grad=True)
    for given in (jnp.asarray(hidden), tensor, list(hidden), list(tensor), [jnp.asarray(layer) for layer in hidden]):
        np.testing.assert_array_equal(jc.concept_decodability(given, torch.tensor(labels), k=5), expected)
    rounded = tensor.to(torch.bfloat16)
    wanted = jc.concept_decodability(rounded.float().detach().numpy(), labels, k=5)
    np.testing.assert_array_equal(jc.concept_decodability(rounded, labels, k=5), wanted)
    with pytest.raises(ValueError, match="a list of arrays, one a layer, must have arrays of one shape"):
        jc.concept_decodability([hidden[0], hidden[1, :9]], labels)
