"""How often the 95 % intervals hold what they estimate, by simulation; writes docs/coverage.csv.

    PYTHONPATH=. python tests/metrics/coverage.py [REPETITIONS]

CD: Gaussian clusters in 16 dimensions, `separation` apart, `points` a concept, k = 10 (5 of 20 points); the true value
is the mean over all repetitions. Accuracy: `points` prompts a concept about a third as many queries, shared by all
concepts, right with a chance that belongs to the query (beta distributed). R2: concepts from a bivariate normal.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import jax
import numpy as np

from jaxconcepts import intervals
from jaxconcepts.metrics import association, statistics

CONCEPTS = (2, 4, 7)
POINTS = (20, 50, 100)
SEPARATIONS = (0.0, 1.0, 2.0, 4.0)
ACCURACIES = (0.04, 0.3, 0.7, 0.95)
CORRELATIONS = (0.0, 0.5, 0.9)
TABLE = Path(__file__).parents[2] / "docs" / "coverage.csv"


def of_decodability(concepts: int, points: int, separation: float, repetitions: int) -> list[dict]:
    """Rows for CD of the average over concepts and of one concept."""
    labels = np.repeat(np.arange(concepts), points)
    centres = separation * np.eye(concepts, 16)[labels]
    at_once = 250
    parts = []
    for part in range(repetitions // at_once):
        states = jax.random.normal(jax.random.key(part), (at_once, len(labels), 16)) + centres
        key = jax.random.key(part)
        settings = {"k": 5 if points == 20 else 10, "permutations": 1}
        result = statistics.decodability_statistics(states, labels, key, **settings)
        parts.append([np.asarray(x) for x in (result.cd, result.low, result.high)])
    cd, low, high = (np.concatenate(part) for part in zip(*parts, strict=True))
    row = {"concepts": concepts, "points": points}
    return [
        row | {"of": of, "true": cd[:, i].mean(), "coverage": _covered(low[:, i], high[:, i], cd[:, i].mean())}
        for of, i in (("CD", -1), ("CD of a concept", 0))
    ]


def of_accuracy(concepts: int, points: int, accuracy: float, repetitions: int) -> list[dict]:
    rng = np.random.default_rng(0)
    strata = np.repeat(np.arange(concepts), points)
    queries = max(points // 3, 8)
    ends = []
    for _ in range(repetitions):
        group = rng.integers(0, queries, len(strata))
        # Variance a fifth of the largest that there is.
        chance = rng.beta(4 * accuracy, 4 * (1 - accuracy), queries)
        low, high = intervals.share_interval(rng.random(len(strata)) < chance[group], strata, group)
        ends.append((low[[-1, 0]], high[[-1, 0]]))
    low, high = np.moveaxis(np.array(ends), 1, 0)
    row = {"concepts": concepts, "points": points, "true": accuracy}
    return [
        row | {"of": of, "coverage": _covered(low[:, i], high[:, i], accuracy)}
        for i, of in enumerate(("accuracy", "accuracy of a concept"))
    ]


def of_association(concepts: int, correlation: float, repetitions: int) -> list[dict]:
    rng = np.random.default_rng(1)
    ends = []
    for _ in range(repetitions):
        x, noise = rng.normal(size=(2, concepts))
        fit = association.associate(x, correlation * x + np.sqrt(1 - correlation**2) * noise, np.arange(concepts))
        ends.append((fit.r2_low, fit.r2_high))
    covered = _covered(*np.array(ends).T, correlation**2)
    return [{"of": "R2", "concepts": concepts, "points": 1, "true": correlation**2, "coverage": covered}]


def _covered(low, high, true) -> float:
    return float(np.mean((low <= true + 1e-6) & (true - 1e-6 <= high)))


def main(repetitions: int) -> None:
    rows = []
    for concepts in (4, 6, 7, 12):
        for correlation in CORRELATIONS:
            rows += of_association(concepts, correlation, repetitions)
    for concepts in CONCEPTS:
        for points in (50, 500):
            for accuracy in ACCURACIES:
                rows += of_accuracy(concepts, points, accuracy, repetitions)
    for concepts in CONCEPTS:
        for points in POINTS:
            for separation in SEPARATIONS:
                rows += of_decodability(concepts, points, separation, repetitions)
            _write(rows)


def _write(rows) -> None:
    with TABLE.open("w", newline="") as file:
        table = csv.DictWriter(file, ["of", "concepts", "points", "true", "coverage"])
        table.writeheader()
        table.writerows(row | {"true": f"{row['true']:.3f}", "coverage": f"{row['coverage']:.3f}"} for row in rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
