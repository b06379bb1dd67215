"""How often the 95 % intervals hold what they estimate, by simulation; writes docs/coverage.csv.

    PYTHONPATH=. python tests/metrics/coverage.py [REPETITIONS]

REPETITIONS is for CD, twice as many for the others.

CD: `points` a concept in one of `states_of`'s worlds, k = 10 (5 of 20 points); the true value is the mean over all
repetitions. "CD of a concept" is the mean over concepts. The interval's constants were chosen on other samples of
"clusters"; "tails", "uneven" and "line" were never used for that. Accuracy: `points` prompts a concept about queries
that all concepts share, right with a chance that belongs to the query, in one of `QUERIES`' worlds; the interval's
constant was chosen on other samples of "thirds", the other worlds having been seen. R2: concepts from a bivariate
normal. CD above a control: `of_differences`. AUC: `of_areas`. Mean over seeds: `of_seeds`.
"""

from __future__ import annotations

import csv
import itertools
import sys
from pathlib import Path

import jax
import numpy as np
from scipy.stats import norm

from jaxconcepts import intervals
from jaxconcepts.metrics import association, decodability, statistics
from jaxconcepts.studies.icl import controls

SEPARATIONS = (0.0, 1.0, 2.0, 4.0)
CELLS = [("clusters", concepts, points, SEPARATIONS) for concepts in (2, 4, 7) for points in (20, 50, 100)]
CELLS += [("tails", 3, 60, (0.0, 2.0, 5.0)), ("uneven", 5, 40, (0.0, 1.0, 2.5)), ("line", 4, 40, (0.5, 1.5, 4.0))]
ACCURACIES = (0.04, 0.3, 0.7, 0.95)
ACCURACY_CELLS = [("thirds", *cell) for cell in itertools.product((2, 4, 7), (50, 500), ACCURACIES)]
ACCURACY_CELLS += [(world, 4, 50, a) for world in ("halves", "strong", "poles") for a in (0.1, *ACCURACIES)]
FIRST_SEED = 7000
QUERIES = {"thirds": (4, 3), "halves": (4, 2), "strong": (2, 3), "poles": (1.5, 6)}
"""World -> (c, p): the chance is beta distributed with variance 1 / (c + 1) of the largest that there is, and a query
has p prompts a concept; there are at least eight queries."""
CORRELATIONS = (0.0, 0.5, 0.9)
SHARED = (0.0, 0.5, 0.9)
"""How much of the noise of CD's states a control's states share."""
DIFFERENCES = [(6, 100, (2.0, 1.0)), (3, 60, (3.0, 2.0))]
AREA_CELLS = list(itertools.product((60, 300), (0.03, 0.1, 0.4), (0.5, 0.8, 0.95, 0.99)))
SEEDS = {
    "normal": lambda rng, size: rng.normal(size=size),
    "losses": lambda rng, size: np.exp(0.5 * rng.normal(size=size) - 0.125) - 1,
    "shares": lambda rng, size: rng.beta(9, 1, size) - 0.9,
}
"""World -> values of seeds less their mean: a loss that is twice as large now and then, shares right of .9 mean."""
TABLE = Path(__file__).parents[2] / "docs" / "coverage.csv"


def states_of(world: str, labels: np.ndarray, separation: float, key: jax.Array, count: int) -> jax.Array:
    """Samples [count, points, width]: Gaussian clusters on axes of their own; those of Student's t of 4 degrees of
    freedom; clusters of unequal widths; clusters in a row."""
    concepts, (first, second) = labels.max() + 1, jax.random.split(key)
    width = {"clusters": 16, "tails": 32, "uneven": 8, "line": 4}[world]
    states = jax.random.normal(first, (count, len(labels), width))
    if world == "tails":
        states /= jax.numpy.sqrt(jax.random.chisquare(second, 4, shape=(count, len(labels), 1)) / 4)
    if world == "uneven":
        states *= (0.5 + 1 / (1 + labels))[:, None]
    if world == "line":
        return states + separation * labels[:, None] * np.eye(1, width)
    return states + separation * np.eye(concepts, width)[labels]


