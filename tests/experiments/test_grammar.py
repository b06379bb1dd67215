"""Language models on a grammar, against every string and tree of a small one, in float64 and plain Python."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace

import jax
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import matthews_corrcoef

from jaxconcepts import store
from jaxconcepts.experiments import grammar_generation, grammar_held_out, grammar_measures
from jaxconcepts.experiments.tokens import Tokens
from jaxconcepts.figures import claims
from jaxconcepts.models import decoding, language
from jaxconcepts.runs import points
from jaxconcepts.tasks import grammar, grammar_exact
from jaxconcepts.training import train
from jaxconcepts.training.experiment import Concept, HeldOut
from tests.experiments.toy_grammar import PREFIX, STEPS, STRINGS, TABLE, TREES, config


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("grammar") / "table.csv"
    path.write_text("\n".join(TABLE))
    return str(path)


@pytest.fixture(scope="module")
def point(table):
    return points.make_point(config(**{"task.grammar": table}))


class Trained:
    """A model that writes some strings of the language and some others, and what is measured of it."""

    def __init__(self, point):
        self.experiment, self.numbers = point.experiment, point.numbers
        self.data = jax.tree.map(np.asarray, self.experiment.data())
        training = train.make_train(self.experiment)
        state = jax.jit(training.init)(self.numbers, None)
        self.params = jax.jit(training.chunk)(state, self.numbers, None, STEPS)[0].params
        held_out = jax.jit(self.experiment.held_out)(self.numbers, self.data)

        def measure(params, held_out):
            once = self.experiment.constants(held_out, lambda: params)
            return self.experiment.measure(params, held_out), once, self.experiment.read(params, held_out)

        measured, once, (_, answers) = jax.device_get(jax.jit(measure)(self.params, held_out))
        self.values = {name: named.values for name, named in (measured | once).items()}
        self.written = answers.written
        rows, lengths = self.data["rows"], self.data["lengths"]
        self.strings = [tuple(row[1 : 1 + length].tolist()) for row, length in zip(rows, lengths, strict=True)]
        states, logits = language.hidden_states(self.experiment.model, self.params, rows, at="all", with_logits=True)
        logits = np.asarray(logits, np.float64)
        self.log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        self.points = np.asarray(states).reshape(len(states), -1, states.shape[-1])[:, self.data["points"]]


@pytest.fixture(scope="module")
def trained(point, compiles_fast):
    return Trained(point)


def following(prefix):
    """The exact distribution of the next token: a terminal, or 0 for the end."""
    weights = defaultdict(float)
    for string, probability in STRINGS.items():
        if string[: len(prefix)] == prefix:
            weights[string[len(prefix)] if len(string) > len(prefix) else 0] += probability
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


def test_the_held_out_rows_are_whole_strings(trained):
    for row, string in zip(trained.data["rows"], trained.strings, strict=True):
        assert string in STRINGS
        assert row.tolist() == [0, *string, 4] + [0] * (len(row) - len(string) - 2)


def test_states_at_all_positions_in_parts_are_those_of_one_pass(trained, monkeypatch):
    monkeypatch.setattr(decoding, "TOKENS_AT_ONCE", 5 * 32)
    batch = Tokens(trained.data["rows"], None)
    logits, states = jax.jit(trained.experiment.by_rows, static_argnums=2)(trained.params, batch, "all")
    expected = language.hidden_states(trained.experiment.model, trained.params, batch.tokens, at="all")
    np.testing.assert_allclose(states, expected, atol=2e-5)
    of_tokens = np.asarray(jax.nn.log_softmax(logits))
    np.testing.assert_allclose(of_tokens, trained.log_probs, atol=1e-4)


def test_loss_excess_and_divergence_are_those_of_the_exact_distribution(trained):
    losses, exact_losses, divergences, right = [], [], [], []
    for row, string in zip(trained.log_probs, trained.strings, strict=True):
        for t in range(len(string) + 1):
            exact = following(string[:t])
            column = {token: token or 4 for token in exact}  # The end is the token after the three terminals.
            token = string[t] if t < len(string) else 0
            losses.append(-row[t, column[token]])
            exact_losses.append(-np.log(exact[token]))
            divergences.append(sum(p * (np.log(p) - row[t, column[other]]) for other, p in exact.items()))
            right.append(row[t].argmax() == column[token])
    values = trained.values
    assert values["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert values["loss_exact"] == pytest.approx(np.mean(exact_losses), rel=1e-5)
    assert values["excess_loss"] == pytest.approx(np.mean(losses) - np.mean(exact_losses), abs=1e-5)
    assert values["kl"] == pytest.approx(np.mean(divergences), abs=1e-5)
    assert values["accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("label", ["begin", "prefix", "corrupted", "begin at 0.5", "corrupted at 0.5"])
def test_what_is_written_is_judged_as_the_list_of_all_strings_judges_it(trained, label):
    written, start = trained.written[label], label.split(" ")[0]
    strings = [tuple(row[row > 0].tolist()) for row in written.tokens]
    if start == "corrupted":
        right = {string[PREFIX:] for string in STRINGS}
        expected = [string[PREFIX:] in right and len(string) >= PREFIX for string in strings]
    else:
        expected = [string in STRINGS for string in strings]
    expected = np.array(expected) & written.ended
    np.testing.assert_array_equal(written.parses, expected)
    assert 0 < expected.sum() < len(expected)
    starts = trained.data["corrupted" if start == "corrupted" else "prefixes"]
    if start != "begin":
        np.testing.assert_array_equal(written.tokens[:, :PREFIX], starts[np.arange(40) % 12])
    values = trained.values
    assert values[f"parses/{label}"] == pytest.approx(expected.mean())
    assert values[f"no_end/{label}"] == pytest.approx(1 - written.ended.mean())
    parsed = [string for string, parses in zip(strings, expected, strict=True) if parses]
    assert values[f"distinct/{label}"] == pytest.approx(len(set(parsed)) / len(parsed))


@pytest.mark.slow
def test_strings_are_drawn_from_the_model_at_the_temperature(trained):
    """One start alone, as `language.sample` draws it; a prefix goes on from the true string."""
    experiment, exact = trained.experiment, trained.data
    known = jax.tree.map(np.asarray, {"next_token": exact["next_token"], "prefixes": exact["prefixes"]})

    class HeldOut:
        exact = known

    alone = replace(experiment, measuring=replace(experiment.measuring, temperatures=(0.5,)))
    (written,) = grammar_generation.write(alone, trained.params, HeldOut, ["prefix"]).values()
    prompts = np.pad(exact["prefixes"][np.arange(40) % 12], ((0, 0), (1, 0)))
    longest = exact["next_token"].shape[1] - 1
    answers = language.sample(
        experiment.model, trained.params, jax.random.key(grammar_generation.KEY), prompts,
        max_new_tokens=longest + 1, temperature=0.5, stop_tokens=[4],
    )  # fmt: skip
    for row, ended, answer, prompt in zip(written.tokens, written.ended, np.asarray(answers), prompts, strict=True):
        answer = answer.tolist()
        whole = [*prompt[1:], *(answer[: answer.index(4)] if 4 in answer else answer)]
        assert ended == (4 in answer and len(whole) <= longest)
        if ended:
            assert row[: len(whole)].tolist() == whole and not row[len(whole) :].any()


def labels_of(trained, level):
    """Of each point: the level's ancestor, whether it ends there, and whether the best reading of the prefix is right
    about either, from all trees."""
    names = {"NT2": (7, 8), "NT3": (5, 6)}[level]
    depth = int(level[2:]) - 1
    trees = {string: labels for _, string, labels in TREES}
    ancestors, ends, best, best_end = [], [], [], []
    for group, offset in zip(trained.data["group"], trained.data["offset"], strict=True):
        string = trained.strings[group]
        symbol, end = trees[string][depth][offset]
        votes, end_votes = defaultdict(float), defaultdict(float)
        for p, other, labels in TREES:
            if other[: offset + 1] == string[: offset + 1]:
                votes[labels[depth][offset][0]] += p
                end_votes[labels[depth][offset][1]] += p
        ancestors.append(names.index(symbol))
        ends.append(int(end))
        best.append(max(names, key=lambda name: votes[name]) == symbol)
        best_end.append((end_votes[True] > end_votes[False]) == end)
    return np.array(ancestors), np.array(ends), np.mean(best), np.mean(best_end)


def ridge(hidden, labels, group):
    """Predictions of scikit-learn's ridge classifier over three folds that split no string."""
    predicted = np.empty_like(labels)
    for fold in range(3):
        out = group % 3 == fold
        fitted = RidgeClassifier(alpha=1.0).fit(hidden[~out].astype(np.float64), labels[~out])
        predicted[out] = fitted.predict(hidden[out])
    return predicted


