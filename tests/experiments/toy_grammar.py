"""A grammar whose strings and trees are all listed, and the config of a small model of it."""

import itertools
from collections import defaultdict

import numpy as np

from jaxconcepts.experiments.grammar import Grammar
from jaxconcepts.runs import points

RULES = {9: ["7 8", "8 7 7"], 7: ["5 6", "6 5"], 8: ["5 5 6"], 5: ["1 2", "2 1 1"], 6: ["3 1", "3 2 3"]}
LEVELS = {9: 1, 7: 2, 8: 2, 5: 3, 6: 3}
TABLE = ["grammar,level,symbol,rule,children"]
TABLE += [f"t,{LEVELS[a]},{a},{i},{right}" for a, rights in RULES.items() for i, right in enumerate(rights)]
ALL = ("loss", "accuracy", "generation", "noise", "probe", "boundary")
PREFIX = 4
STEPS = 500


def derive(symbol):
    """(probability, tokens, by level the symbol and whether it ends) of every derivation."""
    if symbol < 5:
        return [(1.0, (symbol,), [])]
    made = []
    for right in RULES[symbol]:
        for parts in itertools.product(*(derive(int(child)) for child in right.split())):
            probability = np.prod([p for p, _, _ in parts]) / len(RULES[symbol])
            tokens = sum((part for _, part, _ in parts), ())
            below = [sum(rows, []) for rows in zip(*(labels for _, _, labels in parts), strict=True)]
            ends = [False] * (len(tokens) - 1) + [True]
            made.append((probability, tokens, [[(symbol, end) for end in ends], *below]))
    return made


TREES = derive(9)
STRINGS = defaultdict(float)
for probability, tokens, _ in TREES:
    STRINGS[tokens] += probability


def config(**changed):
    made = Grammar.default_config()
    made["model"] |= {"layers": 2, "heads": 2, "width": 16, "mlp_width": 32}
    made["train"] |= {"steps": STEPS, "batch_size": 8, "learning_rate": 0.01}
    made["measure"] |= {"metrics": list(ALL), "per_concept": 12, "cd_per_concept": 12, "neighbours": 3}
    made["measure"] |= {"points": 90, "generations": 40, "prefix": PREFIX, "corruption": 0.5, "folds": 3}
    made["measure"] |= {"temperatures": [1.0, 0.5]}
    made["task"] |= {"window": 32}
    return points.apply(made, changed)
