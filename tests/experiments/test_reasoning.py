"""Language models on grade-school problems: rows, solutions, probes and what they foresee, against plain Python,
scikit-learn and the checker."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef, roc_auc_score

from jaxconcepts import store
from jaxconcepts.experiments import reasoning_data, reasoning_probes, reasoning_written, trained_probes
from jaxconcepts.experiments.reasoning import Reasoning
from jaxconcepts.figures import claims
from jaxconcepts.models import decoding, language
from jaxconcepts.runs import points
from jaxconcepts.tasks import reasoning_labels, reasoning_text
from jaxconcepts.tasks.reasoning import generate
from jaxconcepts.tasks.reasoning_graph import INDEX

TASK = {
    "modulus": 5, "operations": [1, 2], "max_instances": 4, "depths": [2, 2], "widths": [2, 2], "beyond": 1,
    "problems": 300, "window": 56,
}  # fmt: skip
EACH = 40


def config(**changed):
    made = Reasoning.default_config()
    made["task"] |= TASK
    made["model"] |= {"layers": 1, "heads": 2, "width": 12, "mlp_width": 16}
    made["train"] |= {"steps": 4, "batch_size": 4, "warmup_steps": 0}
    made["measure"] |= {"per_concept": EACH, "probed": 240, "fewest": 3, "asked": 3, "alpha": 1.0}
    return points.apply(made, changed)


@pytest.fixture(scope="module", autouse=True)
def banks(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(reasoning_data.FOLDER, str(tmp_path_factory.mktemp("banks")))
        yield


@pytest.fixture(scope="module")
def point(banks):
    return points.make_point(config())


class Measured:
    """A model with large random weights, which writes names, and what is measured of it."""

    def __init__(self, point):
        self.experiment = point.experiment
        self.data = jax.tree.map(np.asarray, self.experiment.data())
        self.held_out = jax.jit(self.experiment.held_out)(point.numbers, self.data)
        self.params = jax.tree.map(lambda a: 3 * a, jax.jit(self.experiment.init)(point.numbers, None))

        def measure(params, held_out):
            once = self.experiment.constants(held_out, lambda: params)
            return self.experiment.measure(params, held_out), once, self.experiment.read(params, held_out)

        measured, self.once, (self.states, self.answers) = jax.device_get(jax.jit(measure)(self.params, self.held_out))
        self.named = {name: replace(named, values=named.values[None]) for name, named in measured.items()}
        self.rows = {name: named.values[0] for name, named in self.experiment.on_host(self.named).items()}


@pytest.fixture(scope="module")
def measured(point, compiles_fast):
    return Measured(point)


def test_rows_hold_every_problem_of_the_bank_whole_and_a_pass_reads_them_all(point, measured):
    experiment = point.experiment
    bank = reasoning_data.train_bank(experiment.task.drawn, 300, 0)
    rows, mask = measured.data["rows"], measured.data["mask"]
    text = " ".join(" ".join(map(str, row[row > 0].tolist())) for row in rows)
    written = sorted(problem.split(" 2")[0] for problem in text.split("1 ")[1:])
    expected = [row[row > 0].tolist() for row in bank.tokens()]
    assert len(written) >= 300 and sum(map(len, expected)) == np.sum(rows > 0) == measured.data["tokens"]
    tokens = np.sort(rows[mask])
    np.testing.assert_array_equal(tokens, np.sort(bank.tokens()[bank.loss_mask()]))
    whole = {tuple(problem) for problem in expected}
    for row in rows:
        begins = [*np.flatnonzero(row == reasoning_labels.BOS), int(np.sum(row > 0))]
        assert all(tuple(row[a:b].tolist()) in whole for a, b in zip(begins, begins[1:], strict=False))
    steps = -(-len(rows) // 4)
    read = jax.jit(experiment.batch)
    batches = [read(point.numbers, measured.data, jnp.int32(step)).tokens for step in range(steps)]
    seen = {row.tobytes() for row in np.concatenate(batches).astype(np.uint16)}
    assert seen == {row.tobytes() for row in rows}
    again = read(point.numbers, measured.data, jnp.int32(steps)).tokens
    assert not np.array_equal(again, batches[0])


def test_no_problem_that_is_held_out_was_trained_on():
    """Where most problems that are drawn were."""
    few = {"task.modulus": 2, "task.operations": [1, 1], "task.max_instances": 2, "task.beyond": 1}
    experiment = points.make_point(config(**few, **{"measure.metrics": ["solving"]})).experiment
    test, bank = experiment.test, reasoning_data.train_bank(experiment.task.drawn, 300, 0)
    trained = {row[:prompt].tobytes() for row, prompt in zip(bank.tokens(), bank.prompts, strict=True)}
    prompts = [row[:prompt].tobytes() for row, prompt in zip(test.bank.tokens(), test.bank.prompts, strict=True)]
    assert not trained & set(prompts) and len(set(prompts)) == len(prompts) == 2 * EACH
    assert np.bincount(test.bank.operations).tolist() == [0, EACH, EACH]
    assert 0 < test.seen < 1


def test_solutions_are_the_greedy_ones(measured):
    experiment, test = measured.experiment, measured.experiment.test.bank
    row = 50
    prompt = test.tokens()[row, : test.prompts[row]].astype(np.int32)
    expected = language.generate(
        experiment.model, measured.params, prompt[None], max_new_tokens=experiment.new_tokens, stop_tokens=[2]
    )
    np.testing.assert_array_equal(measured.answers.written[row], np.asarray(expected)[0])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_problems_and_parts_give_what_one_pass_gives(
    measured, monkeypatch, compiles_fast
):
    """A row more takes less than one block's attention weights of it: its states are kept, and nothing else."""
    experiment, window = measured.experiment, measured.experiment.task.window
    monkeypatch.setattr(decoding, "TOKENS_AT_ONCE", 20 * window)

    def times(count):
        larger = lambda a: jax.ShapeDtypeStruct((count * a.shape[0], *a.shape[1:]) if a.ndim else (), a.dtype)  # noqa: E731
        # A function of its own each time, which no trace of another size of the parts is kept for.
        reading = jax.jit(lambda params, held_out: experiment.read(params, held_out))
        return reading.lower(measured.params, jax.tree.map(larger, measured.held_out)).compile()

    same, larger = times(1), times(3)
    bytes_of = [compiled.memory_analysis().temp_size_in_bytes for compiled in (same, larger)]
    rows = 2 * (len(measured.held_out.batch.tokens) + 2 * len(measured.held_out.exact["probed"]))
    assert bytes_of[1] - bytes_of[0] < rows * experiment.model.heads * window**2 * 4
    states, answers = jax.device_get(same(measured.params, measured.held_out))
    np.testing.assert_array_equal(answers.written, measured.answers.written)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), answers, measured.answers)
    # Random weights three times as large amplify the rounding of other sums.
    largest = np.abs(measured.states["spots"]).max()
    np.testing.assert_allclose(states["spots"], measured.states["spots"], atol=5e-5 * largest)