@pytest.mark.parametrize("level", ["NT2", "NT3"])
def test_probes_are_scikit_learns_and_their_ceilings_come_from_all_trees(trained, level):
    ancestors, ends, ceiling, ends_ceiling = labels_of(trained, level)
    group, values = trained.data["group"], trained.values
    np.testing.assert_array_equal(trained.data["ancestors"][level], ancestors)
    np.testing.assert_array_equal(trained.data["ends"][level], ends)
    assert values[f"probe_ceiling/{level}"] == pytest.approx(ceiling)
    assert values[f"boundary_ceiling/{level}"] == pytest.approx(ends_ceiling)
    majority = np.bincount(ancestors).max() / len(ancestors)
    assert values[f"probe_majority/{level}"] == pytest.approx(majority)
    assert values[f"boundary_majority/{level}"] == pytest.approx(np.bincount(ends).max() / len(ends))
    # A point whose scores all but tie may fall to either side: one of the 90.
    for layer, hidden in enumerate(trained.points):
        right = np.mean(ridge(hidden, ancestors, group) == ancestors)
        assert values[f"probe/{level}"][layer] == pytest.approx(right, abs=1.1 / len(ancestors))
        headroom = (values[f"probe/{level}"][layer] - majority) / (ceiling - majority)
        assert values[f"headroom/{level}"][layer] == pytest.approx(headroom, abs=1e-5)
        read = ridge(hidden, ends, group)
        assert values[f"boundary/{level}"][layer] == pytest.approx(np.mean(read == ends), abs=1.1 / len(ends))
        assert values[f"boundary_mcc/{level}"][layer] == pytest.approx(matthews_corrcoef(ends, read), abs=0.05)
    places = np.eye(trained.data["next_token"].shape[1])[trained.data["offset"]]
    assert values[f"probe_position/{level}"] == pytest.approx(
        np.mean(ridge(places, ancestors, group) == ancestors), abs=1.1 / len(ancestors)
    )
    np.testing.assert_array_equal(values[f"probe_untrained/{level}"], values[f"probe/{level}"])