def of_decodability(world: str, concepts: int, points: int, separation: float, repetitions: int) -> list[dict]:
    """Rows for CD of the average over concepts and of one concept."""
    labels = np.repeat(np.arange(concepts), points)
    parts = []
    # Few at once: the memory of a sample is that of its distances.
    for part in range(-(-repetitions // 100)):
        key = jax.random.key(FIRST_SEED + part)
        states = states_of(world, labels, separation, key, min(100, repetitions))
        k = 5 if points == 20 else 10
        cd = decodability.concept_decodability_per_concept(states, labels, k, ties="split")
        ends = statistics.decodability_interval(states, labels, cd, k)
        parts.append([np.asarray(x) for x in (statistics.with_average(cd, concepts), *ends)])
    cd, low, high = (np.concatenate(part) for part in zip(*parts, strict=True))
    true = cd.mean(0)
    held = (low <= true + 1e-6) & (true - 1e-6 <= high)
    row = {"world": world, "concepts": concepts, "points": points}
    return [
        row
        | {"of": of, "true": true[columns].mean(), "coverage": np.mean(held[:, columns])}
        # Concepts of one sample are not independent.
        | {"error": held[:, columns].mean(1).std() / len(held) ** 0.5}
        for of, columns in (("CD", slice(-1, None)), ("CD of a concept", slice(-1)))
    ]


def of_accuracy(world: str, concepts: int, points: int, accuracy: float, repetitions: int) -> list[dict]:
    rng = np.random.default_rng(0)
    strata = np.repeat(np.arange(concepts), points)
    concentration, prompts = QUERIES[world]
    queries = max(points // prompts, 8)
    ends = []
    for _ in range(repetitions):
        group = rng.integers(0, queries, len(strata))
        chance = rng.beta(concentration * accuracy, concentration * (1 - accuracy), queries)
        low, high = intervals.share_interval(rng.random(len(strata)) < chance[group], strata, group)
        ends.append((low[[-1, 0]], high[[-1, 0]]))
    low, high = np.moveaxis(np.array(ends), 1, 0)
    row = {"world": world, "concepts": concepts, "points": points, "true": accuracy}
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


def of_differences(concepts: int, points: int, separations, shared: float, repetitions: int) -> list[dict]:
    """Rows for CD less that of a control of the same points: Gaussian clusters nearer to each other, whose noise is the
    states' own in part."""
    labels, k = np.repeat(np.arange(concepts), points), 10
    world = np.eye(concepts, 16)[labels]
    parts = []
    for part in range(-(-repetitions // 100)):
        first, second = jax.random.split(jax.random.key(FIRST_SEED + part))
        noise = jax.random.normal(first, (min(100, repetitions), len(labels), 16))
        other = shared * noise + (1 - shared**2) ** 0.5 * jax.random.normal(second, noise.shape)
        states = (noise + separations[0] * world, other + separations[1] * world)
        found = [
            statistics.decodability_statistics(x, labels, jax.random.key(part), k=k, permutations=1) for x in states
        ]
        score, control = (controls.Score(*map(np.asarray, (x.cd, x.low, x.high, x.halved))) for x in found)
        parts.append(controls.above(score, {"": control})[:3])
    cd, low, high = (np.concatenate(part) for part in zip(*parts, strict=True))
    held = (low <= cd.mean(0)) & (cd.mean(0) <= high)
    row = {"world": f"{shared:g} shared", "concepts": concepts, "points": points}
    return [
        row
        | {"of": of, "true": cd.mean(0)[columns].mean(), "coverage": np.mean(held[:, columns])}
        | {"error": held[:, columns].mean(1).std() / len(held) ** 0.5}
        for of, columns in (("CD above a control", slice(-1, None)), ("that of a concept", slice(-1)))
    ]


def of_areas(groups: int, positive: float, auc: float, repetitions: int) -> list[dict]:
    """Normal scores of three steps a problem that share part of their noise; problems have chances of their own."""
    rng, distance = np.random.default_rng(2), 2**0.5 * norm.ppf(auc)
    group, ends = np.repeat(np.arange(groups), 3), []
    for _ in range(repetitions):
        wrong = rng.random(len(group)) < rng.beta(3 * positive, 3 * (1 - positive), groups)[group]
        own, alone = rng.normal(size=groups)[group], rng.normal(size=len(group))
        scores = 0.4**0.5 * own + 0.6**0.5 * alone + distance * wrong
        _, low, high = intervals.auc_interval(scores[None], wrong, group)
        if np.isfinite(low[0]):
            ends.append((low[0], high[0]))
    row = {"of": "AUC", "world": f"{positive:g} positive", "concepts": 1, "points": groups, "true": auc}
    return [row | {"coverage": _covered(*np.array(ends).T, auc)}]


def of_seeds(world: str, seeds: int, repetitions: int) -> list[dict]:
    values = SEEDS[world](np.random.default_rng(3), (repetitions, seeds))
    low, high = np.array([intervals.mean_interval(of) for of in values]).T
    return [
        {"of": "mean", "world": world, "concepts": 1, "points": seeds, "true": 0, "coverage": _covered(low, high, 0)}
    ]


def _covered(low, high, true) -> float:
    return float(np.mean((low <= true + 1e-6) & (true - 1e-6 <= high)))


def main(repetitions: int) -> None:
    rows, more = [], 2 * repetitions
    for concepts in (4, 6, 7, 12):
        for correlation in CORRELATIONS:
            rows += of_association(concepts, correlation, more)
    for world, seeds in itertools.product(SEEDS, (3, 5, 10)):
        rows += of_seeds(world, seeds, more)
    for cell in AREA_CELLS:
        rows += of_areas(*cell, more)
    for cell in ACCURACY_CELLS:
        rows += of_accuracy(*cell, more)
    _write(rows, more)
    for cell, shared in itertools.product(DIFFERENCES, SHARED):
        rows += of_differences(*cell, shared, repetitions)
    for world, concepts, points, separations in CELLS:
        for separation in separations:
            rows += of_decodability(world, concepts, points, separation, repetitions)
        _write(rows, more)


def _write(rows, repetitions) -> None:
    with TABLE.open("w", newline="") as file:
        table = csv.DictWriter(file, ["of", "world", "concepts", "points", "true", "coverage", "error"])
        # Rows of CD have their own standard error.
        table.writeheader()
        for row in rows:
            error = row.get("error", (row["coverage"] * (1 - row["coverage"]) / repetitions) ** 0.5)
            numbers = {"true": row["true"], "coverage": row["coverage"], "error": error}
            table.writerow({"world": ""} | row | {name: f"{value:.3f}" for name, value in numbers.items()})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
