"""CD of 33 layers x 10 000 points x 4096, every score certified, beside the plain Gram product; aim: 1 s on an H200."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import gpu_rates
import jax
import jax.numpy as jnp
from bench_decodability import K, best_times, clustered

import jaxconcepts as jc
from jaxconcepts.metrics import neighbours, slabs

SHAPE = (33, 10_000, 4096)
QUICK = (2, 600, 32)
AIM_SECONDS = 1.0


def measurements(quick: bool):
    return {"CD, certified": partial(measure, *(QUICK if quick else SHAPE))}


def measure(layers: int, points: int, width: int) -> Iterator[dict]:
    """Rows of one shape, of half the points where it does not fit."""
    yield from gpu_rates.at_size(partial(compare, layers, width), points)


def compare(layers: int, width: int, points: int) -> list[dict]:
    """A row a peer. Rates count the full Gram product, of which CD leaves out a part."""
    hidden, concepts = clustered((layers, points, width))
    gram = jax.jit(lambda x: jnp.einsum("lnd,lmd->lnm", x, x, precision="highest"))
    coarse, low = jax.jit(lambda x: jnp.einsum("lnd,lmd->lnm", x, x)), hidden.astype(jnp.bfloat16)
    inside = jax.jit(lambda x: jc.concept_decodability(x, concepts, K))
    functions = {
        "ours": lambda: jax.block_until_ready(jc.concept_decodability(hidden, concepts, K)),
        "the same inside jit": lambda: jax.block_until_ready(inside(hidden)),
        "full Gram product": lambda: jax.block_until_ready(gram(hidden)),
        "full Gram product in bfloat16": lambda: jax.block_until_ready(coarse(low)),
    }
    seconds = best_times(functions, 3)
    ours = seconds.pop("ours")
    shared = {"shape": [layers, points, width], "ours_s": ours}
    shared |= {"decided_again": float(decided_again(hidden)), "score": float(inside(hidden).mean())}
    shared |= gpu_rates.rate(2.0 * layers * points**2 * width, ours, "float32")
    peers = [gpu_rates.against(name, peer, ours, None) for name, peer in seconds.items()]
    if (layers, points, width) == SHAPE:
        peers.insert(0, gpu_rates.against("the aim for an H200", AIM_SECONDS, ours))
    return [shared | peer for peer in peers]


@jax.jit
def decided_again(hidden):
    """The share of points whose neighbours the Gram product does not prove."""

    def unproved(_, distances, start):
        values, _ = neighbours.nearest(distances, K + 1)
        return neighbours.unproved(distances, values[..., K - 1], values[..., K])

    like = jnp.zeros(hidden.shape[1], bool)
    return jnp.mean(slabs.by_targets(unproved, like, hidden, neighbours.DEFAULT_MEMORY, None, K + 1))
