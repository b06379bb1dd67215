"""Language models on biographies, against answers looked up in the table and against the host's own functions."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from jaxconcepts import store
from jaxconcepts.experiments import trained_probes
from jaxconcepts.experiments.biographies import Biographies
from jaxconcepts.experiments.biographies_sizes import fields_of
from jaxconcepts.models import decoding, language
from jaxconcepts.runs import points
from jaxconcepts.tasks import biographies, biographies_bank, biographies_capacity
from jaxconcepts.tasks.biographies_vocabulary import vocabulary
from jaxconcepts.training import train

STEPS = 300


def config(**changed):
    made = points.apply(Biographies.default_config(), fields_of("smoke"))
    small = {"task.people": 20, "task.last": 20, "task.window": 40, "task.kinds": ["extract", "classify"]}
    small |= {"task.hint_share": 0.5, "measure.per_concept": 10, "measure.cd_per_concept": 10, "train.steps": STEPS}
    small |= {"train.batch_size": 16, "train.learning_rate": 0.01, "train.warmup_steps": 10, "task.passes": 4}
    small |= {"measure.metrics": ["questions", "hinted", "stored", "q_probe", "trained_q_probe", "p_probe"]}
    small["measure.metrics"] += ["trained_p_probe", "cd"]
    return points.apply(made, small | changed)


class Trained:
    """A model that answers some questions, and what is measured of it."""

    def __init__(self, point):
        self.experiment, self.numbers = point.experiment, point.numbers
        self.data = jax.tree.map(np.asarray, self.experiment.data())
        training = train.make_train(self.experiment)
        state = jax.jit(training.init)(self.numbers, self.data)
        self.params = jax.jit(training.chunk)(state, self.numbers, self.data, STEPS)[0].params
        held_out = jax.jit(self.experiment.held_out)(self.numbers, self.data)

        def measure(params, held_out):
            once = self.experiment.constants(held_out, lambda: params)
            return self.experiment.measure(params, held_out) | once

        self.named = jax.device_get(jax.jit(measure)(self.params, held_out))
        world = self.experiment.world
        self.people, self.words = world.people, vocabulary(world.people, "compact")

    def by_question(self, metric):
        names = dict(self.named[metric].names)
        values = np.asarray(self.named[metric].values)
        return {
            (side, label): values[row, column]
            for row, side in enumerate(names["token"])
            for column, label in enumerate(names["label"])
        }

    def logits(self, rows):
        """Of the whole rows, [N, T, V] in float64."""
        _, logits = language.hidden_states(self.experiment.model, self.params, rows, at="all", with_logits=True)
        return np.asarray(logits, np.float64)

    def states(self, rows):
        return np.asarray(language.hidden_states(self.experiment.model, self.params, rows, at="all"))

    def asked(self):
        """(side, label, prompt and answer with bos and eos, the answer's start, the plain answer's tokens)."""
        sides = biographies_bank.split(self.people, self.experiment.task.bank)
        for side, mask in (("asked", sides.asked), ("held_out", sides.held_out)):
            for person in np.flatnonzero(mask)[:10]:
                for kind, hint in (("extract", False), ("classify", False), ("classify", True)):
                    plain = biographies.ask(self.people, person, kind, False, form="compact")
                    for question, short in zip(
                        biographies.ask(self.people, person, kind, hint, form="compact"), plain, strict=True
                    ):
                        prompt, answer, last = (
                            self.words.encode(text)[0] for text in (question.prompt, question.answer, short.answer)
                        )
                        label = question.label + (" hint" if hint else "")
                        yield side, label, [1, *prompt, *answer, 2], 1 + len(prompt), 1 + len(last)


@pytest.fixture(scope="module")
def trained(compiles_fast):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained_probes, "STEPS", 0)  # What training does is in test_trained_probes.py.
        yield Trained(points.make_point(config()))


def means(rows):
    """By side and label, and by kind: the mean over its labels."""
    cells = {}
    for side, label, value in rows:
        cells.setdefault((side, label), []).append(value)
    each = {cell: np.mean(values) for cell, values in cells.items()}
    for side in ("asked", "held_out"):
        for kind, end in (("extract", ""), ("classify", ""), ("classify", " hint")):
            of_kind = [v for (s, label), v in each.items() if s == side and label.startswith(kind) and
                       label.endswith(" hint") == bool(end)]  # fmt: skip
            if of_kind:
                each[side, kind + end] = np.mean(of_kind)
    return each


def test_no_question_of_training_is_about_a_held_out_person(trained):
    sides = biographies_bank.split(trained.people, trained.experiment.task.bank)
    last_names = {person: trained.words.numbers[trained.people.columns["last"][person]] for person in range(20)}
    met = set(trained.data["asked"]["tokens"].ravel().tolist())
    assert {person for person, token in last_names.items() if token in met} == set(np.flatnonzero(sides.asked))
    told = set(trained.data["told"]["tokens"].ravel().tolist())
    assert set(last_names.values()) <= told


def test_answers_are_right_where_every_token_and_the_end_are(trained):
    exact, first, counts = [], [], {}
    for side, label, tokens, start, _ in trained.asked():
        likely = trained.logits(np.array([tokens]))[0].argmax(-1)
        right = [likely[place - 1] == tokens[place] for place in range(start, len(tokens))]
        exact.append((side, label, all(right)))
        first.append((side, label, right[0]))
        if side == "held_out":
            counts.setdefault(label, []).append(tuple(tokens[start:]))
    for metric, rows in (("exact", exact), ("first_token", first)):
        expected, values = means(rows), trained.by_question(metric)
        assert set(values) == set(expected)
        for cell, value in expected.items():
            assert values[cell] == pytest.approx(value, abs=1e-6), cell
    assert 0 < means(exact)["asked", "extract"] < 1
    majority = trained.named["majority"]
    shares = dict(zip(dict(majority.names)["label"], majority.values, strict=True))
    for label, answers in counts.items():
        if not label.endswith(" hint"):
            assert shares[label] == pytest.approx(max(map(answers.count, answers)) / len(answers))


def test_hinted_answers_are_those_that_the_model_writes_after_its_own_facts(trained):
    rows, differing = [], 0
    for side, label, tokens, start, plain in trained.asked():
        if not label.endswith(" hint"):
            continue
        written = tokens[:start]
        while len(written) < len(tokens):
            written.append(int(trained.logits(np.array([written]))[0, -1].argmax()))
        rows.append((side, label, written[-plain:] == tokens[-plain:]))
        differing += written != tokens and written[-plain:] == tokens[-plain:]
    expected = means(rows)
    for cell, value in trained.by_question("answer").items():
        assert np.isnan(value) if cell not in expected else value == pytest.approx(expected[cell], abs=1e-6), cell
    assert differing  # Right answers after wrong facts count.


def test_what_is_measured_in_parts_is_what_one_pass_gives(trained, monkeypatch):
    """Of questions, answers that are written, and biographies, five rows at once."""
    monkeypatch.setattr(decoding, "TOKENS_AT_ONCE", 5 * trained.experiment.task.window)
    asked = replace(trained.experiment.measuring, metrics=("questions", "hinted", "stored"))
    held_out = jax.jit(trained.experiment.held_out)(trained.numbers, trained.data)
    measured = jax.jit(replace(trained.experiment, measuring=asked).measure)(trained.params, held_out)
    assert {"exact", "answer", "recall", "bits_a_parameter"} <= set(measured)
    for name, given in measured.items():
        np.testing.assert_allclose(given.values, trained.named[name].values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_bits_stored_are_those_of_the_host(trained):
    texts = trained.data["biographies"]
    logits = trained.logits(texts["tokens"])
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = np.zeros(texts["tokens"].shape)
    losses[:, 1:] = -np.take_along_axis(log_probs[:, :-1], texts["tokens"][:, 1:, None], -1)[..., 0]
    name, value = biographies_capacity.losses_a_person(losses, texts["parts"])
    assert trained.named["name_loss"].values == pytest.approx(name, rel=1e-5)
    assert trained.named["value_loss"].values == pytest.approx(value, rel=1e-5)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trained.params))
    cards = trained.experiment.task.cardinalities
    assert trained.named["parameters"].values == parameters
    expected = biographies_capacity.bits_a_parameter(20, name, value, parameters, cards)
    assert trained.named["bits_a_parameter"].values == pytest.approx(expected, rel=1e-4) and expected > 0
    assert trained.named["bits_ceiling"].values == pytest.approx(
        biographies_capacity.ceiling(20, parameters, cards), rel=1e-6
    )
    right = logits[:, :-1].argmax(-1) == texts["tokens"][:, 1:]
    values = texts["parts"][:, 1:] == 2
    recall = [right[texts["side"] == side][values[texts["side"] == side]].mean() for side in (0, 1)]
    np.testing.assert_allclose(trained.named["recall"].values, recall, atol=1e-6)


def ridge(hidden, labels):
    """How often scikit-learn's ridge classifier is right, over three folds of the people in order of their number."""
    predicted = np.empty_like(labels)
    for fold in range(3):
        out = np.arange(len(labels)) % 3 == fold
        predicted[out] = (
            RidgeClassifier(alpha=1.0).fit(hidden[~out].astype(np.float64), labels[~out]).predict(hidden[out])
        )
    return np.mean(predicted == labels)


