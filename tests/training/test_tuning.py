"""Fine-tuning restricted to layers: what stays frozen, what arms share, and where the loss lies."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxconcepts.models import language, llama
from jaxconcepts.runs import packs
from jaxconcepts.training import answer_loss, freezing, lora, tuning
from jaxconcepts.training.optimizers import OptimizerNumbers

EIGHT = ("first-1", "first-2", "last-1", "last-2", "blocks-2", "blocks-1-3", "all", "none")


def leaves(params):
    return {freezing_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def freezing_path(path):
    return "/".join(key.key for key in path)


def test_the_loss_is_that_of_the_answer_tokens_alone(tiny):
    batch = answer_loss.batch_of_step(tiny.data, tiny.batch_size, np.uint32(3), 2)
    logits = np.asarray(language.logits(tiny.model, tiny.params, np.asarray(batch.tokens)), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = [
        -log_p[row, batch.positions[row, i], batch.targets[row, i]] for row, i in np.argwhere(np.asarray(batch.weights))
    ]
    found = jax.jit(tiny.loss)(tiny.params, tiny.data, np.uint32(3), np.int32(2))
    assert len(losses) < batch.weights.size and float(found) == pytest.approx(np.mean(losses), abs=1e-5)


def test_examples_hold_prompt_and_answer_and_say_what_is_predicted_from_where(tiny):
    found = answer_loss.examples(tiny.model, [[5, 6, 7], [8]], [[9], [1, 2]], multiple=8)
    assert found.tokens.tolist() == [[5, 6, 7, 9, 0, 0, 0, 0], [8, 1, 2, 0, 0, 0, 0, 0]]
    assert found.positions.tolist() == [[2, 0], [0, 1]] and found.targets.tolist() == [[9, 0], [1, 2]]
    assert found.weights.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("prompts", "answers", "message"),
    [
        ([[1]], [], "every prompt must have an answer, got 1 prompts and 0 answers"),
        ([[1], []], [[1], [1]], "example 1 has 0 prompt and 1 answer tokens; both need"),
        ([[1] * 30], [[1] * 3], "example 0 takes 33 tokens, the model's context is 32"),
        ([[1], [40]], [[1], [1]], "example 1 has token 40, outside the vocabulary of 40"),
    ],
)
def test_examples_that_do_not_fit_are_named(tiny, prompts, answers, message):
    with pytest.raises(ValueError, match=message):
        answer_loss.examples(tiny.model, prompts, answers)


def test_an_epoch_sees_every_example_once_and_the_next_in_another_order(tiny):
    numbered = answer_loss.Examples(*[np.arange(22, dtype=np.int32)[:, None]] * 4)
    rows = lambda seed, step: answer_loss.batch_of_step(numbered, 4, np.uint32(seed), step).tokens[:, 0].tolist()  # noqa: E731
    epochs = [[row for step in steps for row in rows(0, step)] for steps in (range(5), range(5, 10))]
    assert [len(set(epoch)) for epoch in epochs] == [20, 20] and epochs[0] != epochs[1]
    assert rows(0, 0) == epochs[0][:4] and rows(1, 0) != rows(0, 0)


@pytest.mark.parametrize("full", [False, True])
def test_frozen_parameters_are_bit_identical_after_training(tiny, full):
    """With weight decay, which would move what has no gradient; what is trained moves."""
    config, made = tiny.make(**({"lora": None} if full else {}))
    patterns = [("blocks/(1|3)/(q|mlp_norm|down)/.*", "train"), (".*", "freeze")]
    hparams = tiny.numbers(config, patterns, weight_decay=0.5)
    # Leaves that no arm trains are not carried along.
    hparams = jax.tree.map(lambda a: a[0], tuning.stack_arms([hparams]))
    state, _ = made.chunk(made.init(tiny.params, hparams), hparams, tiny.params, tiny.data, np.int32(5))
    before, after = leaves(tiny.params), leaves(made.merged(tiny.params, state.params, hparams))
    moved = {
        name
        for name in ("blocks/q/kernel", "blocks/mlp_norm/scale", "blocks/down/kernel")
        if full or "norm" not in name
    }
    for name, leaf in after.items():
        same = np.asarray(leaf == before[name])
        if name in moved:
            assert same[1].all() and same[[0, 2]].mean() < 0.1, name
        else:
            assert same.all(), name


@pytest.mark.slow
def test_full_fine_tuning_of_everything_is_plain_training(tiny):
    """Against optax on all parameters, written here."""
    import optax

    config, made = tiny.make(lora=None)
    hparams = tiny.numbers(config, [(".*", "train")])
    state, loss = made.chunk(made.init(tiny.params, hparams), hparams, tiny.params, tiny.data, np.int32(3))
    rule = optax.adamw(3e-3, weight_decay=0.01)
    params, opt_state, losses = tiny.params, rule.init(tiny.params), []
    grad = jax.jit(jax.value_and_grad(tiny.loss))
    for step in range(3):
        value, grads = grad(params, tiny.data, np.uint32(0), np.int32(step))
        updates, opt_state = rule.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(value))
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)
    found = made.merged(tiny.params, state.params, hparams)
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-5), found, params)


def together(experiment, arms, how, steps):
    """The first and the last states of all arms as one pack, and their losses."""
    program = packs.make_program(experiment, len(arms.seed), packs.Layout(how), jax.devices()[:1])
    singly = [jax.tree.map(lambda a, i=index: a[i], arms) for index in range(len(arms.seed))]
    numbers, data = packs.stack_numbers(program, singly), packs.place_data(program, experiment.data())
    first = program.init(numbers, data)
    before = jax.tree.map(np.array, first)
    states, reported = program.chunk(first, numbers, data, packs.step_count(steps))
    return before, states, reported["train_loss"]


@pytest.mark.slow
def test_eight_arms_at_once_are_eight_single_ones(tiny):
    config, made = tiny.make()
    arms = tuning.stack_arms([tiny.numbers(config, arm, seed=index % 2) for index, arm in enumerate(EIGHT)])
    singles = []
    for index in range(8):
        arm = jax.tree.map(lambda a, index=index: a[index], arms)
        singles.append(made.chunk(made.init(tiny.params, arm), arm, tiny.params, tiny.data, np.int32(3)))
    assert len({float(loss) for _, loss in singles}) == 8
    for how, tolerance in (("map", 0), ("vmap", 2e-5)):
        _, states, losses = together(tiny.experiment(config), arms, how, 3)
        for index, (state, loss) in enumerate(singles):
            assert float(losses[index]) == pytest.approx(float(loss), abs=tolerance), (how, EIGHT[index])
            for path, pair in state.params.items():
                for part, array in pair.items():
                    packed = states.params[path][part][index]
                    np.testing.assert_allclose(packed, array, rtol=0, atol=tolerance, err_msg=f"{how} {path} {part}")


@pytest.mark.parametrize(("how", "remat"), [("vmap", True), ("map", False)])
def test_eight_arms_hold_one_copy_of_the_base(how, remat):
    """By the compiled program's memory: an arm more costs its adapters and activations, a fraction of the weights."""
    model = llama.LlamaConfig(
        vocab_size=40, width=256, layers=4, heads=4, kv_heads=2, head_dim=64, mlp_width=512, context=32,
        rope_scaling=None,
    )  # fmt: skip
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    data = answer_loss.examples(model, [[1, 2, 3]] * 8, [[1]] * 8)
    config = tuning.TuneConfig(steps=5, batch_size=2, lora=lora.LoraConfig(rank=2))

    def loss(params, data, seed, step):
        return answer_loss.answer_loss(model, params, answer_loss.batch_of_step(data, 2, seed, step), remat)

    shared = tuning.Shared(shapes, data)
    tuned = tuning.Tuned(model, config, loss, shared)

    def memory(count):
        numbers = OptimizerNumbers(*[np.float32(1)] * 6)
        masks = tuning.arm_masks(config, model, shapes, freezing.arm("all", 4))
        arm = tuning.stack_arms([tuning.TuneHParams(np.uint32(0), numbers, masks)])
        program = packs.make_program(tuned, count, packs.Layout(how), jax.devices()[:1])
        arms = packs.abstract_numbers(program, jax.tree.map(lambda a: a[0], arm))
        given = packs.abstract_data(program, tuned.data())
        states = packs.abstract_state(program, arms, given)
        found = program.chunk.lower(states, arms, given, packs.step_count(5)).compile().memory_analysis()
        return found.argument_size_in_bytes + found.temp_size_in_bytes

    base = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    one, eight = memory(1), memory(8)
    assert base < one and eight < 2.5 * base
    assert (eight - one) / 7 < base / 8