def tokens_of(test, texts, new):
    ids = reasoning_labels.ids(test.bank.vocabulary)
    rows = [[ids[word] for word in reasoning_text.words(text)] + [reasoning_labels.EOS] for text in texts]
    return np.array([row + [reasoning_labels.EOS] * (new - len(row)) for row in rows])


def test_true_solutions_are_solved_and_others_are_counted_by_their_first_mistake(measured):
    test, new = measured.experiment.test, 60
    texts = [problem.solution for problem in test.problems]
    rows = reasoning_written.judged(test, np.stack([tokens_of(test, texts, new)] * 2))
    np.testing.assert_array_equal(rows["solved"].values, 1.0)
    assert (
        dict(rows["solved"].names)["label"] == ("1", "2", "3", "trained", "hardest")
        and not rows["first_mistake"].values.any()
    )
    for number in (3, 70):
        head, end = texts[number][:-3], texts[number][-3:]
        texts[number] = head + f"{(int(end[0]) + 1) % 5} ;"
    texts[5] = texts[5].partition(" ;")[0] + " ; BACK " + texts[5]
    texts[90] = ""
    rows = reasoning_written.judged(test, tokens_of(test, texts, new)[None])
    labels = dict(rows["first_mistake"].names)["label"]
    shares = dict(zip(labels, rows["first_mistake"].values[0], strict=True))
    assert shares["wrong_arithmetic"] == pytest.approx(2 / 120) and shares["repeated"] == pytest.approx(1 / 120)
    share = 1 - np.array([2, 1, 1, 3, 1]) / [EACH, EACH, EACH, 2 * EACH, EACH]
    np.testing.assert_allclose([rows[name].values[0] for name in ("solved", "answered")], [share, share])


def test_baselines_are_those_of_the_tasks(measured):
    test = measured.experiment.test
    bank = reasoning_data.train_bank(measured.experiment.task.drawn, 300, 0)
    commonest = np.bincount(bank.answers).argmax()
    expected = [np.mean(test.bank.answers[test.bank.operations == n] == commonest) for n in (1, 2, 3)]
    np.testing.assert_allclose(measured.once["guessed"].values[:3], expected, rtol=1e-6)
    assert measured.once["epochs"].values == pytest.approx(4 * 4 / len(measured.data["rows"]))