def test_an_encoder_fills_in_masked_tokens(table, compiles_fast):
    changed = {"task.grammar": table, "model.causal": False, "measure.metrics": ["loss", "probe"], "model.layers": 1}
    point = points.make_point(config(**changed))
    experiment, numbers = point.experiment, point.numbers
    batch = jax.jit(experiment.batch)(numbers, None, 3)
    hidden = np.asarray(batch.loss_mask) == 1
    assert 0.08 < hidden.mean() < 0.22
    assert (np.asarray(batch.inputs)[hidden] == 5).all() and (np.asarray(batch.tokens) != 5).all()
    np.testing.assert_array_equal(np.asarray(batch.inputs)[~hidden], np.asarray(batch.tokens)[~hidden])
    params = jax.jit(experiment.init)(numbers, None)
    loss = jax.jit(experiment.loss)(params, batch)[0]
    logits = np.asarray(jax.jit(experiment.forward)(params, batch)[0], np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    right = np.take_along_axis(log_probs, np.asarray(batch.tokens)[..., None], -1)[..., 0]
    assert loss == pytest.approx(-right[hidden].mean(), rel=1e-5)
    data = experiment.data()
    assert data["rows"].shape == (12, 32) and set(data["ceiling"].values()) == {1.0}
    ends = [row.tolist().index(4) for row in data["rows"]]
    for number, (row, end) in enumerate(zip(data["rows"], ends, strict=True)):
        following = data["rows"][(number + 1) % 12]
        np.testing.assert_array_equal(row[end + 1 :], following[: 31 - end])


def test_noise_and_its_rate_are_numbers(point, table):
    noisy = points.make_point(config(**{"task.grammar": table, "task.noise_share": 1.0, "task.noise_rate": 0.5}))
    assert noisy.experiment == point.experiment
    shares = []
    for one in (point, noisy):
        tokens = np.asarray(jax.jit(one.experiment.batch)(one.numbers, None, 0).tokens).ravel()
        strings = "".join(map(str, tokens.tolist())).split("4")[1:-1]
        shares.append(np.mean([tuple(map(int, string[1:])) in STRINGS for string in strings]))
    assert shares[0] == 1 and shares[1] < 0.2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task.grammar": "cfg3z"}, "task.grammar cannot be read: grammar must be one of cfg3b, .*'cfg3z'"),
        ({"task.grammar": "cfg3b@99"}, "task.grammar cannot be read: .*the root must be one of the symbols .*'99'"),
        ({"task.window": 20}, "task.window must hold the shortest string of cfg3b@16, 32 tokens .*, got 20"),
        ({"task.grammar": "cfg3f@16"}, "task.mask_ambiguous must be True to read ancestors of cfg3f@16, of .* several"),
        ({"task.noise_share": 1.5}, "task.noise_share must be .*, got 1.5"),
        ({"task.noise": "word"}, "task.noise must be .*, got 'word'"),
        ({"task.mask_rate": 0.0}, "task.mask_rate must be .*, got 0.0"),
        ({"model.causal": False}, "measure.metrics: generation needs a decoder, got model.causal = False"),
        (
            {"task.grammar": "cfg3f@16", "measure.metrics": ["span"]},
            "task.mask_ambiguous must be True to read ancestors",
        ),
        ({"measure.prefix": 30}, "measure.prefix must be below the shortest string of cfg3b@16, 30 tokens, got 30"),
        ({"measure.folds": 13}, "measure.folds must be at most measure.per_concept = 12 strings, got 13"),
        ({"measure.temperatures": [0.0]}, r"measure.temperatures must be positive numbers, got \(0.0,\)"),
        ({"measure.corruption": 1.5}, "measure.corruption must be from 0 to 1, got 1.5"),
        ({"model.positions": "rotary", "model.rotary_fraction": 0.3}, "model.rotary_fraction must be .*, got 0.3"),
    ],
)
def test_bad_input_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        points.make_point(config(**({"task.window": 80} | changed)))


