"""The ceilings of the probes with their standard errors, beside those of physics_cfg_ceiling.csv.

python tests/benchmarks/grammar_ceilings.py 4096 cfg3b@22 cfg3f@22 > ceilings.csv
"""

from __future__ import annotations

import csv
import sys
from importlib import resources

import jax
import numpy as np

from jaxconcepts.tasks import grammar, grammar_exact

BATCH = 512


def rows(name: str, count: int):
    """(level, share that the best reading of the prefix has right, its standard error, one string's deviation)."""
    g, hits, asked = grammar.load(name), [], []
    for number in range(0, count, BATCH):
        strings = grammar.sample(g, jax.random.fold_in(jax.random.key(5), number), BATCH)
        readings = grammar_exact.all_ancestors(g, strings.tokens, strings.lengths)
        inside = np.arange(strings.tokens.shape[1]) < np.asarray(strings.lengths)[:, None]
        truth = np.asarray(strings.ancestors)
        hits.append(
            [((np.asarray(part).argmax(-1) == truth[:, row]) & inside).sum(1) for row, part in enumerate(readings)]
        )
        asked.append(inside.sum(1))
    hits, asked = np.concatenate(hits, 1).astype(float), np.concatenate(asked)
    for level, of_level in zip(g.level_names, hits, strict=True):
        share = of_level.sum() / asked.sum()
        deviation = np.sqrt(np.mean((of_level - share * asked) ** 2)) / asked.mean()
        yield level, share, deviation / len(asked) ** 0.5, deviation


def main():
    count, names = int(sys.argv[1]), sys.argv[2:]
    text = resources.files("jaxconcepts").joinpath("data/physics_cfg_ceiling.csv").read_text()
    table = {
        (f"{row['grammar']}@{row['root']}", row["level"]): float(row["accuracy"])
        for row in csv.DictReader(text.splitlines())
        if row["reader"] == "bayes_from_prefix" and row["target"] == "ancestor"
    }
    print("grammar,level,strings,accuracy,standard_error,table,difference,deviation_of_one_string")
    for name in names:
        for level, share, error, deviation in rows(name, count):
            if (name, level) in table:
                given = table[name, level]
                print(f"{name},{level},{count},{share:.4f},{error:.4f},{given},{given - share:+.4f},{deviation:.4f}")


if __name__ == "__main__":
    main()
