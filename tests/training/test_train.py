"""One training run: its loss, its data stream, its chunks, its divergence, its precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.experiments.regression import Regression, RegressionTrain, objective_and_mse
from jaxconcepts.models import gpt2
from jaxconcepts.tasks import regression
from jaxconcepts.training import train

pytestmark = pytest.mark.usefixtures("compiles_fast")

TASK = regression.RegressionConfig(num_concepts=2, dim=4, rank=2, num_pairs=3)
MODEL = gpt2.GPT2Config(layers=2, heads=2, width=16, context=6, input_dim=4, unroll=1)


def make(model=MODEL, **fields):
    made = train.make_train(Regression(TASK, model, RegressionTrain(steps=1000, batch_size=16, **fields)))
    chunk = jax.jit(made.chunk)

    def run(state, numbers, steps, **since):
        state, reported = chunk(state, numbers, None, steps, **since)
        return state, reported["train_loss"]

    run.jitted = chunk
    return made._replace(init=jax.jit(partial(made.init, data=None)), chunk=run)


def numbers(**overrides):
    config = Regression.default_config()
    config["task"].update(num_concepts=2, dim=4, rank=2, num_pairs=3)
    config["model"].update(layers=2, heads=2, width=16)
    config["train"].update(learning_rate=1e-3, b2=0.99)
    for name, value in overrides.items():
        section, _, field = name.rpartition("__")
        (config[section] if section else config)[field] = value
    return Regression.from_config(config).numbers(config)


def count(steps):
    return np.int32(steps)


def assert_same_bits(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def adam():
    return make()


@jax.jit
def batch_at(hparams, step):
    key = jax.random.fold_in(train.data_key(hparams.seed), step)
    return regression.sample(TASK, hparams.task, key, 16)


@jax.jit
def outputs(params, batch):
    return gpt2.apply(MODEL, params, regression.interleave(batch)).out


mean_loss = jax.jit(lambda params, batch: objective_and_mse(MODEL, "mse", params, batch)[1])


def test_the_loss_is_the_mean_over_the_batch_and_the_pairs_that_count(adam):
    hparams = numbers()
    params, batch = adam.init(hparams).params, batch_at(hparams, 0)
    out = np.asarray(outputs(params, batch), np.float64)
    errors = (out[:, [0, 2, 4], 0] - np.asarray(batch.targets, np.float64)) ** 2
    assert float(mean_loss(params, batch)) == pytest.approx(errors.mean(), rel=1e-6)
    two = batch._replace(pair_mask=jnp.array([1.0, 1.0, 0.0]))
    assert float(mean_loss(params, two)) == pytest.approx(errors[:, :2].mean(), rel=1e-6)


def test_the_data_of_a_step_depend_on_seed_and_step_alone(adam):
    """At learning rate 0 the loss of step s is that of the batch drawn from fold_in(data key, s)."""
    for seed in (0, 7):
        hparams = numbers(seed=seed, train__learning_rate=0.0)
        state = adam.init(hparams)
        for step in range(3):
            state, loss = adam.chunk(state, hparams, count(1))
            expected = mean_loss(state.params, batch_at(hparams, step))
            assert float(loss) == pytest.approx(float(expected), rel=1e-6), (seed, step)


def test_seeds_differ_in_weights_and_data(adam):
    first, second = numbers(seed=0), numbers(seed=1)
    assert not np.array_equal(adam.init(first).params["positions"], adam.init(second).params["positions"])
    assert not np.array_equal(batch_at(first, 0).inputs, batch_at(second, 0).inputs)


def test_a_chunk_of_ten_is_two_of_five_bit_for_bit(adam):
    hparams = numbers()
    whole, mean = adam.chunk(adam.init(hparams), hparams, count(10))
    state, losses = adam.init(hparams), []
    for length in (5, 5):
        state, loss = adam.chunk(state, hparams, count(length))
        losses.append(float(loss))
    assert int(state.step) == 10
    assert_same_bits(state._replace(loss_sum=whole.loss_sum), whole)
    assert float(mean) == pytest.approx(np.mean(losses), rel=1e-6)


def test_the_mean_loss_of_a_stretch_has_the_same_bits_in_whatever_chunks(adam):
    hparams, rng = numbers(), np.random.default_rng(0)
    before, _ = adam.chunk(adam.init(hparams), hparams, count(4), since=count(0))
    whole, mean = adam.chunk(before, hparams, count(30), since=count(0))
    for _ in range(3):
        state, step, means = before, 4, []
        for stop in [*sorted(rng.choice(np.arange(5, 34), 4, replace=False)), 34]:
            state, loss = adam.chunk(state, hparams, count(stop - step), since=count(step - 4))
            step = stop
            means.append(float(loss))
        assert_same_bits((state, loss), (whole, mean))
        # Those of the chunks before are means too, of part of the stretch.
        assert len(set(means)) == 5 and np.ptp(means) < 0.5 * means[0]


def test_other_numbers_and_lengths_need_no_other_program(adam):
    before = adam.chunk.jitted._cache_size()
    settings = {
        "seed": 3, "train__learning_rate": 0.01, "train__b1": 0.5, "task__noise": 0.7, "train__clip_norm": 1.0,
        "init__weights": 0.3, "curriculum__dim_start": 1.0, "task__concept_weights": [1.0, 2.0],
    }  # fmt: skip
    found = set()
    for length, (name, value) in enumerate(settings.items(), start=4):
        hparams = numbers(**{name: value})
        state, _ = adam.chunk(adam.init(hparams), hparams, count(length))
        state, loss = adam.chunk(state, hparams, count(2))
        found.add(float(loss))
    assert len(found) == len(settings)
    assert adam.chunk.jitted._cache_size() == max(before, 1) and adam.init._cache_size() == 1


VANISHING_PAIRS = {"pairs_start": np.float32(2), "pairs_increment": np.float32(-1), "pairs_interval": np.float32(3)}
"""A curriculum, which no config may have, that takes the last pair away at step 6, so that the loss is 0 / 0."""


@pytest.mark.parametrize(("overrides", "at"), [({"train__learning_rate": 1e38}, 0), (VANISHING_PAIRS, 6)])
def test_a_run_that_diverges_is_marked_with_its_step_and_frozen(adam, overrides, at):
    if overrides is VANISHING_PAIRS:
        hparams = numbers()
        hparams = hparams._replace(curriculum=hparams.curriculum._replace(**overrides))
    else:
        hparams = numbers(**overrides)
    before, _ = adam.chunk(adam.init(hparams), hparams, count(at))
    assert int(before.diverged_at) == -1
    after, _ = adam.chunk(before, hparams, count(1))
    later, loss = adam.chunk(adam.init(hparams), hparams, count(at + 9))
    assert (int(after.diverged_at), int(later.diverged_at), int(later.step)) == (at, at, at + 9)
    for state in (after, later):
        assert_same_bits((state.params, state.opt_state), (before.params, before.opt_state))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert np.isnan(loss) == (overrides is VANISHING_PAIRS)


def curve(made, hparams, chunks=6, length=10):
    state, losses = made.init(hparams), []
    for _ in range(chunks):
        state, loss = made.chunk(state, hparams, count(length))
        losses.append(float(loss))
    return np.array(losses), state


def test_rematerialised_training_is_the_same_training(adam):
    losses, state = curve(adam, numbers())
    again = gpt2.GPT2Config(**{**vars(MODEL), "remat": True})
    made, hparams = make(model=again), numbers()
    traced = [str(m.chunk.jitted.trace(m.init(hparams), hparams, None, count(1)).jaxpr) for m in (adam, made)]
    assert ["remat" in text or "checkpoint" in text for text in traced] == [False, True]
    remat_losses, remat_state = curve(made, hparams)
    np.testing.assert_allclose(remat_losses, losses, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), remat_state.params, state.params)


def test_bfloat16_products_train_float32_weights_to_a_close_loss(adam):
    losses, _ = curve(adam, numbers())
    low = gpt2.GPT2Config(**{**vars(MODEL), "dtype": "bfloat16"})
    low_losses, state = curve(make(model=low), numbers())
    np.testing.assert_allclose(low_losses, losses, rtol=0.01)
    assert not np.array_equal(low_losses, losses)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}


def test_it_learns(adam):
    """With one dimension in use and no noise, predicting 0 costs 1, and knowing the answer after one pair 1 / 3."""
    easy = {"task__masks": [[1, 0, 0, 0]] * 2, "task__noise": 0.0, "curriculum__dim_start": 1.0}
    scales = {"init__positions": 0.5, "init__read_in": 0.5, "init__weights": 0.0}
    losses, _ = curve(adam, numbers(train__learning_rate=3e-3, **easy, **scales), chunks=5, length=200)
    assert losses[0] > 0.8 and losses[-1] < 0.7, losses


def test_the_logarithm_is_taken_of_each_position():
    """At step 0 of plain descent (Adam with b1 = b2 = 0 and a large eps) the update is the gradient."""
    made = make(loss="log_mse")
    hparams = numbers(train__b1=0.0, train__b2=0.0, train__eps=1e6, train__learning_rate=1e6)
    state = made.init(hparams)

    @jax.jit
    def expected(params, batch):
        def objective(params):
            out = gpt2.apply(MODEL, params, regression.interleave(batch)).out[:, ::2, 0]
            return jnp.log(((out - batch.targets) ** 2).mean(0) + 1e-4).mean()

        return jax.tree.map(lambda p, g: p - g, params, jax.grad(objective)(params))

    after, loss = made.chunk(state, hparams, count(1))
    batch = batch_at(hparams, 0)
    assert float(loss) == pytest.approx(float(mean_loss(state.params, batch)), rel=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-6), after.params, expected(state.params, batch))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "train.steps must be an integer of at least 1, got 0"),
        ({"batch_size": -4}, "train.batch_size must be an integer of at least 1, got -4"),
        ({"warmup_steps": 1.5}, "train.warmup_steps must be an integer of at least 0, got 1.5"),
        ({"optimizer": "sgd"}, "train.optimizer must be one of adam, adamw, muon, got 'sgd'"),
        ({"schedule": "step"}, "train.schedule must be one of constant, cosine, linear, got 'step'"),
        ({"loss": "mae"}, "train.loss must be one of mse, log_mse, got 'mae'"),
        ({"decay_fraction": 0}, r"train.decay_fraction must be in \(0, 1\], got 0"),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        RegressionTrain(**fields)
