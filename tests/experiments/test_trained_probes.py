"""Probes that are trained through the model: they start at scikit-learn's, find what no state holds, and learn nothing
where nothing is to be learned."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef

from jaxconcepts.experiments import trained_probes
from jaxconcepts.experiments.tokens import TokenExperiment, Tokens
from jaxconcepts.models import gpt2

pytestmark = pytest.mark.usefixtures("compiles_fast")

ROWS, LENGTH, FOLDS, ALPHA = 240, 5, 3, 1.0
TWINS = 6, 7  # Two words of one embedding.


@pytest.fixture(scope="module")
def toy():
    """A model that tells two words apart by nothing, rows that hold one of them, and an experiment that reads them."""
    model = gpt2.GPT2Config(layers=1, heads=2, width=16, context=LENGTH, vocab_size=8, input_dim=1, output_dim=1)
    params = gpt2.init(model, jax.random.key(0), gpt2.InitScales(0.3, 0.3, 0.3))
    params["embed"] = params["embed"].at[TWINS[1]].set(params["embed"][TWINS[0]])
    random = np.random.default_rng(0)
    rows = random.integers(1, 6, (ROWS, LENGTH))
    rows[:, 2] = np.array(TWINS)[random.integers(0, 2, ROWS)]
    experiment = SimpleNamespace(model=model, unroll=1)
    experiment.forward = lambda *given: TokenExperiment.forward(experiment, *given)
    experiment.by_rows = lambda *given: TokenExperiment.by_rows(experiment, *given)
    return experiment, params, rows


def ask(rows, labels, classes=2):
    """Labels [C, N], read at the last word."""
    labels = np.asarray(labels)[:, :, None]
    at = np.full((len(rows), 1), LENGTH - 1)
    return trained_probes.stack(rows, [(at, labels, np.ones(labels.shape, bool), classes)], jnp.arange(len(rows)))


def scores(toy, asked):
    experiment, params, _ = toy
    made = jax.jit(lambda params: trained_probes.scores(experiment, params, asked, FOLDS, ALPHA))
    return np.asarray(made(params))


def test_it_finds_a_word_that_no_state_holds(toy, monkeypatch):
    asked = ask(toy[2], [toy[2][:, 2] == TWINS[1]])
    accuracy, balanced, mcc = scores(toy, asked)[:, 0, 0]
    assert accuracy > 0.95 and balanced > 0.95 and mcc > 0.9
    # Without the change of the embedding it cannot.
    monkeypatch.setattr(trained_probes, "RANK", 0)
    assert scores(toy, asked)[0, 0, 0] < 0.65


def test_it_learns_nothing_where_labels_are_drawn(toy):
    drawn = np.random.default_rng(1).integers(0, 2, (3, ROWS))
    accuracy = scores(toy, ask(toy[2], drawn))[0, 0]
    # Three times 80 rows of chance: three standard deviations.
    assert abs(accuracy.mean() - 0.5) < 3 * 0.5 / np.sqrt(240)


def test_training_starts_at_scikit_learns_probe(toy, monkeypatch):
    monkeypatch.setattr(trained_probes, "STEPS", 0)
    experiment, params, rows = toy
    labels = np.stack([rows[:, 0] % 3, rows[:, 4] % 3])
    made = scores(toy, ask(rows, labels, 3))
    states = experiment.by_rows(params, Tokens(jnp.asarray(rows), None), jnp.full((ROWS, 1), LENGTH - 1))[1][-1, :, 0]
    states = np.asarray(states, np.float64)
    states = (states - states.mean(0)) / np.sqrt(((states - states.mean(0)) ** 2).mean())
    tested = np.arange(ROWS) % FOLDS == 0
    for column, label in enumerate(labels):
        probe = RidgeClassifier(ALPHA, class_weight="balanced").fit(states[~tested], label[~tested])
        read, true = probe.predict(states[tested]), label[tested]
        expected = [np.mean(read == true), balanced_accuracy_score(true, read), matthews_corrcoef(true, read)]
        np.testing.assert_allclose(made[:, 0, column], expected, atol=1e-5)


def test_concepts_of_other_shapes_are_filled_up(toy):
    """With more parameters, positions and classes beside it a concept has the same scores."""
    rows = toy[2]
    one = (np.full((ROWS, 1), LENGTH - 1), (rows[:, 4] % 2)[None, :, None], np.ones((1, ROWS, 1), bool), 2)
    at = np.stack([np.full(ROWS, 3), np.full(ROWS, 4)], 1)
    other = (at, rows[None, :, 3:] % 3 + np.zeros((2, 1, 1), int), np.ones((2, ROWS, 2), bool), 3)
    alone, both = (trained_probes.stack(rows, given, jnp.arange(ROWS)) for given in ([one], [one, other]))
    np.testing.assert_allclose(scores(toy, both)[:, 0, 0], scores(toy, alone)[:, 0, 0], atol=0.03)
    named = trained_probes.named("probe", scores(toy, both), {"one": (1, 2), "other": (2, 3)})
    assert named["probe_balanced/other"].chance == pytest.approx(1 / 3)
    assert float(named["probe/one"].values) > 0.9