@pytest.mark.parametrize("attribute", ["birth_month", "major"])
def test_probes_are_scikit_learns(trained, attribute):
    names, texts = trained.data["names"], trained.data["biographies"]
    order = np.argsort(names["group"])
    code = trained.people.codes[attribute][names["group"]][order]
    at_end = trained.states(names["tokens"])[:, :, -1]
    at_spots = trained.states(texts["tokens"])[:, np.arange(20)[:, None], texts["spots"]]
    # A point whose scores all but tie may fall to either side.
    for layer in range(2):
        expected = ridge(at_end[layer][order], code)
        assert trained.named[f"q_probe/{attribute}"].values[layer] == pytest.approx(expected, abs=0.051)
        for spot in (0, 4):
            expected = ridge(at_spots[layer][order, spot], code)
            assert trained.named[f"p_probe/{attribute}"].values[spot, layer] == pytest.approx(expected, abs=0.051)
    # Trained for no steps they are the ridge probes of the last layer, on every third person.
    out = np.arange(20) % 3 == 0
    for metric, spots in (("trained_q_probe", at_end[-1][order][:, None]), ("trained_p_probe", at_spots[-1][order])):
        spots = spots.astype(np.float64) - spots.mean((0, 1), np.float64)
        spots /= np.sqrt(np.mean(spots**2))
        expected = []
        for states in np.moveaxis(spots, 1, 0):
            probe = RidgeClassifier(alpha=1.0, class_weight="balanced").fit(states[~out], code[~out])
            expected.append(np.mean(probe.predict(states[out]) == code[out]))
        read = np.atleast_1d(trained.named[f"{metric}/{attribute}"].values)
        np.testing.assert_allclose(read, expected, atol=1e-5)
        assert f"{metric}_untrained/{attribute}" in trained.named
    majority = np.bincount(code).max() / 20
    assert trained.named[f"q_probe_majority/{attribute}"].values == pytest.approx(majority)