@pytest.mark.slow
def test_training_goes_on_where_it_stopped_bit_for_bit(tiny):
    config, made = tiny.make(lora=lora.LoraConfig(rank=2, dropout=0.3), schedule="linear")
    hparams = tiny.numbers(config, "all")
    whole_and_mean = made.chunk(made.init(tiny.params, hparams), hparams, tiny.params, tiny.data, np.int32(5))
    state = made.init(tiny.params, hparams)
    for steps, since in ((2, 0), (3, 2)):
        state, mean = made.chunk(state, hparams, tiny.params, tiny.data, np.int32(steps), since=np.int32(since))
    jax.tree.map(np.testing.assert_array_equal, (state, mean), whole_and_mean)
    # With dropout the loss differs from that without.
    dry = tiny.make(lora=lora.LoraConfig(rank=2, dropout=0.0), schedule="linear")[1]
    other, _ = dry.chunk(dry.init(tiny.params, hparams), hparams, tiny.params, tiny.data, np.int32(5))
    assert not np.array_equal(other.params["blocks/q"]["b"], whole_and_mean[0].params["blocks/q"]["b"])


def test_an_arm_that_diverges_is_marked_and_frozen_and_touches_no_other(tiny):
    config, made = tiny.make()
    arms = [tiny.numbers(config, "all", learning_rate=rate) for rate in (3e-3, np.inf)]
    states, after, _ = together(tiny.experiment(config), tuning.stack_arms(arms), "map", 3)
    assert after.diverged_at.tolist() == [-1, 0]
    alone, _ = made.chunk(made.init(tiny.params, arms[0]), arms[0], tiny.params, tiny.data, np.int32(3))
    for path, pair in after.params.items():
        for part, array in pair.items():
            np.testing.assert_array_equal(array[1], states.params[path][part][1])
            np.testing.assert_array_equal(array[0], alone.params[path][part])