def again(drawn, bank):
    """The problems of a bank, found among those of the seeds that it was drawn from by their tokens."""
    ids, problems = reasoning_labels.ids(bank.vocabulary), {}
    for seed in range(3 * len(bank)):
        problem = generate(drawn, reasoning_data.HELD_OUT_SEED + 1000 * seed)
        problems[reasoning_labels.encode(problem, ids).tokens.tobytes()] = problem
    lengths = bank.arrays["lengths"]
    return [problems[row[:length].tobytes()] for row, length in zip(bank.tokens(), lengths, strict=True)]


def labels_of(labels, name, parameter, sentence):
    """Whether it holds of the parameter, and whether the problem has it."""
    row = labels.nece if name == "nece" else getattr(labels, name)[sentence]
    return row[parameter], labels.present[parameter]


@pytest.mark.parametrize("name", ["nece", "can_next"])
def test_probes_are_scikit_learns_on_each_parameter(measured, name):
    test, asked = measured.experiment.test, measured.data["held_out"]["asked"][name]
    drawn = measured.experiment.task.drawn
    problems = [reasoning_labels.label(problem) for problem in again(drawn, test.probed)]
    spots, states = measured.data["held_out"]["spots"], measured.states["spots"]
    columns = [1] if name == "nece" else [2, 3]
    scores = []
    for row in range(len(asked["labels"])):
        hidden = np.concatenate([states[:, n, columns] for n in range(len(problems))], 1).astype(np.float64)
        valid, label, group = asked["valid"][row], asked["labels"][row], asked["group"]
        # The labels are some parameter's, at the sentences that the spots stand before.
        sentence = [[list(test.probed.spots[n]).index(spots[n, c]) for c in columns] for n in range(len(problems))]
        if name == "nece":
            sentence = [[0]] * len(problems)
        candidates = []
        for parameter in INDEX.values():
            pairs = [labels_of(p, name, parameter, s) for p, at in zip(problems, sentence, strict=True) for s in at]
            of, present = np.array(pairs).T
            candidates.append(np.array_equal(present, valid) and np.array_equal(of[valid], label[valid]))
        assert sum(candidates) == 1
        for layer in hidden:
            read = np.zeros(len(label), int)
            for fold in range(3):
                fitted = valid & (group % 3 != fold)
                probe = RidgeClassifier(alpha=1.0, class_weight="balanced").fit(layer[fitted], label[fitted])
                read[group % 3 == fold] = probe.predict(layer[group % 3 == fold])
            pair = label[valid], read[valid]
            scores.append(
                [np.mean(read[valid] == label[valid]), balanced_accuracy_score(*pair), matthews_corrcoef(*pair)]
            )
    expected = np.array(scores).reshape((len(asked["labels"]), -1, 3)).mean(0)
    for column, suffix in enumerate(("", "_balanced", "_mcc")):
        # Before the first block the last token of a question is the same in all problems: there is nothing to compare.
        first = int(name == "nece")
        given = measured.rows[f"probe{suffix}/{name}"][first:]
        np.testing.assert_allclose(given, expected[first:, column], atol=0.03)
    np.testing.assert_array_equal(
        measured.once[f"probe_untrained_mcc/{name}"].values, measured.rows[f"probe_mcc/{name}"]
    )


def test_a_spot_before_the_information_says_nothing(measured):
    """At the first token all states are the same, so a probe of dependencies always says one thing."""
    np.testing.assert_allclose(measured.rows["probe_before_mcc/dep"], measured.rows["probe_before_mcc/dep"][0])
    assert abs(measured.rows["probe_before_mcc/dep"][0]) < 0.25


def test_names_of_written_solutions_are_scored_where_they_stand(measured):
    """The log-probability of each name, from a forward pass of its own."""
    experiment, test = measured.experiment, measured.experiment.test
    prompts = test.bank.prompts
    written = measured.answers.written
    ended = np.isin(written[:, :-1], experiment.ends)
    for row in (1, 60):
        whole = np.concatenate([test.bank.tokens()[row, : prompts[row]].astype(np.int32), written[row]])[None]
        _, logits = language.hidden_states(experiment.model, measured.params, whole, at="all", with_logits=True)
        logits = np.asarray(logits, np.float64)[0]
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        starts = [0, *(np.flatnonzero(ended[row]) + 1)][: reasoning_probes.STEPS]
        for step, start in enumerate(starts):
            at = prompts[row] + start
            if at < experiment.task.window:
                expected = log_probs[at - 1, whole[0, at]]
                assert measured.answers.foreseen.log_prob[row, step] == pytest.approx(expected, abs=1e-4)


