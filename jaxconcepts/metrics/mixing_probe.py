"""A probe that looks at every position: it learns where to look from positions alone, and what to read there.

The position-mixing probe of "Physics of Language Models: Part 1" (arXiv 2305.13673): the scores at position i are
sum over heads r and positions k of softmax_k(<P_i,r, P_k,r>) f_r(h_k), with P learned and f linear. It may look ahead,
so its ceiling is what the whole string says. It is trained by gradient, all concepts together, in one compiled scan.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxconcepts.float64 import in_double


class MixingProbe(NamedTuple):
    """The probe's weights. places: [T, R, w], P of every position and head. readers: [R, d, C classes], f of every
    head. bias: [C classes]."""

    places: Float[Array, "T R w"]
    readers: Float[Array, "R d K"]
    bias: Float[Array, " K"]

    def scores(self, hidden: Float[Array, "N T d"], inside: Bool[Array, "N T"]) -> Float[Array, "N T K"]:
        """The decision values of all classes; positions outside a sequence are not looked at."""
        alike = jnp.einsum("irw,krw->rik", self.places, self.places)
        seen = jnp.where(inside[:, None, None], alike, jnp.finfo(jnp.float32).min)
        said = jnp.einsum("nkd,rdc->nrkc", hidden, self.readers)
        return jnp.einsum("nrik,nrkc->nic", jax.nn.softmax(seen, -1), said) + self.bias


@partial(jax.jit, static_argnames=("classes", "heads", "width", "steps"))
def mixing_accuracy(
    hidden: Float[Array, "N T d"], labels: Int[Array, "C N T"], classes: tuple[int, ...], inside: Bool[Array, "N T"],
    fitted: Bool[Array, " N"], *, heads: int = 4, width: int = 64, steps: int = 400, rate: float = 3e-3,
    decay: float = 1e-3,
) -> Float[Array, " C"]:  # fmt: skip
    """How often the probe is right about each of C concepts at the positions `inside` the sequences that are not
    `fitted`, after `steps` of AdamW on all that are. NaN where a decision value is none.

    labels: from 0 to that concept's number of `classes` (static) less one; any number where not inside. heads, width:
    of the positions' weights. rate, decay: of AdamW.
    """
    used = (inside & fitted[:, None])[..., None]
    hidden = in_double(_standardised, hidden, used)
    cuts = [sum(classes[:number]) for number in range(1, len(classes))]
    labels = jnp.where(inside, labels, 0)
    # Every position looks at itself first, and at the others a little.
    places = jax.random.normal(jax.random.key(0), (hidden.shape[1], heads, width)) * 2 / width**0.5
    probe = MixingProbe(places, jnp.zeros((heads, hidden.shape[2], sum(classes))), jnp.zeros(sum(classes)))
    optimizer = optax.adamw(rate, weight_decay=decay)

    def loss(probe):
        parts = jnp.split(probe.scores(hidden, inside), cuts, -1)
        each = [optax.softmax_cross_entropy_with_integer_labels(*both) for both in zip(parts, labels, strict=True)]
        return jnp.sum(sum(each) * used[..., 0]) / jnp.sum(used)

    def step(carry, _):
        probe, state = carry
        updates, state = optimizer.update(jax.grad(loss)(probe), state, probe)
        return (optax.apply_updates(probe, updates), state), None

    probe, _ = jax.lax.scan(step, (probe, optimizer.init(probe)), length=steps)[0]
    scores, asked = probe.scores(hidden, inside), inside & ~fitted[:, None]
    read = jnp.stack([jnp.argmax(part, -1) for part in jnp.split(scores, cuts, -1)])
    known = jnp.all(jnp.isfinite(scores) | ~asked[..., None])
    return jnp.where(known, jnp.sum((read == labels) & asked, (1, 2)) / jnp.sum(asked), jnp.nan)


def _standardised(hidden, used):
    """Every dimension with the mean 0 and the deviation 1 over what is `used`; in float64, for any scale and mean."""
    mean = jnp.sum(hidden * used, (0, 1)) / jnp.sum(used)
    spread = jnp.sqrt(jnp.sum((hidden - mean) ** 2 * used, (0, 1)) / jnp.sum(used))
    return (hidden - mean) / jnp.where(spread > 0, spread, 1.0)
