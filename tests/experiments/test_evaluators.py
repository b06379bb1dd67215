"""Evaluators by name: each gives what its metric gives, at the right axes; controls; what a contract reports."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from jaxconcepts.experiments import biographies_measures, evaluators, language, tokens
from jaxconcepts.experiments.tokens import Tokens
from jaxconcepts.metrics import geometry, probes
from jaxconcepts.runs import points
from jaxconcepts.runs.loop import default_config
from jaxconcepts.training import train
from jaxconcepts.training.experiment import Concept, HeldOut, MeasureConfig, Named

pytestmark = pytest.mark.usefixtures("compiles_fast")

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(3), 12).astype(np.int32)
SETTINGS = MeasureConfig(("probe", "cka", "two_nn", "silhouette"), per_concept=12, cd_per_concept=12, neighbours=4)
STATES = {
    "number": jnp.asarray(RNG.normal(size=(2, 3, 36, 5)) + 0.5 * LABELS[:, None], jnp.float32),
    "tense": jnp.asarray(RNG.normal(size=(1, 3, 36, 5)), jnp.float32),
}
HELD_OUT = HeldOut(
    None,
    {
        "number": Concept(jnp.asarray(LABELS), 3, ("verb", "end")),
        "tense": Concept(jnp.asarray(LABELS % 2)[None], 2, ("verb",)),
    },
    {},
    SETTINGS,
)


def values(name):
    return evaluators.evaluator(SimpleNamespace(), name).each(STATES, None, HELD_OUT)


def test_every_kind_of_concept_has_its_own_metric_with_named_axes():
    measured = values("cd")
    assert set(measured) == {"cd/number", "cd/tense"}
    number, tense = measured["cd/number"], measured["cd/tense"]
    assert number.axes == ("token", "layer", "concept") and number.values.shape == (2, 3, 3)
    assert (number.chance, dict(number.names)["token"], tense.chance) == (pytest.approx(1 / 3), ("verb", "end"), 0.5)
    assert tense.values.shape == (1, 3, 2)
    pairs = values("pairwise_cd")["pairwise_cd/number"]
    assert pairs.values.shape == (2, 3, 3, 3) and dict(pairs.names)["label"] == ("0", "1", "2")


def test_metrics_of_states_are_those_of_their_functions():
    number = np.asarray(STATES["number"])
    expected = {
        "two_nn": geometry.two_nn(number),
        "silhouette": geometry.silhouette(number, LABELS),
        "cka": [[geometry.linear_cka(layer, token[-1]) for layer in token] for token in number],
    }
    for name, wanted in expected.items():
        np.testing.assert_allclose(values(name)[f"{name}/number"].values, wanted, rtol=2e-4, atol=1e-5, err_msg=name)
    accuracy = np.empty((2, 3))
    fold = probes.stratified_folds(LABELS, 3, 5)
    for place in np.ndindex(2, 3):
        right = np.empty(36)
        for held_out in range(5):
            fitted = np.asarray(fold) != held_out
            probe = RidgeClassifier(alpha=1.0).fit(number[place][fitted], LABELS[fitted])
            right[~fitted] = probe.predict(number[place][~fitted]) == LABELS[~fitted]
        accuracy[place] = right.mean()
    np.testing.assert_allclose(values("probe")["probe/number"].values, accuracy, atol=1e-6)


def test_the_untrained_twin_and_the_surface_are_measured_once():
    features = {"tense": jnp.asarray(np.eye(2)[LABELS % 2] + 0.01 * RNG.normal(size=(36, 2)), jnp.float32)}
    experiment = SimpleNamespace(
        measuring=replace(SETTINGS, metrics=("untrained", "surface")),
        surface=lambda held_out: features,
        read=lambda params, held_out: (params, None),
    )
    measured = evaluators.constants(experiment, HELD_OUT, lambda: STATES)
    np.testing.assert_array_equal(measured["cd_untrained/number"].values, values("cd")["cd/number"].values)
    np.testing.assert_array_equal(measured["cd_surface/tense"].values, [[1, 1]])
    assert not evaluators.measure(experiment, STATES, HELD_OUT)


@dataclass(frozen=True)
class TwoNumbers(tokens.TokenExperiment):
    """Of the example's task, with a second number reported."""

    REPORTED = {"train_loss": "nats", "train_loss_squared": "nats^2"}

    def loss(self, params, batch):
        loss = tokens.cross_entropy(self.forward(params, batch)[0], batch)
        return loss, {"train_loss_squared": loss**2, "train_loss": loss}


