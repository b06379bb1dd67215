"""What a configuration means, and what is measured along a run, against NumPy and scikit-learn."""

from functools import partial

import jax
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxconcepts.experiments.regression import Regression
from jaxconcepts.models import gpt2
from jaxconcepts.training import train
from jaxconcepts.training.experiment import MeasureConfig

pytestmark = pytest.mark.usefixtures("compiles_fast")


def config(**overrides):
    made = Regression.default_config()
    made["task"].update(num_concepts=3, dim=6, rank=2, num_pairs=3)
    made["model"].update(layers=2, heads=2, width=16)
    made["init"].update(positions=0.5, read_in=0.5, weights=0.3, read_out=0.3)
    made["train"].update(steps=1000)
    made["measure"].update(per_concept=7, cd_per_concept=5, neighbours=4)
    for name, value in overrides.items():
        section, _, field = name.rpartition("__")
        (made[section] if section else made)[field] = value
    return made


@pytest.fixture(scope="module")
def measured():
    """The experiment, the held-out set, the model's outputs, and everything that is measured of an untrained model."""
    experiment = Regression.from_config(config())
    numbers = experiment.numbers(config())
    params = jax.jit(partial(gpt2.init, experiment.model))(jax.random.key(3), numbers.init)
    held_out = jax.jit(partial(experiment.held_out, data=None))(numbers)
    inputs = np.zeros((21, 6, 6), np.float32)
    inputs[:, ::2], inputs[:, 1::2, 0] = held_out.batch.inputs, held_out.batch.targets
    output = jax.jit(lambda p, x: gpt2.apply(experiment.model, p, x, capture="all"))(params, inputs)

    @jax.jit
    def everything(params, held_out):
        measured, constants = experiment.measure(params, held_out), experiment.constants(held_out, lambda: params)
        values = [{name: named.values for name, named in part.items()} for part in (measured, constants)]
        return values[0], experiment.hidden(params, held_out), values[1]

    return experiment, held_out, jax.device_get(output), *jax.device_get(everything(params, held_out))


def by_concept(squared):
    return np.asarray(squared, np.float64).reshape(3, 7, 3).mean(1)