@pytest.mark.parametrize(
    ("patterns", "fields", "message"),
    [
        ([("embed", "train"), (".*", "freeze")], {}, "LoRA adapts .*, but a pattern trains embed; freeze it"),
        (
            [("blocks/(1/.*|2/gate/.*)", "train"), (".*", "freeze")], {},
            r"train block 2, but none of LoRA's targets \(blocks/q, blocks/v, blocks/out, blocks/down\)",
        ),
        ([("blocks/.*", "train")], {}, "none matches embed"),
        ([("blocks/7/.*", "train"), (".*", "freeze")], {"lora": None}, "'blocks/7/.*' matches no parameter"),
    ],
)  # fmt: skip
def test_arms_that_cannot_be_are_named(tiny, patterns, fields, message):
    config = tuning.TuneConfig(**{"lora": tiny.lora} | fields)
    with pytest.raises(ValueError, match=message):
        tuning.arm_masks(config, tiny.model, tiny.params, patterns)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "tune.steps must be an integer of at least 1, got 0"),
        ({"batch_size": 2.0}, "tune.batch_size must be an integer of at least 1, got 2.0"),
        ({"optimizer": "muon"}, "tune.optimizer must be one of adam, adamw, got 'muon'"),
        ({"schedule": "step"}, "tune.schedule must be one of"),
        ({"decay_fraction": 0.0}, "tune.decay_fraction must be in"),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        tuning.TuneConfig(**fields)