def test_several_numbers_are_reported_as_means_that_do_not_depend_on_chunks():
    kind = points.experiments.find("tests/example_experiment.py:Copying")
    config = default_config("tests/example_experiment.py:Copying")
    del config["num_seeds"], config["run"]
    config["task"] |= {"pairs": 2, "vocab_size": 4, "shifts": 2}
    config["model"] |= {"layers": 1, "heads": 1, "width": 4}
    config["measure"] |= {"metrics": ("loss",)}
    mixed = dataclass(frozen=True)(type("Mixed", (kind,), {"loss": TwoNumbers.loss, "REPORTED": TwoNumbers.REPORTED}))
    experiment = mixed.from_config(config)
    numbers = experiment.numbers(config)
    run = train.make_train(experiment)
    chunk, state = jax.jit(run.chunk), jax.jit(run.init)(numbers, None)
    assert state.loss_sum.shape == (2,)
    _, whole = chunk(state, numbers, None, np.int32(5), np.int32(0))
    state, _ = chunk(state, numbers, None, np.int32(2), np.int32(0))
    _, parts = chunk(state, numbers, None, np.int32(3), np.int32(2))
    assert {name: float(value) for name, value in whole.items()} == {n: float(v) for n, v in parts.items()}
    assert float(whole["train_loss_squared"]) >= float(whole["train_loss"]) ** 2
    with pytest.raises(ValueError, match="loss must report train_loss .REPORTED., got train_loss, train_loss_squared"):
        train._packed(("train_loss",), {"train_loss": 1.0, "train_loss_squared": 1.0})


def test_a_language_model_is_an_experiment_by_name():
    config = default_config("language")
    del config["num_seeds"], config["run"]
    config["task"] |= {"prompts": 80, "shots": 1, "length": 96, "vocab_size": 300}
    config["model"] |= {"layers": 1, "heads": 2, "kv_heads": 1, "width": 8, "mlp_width": 16}
    config["train"] |= {"batch_size": 4}
    config["measure"] |= {"per_concept": 6, "cd_per_concept": 6, "neighbours": 3}
    point = points.make_point(config)
    assert point.experiment == points.make_point(config).experiment
    data = point.experiment.data()
    held_out = jax.jit(point.experiment.held_out)(point.numbers, data)
    batch = held_out.batch
    assert batch.tokens.shape[0] == 7 * 6 and held_out.concepts["concept"].classes == 7
    # What counts is the answer, and CD is read at the token before it.
    first = np.asarray(batch.loss_mask).argmax(1)
    np.testing.assert_array_equal(np.asarray(held_out.concepts["concept"].positions)[:, 0], first - 1)
    params = jax.jit(point.experiment.init)(point.numbers, data)
    measured = jax.jit(point.experiment.measure)(params, held_out)
    assert set(measured) == {"loss", "accuracy", "cd"} and measured["cd"].values.shape == (1, 2, 7)
    assert isinstance(measured["loss"], Named) and np.isfinite(measured["loss"].values)
    objective, _ = jax.jit(point.experiment.loss)(params, point.experiment.batch(point.numbers, data, 0))
    assert float(objective) == pytest.approx(np.log(300), rel=0.1)
    assert language.drawn(point.experiment.task, 6) is language.drawn(point.experiment.task, 6)


def test_no_logits_that_are_no_numbers_are_right():
    """Token 0 would be the most likely of them."""
    batch = Tokens(jnp.zeros((2, 5), jnp.int32), jnp.ones((2, 5)))
    logits = jnp.zeros((2, 5, 4)).at[..., 0].set(1.0)
    held_out = HeldOut(batch, {}, {}, None)
    assert tokens.accuracy(None, logits, held_out)["accuracy"].values == 1
    assert jnp.isnan(tokens.accuracy(None, logits * jnp.nan, held_out)["accuracy"].values)
    asked = {"side": jnp.array([0, 1]), "label": jnp.array([0, 0])}
    held_out = HeldOut(batch, {}, {"questions": asked}, None)
    world = SimpleNamespace(world=SimpleNamespace(labels=("extract:major",)))
    for factor, expected in ((1.0, 1.0), (jnp.nan, jnp.nan)):
        answers = biographies_measures.Answers(world, logits * factor, None, None)
        measured = biographies_measures.questions(None, answers, held_out)
        for name in ("exact", "first_token"):
            np.testing.assert_array_equal(measured[name].values, np.full((2, 2), expected))