def test_the_held_out_set_has_every_concept_equally_often(measured):
    _, held_out, _, _, (_, labels), _ = measured
    assert held_out.batch.concepts.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_losses_and_distances_are_mean_squares_by_concept_and_position(measured):
    _, held_out, output, found, _, constant = measured
    out, targets = output.out[:, ::2, 0], np.asarray(held_out.batch.targets)
    np.testing.assert_allclose(found["loss"], by_concept((out - targets) ** 2), rtol=1e-5)
    references = {name: np.asarray(p) for name, p in held_out.exact.items()}
    assert set(references) >= {"zero", "ridge", "oracle", "bayes", "lasso", "knn3", "average"}
    for name, prediction in references.items():
        expected = by_concept((out - prediction) ** 2)
        np.testing.assert_allclose(found[f"distance_{name}"], expected, rtol=1e-5, atol=1e-6, err_msg=name)
        expected = by_concept((prediction - targets) ** 2)
        np.testing.assert_allclose(constant[f"loss_{name}"], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert set(found) == {"loss", "cd"} | {f"distance_{name}" for name in references}
    assert set(constant) == {"cd_points"} | {f"loss_{name}" for name in references} and constant["cd_points"] == 15


def test_cd_is_scikit_learns_leave_one_out_vote_at_each_layer_and_token(measured):
    _, _, output, found, (hidden, _), _ = measured
    chosen = np.concatenate([np.arange(5), np.arange(7, 12), np.arange(14, 19)])
    labels = np.repeat([0, 1, 2], 5)
    assert found["cd"].shape == (2, 3, 3)
    for token, position in enumerate((4, 5)):  # The last pair's x, then its y.
        for layer in range(3):
            states = output.captured[layer][chosen, position]
            right = np.empty(15)
            for i in range(15):
                others = np.delete(np.arange(15), i)
                vote = KNeighborsClassifier(4, algorithm="brute").fit(states[others], labels[others])
                votes = vote.predict_proba(states[i : i + 1])[0]
                # Votes that tie are shared.
                right[i] = (votes[labels[i]] == votes.max()) / (votes == votes.max()).sum()
            np.testing.assert_allclose(found["cd"][token, layer], right.reshape(3, 5).mean(1), atol=1e-6)
    np.testing.assert_allclose(hidden, output.captured[:, chosen, 4], rtol=1e-5, atol=1e-5)


def test_measured_steps():
    log = MeasureConfig(count=5)
    assert log.at_steps(1000) == [0, 1, 10, 100, 1000]
    assert log.at_steps(3) == [0, 1, 2, 3]
    linear = MeasureConfig(count=5, spacing="linear")
    assert linear.at_steps(1000) == [0, 250, 500, 750, 1000]
    given = MeasureConfig(steps=(50, 0, 10, 50))
    assert given.at_steps(1000) == [0, 10, 50]
    assert MeasureConfig(count=9, spacing="linear", hidden_count=3).hidden_steps(80) == [0, 40, 80]
    assert MeasureConfig(count=9, spacing="linear", hidden_count=1).hidden_steps(80) == [80]
    assert MeasureConfig(hidden_count=0).hidden_steps(80) == []


def test_every_field_arrives_where_it_belongs():
    given = config(
            seed=5,
            task__noise=0.5,
            task__masks=[[1, 0, 0, 0, 0, 1]] * 3,
            task__concept_weights=[1, 2, 3],
            train__b2=0.5,
            train__batch_size=9,
            init__read_in=0.25,
            curriculum__concept_ratio=2.0,
            measure__steps=[0, 9],
            model__qk_norm=True,
    )  # fmt: skip
    experiment = Regression.from_config(given)
    numbers = experiment.numbers(given)
    assert (experiment.train.batch_size, experiment.measuring.steps, experiment.model.qk_norm) == (9, (0, 9), True)
    assert (experiment.model.context, experiment.model.input_dim, experiment.model.output_dim) == (6, 6, 1)
    assert isinstance(hash(experiment), int)
    assert (numbers.seed, numbers.optimizer.b2) == (5, 0.5)
    assert (numbers.init.read_in, numbers.curriculum.concept_ratio) == (0.25, 2.0)
    assert numbers.task.masks.tolist() == [[1, 0, 0, 0, 0, 1]] * 3 and numbers.task.concept_weights.tolist() == [
        1,
        2,
        3,
    ]
    dtypes = {np.asarray(leaf).dtype.name for leaf in jax.tree.leaves(numbers._replace(seed=np.float32(0)))}
    assert dtypes == {"float32"} and numbers.seed.dtype == np.uint32
    assert isinstance(experiment.train, train.TrainConfig)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"task__dimm": 3}, "unknown config field task.dimm; did you mean task.dim?"),
        ({"rank": 3}, "unknown config field rank; did you mean"),
        ({"task": {"dim": 3}}, "task.num_concepts is missing in the config"),
        ({"task": 3}, "task must be a section with .*dim.*, got 3"),
        ({"task__rank": 3}, r"task.rank \* task.num_concepts <= task.dim, got 3 \* 3 = 9 > 6"),
        ({"task__dim": 0}, "task.dim must be an integer from 1 to 65536, got 0"),
        ({"task__num_pairs": -1}, "task.num_pairs must be an integer from 1 to 65536, got -1"),
        ({"model__layers": 0}, "model.layers must be an integer from 1 to 4096, got 0"),
        ({"model__heads": 3}, "model.heads must divide model.width = 16, got 3"),
        ({"train__batch_size": 0}, "train.batch_size must be an integer from 1 to 1000000, got 0"),
        ({"train__steps": -5}, "train.steps must be an integer from 1 to 1000000000, got -5"),
        ({"train__learning_rate": -0.1}, "train.learning_rate must be a number of at least 0, got -0.1"),
        (
            {"train__learning_rate": float("nan")},
            "train.learning_rate must be a number of at least 0, finite in float32, got nan",
        ),
        ({"train__learning_rate": "fast"}, "train.learning_rate must be a number of at least 0, got 'fast'"),
        ({"train__b1": 1.0}, "train.b1 must be a number of at least 0 and below 1, got 1.0"),
        ({"train__clip_norm": 0.0}, "train.clip_norm must be a positive number, got 0.0"),
        ({"init__positions": -1.0}, "init.positions must be a number of at least 0, got -1.0"),
        ({"curriculum__concept_steps": 0}, "curriculum.concept_steps must be a positive number, got 0"),
        ({"seed": -1}, "seed must be an integer from 0 to 4294967295, got -1"),
        ({"seed": 1.5}, "seed must be an integer from 0 to 4294967295, got 1.5"),
        ({"task__noise": -1}, "task.noise must be a number of at least 0, got -1"),
        ({"task__masks": [[1, 0]]}, r"masks must have shape \(3, 6\), got \(1, 2\)"),
        ({"task__concept_weights": [1, 2]}, r"concept_weights must have shape \(3,\), got \(2,\)"),
        ({"measure__neighbours": 15}, "measure.neighbours must be below the number of points, 15, got 15"),
        ({"measure__cd_per_concept": 8}, "measure.cd_per_concept must be at most measure.per_concept = 7, got 8"),
        ({"measure__count": 1}, "measure.count must be an integer from 2 to 1000000, got 1"),
        ({"measure__hidden_count": -1}, "measure.hidden_count must be an integer of at least 0, got -1"),
        ({"measure__spacing": "cubic"}, "measure.spacing must be .*, got 'cubic'"),
        ({"measure__steps": [0, 1001]}, r"measure.steps must be integers from 0 to train.steps = 1000, got \[1001\]"),
        ({"measure__checkpoint_steps": [-1]}, "measure.checkpoint_steps must be a tuple, .* at least 0, got -1"),
    ],
)
def test_bad_input_is_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        Regression.from_config(config(**overrides))
