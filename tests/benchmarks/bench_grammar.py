"""Exact scoring of a grammar's strings beside Python's own ways, in one run on the same strings.

    python tests/benchmarks/bench_grammar.py [--quick]

Ours is `grammar_exact` on known strings (sparse, float64, on the host), in seconds a string. The peers are dynamic
programs in Python with decimals of 100 digits, from the same formulas: "decimal, all spans" fills whole triangles, as
the formulas are written; "decimal, existing spans" keeps only the spans that some symbol yields. Membership is compared
with nltk's bottom-up chart parser, on short strings. The device's kernel, compiled beforehand, is a peer too. Probes
of all layers and levels in one call stand beside scikit-learn's RidgeClassifier, one after another, folds and all.
Peers that are not installed are left out. `ratio` is their time over ours, `aim` what it should be at least.
"""

from __future__ import annotations

import decimal
import json
import sys
import time
from decimal import Decimal

import jax
import numpy as np
from sklearn.linear_model import RidgeClassifier

from jaxconcepts.metrics import grouped_probes
from jaxconcepts.tasks import grammar, grammar_exact

DIGITS = 100
AIM = 100


def rows(quick: bool = False) -> list[dict]:
    """A row a quantity and peer: benchmark, shape (the grammar, strings, mean length), seconds a string of both."""
    long, short = ("cfg3b@16", "cfg3b@16") if quick else ("cfg3f", "cfg3f@16")
    count, exact = 32 if quick else 256, grammar_exact
    following = {"device kernel": (_device("next_token"), None)}
    out = _compare("grammar: probability", exact.log_probability, long, count, _probability_peers(quick))
    out += _compare("grammar: next token", exact.next_token, long, count, following)
    out += _compare("grammar: membership", exact.membership, short, 4 * count, _nltk_peer())
    # Layers, points, width and levels of configs/grammar.py:cpu and of its size "small".
    return out + [
        _probes(*shape) for shape in [(4, 300, 16, 3)] + ([] if quick else [(4, 2000, 64, 3), (7, 2000, 256, 5)])
    ]


def _probes(layers, points, width, levels, folds=5):
    random = np.random.default_rng(0)
    group, labels = np.arange(points) // 30, random.integers(0, 3, (levels, points))
    signal = np.eye(3)[labels].transpose(1, 0, 2).reshape(points, -1) @ random.normal(size=(3 * levels, width))
    hidden = (random.normal(size=(layers, points, width)) * 5 + signal).astype(np.float32)

    def peer():
        read = np.zeros((layers, levels, points), int)
        for layer, level, fold in np.ndindex(layers, levels, folds):
            out = group % folds == fold
            fitted = RidgeClassifier(alpha=1.0).fit(hidden[layer, ~out], labels[level, ~out])
            read[layer, level, out] = fitted.predict(hidden[layer, out])
        return read

    ours, answers = _seconds(lambda: grouped_probes.read_off(hidden, labels, (3,) * levels, group, folds), 5)
    theirs, read = _seconds(peer, 2)
    # Points whose decision values all but tie may fall to either side.
    assert np.mean(np.asarray(answers) == read) > 0.999
    shape = [f"{layers} layers", points, width, f"{levels} levels"]
    row = {"benchmark": "grammar: probes", "shape": shape, "ours_s": ours, "peer": "scikit-learn", "peer_s": theirs}
    return row | {"ratio": theirs / ours, "aim": 20}


def _compare(benchmark, quantity, name, count, peers):
    """Peers are (function of a grammar and strings, how many strings it gets, None for all)."""
    g = grammar.load(name)
    strings = grammar.sample(g, jax.random.key(0), count)
    tokens, lengths = np.asarray(strings.tokens), np.asarray(strings.lengths)
    ours, answers = _seconds(lambda: quantity(g, tokens, lengths), 5)
    table = []
    for peer, (function, limit) in peers.items():
        some = slice(limit)
        seconds, theirs = _seconds(lambda f=function, s=some: f(g, tokens[s], lengths[s]), 1 if limit else 2)
        np.testing.assert_allclose(np.asarray(theirs, float), np.asarray(answers[some], float), rtol=1e-5, atol=1e-4)
        each = seconds / len(tokens[some])
        table.append(
            {
                "benchmark": benchmark,
                "shape": [name, count, round(float(lengths.mean()))],
                "ours_s": ours / count,
                "peer": peer,
                "peer_s": each,
                "ratio": each / (ours / count),
                **({"aim": AIM} if peer in ("decimal, all spans", "nltk") else {}),
            }
        )
    return table


