"""Does a model work like dynamic programming over a string's tree? Evaluators of `experiments.grammar` for that.

span       whether a symbol of the level spans i..j, read off the pair of hidden states at i and j
mixing     ancestors by a probe that looks at every position (`metrics.mixing_probe`)
attention  how much more is attended from one end of a symbol to another than their distance explains
patch      what a state that says "a symbol ends here" does to the continuation, when one that does not replaces it
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jaxconcepts.experiments import grammar_generation
from jaxconcepts.experiments.evaluators import Evaluator
from jaxconcepts.float64 import in_double
from jaxconcepts.interventions import patching
from jaxconcepts.metrics.grouped_probes import area_under_curve, decisions
from jaxconcepts.metrics.mixing_probe import mixing_accuracy
from jaxconcepts.models import gpt2_block
from jaxconcepts.tasks.grammar_tables import BEGIN
from jaxconcepts.training.experiment import HeldOut, Named

RANK = 16
"""Principal components of the states that the span probe multiplies: RANK ** 2 features a pair."""
LEAST_VARIANCE = 1e-12
"""Of the largest component's, what another one must have to be more than rounding."""
BACK = 5
"""Ends of one level, from a token's own symbol (0) back, to which attention is measured."""
AROUND = (-2, -1, 0, 1, 2)
"""Places around an end to which attention is measured."""


def span(states, outputs, held_out: HeldOut) -> dict[str, Named]:
    """By level (the label) and layer: the area under the curve of a bilinear probe for "a symbol spans i..j"."""
    return _spans_read("span_auc", outputs.streams[:, :, 1:], held_out)


def _span_once(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    measured = _spans_read("span_auc_untrained", untrained()[1].streams[:, :, 1:], held_out)
    length = held_out.exact["next_token"].shape[1]
    wave = jnp.arange(length)[:, None] * jnp.exp(jnp.linspace(0.0, -jnp.log(float(length)), RANK // 2))
    places = jnp.concatenate([jnp.sin(wave), jnp.cos(wave)], -1)
    places = jnp.broadcast_to(places, (1, len(held_out.exact["lengths"]), *places.shape))
    for name, named in _spans_read("span_auc_position", places, held_out).items():
        measured[name] = Named(named.values[0], (), named.unit, named.chance)
    return measured


def _spans_read(metric, states, held_out):
    """states: [layers, N, at least T, d]."""
    measured, settings = {}, held_out.settings
    for level, asked in held_out.exact["spans"].items():
        ends = [states[:, asked["string"], asked[name]] for name in ("first", "last")]
        labels = asked["label"]
        scores = decisions(
            span_features(*ends), labels[None], (2,), asked["string"], settings.folds, settings.alpha
        )  # fmt: skip
        area = area_under_curve(scores[..., 1] - scores[..., 0], labels)
        measured[f"{metric}/{level}"] = Named(area, ("layer",), "area", 0.5)
    return measured


def span_features(
    first: Float[Array, "layers P d"], last: Float[Array, "layers P d"]
) -> Float[Array, "layers P features"]:
    """Products of every whitened principal component of the one state with every one of the other: what a bilinear
    form of rank `RANK` sees. Neither state is seen alone."""

    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def of_layer(pair):
        both = jnp.concatenate(pair)
        mean = jnp.mean(both, 0)
        variances, directions = jnp.linalg.eigh(product((both - mean).T, both - mean) / len(both))
        variances, directions = variances[-RANK:], directions[:, -RANK:]
        kept = variances > LEAST_VARIANCE * variances[-1]
        scaled = directions * jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, variances, 1.0)), 0.0)
        left, right = (product(part - mean, scaled) for part in pair)
        return (left[:, :, None] * right[:, None]).reshape(len(left), -1)

    # In float64, or one massive dimension would be all that is left.
    return in_double(lambda pair: jax.lax.map(of_layer, pair), (first, last))


def mixing(states, outputs, held_out: HeldOut) -> dict[str, Named]:
    """By level, off the last layer: how often a probe that looks at every position says the ancestor, of the strings of
    one fold after training on the others. What the whole string says is its ceiling."""
    return _mixed("mixing", outputs.streams, held_out)


