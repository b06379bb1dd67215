"""CD beside scikit-learn, faiss and the plain Gram product, all in one run on the same arrays.

    python tests/benchmarks/bench_decodability.py [--quick]

Ours is the whole score (distances, neighbours, votes, ties decided). scikit-learn is KNeighborsClassifier with
algorithm="brute", faiss an exact IndexFlatL2 search for k + 1 neighbours; both run a layer at a time. "gram" is one
full batched product at the highest precision in JAX, without finding any neighbour. `ratio` is their time over ours.
Peers that are not installed are left out. On an accelerator they are skipped where the host would take minutes.
One layer of 100 000 points is measured once, beside faiss alone. "Full statistics" are CD by concept with its interval,
its null of 200 permutations and its p-value. Their peer is CD alone with the same ties, so that the ratio is one over
what they cost.
"""

from __future__ import annotations

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxconcepts.metrics.decodability import concept_decodability, concept_decodability_per_concept
from jaxconcepts.metrics.statistics import decodability_statistics

K = 10
CONCEPTS = 7
SHAPES = ((13, 400, 64), (33, 700, 4096), (13, 10_000, 256))
QUICK_SHAPES = ((13, 400, 64), (3, 700, 1024))
# Too many points for all but faiss.
LARGE, QUICK_LARGE = (1, 100_000, 256), (1, 4000, 256)
# Layers x points x width of the full statistics.
CELLS, QUICK_CELLS = ((13, 400, 64), (33, 700, 4096)), ((3, 400, 64),)
AIMS = {
    ((13, 400, 64), "scikit-learn"): 8, ((33, 700, 4096), "scikit-learn"): 2.5, ((33, 700, 4096), "faiss"): 1.3,
    ((33, 700, 4096), "gram"): 1.25, ((13, 10_000, 256), "scikit-learn"): 2.5, ((13, 10_000, 256), "faiss"): 1.3,
    ((13, 10_000, 256), "gram"): 1.25, (LARGE, "faiss"): 1 / 1.2,
}  # fmt: skip
ACCELERATOR_SHAPES = ((33, 10_000, 4096),)
# Multiplications in the Gram products beyond which the host's libraries are not worth waiting for.
HOST_LIMIT = 1e12


def rows(quick: bool = False) -> list[dict]:
    """A row a shape and peer: benchmark, shape [layers, points, width], seconds of both, ratio."""
    accelerator = jax.default_backend() != "cpu"
    shapes = QUICK_SHAPES if quick else SHAPES + (ACCELERATOR_SHAPES if accelerator else ())
    made = [
        row for shape in shapes for row in _compare(shape, hosts=np.prod(shape, dtype=float) * shape[1] < HOST_LIMIT)
    ]
    if not accelerator:
        made += _compare(QUICK_LARGE if quick else LARGE, only="faiss", repeats=1)
    return made + [_statistics(shape) for shape in (QUICK_CELLS if quick else CELLS)]


def _statistics(shape) -> dict:
    hidden, concepts = clustered(shape)
    alone = jax.jit(lambda hidden: concept_decodability_per_concept(hidden, concepts, K, ties="split"))
    full = jax.jit(lambda hidden: decodability_statistics(hidden, concepts, jax.random.key(0), k=K))
    functions = {
        "ours": lambda: jax.block_until_ready(full(hidden)), "CD alone": lambda: jax.block_until_ready(alone(hidden)),
    }  # fmt: skip
    seconds = best_times(functions, 5)
    return _row("full statistics of CD", shape, seconds, "CD alone", 1 / 1.5)


def clustered(shape):
    """Hidden states, and their concepts."""
    _, points, width = shape
    concepts = np.arange(points) % CONCEPTS
    # A weak cluster a concept and a mean shared by all, so that scores are neither chance nor one.
    key, centres = jax.random.split(jax.random.key(0))
    shift = jax.random.normal(centres, (CONCEPTS, width)) * width**-0.25
    return jax.random.normal(key, shape) + shift[concepts] + 3, concepts


def _compare(shape, hosts: bool = True, only: str | None = None, repeats: int | None = None) -> list[dict]:
    points, (hidden, concepts) = shape[1], clustered(shape)
    ours = jax.jit(lambda hidden: concept_decodability(hidden, concepts, K))
    gram = jax.jit(lambda x: jnp.einsum("lnd,lmd->lnm", x, x, precision="highest"))
    candidates = {"gram": lambda: jax.block_until_ready(gram(hidden))}
    if hosts:
        candidates |= _host_peers(np.asarray(hidden), concepts)
    if only is not None:
        candidates = {name: function for name, function in candidates.items() if name == only}
    repeats = repeats or (20 if np.prod(shape, dtype=float) * points < 1e9 else 2)
    # Interleaved, so that a disturbance of the machine falls on all alike.
    seconds = best_times({"ours": lambda: jax.block_until_ready(ours(hidden)), **candidates}, repeats)
    return [
        _row("concept decodability", shape, seconds, name, AIMS.get((tuple(shape), name), "")) for name in candidates
    ]


def _row(benchmark, shape, seconds, peer, aim) -> dict:
    ours, theirs = seconds["ours"], seconds[peer]
    row = {"benchmark": benchmark, "shape": " x ".join(map(str, shape)), "ours_s": ours, "peer": peer}
    return row | {"peer_s": theirs, "ratio": theirs / ours, "aim": aim}


def _host_peers(hidden, concepts):
    peers = {}
    try:
        from sklearn.neighbors import KNeighborsClassifier
    except ImportError:
        pass
    else:
        peers["scikit-learn"] = lambda: [
            np.mean(KNeighborsClassifier(K, algorithm="brute").fit(layer, concepts).predict(None) == concepts)
            for layer in hidden
        ]
    try:
        import faiss
    except ImportError:
        return peers

    def search(layer):
        index = faiss.IndexFlatL2(layer.shape[1])
        index.add(layer)
        _, found = index.search(layer, K + 1)
        votes = np.apply_along_axis(np.bincount, 1, concepts[found[:, 1:]], minlength=CONCEPTS)
        return np.mean(votes.argmax(1) == concepts)

    peers["faiss"] = lambda: [search(layer) for layer in hidden]
    return peers


def best_times(functions, repeats):
    """The least seconds of each, after a call of each that is not counted."""
    best = {}
    for name, function in functions.items():
        function()
        best[name] = float("inf")
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main():
    table = rows(quick="--quick" in sys.argv)
    print(f"{'layers x points x width':>26} {'ours, s':>10} {'peer':>14} {'peer, s':>10} {'peer / ours':>12}")
    for row in table:
        print(f"{row['shape']:>26} {row['ours_s']:10.4f} {row['peer']:>14} {row['peer_s']:10.4f} {row['ratio']:12.2f}")
    print(json.dumps(table))


if __name__ == "__main__":
    main()