def _probability_peers(quick):
    return {
        "decimal, all spans": (_each(_all_spans), 2 if quick else 1),
        "decimal, existing spans": (_each(_existing_spans), 8),
        "device kernel": (_device("log_probability"), None),
    }


def _each(function):
    def all_of(g, tokens, lengths):
        with decimal.localcontext() as context:
            context.prec = DIGITS
            return [float(function(g, row[:n].tolist()).ln()) for row, n in zip(tokens, lengths, strict=True)]

    return all_of


def _all_spans(g, string):
    """The inside weight by M_a = sum of p M_x M_y M_z over all i <= m <= j."""
    nodes = len(string) + 1
    below = [[[Decimal(0)] * nodes for _ in range(nodes)] for _ in range(g.terminals)]
    for start, token in enumerate(string):
        below[token - 1][start][start + 1] = Decimal(1)
    for rules in reversed(g.rules):
        level = []
        for rights in rules:
            total = [[Decimal(0)] * nodes for _ in range(nodes)]
            for right in rights:
                product = below[right[0]]
                for child in right[1:]:
                    product = _times(product, below[child], nodes)
                for row, other in zip(total, product, strict=True):
                    row[:] = [a + b / len(rights) for a, b in zip(row, other, strict=True)]
            level.append(total)
        below = level
    return below[0][0][-1]


def _times(left, right, nodes):
    out = [[Decimal(0)] * nodes for _ in range(nodes)]
    for i in range(nodes):
        for m in range(i, nodes):
            weight = left[i][m]
            for j in range(m, nodes):
                out[i][j] += weight * right[m][j]
    return out


def _existing_spans(g, string):
    """The same with a table from start to end of the spans whose weight is not zero."""
    nodes = len(string) + 1
    below = [[{} for _ in range(nodes)] for _ in range(g.terminals)]
    for start, token in enumerate(string):
        below[token - 1][start][start + 1] = Decimal(1)
    for rules in reversed(g.rules):
        below = [[_from(start, rights, below) for start in range(nodes)] for rights in rules]
    return below[0][0][nodes - 1]


def _from(start, rights, below):
    total = {}
    for right in rights:
        ends = {start: Decimal(1) / len(rights)}
        for child in right:
            further = {}
            for middle, weight in ends.items():
                for end, other in below[child][middle].items():
                    further[end] = further.get(end, 0) + weight * other
            ends = further
        for end, weight in ends.items():
            total[end] = total.get(end, 0) + weight
    return total


def _device(quantity):
    kernels = {}

    def run(g, tokens, lengths):
        kernel = kernels.setdefault(g, jax.jit(lambda a, b: getattr(grammar_exact, quantity)(g, a, b)))
        return jax.block_until_ready(kernel(tokens, lengths))

    return run


def _nltk_peer():
    try:
        import nltk
    except ImportError:
        return {}

    def parse(g, tokens, lengths):
        def name(depth, symbol):
            return str(symbol + 1) if depth == len(g.levels) else nltk.Nonterminal(f"s{depth}_{symbol}")

        productions = [
            nltk.Production(name(depth, symbol), [name(depth + 1, child) for child in right])
            for depth, rules in enumerate(g.rules)
            for symbol, rights in enumerate(rules)
            for right in rights
        ]
        parser = nltk.parse.BottomUpLeftCornerChartParser(nltk.CFG(name(0, 0), productions))
        strings = (map(str, row[:n]) for row, n in zip(tokens.tolist(), lengths, strict=True))
        return [next(iter(parser.parse(list(string))), None) is not None for string in strings]

    return {"nltk": (parse, 8)}


def _seconds(function, repeats):
    """The least of some times, after one run that is not counted where there are several; and the answer."""
    if repeats > 1:
        jax.block_until_ready(function())
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        answer = jax.block_until_ready(function())
        best = min(best, time.perf_counter() - start)
    return best, answer


def main():
    table = rows(quick="--quick" in sys.argv)
    print(f"{'benchmark':>24} {'shape':>26} {'ours, s':>10} {'peer':>24} {'peer, s':>10} {'ratio':>9}")
    for row in table:
        shape = ", ".join(map(str, row["shape"]))
        times = f"{row['ours_s']:10.6f} {row['peer']:>24} {row['peer_s']:10.4f} {row['ratio']:8.0f}"
        print(f"{row['benchmark']:>24} {shape:>26} {times}")
    print(json.dumps(table))


if __name__ == "__main__":
    main()