def test_strings_that_no_window_holds_or_that_have_several_trees_are_left_out():
    with pytest.raises(ValueError, match="strings of at most 31 tokens .* are needed of cfg3b@16; .* draws gave"):
        grammar_held_out.make(grammar.load("cfg3b@16"), 60, 33, points=10, prefix=3, corruption=0.1)
    made = grammar_held_out.make(
        grammar.load("cfg3f@16"), 40, 90, points=10, prefix=3, corruption=0.1, unambiguous=True
    )
    of = grammar.load("cfg3f@16")
    assert (np.asarray(grammar_exact.parses(of, made["rows"][:, 1:-1], made["lengths"])) == 1).all()


@pytest.fixture(scope="module")
def sweep(server):
    config = "--config=tests/experiments/small_grammar.py"
    return lambda workdir, *flags, **at: server("sweep", config, f"--workdir={workdir}", *flags, **at)


@pytest.fixture(scope="module")
def whole(sweep, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sweep") / "whole"
    code, output, _ = sweep(workdir)
    assert code == 0, output
    assert "compiled 1 program(s)" in output
    return workdir


def tables(workdir):
    metrics = store.metrics(workdir)
    return metrics.sort(metrics.columns[:-1]), store.runs(workdir).sort("run")


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_tables(server, sweep, whole, tmp_path):
    code, _, _ = sweep(tmp_path, match=r"checkpoints/.*000000006", nth=2)
    assert code == -9
    code, output, _ = sweep(tmp_path)
    assert code == 0, output
    for ours, expected in zip(tables(tmp_path), tables(whole), strict=True):
        assert ours.equals(expected)
    (claim,) = claims.read(whole)
    assert claim.name == "noise" and json.loads((whole / "claims.json").read_text())
    code, output, _ = server("report", f"--workdir={whole}", draw=True)
    assert code == 0, output


@pytest.mark.slow
def test_two_shards_with_a_run_a_pack_give_the_same_tables(sweep, whole, tmp_path):
    for shard in ("0/2", "1/2"):
        code, output, _ = sweep(tmp_path, f"--shard={shard}", "--config.run.at_once=1")
        assert code == 0, output
    (ours, runs), (expected, expected_runs) = tables(tmp_path), tables(whole)
    assert ours.drop("value").equals(expected.drop("value")) and set(runs["status"]) == {"done"}
    assert runs["run"].equals(expected_runs["run"])
    np.testing.assert_allclose(ours["value"], expected["value"], rtol=1e-3, atol=1e-4)


def test_a_run_is_the_same_alone_and_in_a_pack(compiles_fast):
    changed = {"task.grammar": "cfg3b@13", "task.window": 24, "model.layers": 1, "train.batch_size": 2}
    pack = [points.make_point(config(**changed | {"task.noise_share": share, "seed": 3})) for share in (0.0, 1.0)]
    experiment = pack[0].experiment
    assert pack[1].experiment == experiment
    training = train.make_train(experiment)

    def run(numbers):
        batch = experiment.batch(numbers, None, 2).tokens
        return batch, training.chunk(training.init(numbers, None), numbers, None, 3)[0].params

    together = jax.jit(jax.vmap(run))(jax.tree.map(lambda *parts: np.stack(parts), *(one.numbers for one in pack)))
    for row, one in enumerate(pack):
        batch, params = jax.jit(run)(one.numbers)
        np.testing.assert_array_equal(together[0][row], batch)
        for ours, alone in zip(*map(jax.tree.leaves, (together[1], params)), strict=True):
            np.testing.assert_allclose(ours[row], alone, atol=1e-4)
    assert not np.array_equal(*together[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grammar", "grammar_positions", "grammar_noise", "grammar_encoder"])
def test_the_smoke_configs_run(server, name, tmp_path):
    command = "train" if name == "grammar" else "sweep"
    # Every kind of positions is a program to compile; one of the four will do.
    part = ["--shard=0/4"] if name == "grammar_positions" else []
    config = f"--config=configs/{name}.py:smoke"
    code, output, _ = server(command, config, f"--workdir={tmp_path}", "--config.num_seeds=1", *part)
    assert code == 0, output
    runs = store.runs(tmp_path)
    assert set(runs["status"]) == {"done"}
    wanted = {"grammar": "cd", "grammar_noise": "parses", "grammar_encoder": "headroom", "grammar_positions": "kl"}
    assert store.metrics(tmp_path).filter(metric=wanted[name])["run"].n_unique() == runs.height


def test_an_unknown_size_is_named(server, tmp_path):
    code, output, _ = server("train", "--config=configs/grammar.py:huge", f"--workdir={tmp_path}")
    assert code == 2 and "the config's size must be one of smoke, cpu, small, paper, got 'huge'" in output


def test_headroom_is_not_measured_where_the_ceiling_is_not_above_the_majority():
    """At few points the best reading may be right less often than the commonest answer: what is read worse than either
    would count for more than all that there is."""
    labels = np.array([0] * 6 + [1] * 4)
    concepts = {name: Concept(labels, 2, ("at",)) for name in ("above", "equal", "below")}
    exact = {"ceiling": {"above": np.float32(0.8), "equal": np.float32(0.6), "below": np.float32(0.5)}}
    values = dict.fromkeys(concepts, np.array([0.6, 0.7], np.float32))
    made = grammar_measures.with_headroom(HeldOut(None, concepts, exact, None), "", values)
    np.testing.assert_allclose(made["headroom/above"].values, [0, 0.5], atol=1e-6)
    assert np.isnan([made[f"headroom/{name}"].values for name in ("equal", "below")]).all()