def test_foreseeing_is_the_area_under_the_curve_of_wrong_steps(measured):
    test = measured.experiment.test
    texts = [problem.solution for problem in test.problems]
    # The answer's sentence first: of two operations or more it cannot be computed yet.
    swapped = range(1, 120, 3)
    for number in swapped:
        first, *others = texts[number].split(" ;")[:-1]
        texts[number] = " ;".join([*others, f" {first}"]).strip() + " ;"
    written = tokens_of(test, texts, 60)
    verdicts = reasoning_written.verdicts(test, written)
    random, wrong, place = np.random.default_rng(0), [], []
    for number, verdict in enumerate(verdicts):
        for step, (_, kind) in enumerate(verdict.steps):
            wrong.append(kind == "not_computable")
            place.append((number, step))
            if kind not in ("ok", "unneeded"):
                break
    wrong, (row, step) = np.array(wrong), np.array(place).T
    assert 10 < wrong.sum() < len(wrong)
    scores = np.round(random.normal(size=(2, 120, reasoning_probes.STEPS)), 1)
    scores[1, row, step] -= 2 * wrong
    named = lambda values: reasoning_probes.Named(values[None], ())  # noqa: E731
    given = {"can_next": named(scores), "nece_next": named(-scores), "log_prob": named(scores[1])}
    rows = reasoning_probes.judged(test, written[None], given)
    assert not given
    expected = [roc_auc_score(wrong, -of[row, step]) for of in scores]
    np.testing.assert_allclose(rows["foresee/can_next"].values[0], expected, atol=1e-12)
    np.testing.assert_allclose(rows["foresee/nece_next"].values[0], 1 - np.array(expected), atol=1e-12)
    np.testing.assert_allclose(rows["foresee_log_prob"].values[0], expected[1], atol=1e-12)
    resampled = np.random.default_rng(0)
    low, high = (rows[f"foresee_{end}/can_next"].values[0] for end in ("low", "high"))
    drawn = []
    for _ in range(reasoning_probes.RESAMPLED):
        weight = np.bincount(resampled.integers(0, row.max() + 1, row.max() + 1), minlength=row.max() + 1)[row]
        drawn.append([roc_auc_score(wrong, -of[row, step], sample_weight=weight) for of in scores])
    np.testing.assert_allclose([low, high], np.quantile(drawn, (0.025, 0.975), axis=0), atol=1e-9)
    assert dict(zip(dict(rows["wrong_steps"].names)["label"], rows["wrong_steps"].values[0], strict=True)) == {
        "not_computable": wrong.sum(), "repeated": 0, "unneeded": 0, "ok": len(wrong) - wrong.sum()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task.modulus": 1}, "task.modulus must be .*, got 1"),
        ({"task.operations": [3, 1]}, "task.operations must be two integers .*, got \\(3, 1\\)"),
        ({"task.retry": 1.0}, "task.retry must be .*, got 1.0"),
        ({"task.max_instances": 1}, "task.max_instances must be at least 2, .*; got 1"),
        ({"task.window": 20}, "task.window must hold problems of 3 operations, up to .* tokens, got 20"),
        ({"task.form": "english"}, "task.window must hold problems of 3 operations, up to .* tokens, got 56"),
        ({"task.form": "english", "task.window": 400}, 'measure.metrics: foresee needs task.form="compact", got \'en'),
        ({"model.causal": False}, "model.causal must be True"),
        ({"measure.folds": 1}, "measure.folds.* got 1|folds must be .*got 1"),
        ({"task.problems": 0}, "task.problems must be .*, got 0"),
        ({"task.loss_on": "question"}, "task.loss_on must be .*, got 'question'"),
    ],
)
def test_bad_input_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        points.make_point(config(**changed))


def test_too_few_problems_are_named(monkeypatch):
    monkeypatch.setattr(reasoning_data, "TRIES", 1)
    short = points.make_point(config(**{"measure.per_concept": 60})).experiment
    with pytest.raises(ValueError, match=r"measure.per_concept must be at most \d+: of 1 to 1 operations .* got 60"):
        short.data()
    monkeypatch.undo()
    asked = points.make_point(config(**{"measure.fewest": 500})).experiment
    with pytest.raises(ValueError, match="measure.fewest must be lower, or measure.probed higher"):
        asked.data()