def test_regimes_draw_their_windows(compiles_fast):
    mixed = points.make_point(config(**{"task.qa_share": 0.6}))
    staged = points.make_point(config(**{"task.regime": "staged", "task.tuning": "full", "task.tuning_share": 0.5}))
    data = mixed.experiment.data()
    asked = {row.tobytes() for row in data["asked"]["tokens"]}
    told = {row.tobytes() for row in data["told"]["tokens"]}

    def shares(point, steps):
        draw = jax.jit(point.experiment.batch)
        rows = [row for step in steps for row in np.asarray(draw(point.numbers, data, step).tokens)]
        assert all(row.tobytes() in asked | told for row in rows)
        return np.mean([row.tobytes() in asked for row in rows])

    share = mixed.experiment.share(mixed.numbers, data, 0)
    lengths = [np.mean((part["tokens"] != 0).sum(1)) for part in (data["told"], data["asked"])]
    assert share * lengths[1] / (share * lengths[1] + (1 - share) * lengths[0]) == pytest.approx(0.6, abs=1e-5)
    assert shares(mixed, range(40)) == pytest.approx(float(share), abs=0.06)
    assert shares(staged, (0, STEPS // 2 - 1)) == 0 and shares(staged, (STEPS // 2, STEPS - 1)) == 1


def test_low_rank_tuning_leaves_the_trained_model_as_it_is(compiles_fast):
    changed = {"task.regime": "staged", "task.tuning_share": 0.5, "train.schedule": "constant"}
    point = points.make_point(config(**changed))
    experiment, numbers, data = point.experiment, point.numbers, point.experiment.data()
    training = train.make_train(experiment)
    first = jax.jit(training.init)(numbers, data)
    chunk = jax.jit(training.chunk)
    middle, _ = chunk(first, numbers, data, STEPS // 2)
    last, _ = chunk(middle, numbers, data, STEPS // 2)
    frozen = lambda a, b: jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))  # noqa: E731
    parts = lambda state: ({k: v for k, v in state.params.items() if k != "tuned"}, state.params["tuned"])  # noqa: E731
    (base, added), (base_middle, added_middle), (base_last, added_last) = map(parts, (first, middle, last))
    assert frozen(added, added_middle) and not frozen(base["embed"], base_middle["embed"])
    assert frozen(base_middle, base_last) and not frozen(added_middle, added_last)
    whole = experiment.model_params(last.params, numbers, data, None)
    embed = added_last["embed"]
    np.testing.assert_allclose(whole["embed"], base_last["embed"] + embed["b"] @ embed["a"], rtol=1e-6)
    merged = dict(whole, blocks={k: dict(v) for k, v in whole["blocks"].items()})
    pair = merged["blocks"]["attn_qkv"].pop("low_rank")
    merged["blocks"]["attn_qkv"]["kernel"] = merged["blocks"]["attn_qkv"]["kernel"] + pair.a @ pair.b
    batch = experiment.batch(numbers, data, 0)
    np.testing.assert_allclose(
        experiment.forward(whole, batch)[0], experiment.forward(merged, batch)[0], atol=2e-4
    )  # fmt: skip


def test_an_encoder_fills_in_whole_words_and_answers(compiles_fast):
    changed = {"model.causal": False, "measure.metrics": ["questions"], "task.hint_share": 0.0, "task.window": 48}
    point = points.make_point(config(**changed))
    experiment, data = point.experiment, point.experiment.data()
    batch = jax.jit(experiment.batch)(point.numbers, data, 1)
    tokens, inputs, hidden = np.asarray(batch.tokens), np.asarray(batch.inputs), np.asarray(batch.loss_mask) == 1
    assert (inputs[hidden] == 3).all() and (inputs[~hidden] == tokens[~hidden]).all()
    asked = {
        row.tobytes(): mask for row, mask in zip(*(data["asked"][k] for k in ("tokens", "loss_mask")), strict=True)
    }
    told = 0
    for row, mask in zip(tokens, hidden, strict=True):
        if row.tobytes() in asked:
            np.testing.assert_array_equal(mask, (asked[row.tobytes()] > 0) & (row != 2))
        else:
            told += 1
            assert not mask[row < 3].any()
    assert told
    questions = data["questions"]
    assert questions["tokens"].shape[1] == 48 and ((questions["masked"] == 3).sum(1) >= 1).all()
    np.testing.assert_array_equal(questions["masked"] == 3, questions["loss_mask"] > 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task.people": 400}, "task.people must be at most first .* got 400"),
        ({"task.window": 20}, "task.window must be at least .*, the tokens of the longest .*; got 20"),
        ({"task.qa_share": 1.0}, "task.qa_share must be .*, got 1.0"),
        ({"task.held_out": 0.01}, "task.held_out = 0.01 of 20 people leaves 20 to ask about and 0 held out"),
        ({"task.variant": "many"}, "task.variant .*'many'"),
        ({"task.kinds": ["guess"]}, "task.kinds must .*'guess'"),
        ({"task.regime": "staged", "task.tuning_share": 0.001}, "task.tuning_share must leave each stage a step"),
        ({"model.causal": False}, "measure.metrics: hinted needs a decoder, got model.causal = False"),
        ({"measure.folds": 11}, "measure.folds must be an integer from 2 to measure.per_concept = 10 people, got 11"),
        ({"task.employers": 1}, "task.employers must be .*, got 1"),
        ({"task.years": 1, "task.months": 1}, "task.* one birth date"),
    ],
)  # fmt: skip
def test_bad_input_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        points.make_point(config(**changed))


def tables(workdir):
    metrics = store.metrics(workdir)
    return metrics.sort(metrics.columns[:-1]), store.runs(workdir).sort("run")


@pytest.mark.slow
def test_killed_sharded_or_packed_it_ends_with_the_same_tables(server, tmp_path):
    def sweep(workdir, *flags, **at):
        config = "--config=tests/experiments/small_biographies.py"
        return server("sweep", config, f"--workdir={workdir}", *flags, **at)

    code, output, _ = sweep(tmp_path / "whole")
    assert code == 0 and "compiled 1 program(s)" in output, output
    code, _, _ = sweep(tmp_path / "cut", match=r"checkpoints/.*000000006", nth=2)
    assert code == -9
    for flags in ("--shard=1/2",), ("--shard=0/2",), ():
        for workdir in ("parts", *(["cut"] if not flags else [])):
            code, output, _ = sweep(tmp_path / workdir, *flags)
            assert code == 0, output
    for workdir in ("cut", "parts"):
        for ours, expected in zip(tables(tmp_path / workdir), tables(tmp_path / "whole"), strict=True):
            assert ours.equals(expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["biographies", "biographies_regimes", "biographies_reversal", "biographies_capacity"])
def test_the_smoke_configs_run(server, name, tmp_path):
    command = "train" if name == "biographies" else "sweep"
    config = f"--config=configs/{name}.py:smoke"
    code, output, _ = server(command, config, f"--workdir={tmp_path}", "--config.num_seeds=1")
    assert code == 0, output
    assert set(store.runs(tmp_path)["status"]) == {"done"}
    code, output, _ = server("report", f"--workdir={tmp_path}", draw=True)
    assert code == 0, output
