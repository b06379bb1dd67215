"""Numbers of the pages against the tables beside them, rounded once."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).parents[1]
SEEDS = ["seed 0", "seed 1", "seed 2"]


def row(page, start):
    """The numbers of the table row that begins so."""
    return [float(number) for number in re.findall(r"-?\d*\.?\d+", line_of(page, start).replace("−", "-"))]


def line_of(page, start):
    """What stands behind the row's beginning."""
    lines = (ROOT / page).read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {start} |")]
    return line.removeprefix(f"| {start} |")


@pytest.mark.parametrize(
    ("start", "metrics"),
    [
        ("`headroom`, trained; untrained", ("headroom", "headroom_untrained")),
        ("`span_auc`, trained; untrained; positions alone", ("span_auc", "span_auc_untrained", "span_auc_position")),
        ("`mixing`, trained; untrained", ("mixing", "mixing_untrained")),
        ("`boundary_mcc`, trained; untrained", ("boundary_mcc", "boundary_mcc_untrained")),
    ],
)
def test_the_grammars_table_is_that_of_its_run(start, metrics):
    table = pl.read_csv(ROOT / "docs/grammar/one_run.csv")
    best = (
        table.group_by("metric", "label").agg(pl.col(SEEDS).max()).select("metric", "label", pl.mean_horizontal(SEEDS))
    )
    means = {(metric, label): mean for metric, label, mean in best.iter_rows()}
    expected = [means[metric, label] for label in ("NT4", "NT5", "NT6") for metric in metrics]
    np.testing.assert_allclose(row("docs/grammar.md", start), expected, atol=0.005 + 1e-9)


@pytest.mark.parametrize(
    ("start", "metric"),
    [("trained", "probe_mcc"), ("untrained", "probe_untrained_mcc"),
     ("at a position before the information exists", "probe_before_mcc")],
)  # fmt: skip
def test_the_probes_of_problems_are_those_of_their_table(start, metric):
    table = pl.read_csv(ROOT / "docs/reasoning/probes.csv")
    best = table.group_by("seed", "concept").agg(pl.col(metric).max()).group_by("concept").agg(pl.col(metric).mean())
    means = dict(best.iter_rows())
    expected = [means[name] for name in ("nece_next", "known", "nece", "can_next", "dep", "value")]
    np.testing.assert_allclose(row("docs/reasoning.md", start), expected, atol=0.005 + 1e-9)


@pytest.mark.parametrize(
    ("start", "shape", "peers"),
    [
        ("CD | 13 layers x 400 points x 64", "13 x 400 x 64", ("scikit-learn", "faiss")),
        ("CD | 33 x 700 x 4096", "33 x 700 x 4096", ("scikit-learn", "faiss", "gram")),
        ("CD | 13 x 10 000 x 256", "13 x 10000 x 256", ("scikit-learn", "faiss", "gram")),
    ],
)
def test_ratios_to_peers_are_those_measured(start, shape, peers):
    results = json.loads((ROOT / "tests/benchmarks/results/cpu.json").read_text())["rows"]
    ratios = {of["peer"]: of["ratio"] for of in results if of["shape"] == shape and "CD" not in of["benchmark"]}
    (line,) = [
        line for line in (ROOT / "docs/benchmarks.md").read_text().splitlines() if line.startswith(f"| {start} |")
    ]
    documented = [float(ratio) for ratio in line.split("|")[5].split(";")]
    np.testing.assert_allclose(documented, [ratios[peer] for peer in peers], atol=0.05 + 1e-9)