def _mixing_once(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    return _mixed("mixing_untrained", untrained()[1].streams, held_out)


def _mixed(metric, streams, held_out):
    trees, exact = held_out.exact["trees"], held_out.exact
    length = exact["next_token"].shape[1] - 1
    inside = jnp.arange(length) < exact["lengths"][:, None]
    labels = jnp.stack([tree["symbol"] for tree in trees.values()])
    classes = tuple(held_out.concepts[name].classes for name in trees)
    fitted = jnp.arange(len(inside)) % held_out.settings.folds != 0
    right = mixing_accuracy(streams[-1, :, 1 : length + 1], labels, classes, inside, fitted)
    return {f"{metric}/{name}": Named(right[row], unit="fraction") for row, name in enumerate(trees)}


def attention(states, outputs, held_out: HeldOut) -> dict[str, Named]:
    """See `residues`; by level (the label) and layer: "attention_ends", from an end to the end of the symbol that is
    `position` symbols before; "attention_around", from anywhere to a place (the token, -2 ... 2) about an end."""
    return _attended("", outputs.residues)


def _attention_once(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    return _attended("_untrained", untrained()[1].residues)


def _attended(suffix, by_level):
    names = (("token", tuple(f"{place:+d}" for place in AROUND)),)
    measured = {}
    for level, (ends, around) in by_level.items():
        measured[f"attention_ends{suffix}/{level}"] = Named(ends, ("layer", "position"), "weight", 0.0)
        measured[f"attention_around{suffix}/{level}"] = Named(around, ("layer", "token"), "weight", 0.0, names=names)
    return measured


def residues(experiment, params: PyTree, streams: Float[Array, "layers N W d"], held_out: HeldOut) -> dict[str, Any]:
    """By level ([L, BACK], [L, places]): the mean over heads of the attention between terminals of a string, less the
    mean at their distance; over the pairs of ends of the level that are 0, 1, ... symbols apart, and over all tokens
    and the places about an end that they attend to."""
    exact = held_out.exact
    length = exact["next_token"].shape[1] - 1
    inside = jnp.arange(length) < exact["lengths"][:, None]
    seen = inside[:, :, None] & inside[:, None]
    if experiment.causal:
        seen &= jnp.tril(jnp.ones((length, length), bool))

    def of_block(block):
        weights = gpt2_block.attention_weights(experiment.model, params, streams[block], block)
        residue = _less_distance(jnp.mean(weights, 1)[:, 1 : length + 1, 1 : length + 1], seen)
        return {name: _about_ends(residue, seen, tree) for name, tree in exact["trees"].items()}

    return jax.lax.map(of_block, jnp.arange(experiment.model.layers))


def _less_distance(weights: Float[Array, "N T T"], seen: Bool[Array, "N T T"]) -> Float[Array, "N T T"]:
    length = weights.shape[1]
    distance = (jnp.arange(length)[:, None] - jnp.arange(length) + length - 1).reshape(-1)
    sums, counts = (
        jax.ops.segment_sum(jnp.sum(values, 0).reshape(-1), distance, 2 * length - 1)
        for values in (weights * seen, seen.astype(weights.dtype))
    )
    return weights - (sums / jnp.maximum(counts, 1))[distance].reshape(length, length)


def _about_ends(residue, seen, tree):
    index, end = tree["index"], tree["end"]
    apart = index[:, :, None] - index[:, None]
    both = seen & end[:, :, None] & end[:, None]
    mean = lambda mask: jnp.sum(residue * mask) / jnp.sum(mask)  # noqa: E731
    ends = jnp.stack([mean(both & (apart == back)) for back in range(BACK)])
    length = end.shape[1]
    padded = jnp.pad(end, ((0, 0), (2, 2)))
    near = [padded[:, 2 - place : 2 - place + length] for place in AROUND]
    return ends, jnp.stack([mean(seen & there[:, None]) for there in near])


def patch(states, outputs, held_out: HeldOut) -> dict[str, Named]:
    """Where a symbol of the uppermost level ends, the state of a layer becomes that of another place with the same
    token (the label): "alike", an end of the same symbol; "other", no end of the level. "patched_parses": the share of
    continuations that make a string of the language; "patched_valid": the weight that the next token's distribution
    gives to tokens that can come. The label "none" is without a patch and has no layer."""
    measured = {}
    for metric, values, unit in zip(
        ("patched_parses", "patched_valid"), outputs.patched, ("fraction",) * 2, strict=True
    ):
        measured[f"{metric}/none"] = Named(jnp.mean(values[-1]), unit=unit)
        for row, label in enumerate(("alike", "other")):
            measured[f"{metric}/{label}"] = Named(jnp.mean(values[:-1, row], -1), ("layer",), unit)
    return measured


def patched(experiment, params: PyTree, streams: Float[Array, "layers N W d"], held_out: HeldOut):
    """Whether it parses and the valid weight, [L + 2, 2, Q]: by layer, the last without a patch, and what stands in."""
    asked, rows, blocks = held_out.exact["boundaries"], held_out.batch.tokens, experiment.model.layers
    string, place = asked["string"], asked["place"]
    width = held_out.exact["next_token"].shape[1]
    prefix = jnp.where(jnp.arange(width) <= place[:, None] + 1, rows[string, :width], BEGIN)
    twice = lambda a: jnp.concatenate([a, a])  # noqa: E731
    tokens, given = twice(prefix), twice(place + 1)
    stand_ins = [streams[:, asked[f"{kind}_string"], asked[f"{kind}_place"] + 1] for kind in ("alike", "other")]
    values, at_end = jnp.concatenate(stand_ins, 1), jnp.arange(width) == given[:, None]
    valid = twice(held_out.exact["next_token"][string, place + 1] > 0)

    def at(layer):
        taken = values[jnp.minimum(layer, blocks)][:, None]
        edits = patching.replace(patching.at_layer(layer, blocks, at_end), taken)
        written, logits = grammar_generation.go_on(
            experiment, params, held_out, tokens, given, jnp.ones(len(given)), edits=edits
        )
        weight = jnp.sum(jax.nn.softmax(logits)[:, 1 : valid.shape[1] + 1] * valid, -1)
        return written.parses.astype(jnp.float32).reshape(2, -1), weight.reshape(2, -1)

    return jax.lax.map(at, jnp.arange(blocks + 2))


EVALUATORS: Mapping[str, Any] = {
    "span": Evaluator(span, _span_once),
    "mixing": Evaluator(mixing, _mixing_once),
    "attention": Evaluator(attention, _attention_once),
    "patch": patch,
}
