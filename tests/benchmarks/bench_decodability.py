"""CD beside scikit-learn, faiss and the plain Gram product, all in one run on the same arrays.

    python tests/benchmarks/bench_decodability.py [--quick]

Ours is the whole score (distances, neighbours, votes, ties decided). scikit-learn is KNeighborsClassifier with
algorithm="brute", faiss an exact IndexFlatL2 search for k + 1 neighbours; both run a layer at a time. "gram" is one
full batched product at the highest precision in JAX, without finding any neighbour. `ratio` is their time over ours.
Peers that are not installed are left out. On an accelerator they are skipped where the host would take minutes.
"""

from __future__ import annotations

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxconcepts.metrics.decodability import concept_decodability

K = 10
CONCEPTS = 7
SHAPES = ((13, 400, 64), (33, 700, 4096), (13, 10_000, 256))
QUICK_SHAPES = ((13, 400, 64), (3, 700, 1024))
ACCELERATOR_SHAPES = ((33, 10_000, 4096),)
# Multiplications in the Gram products beyond which the host's libraries are not worth waiting for.
HOST_LIMIT = 1e12


def rows(quick: bool = False) -> list[dict]:
    """A row a shape and peer: benchmark, shape [layers, points, width], seconds of both, ratio."""
    accelerator = jax.default_backend() != "cpu"
    shapes = QUICK_SHAPES if quick else SHAPES + (ACCELERATOR_SHAPES if accelerator else ())
    return [
        row for shape in shapes for row in _compare(shape, hosts=np.prod(shape, dtype=float) * shape[1] < HOST_LIMIT)
    ]


def clustered(shape):
    """Hidden states, and their concepts."""
    _, points, width = shape
    concepts = np.arange(points) % CONCEPTS
    # A weak cluster a concept and a mean shared by all, so that scores are neither chance nor one.
    key, centres = jax.random.split(jax.random.key(0))
    shift = jax.random.normal(centres, (CONCEPTS, width)) * width**-0.25
    return jax.random.normal(key, shape) + shift[concepts] + 3, concepts


def _compare(shape, hosts: bool) -> list[dict]:
    points, (hidden, concepts) = shape[1], clustered(shape)
    ours = jax.jit(lambda hidden: concept_decodability(hidden, concepts, K))
    gram = jax.jit(lambda x: jnp.einsum("lnd,lmd->lnm", x, x, precision="highest"))
    candidates = {"gram": lambda: jax.block_until_ready(gram(hidden))}
    if hosts:
        candidates |= _host_peers(np.asarray(hidden), concepts)
    repeats = 20 if np.prod(shape, dtype=float) * points < 1e9 else 2
    # Interleaved, so that a disturbance of the machine falls on all alike.
    seconds = best_times({"ours": lambda: jax.block_until_ready(ours(hidden)), **candidates}, repeats)
    return [
        {
            "benchmark": "concept decodability",
            "shape": list(shape),
            "ours_s": seconds["ours"],
            "peer": name,
            "peer_s": seconds[name],
            "ratio": seconds[name] / seconds["ours"],
        }
        for name in candidates
    ]


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
        shape = " x ".join(map(str, row["shape"]))
        print(f"{shape:>26} {row['ours_s']:10.4f} {row['peer']:>14} {row['peer_s']:10.4f} {row['ratio']:12.2f}")
    print(json.dumps(table))


if __name__ == "__main__":
    main()
