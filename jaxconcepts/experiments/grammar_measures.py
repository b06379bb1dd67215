"""What is measured of a language model on a grammar's held-out strings; see `experiments.grammar` for the names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxconcepts.experiments import tokens
from jaxconcepts.experiments.evaluators import Evaluator
from jaxconcepts.experiments.grammar_generation import Written
from jaxconcepts.metrics.grouped_probes import matthews, read_off, rightly
from jaxconcepts.training.experiment import HeldOut, Named

UNIT = "nats a token"


class Answers(NamedTuple):
    """What a model gives for the held-out rows. logits: [N, W, V]. written: strings by start, where asked for. streams:
    [layers, N, W, d], the states at all positions. residues, patched: see `grammar_trees`, where asked for."""

    logits: Float[Array, "N W V"]
    written: Mapping[str, Written]
    streams: Float[Array, "layers N W d"]
    residues: Mapping[str, Any]
    patched: tuple[Array, Array] | None


def loss(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """Of a decoder, in nats for each token of the strings and their ends: "loss", the cross-entropy; "excess_loss",
    what it is above the exact solution's on the same strings; "kl", the divergence of the model's distribution of the
    next token from the exact one. Of an encoder, the cross-entropy of masked tokens."""
    if held_out.batch.inputs is not None:
        return {"loss": Named(tokens.cross_entropy(outputs.logits, held_out.batch), unit=UNIT)}
    exact, fitting = held_out.exact["next_token"], held_out.exact["fitting"]
    # Of the whole vocabulary: what a model gives to tokens that cannot come is lost to it.
    scores = jax.nn.log_softmax(outputs.logits[:, : exact.shape[1]])[..., 1 : exact.shape[2] + 1]
    counts = jnp.arange(exact.shape[1]) <= held_out.exact["lengths"][:, None]
    mean = lambda values: jnp.sum(values * counts) / jnp.sum(counts)  # noqa: E731
    cross_entropy = -mean(jnp.take_along_axis(scores, fitting[..., None], -1)[..., 0])
    divergence = mean(jnp.sum(jax.scipy.special.xlogy(exact, exact) - exact * scores, -1))
    return {
        "loss": Named(cross_entropy, unit=UNIT),
        "excess_loss": Named(cross_entropy - exact_loss(held_out), unit=UNIT),
        "kl": Named(divergence, unit=UNIT),
    }


def exact_loss(held_out: HeldOut) -> Float[Array, ""]:
    """The exact solution's cross-entropy of the held-out strings, the least that a reader of prefixes can have in the
    mean."""
    exact, fitting = held_out.exact["next_token"], held_out.exact["fitting"]
    counts = jnp.arange(exact.shape[1]) <= held_out.exact["lengths"][:, None]
    probability = jnp.take_along_axis(exact, fitting[..., None], -1)[..., 0]
    return -jnp.sum(jnp.log(jnp.where(counts, probability, 1.0))) / jnp.sum(counts)


def _loss_once(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    if held_out.batch.inputs is not None:
        return {}
    return {"loss_exact": Named(exact_loss(held_out), unit=UNIT)}


def generation(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """Strings from the begin and after a true prefix: see `_of_written`."""
    return _of_written(outputs, ("begin", "prefix"))


def noise(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """Strings after a corrupted prefix: see `_of_written`."""
    return _of_written(outputs, ("corrupted",))


def _of_written(outputs, starts):
    """By start (the label): "parses", the share that is in the language; "no_end", the share that is longer than any
    string; "distinct", of those that parse, the share of different strings."""
    measured = {}
    for label, written in outputs.written.items():
        if label.split(" ")[0] in starts:
            measured |= {
                f"parses/{label}": Named(jnp.mean(written.parses, dtype=jnp.float32), unit="fraction"),
                f"no_end/{label}": Named(jnp.mean(~written.ended, dtype=jnp.float32), unit="fraction"),
                f"distinct/{label}": Named(_distinct(written.tokens, written.parses), unit="fraction"),
            }
    return measured


def _distinct(strings: Int[Array, "G T"], counts: Bool[Array, " G"]) -> Float[Array, ""]:
    """The share of different strings among those that count; NaN where none does."""
    same = jnp.all(strings[:, None] == strings, -1) & counts
    first = jnp.argmax(same, 1) == jnp.arange(len(counts))
    return jnp.sum(first & counts) / jnp.sum(counts)


def probe(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """By level (the label) and layer: "probe", how often the ancestor is read off the hidden states at a position by
    ridge regression; "headroom", that above the majority as a share of the ceiling above it, NaN where the ceiling is
    not above it (at few points)."""
    return with_headroom(held_out, "", _ancestors_read(states, held_out))


def _probe_once(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    """By level: "probe_majority", always saying the commonest; "probe_position", from the place in the string alone;
    "probe_ceiling", the best reading of what the model has seen; "probe_untrained" and its headroom, by layer."""
    places = jax.nn.one_hot(held_out.exact["offset"], held_out.exact["next_token"].shape[1])[None]
    measured = with_headroom(held_out, "_untrained", _ancestors_read(untrained()[0], held_out))
    for name, concept in held_out.concepts.items():
        measured[f"probe_majority/{name}"] = Named(_majority(concept.labels, concept.classes), unit="fraction")
        measured[f"probe_ceiling/{name}"] = Named(held_out.exact["ceiling"][name], unit="fraction")
    by_place = _ancestors_read(dict.fromkeys(held_out.concepts, places), held_out)
    return measured | {
        f"probe_position/{name}": Named(right[0], unit="fraction") for name, right in by_place.items()
    }  # fmt: skip


def _ancestors_read(states, held_out) -> dict[str, Float[Array, " layers"]]:
    """How often the ancestors are read right off the last axes [layers, M, d] of the states, by level."""
    concepts = held_out.concepts
    labels = jnp.stack([concept.labels for concept in concepts.values()])
    read = _read_off(states, held_out, labels, tuple(concept.classes for concept in concepts.values()))
    right = rightly(read, labels)
    return {name: right[..., row] for row, name in enumerate(concepts)}


def _read_off(states, held_out, labels, classes):
    """Predictions [layers, levels, M]; the states are the same for every level."""
    hidden = next(iter(states.values()))
    hidden = hidden if hidden.ndim == 3 else hidden[0]
    settings = held_out.settings
    return read_off(hidden, labels, classes, held_out.exact["group"], settings.folds, settings.alpha)


def with_headroom(held_out: HeldOut, suffix: str, right: Mapping[str, Float[Array, " layers"]]) -> dict[str, Named]:
    """ "probe<suffix>" and "headroom<suffix>" of each level, of how often its ancestors are read right."""
    measured = {}
    for name, values in right.items():
        concept, ceiling = held_out.concepts[name], held_out.exact["ceiling"][name]
        majority = _majority(concept.labels, concept.classes)
        measured[f"probe{suffix}/{name}"] = Named(values, ("layer",), "fraction")
        room = jnp.where(ceiling > majority, ceiling - majority, jnp.nan)
        measured[f"headroom{suffix}/{name}"] = Named((values - majority) / room, ("layer",), "fraction")
    return measured


def _majority(labels, classes):
    return jnp.max(jnp.mean(labels[:, None] == jnp.arange(classes), 0, dtype=jnp.float32))


def boundary(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """By level and layer: "boundary", how often it is read off the hidden states whether a symbol of the level ends at
    the position; "boundary_mcc", Matthews' correlation of the same, since most positions are no ends."""
    return _ends_read("", states, held_out)