@pytest.mark.slow
def test_english_problems_are_trained_and_judged(point):
    changed = {"task.form": "english", "task.window": 300, "measure.metrics": ["loss", "accuracy", "solving"]}
    experiment = points.make_point(config(**changed, **{"measure.per_concept": 4, "task.problems": 40})).experiment
    data = jax.tree.map(np.asarray, experiment.data())
    held_out = jax.jit(experiment.held_out)(point.numbers, data)
    params = jax.jit(experiment.init)(point.numbers, None)
    rows = jax.device_get(jax.jit(experiment.measure)(params, held_out))
    rows = experiment.on_host({name: replace(named, values=named.values[None]) for name, named in rows.items()})
    assert not rows["solved"].values.any() and rows["loss"].values > 2


def tables(workdir):
    metrics = store.metrics(workdir)
    return metrics.sort(metrics.columns[:-1]), store.runs(workdir).sort("run")


@pytest.mark.slow
def test_killed_while_the_bank_is_written_and_while_it_trains_it_ends_with_the_same_tables(server, tmp_path):
    """Two seeds one after the other in a pack, and each in a shard of its own: the same rows."""
    command = ("sweep", "--config=configs/reasoning.py:smoke", "--config.num_seeds=2", "--config.measure.count=2")
    command = (*command, "--config.run.checkpoint_seconds=0")

    def run(workdir, *more, **at):
        return server(*command, f"--workdir={tmp_path / workdir}", *more, **at)

    code, _, _ = run("cut", match=r"part-000000-\w+\.npz", nth=1)
    assert code == -9
    code, _, _ = run("cut", match=r"checkpoints/.*000000012", nth=1)
    assert code == -9
    code, output, _ = run("cut")
    assert code == 0, output
    for shard in (0, 1):
        code, output, _ = run("shards", f"--shard={shard}/2")
        assert code == 0, output
    (ours, runs), (expected, other_runs) = tables(tmp_path / "cut"), tables(tmp_path / "shards")
    assert ours.equals(expected) and runs.equals(other_runs)
    assert {"solved", "unneeded", "foresee", "probe_mcc", "guessed"} <= set(ours["metric"])
    assert len(claims.read(tmp_path / "cut")) == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reasoning_depth", "reasoning_retry"])
def test_the_smoke_configs_run(server, name, tmp_path):
    config = f"--config=configs/{name}.py:smoke"
    more = ("--config.num_seeds=1", "--config.measure.metrics=loss,solving", "--shard=1/2")
    code, output, _ = server("sweep", config, f"--workdir={tmp_path}", *more)
    assert code == 0, output
    assert set(store.runs(tmp_path)["status"]) == {"done"}


@pytest.mark.slow
def test_trained_probes_of_every_concept_and_of_an_untrained_model(banks, monkeypatch):
    """At no steps they are the ridge probes of the last layer, on the problems that the folds divide."""
    monkeypatch.setattr(trained_probes, "STEPS", 0)
    made = Measured(points.make_point(config(**{"measure.metrics": ["trained_probe", "probe"]})))
    exact, folds = made.held_out.exact, 3
    for name, asked in exact["asked"].items():
        columns = [reasoning_probes.SPOTS.index(spot) for spot in reasoning_probes._spots(name, control=False)]
        states = np.asarray(made.states["spots"][-1][:, np.array(columns)], np.float64)
        states = states.reshape(-1, states.shape[-1])
        states = (states - states.mean(0)) / np.sqrt(((states - states.mean(0)) ** 2).mean())
        tested, expected = np.asarray(asked["group"]) % folds == 0, []
        for label, valid in zip(np.asarray(asked["labels"]), np.asarray(asked["valid"]), strict=True):
            probe = RidgeClassifier(1.0, class_weight="balanced").fit(states[valid & ~tested], label[valid & ~tested])
            expected.append(np.mean(probe.predict(states[valid & tested]) == label[valid & tested]))
        np.testing.assert_allclose(made.rows[f"trained_probe/{name}"], np.mean(expected), atol=1e-5)
        assert made.once[f"trained_probe_untrained/{name}"].values == made.rows[f"trained_probe/{name}"]


def test_resampled_problems_without_a_wrong_step_say_nothing_of_foreseeing():
    """One wrong step, foreseen surely: a third of the resamples has no such step, and no area."""
    wrong, problem = np.arange(40) == 3, np.arange(40) // 2
    scores = np.stack([wrong + 0.0, np.where(wrong, np.nan, 0.0)])
    for area in reasoning_probes.area_of_wrong(scores[:1], wrong, problem):
        np.testing.assert_array_equal(area, 1.0)
    assert np.isnan(reasoning_probes.area_of_wrong(scores, wrong, problem)).all()
