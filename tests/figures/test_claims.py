"""Verdicts of claims: against SciPy's paired t interval, on made-up tables; coverage by simulation; the JSON kept."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from scipy import stats

from jaxconcepts.figures import claim_panels, claims
from jaxconcepts.figures.claims import Arm, Claim, Quantity
from jaxconcepts.figures.tables import MissingData
from jaxconcepts.intervals import mean_interval
from jaxconcepts.store import METRICS

CLAIM = Claim(
    "rotary", "rotary parses more", Quantity("parses", {"token": None}),
    (Arm("rotary", {"model.positions": "rotary"}, 0.99), Arm("absolute", {"model.positions": "learned"})),
)  # fmt: skip


def tables(values, metric="parses", step=10, earlier=None):
    """Metrics and runs: values by arm [seeds]."""
    rows, runs = [], []
    for positions, by_seed in values.items():
        for seed, value in enumerate(by_seed):
            run = f"seed{seed}-{positions}"
            status = "done" if np.isfinite(value) else "diverged"
            runs.append({"run": run, "status": status, "seed": seed, "model.positions": positions})
            rows.append({"run": run, "step": step, "metric": metric, "value": value})
            rows += [{"run": run, "step": 0, "metric": metric, "value": earlier}] if earlier is not None else []
    empty = dict.fromkeys(METRICS)
    return pl.DataFrame([empty | row for row in rows], schema=METRICS), pl.DataFrame(runs)


def test_paired_mean_and_interval_equal_scipys():
    rotary, absolute = [0.9, 0.8, 0.95, 0.7, 0.85], [0.5, 0.6, 0.55, 0.45, 0.4]
    verdict = claims.decide(CLAIM, *tables({"rotary": rotary, "learned": absolute}, earlier=0.1))
    paired = stats.ttest_rel(rotary, absolute).confidence_interval(0.95)
    assert verdict.mean == pytest.approx(np.mean(np.subtract(rotary, absolute)))
    np.testing.assert_allclose((verdict.low, verdict.high), paired, rtol=1e-12)
    assert (verdict.answer, verdict.alike, verdict.seeds) == ("holds", 5, (0, 1, 2, 3, 4))
    np.testing.assert_allclose(verdict.values, [rotary, absolute])


@pytest.mark.parametrize(
    ("changes", "differences", "answer"),
    [
        ({}, [0.4, 0.5, 0.45, 0.42, 0.44], "holds"),
        ({}, [0.4, -0.5, 0.45, -0.42, 0.1], "not shown at this size"),
        ({}, [-0.4, -0.5, -0.45, -0.42, -0.44], "contradicted"),
        ({"bound": 0.5}, [0.4, 0.5, 0.45, 0.42, 0.44], "not shown at this size"),
        ({"expected": "less"}, [-0.4, -0.5, -0.45, -0.42, -0.44], "holds"),
        ({"expected": "less"}, [0.4, 0.5, 0.45, 0.42, 0.44], "contradicted"),
        ({"expected": "within", "bound": 0.05}, [0.01, -0.01, 0.02, 0.0, -0.02], "holds"),
        ({"expected": "within", "bound": 0.05}, [0.1, -0.1, 0.02, 0.0, -0.02], "not shown at this size"),
        ({"expected": "within", "bound": 0.05}, [0.4, 0.5, 0.45, 0.42, 0.44], "contradicted"),
    ],
)
def test_verdicts_follow_the_interval(changes, differences, answer):
    claim = dataclasses.replace(CLAIM, **changes)
    verdict = claims.decide(claim, *tables({"rotary": differences, "learned": [0.0] * 5}))
    assert verdict.answer == answer


def test_one_arm_is_compared_with_a_reference():
    claim = dataclasses.replace(CLAIM, arms=CLAIM.arms[:1], reference=0.5)
    verdict = claims.decide(claim, *tables({"rotary": [0.6, 0.7, 0.65]}))
    np.testing.assert_allclose(verdict.differences, [0.1, 0.2, 0.15])
    assert verdict.answer == "holds"


def test_quantities_pick_rows_steps_and_reductions():
    rows = [
        {"run": "r", "step": step, "metric": "cd", "layer": layer, "value": value}
        for step, layer, value in ((0, 1, 0.1), (0, 2, 0.9), (5, 1, 0.3), (5, 2, 0.5))
    ]
    metrics = pl.DataFrame([dict.fromkeys(METRICS) | row for row in rows], schema=METRICS)
    runs = pl.DataFrame({"run": ["r"], "seed": [0], "status": ["done"]})
    take = lambda **fields: claims._by_seed(Quantity("cd", **fields), runs, metrics)[0]  # noqa: E731
    assert take() == pytest.approx(0.4)
    assert take(reduce="max") == 0.5
    assert take(reduce="max", at="best") == 0.9
    assert take(reduce="min", at="best") == 0.1
    assert take(where={"layer": 1}) == 0.3
    assert take(where={"layer": [1, 2]}, at=0) == pytest.approx(0.5)


def test_what_cannot_be_decided_says_why():
    metrics, runs = tables({"rotary": [0.6, np.nan, 0.4], "learned": [0.1, 0.2, 0.3]})
    verdict = claims.decide(CLAIM, metrics, runs)
    assert verdict.diverged == ("seed1-rotary",)
    assert np.isfinite(verdict.mean)
    only_one = claims.decide(CLAIM, *tables({"rotary": [0.6], "learned": [0.1]}))
    assert (only_one.answer, only_one.reason) == (
        claims.UNDECIDED,
        "two seeds in every arm is needed; 1 seed(s) have it",
    )
    metrics, runs = tables({"rotary": [0.6, 0.7, 0.4], "learned": [0.1, 0.2, 0.3]})
    going_on = runs.with_columns(status=pl.when(pl.col("seed") == 2).then(pl.lit("running")).otherwise("status"))
    assert claims.decide(CLAIM, metrics, going_on).seeds == (0, 1)
    none_ended = claims.decide(CLAIM, metrics, runs.with_columns(status=pl.lit("running")))
    assert none_ended.reason == "arm rotary: no run has ended"
    absent = claims.decide(CLAIM, *tables({"learned": [0.1, 0.2]}))
    assert absent.reason == "arm rotary: no run has {'model.positions': 'rotary'}"
    unknown = dataclasses.replace(CLAIM, arms=(Arm("a", {"model.nothing": 1}), CLAIM.arms[1]))
    assert claims.decide(unknown, metrics, runs).reason == "arm a: the runs have no field model.nothing"


def test_claims_survive_the_run_directory(tmp_path):
    assert claims.read(tmp_path) == []
    claim = dataclasses.replace(CLAIM, against=Quantity("other", {"layer": 2}), hazards="Übung")
    claims.write(tmp_path, [claim])
    assert claims.read(tmp_path) == [claim]
    (tmp_path / "claims.json").write_text('[{"name": 1}]')
    with pytest.raises(ValueError, match="damaged .*claims.json"):
        claims.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expected": "bigger"}, "claim rotary: expected must be one of more, less, within, got 'bigger'"),
        ({"arms": ()}, "claim rotary: arms must be one or two, got 0"),
        ({"expected": "within"}, r"claim rotary: bound must be a number of at least 0 \(above 0 for within\), got 0.0"),
        ({"bound": float("nan")}, "claim rotary: bound must be a number"),
    ],
)
def test_bad_claims_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CLAIM, **changes)
    with pytest.raises(ValueError, match="quantity.at must be"):
        Quantity("cd", at="first")


def test_a_claim_without_an_effect_holds_in_a_fortieth_of_all_cases():
    """The t interval covers 95 %: of 4 000 sets of five seeds without a difference 2.5 % +- 1 % are said to hold."""
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(4000):
        answers.append(claims._answer(CLAIM, *mean_interval(rng.normal(size=5))))
    shares = [np.mean(np.array(answers) == answer) for answer in (claims.HOLDS, claims.CONTRADICTED)]
    np.testing.assert_allclose(shares, 0.025, atol=0.01)


def test_the_figure_shows_every_seed_the_interval_and_what_was_published():
    verdict = claims.decide(CLAIM, *tables({"rotary": [0.6, 0.7, 0.65], "learned": [0.1, 0.2, 0.3]}))
    figure = claim_panels.draw([CLAIM], [verdict])
    arms, difference = figure.axes
    pairs = [line for line in arms.lines if str(line.get_gid()).startswith("rotary/seed")]
    assert [list(line.get_ydata()) for line in pairs] == [[0.6, 0.1], [0.7, 0.2], [0.65, 0.3]]
    published = next(line for line in arms.lines if line.get_gid() == "rotary/published/rotary")
    assert published.get_markerfacecolor() == "none"
    assert list(published.get_ydata()) == [0.99]
    bar = next(line for line in difference.lines if line.get_gid() == "rotary/interval")
    np.testing.assert_allclose(bar.get_xdata(), (verdict.low, verdict.high))
    assert difference.get_title(loc="left") == "holds"


def test_the_table_has_a_row_a_claim():
    undecided = dataclasses.replace(CLAIM, name="other", arms=(Arm("a", {"model.nothing": 1}), CLAIM.arms[1]))
    metrics, runs = tables({"rotary": [0.6, 0.7, 0.65], "learned": [0.1, 0.2, 0.3]})
    both = [CLAIM, undecided]
    table = claim_panels.table(both, [claims.decide(claim, metrics, runs) for claim in both])
    assert table["verdict"].to_list() == ["holds", "not decided"]
    assert table["seeds"].to_list() == [3, 0]
    assert table["note"].to_list() == ["3 seeds; five show more", "arm a: the runs have no field model.nothing"]
    assert table["difference"][0] == "0.45 [0.235, 0.665]"
    first, second = (claim_panels.sentence(claim, claims.decide(claim, metrics, runs)) for claim in both)
    assert first == f"{CLAIM.statement}: holds (0.45 [0.235, 0.665]; 3 of 3 seeds as expected)"
    assert second == f"{CLAIM.statement}: not decided (arm a: the runs have no field model.nothing)"
    with pytest.raises(MissingData, match="no claim could be decided"):
        claim_panels.draw(both[1:], [claims.decide(undecided, metrics, runs)])


def test_what_a_diverged_run_measured_as_it_was_frozen_decides_nothing():
    metrics, runs = tables({"rotary": [0.6, 9.0, 0.4], "learned": [0.1, 0.2, 0.3]})
    status = pl.when(pl.col("run") == "seed1-rotary").then(pl.lit("diverged")).otherwise("status")
    verdict = claims.decide(CLAIM, metrics, runs.with_columns(status=status))
    np.testing.assert_allclose(verdict.differences, [0.5, np.nan, 0.1])
    assert verdict.mean == pytest.approx(0.3)
    assert verdict.diverged == ("seed1-rotary",)