def _boundary_once(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    measured = _ends_read("_untrained", untrained()[0], held_out)
    for name, labels in held_out.exact["ends"].items():
        measured[f"boundary_majority/{name}"] = Named(_majority(labels, 2), unit="fraction")
        measured[f"boundary_ceiling/{name}"] = Named(held_out.exact["ends_ceiling"][name], unit="fraction")
    return measured


def _ends_read(suffix, states, held_out):
    ends = held_out.exact["ends"]
    labels = jnp.stack(list(ends.values()))
    read = _read_off(states, held_out, labels, (2,) * len(ends))
    right, correlation = rightly(read, labels), matthews(read, labels)
    measured = {}
    for row, name in enumerate(ends):
        measured[f"boundary{suffix}/{name}"] = Named(right[:, row], ("layer",), "fraction")
        measured[f"boundary_mcc{suffix}/{name}"] = Named(correlation[:, row], ("layer",), "correlation", 0.0)
    return measured


def accuracy(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """How often the most likely token is the right one."""
    return tokens.accuracy(states, outputs.logits, held_out)


EVALUATORS: Mapping[str, Any] = {
    "loss": Evaluator(loss, _loss_once),
    "accuracy": accuracy,
    "generation": generation,
    "noise": noise,
    "probe": Evaluator(probe, _probe_once),
    "boundary": Evaluator(boundary, _boundary_once),
}
