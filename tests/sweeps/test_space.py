"""The points of a sweep: what the builders make, and what is refused before anything runs."""

import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from jaxconcepts.runs import points
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Space, choice, log_uniform, product, sample, uniform, zip_

RATE, NOISE = "train.learning_rate", "task.noise"


def base():
    config = json.loads(json.dumps(default_config()))  # lists for tuples, as the command line makes it
    return {name: part for name, part in config.items() if name not in ("run", "num_seeds")}


def test_product_is_every_combination():
    made = list(product(**{RATE: [1e-3, 1e-4], NOISE: [0.1, 0.2, 0.3]}))
    assert made == [{RATE: r, NOISE: n} for r, n in itertools.product([1e-3, 1e-4], [0.1, 0.2, 0.3])]


def test_zip_goes_side_by_side():
    assert list(zip_(**{RATE: [1, 1], NOISE: (3, 4)})) == [{RATE: 1, NOISE: 3}, {RATE: 1, NOISE: 4}]


def test_plus_chains_and_times_crosses():
    chained = product(seed=[0]) + zip_(seed=[7]) + [{"seed": 9}]
    assert [override["seed"] for override in chained] == [0, 7, 9]
    crossed = product(**{RATE: [1, 2]}) * product(seed=range(3))
    assert len(crossed) == 6 and crossed[1] == {RATE: 1, "seed": 1}
    assert isinstance(crossed[:2], Space) and len(crossed[:2]) == 2


def test_samples_are_drawn_from_the_named_distributions():
    drawn = list(sample(4000, 3, a=uniform(-1, 3), b=log_uniform(1e-4, 1e-1), c=choice(["x", "y"])))
    a, b = np.array([d["a"] for d in drawn]), np.log10([d["b"] for d in drawn])
    # Means and deviations of uniform distributions on [-1, 3] and [-4, -1], within five standard errors.
    assert abs(a.mean() - 1) < 5 * 4 / math.sqrt(12 * 4000) and abs(a.std() - 4 / math.sqrt(12)) < 0.05
    assert abs(b.mean() + 2.5) < 5 * 3 / math.sqrt(12 * 4000) and abs(b.std() - 3 / math.sqrt(12)) < 0.05
    assert a.min() >= -1 and a.max() < 3 and b.min() >= -4 and b.max() < -1
    assert abs(sum(d["c"] == "x" for d in drawn) - 2000) < 5 * math.sqrt(1000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(4000)


def test_a_longer_sample_begins_with_the_shorter_one():
    fields = {RATE: log_uniform(1e-4, 1e-2), NOISE: uniform(0, 1)}
    short, long = list(sample(5, 1, **fields)), list(sample(9, 1, **fields))
    assert long[:5] == short and list(sample(5, 2, **fields)) != short
    assert [d[RATE] for d in sample(5, 1, **{RATE: fields[RATE]})] == [d[RATE] for d in short]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: product(), "at least one field"),
        (lambda: product(**{RATE: []}), "train.learning_rate must have at least one value"),
        (lambda: product(**{RATE: 3}), "train.learning_rate must be a list of values, got 3"),
        (lambda: product(**{"task.bases": "orthogonal"}), "must be a list of values"),
        (lambda: product(seed=[1, 2, 1]), "seed must have each value once, got 1 twice"),
        (lambda: zip_(**{RATE: [1, 2], NOISE: [1]}), "as many values of every field, got .*2.*1"),
        (lambda: product(**{RATE: [1]}) * product(**{RATE: [2]}), "train.learning_rate is given by both sides"),
        (lambda: sample(0, 0, a=uniform(0, 1)), "count must be a positive integer, got 0"),
        (lambda: sample(2, 0, a=[1, 2]), r"a must be uniform\(...\)"),
        (lambda: log_uniform(0, 1), "0 < low < high"),
        (lambda: uniform(2, 1), "low < high"),
        (lambda: choice([]), "at least one value"),
    ],
)
def test_bad_spaces_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_expand_overrides_the_base_and_keeps_each_point_once():
    made = points.expand(base(), product(**{NOISE: [0, 0.5], "task.rank": [1, 2]}) + [{NOISE: 0.5, "task.rank": 2}])
    assert len(made) == 4 and len({point.hash for point in made}) == 4
    assert [point.config["task"]["noise"] for point in made] == [0.0, 0.0, 0.5, 0.5]
    assert [point.experiment.task.rank for point in made] == [1, 2, 1, 2]
    assert len(points.group(made)) == 2
    assert points.differences(base(), made[3].config) == {NOISE: 0.5, "task.rank": 2}


def test_a_point_is_known_by_its_values_not_by_how_they_were_written():
    first = points.expand(base(), [{NOISE: 1, "seed": 3, "task.families": ()}])[0]
    same = points.expand(base(), [{"seed": np.int64(3), NOISE: np.float64(1.0), "task.families": []}])[0]
    other = points.expand(base(), [{NOISE: 1.0, "seed": 4}])[0]
    assert first.hash == same.hash != other.hash and first.run == same.run


def test_every_field_of_task_model_and_training_can_be_swept():
    config = base()
    flat = points.flatten(config)
    for name in flat:
        assert points.expand(config, [{name: flat[name]}])[0].config == config


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ([], "at least one point"),
        ([{"task.nois": 1}], "unknown swept field task.nois; accepted: .*noise"),
        ([{"noise": 1}], "unknown swept field noise; accepted"),
        ([{"task": {}}], "single fields, such as task.num_concepts, got task"),
        ([{"run.how": "map"}], "unknown swept field run.how"),
        ([{NOISE: 0.1}, {NOISE: -1}], "point 1 of the sweep, {'task.noise': -1}, is invalid: task.noise"),
        ([{"task.rank": 5}], "point 0 of the sweep, {'task.rank': 5}, is invalid: orthogonal"),
        ([{"task.rank": 2.5}], "task.rank must be of type int, got 2.5"),
        ([{"model.heads": 3}], "point 0 .* is invalid: .*heads"),
        ([3], "dicts of overrides"),
    ],
)
def test_bad_sweeps_are_refused_and_name_the_point(sweep, message):
    with pytest.raises(ValueError, match=message):
        points.expand(base(), sweep)


def test_the_builders_need_no_jax():
    code = "import sys; from jaxconcepts.sweeps import product; product(seed=[1]); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
