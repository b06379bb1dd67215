"""Figures and sentences of trainings on grammars and problems, against the numbers in the tables."""

import json

import numpy as np
import polars as pl
import pytest
import scipy.stats

from jaxconcepts.figures import interactive, language, quantities
from jaxconcepts.figures.tables import MissingData, Study

COLUMNS = ("run", "step", "metric", "label", "layer", "value")
CONFIG = {"task": {"operations": [1, 2]}}


def study(rows, runs):
    empty = {"position": pl.Int32, "token": pl.String, "concept": pl.Int32}
    table = pl.DataFrame(
        [dict(zip(COLUMNS, row, strict=True)) for row in rows],
        schema_overrides={"value": pl.Float64, "layer": pl.Int32, "label": pl.String},
    ).with_columns(**{name: pl.lit(None, dtype) for name, dtype in empty.items()})
    return Study(table, pl.DataFrame(runs), CONFIG)


def lines(figure):
    return {line.get_gid(): line for axis in figure.axes for line in axis.lines}


@pytest.fixture(scope="module")
def grammar():
    rows, runs = [], []
    for kind, parses in (("rotary", [0.5, 0.6, 0.7]), ("learned", [0.0, 0.1, 0.2])):
        for seed, share in enumerate(parses):
            run = f"{kind}{seed}"
            runs.append({"run": run, "seed": seed, "status": "done", "model.positions": kind})
            rows += [(run, 0, "headroom_untrained", "NT5", layer, 0.1 * layer) for layer in (1, 2)]
            for step, factor in ((5, 0.5), (10, 1.0)):
                rows += [(run, step, "kl", None, None, 0.1 * factor), (run, step, "loss", None, None, 1 - factor / 2)]
                rows.append((run, step, "parses", "begin", None, share * factor))
                rows += [(run, step, "headroom", level, 1, 0.4 * factor) for level in ("NT4", "NT5")]
                rows += [(run, step, "headroom", level, 2, 0.3 * factor) for level in ("NT4", "NT5")]
            rows.append((run, 0, "loss_exact", None, None, 0.25))
    return study(rows, runs)


def test_arms_are_the_runs_that_differ_in_their_seed_alone(grammar):
    assert {arm: len(runs) for arm, runs in language.arms(grammar).items()} == {"learned": 3, "rotary": 3}


def test_a_grammar_s_last_numbers_stand_by_arm_with_their_interval(grammar):
    drawn = lines(language.grammar(grammar))
    np.testing.assert_allclose(drawn["parses/rotary"].get_ydata(), [0.5, 0.6, 0.7])
    np.testing.assert_allclose(drawn["kl/learned"].get_ydata(), [0.1] * 3)
    ends = scipy.stats.t.interval(0.95, 2, 0.6, scipy.stats.sem([0.5, 0.6, 0.7]))
    np.testing.assert_allclose(drawn["parses/rotary/interval"].get_ydata(), ends)
    np.testing.assert_allclose(drawn["headroom/rotary/NT5"].get_ydata(), [0.4] * 3)  # The better of two layers.
    np.testing.assert_allclose(drawn["headroom/rotary/NT5/untrained"].get_ydata(), [0.2] * 3)
    assert "headroom/rotary/NT4/untrained" not in drawn


def test_hollow_marks_are_hollow_on_the_page_too(grammar):
    described = json.dumps(interactive.described(language.grammar(grammar)))
    assert '"circle"' in described and '"circle-open"' in described


def test_losses_are_drawn_beside_the_exact_solution_s(grammar):
    drawn = lines(language.losses(grammar))
    np.testing.assert_allclose(drawn["rotary0/loss"].get_ydata(), [0.75, 0.5])
    assert set(drawn["exact"].get_ydata()) == {0.25}


def test_sentences_say_means_over_seeds(grammar):
    _, rotary = sorted(language.sentences(grammar, "grammar"))
    assert rotary == (
        "rotary (3 seeds): 0.60 of the generated strings parse; the next-token distribution is 0.1 nats from the exact "
        "one; a linear probe on the best layer reaches 0.40 of the headroom for the lowest ancestors."
    )


def test_problems_are_drawn_by_operations_with_both_baselines():
    rows, runs = [], [{"run": f"seed{seed}", "seed": seed, "status": "done"} for seed in (0, 1)]
    for seed in (0, 1):
        for count in (1, 2, 3):
            for metric, value in (("solved", 0.9 - count / 10 + seed / 10), ("answered", 0.95), ("guessed", 0.2)):
                rows.append((f"seed{seed}", 8, metric, str(count), None, value))
            rows.append((f"seed{seed}", 8, "copied", str(count), None, 0.3))
        rows.append((f"seed{seed}", 8, "solved", "trained", None, 0.8))
        for kind, value in (("", 0.7), ("_untrained", 0.3), ("_before", -0.1)):
            rows.append((f"seed{seed}", 8, f"probe{kind}_mcc", "can_next", 1, value))
    made = study(rows, runs)
    drawn = lines(language.solving(made))
    np.testing.assert_allclose(drawn["/1"].get_ydata(), [0.8, 0.9])
    np.testing.assert_allclose(drawn["/mean"].get_ydata(), [0.85, 0.75, 0.65])
    np.testing.assert_allclose(drawn["/answered/3"].get_ydata(), [0.95] * 2)
    np.testing.assert_allclose(drawn["guessed"].get_ydata(), [0.2] * 3)
    np.testing.assert_allclose(drawn["copied"].get_ydata(), [0.3] * 3)
    probes = lines(language.probes(made))
    np.testing.assert_allclose(probes["probe//can_next"].get_ydata(), [0.7] * 2)
    np.testing.assert_allclose(probes["probe//can_next/untrained"].get_ydata(), [0.3] * 2)
    np.testing.assert_allclose(probes["probe//can_next/before"].get_ydata(), [-0.1] * 2)
    assert language.sentences(made, "reasoning") == [
        "All runs (2 seeds): 0.80 of the problems of trained lengths are solved."
    ]


@pytest.mark.parametrize("draw", [language.grammar, language.solving, language.probes, language.losses])
def test_what_is_missing_is_named(draw):
    with pytest.raises(MissingData, match="^no "):
        draw(study([("a", 0, "other", "x", None, 1.0)], [{"run": "a", "seed": 0}]))


def test_what_a_metric_is_measured_beside_is_a_level_in_its_figure(grammar):
    """`headroom_untrained` has NT5 alone: the best of its layers, 0.2. Without a metric it has a figure of its own."""
    names = [entry.name for entry in quantities.entries(grammar)]
    assert "measured_headroom" in names and "measured_headroom_untrained" not in names
    drawn = lines(quantities.draw(grammar, ["rotary0"], metric="headroom"))
    assert set(drawn["rotary0/headroom_untrained/NT5/"].get_ydata()) == {0.2}
    assert "rotary0/headroom_untrained/NT4/" not in drawn
    alone = Study(grammar.metrics.filter(pl.col("metric") != "headroom"), grammar.runs, CONFIG)
    assert "measured_headroom_untrained" in [entry.name for entry in quantities.entries(alone)]


def test_runs_that_diverged_are_left_out_and_counted(grammar):
    status = pl.when(pl.col("run") == "rotary2").then(pl.lit("diverged")).otherwise("status")
    runs = grammar.runs.with_columns(status=status, diverged_at=pl.lit(7))
    gone = Study(grammar.metrics, runs, CONFIG)
    np.testing.assert_allclose(lines(language.grammar(gone))["parses/rotary"].get_ydata(), [0.5, 0.6])
    learned, rotary, last = sorted(language.sentences(gone, "grammar"), key=lambda said: said[0].isdigit())
    assert {said.partition(":")[0] for said in (learned, rotary)} == {"learned (3 seeds)", "rotary (2 seeds)"}
    assert "0.55 of the generated strings" in learned + rotary
    assert last == "1 run diverged, and is left out."


def test_a_mean_of_fewer_seeds_says_so(grammar):
    known = ~((pl.col("run") == "rotary0") & (pl.col("metric") == "kl"))
    fewer = Study(grammar.metrics.filter(known), grammar.runs, CONFIG)
    (rotary,) = (said for said in language.sentences(fewer, "grammar") if said.startswith("rotary"))
    assert "0.60 of the generated strings parse; the next-token distribution is 0.1 nats" in rotary
    assert "from the exact one (of 2 seeds);" in rotary


def test_where_all_diverged_nothing_is_drawn(grammar):
    gone = Study(grammar.metrics, grammar.runs.with_columns(status=pl.lit("diverged")), CONFIG)
    with pytest.raises(MissingData, match="every run diverged"):
        language.grammar(gone)
    assert language.sentences(gone, "grammar") == ["6 runs diverged, and are left out."]


def test_how_many_courses_are_not_drawn_is_said():
    rows = [("a", 0, "probe", f"label {number}", layer, 0.1) for number in range(20) for layer in (0, 1)]
    made = study(rows, [{"run": "a", "seed": 0, "status": "done"}])
    assert len(quantities.draw(made, ["a"], metric="probe").axes) == quantities.PANELS
    assert quantities.outcome(made, ["a"], metric="probe").endswith(" The first 12 of 20 courses are drawn.")


def test_the_highest_layer_is_called_best_where_more_is_better_alone():
    rows = [("a", 0, "entropy", None, layer, layer) for layer in (0, 1)]
    made = study(rows, [{"run": "a", "seed": 0, "status": "done"}])
    assert (
        quantities.outcome(made, ["a"], metric="entropy") == "At the last measurement the highest layer's entropy is 1."
    )


def test_what_is_below_0_is_in_the_picture():
    rows = [("a", 0, "headroom", "NT5", layer, value) for layer, value in ((0, -0.4), (1, -0.2))]
    made = study(rows, [{"run": "a", "seed": 0, "status": "done"}])
    (axis,) = language.grammar(made).axes
    assert axis.get_ylim()[0] < -0.2
    about = {"run": "a", "metric": "headroom", "label": "NT5", "unit": "fraction", "chance": None}
    quantity = pl.DataFrame([about], schema_overrides={"chance": pl.Float64})
    shares = Study(made.metrics, made.runs, CONFIG, quantity)
    (axis,) = quantities.draw(shares, ["a"], metric="headroom").axes
    assert axis.get_ylim()[0] < -0.4
