"""What is measured of a model of people; see `experiments.biographies` for the evaluators' names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxconcepts.experiments import biographies_world, trained_probes
from jaxconcepts.experiments.biographies_world import HINT, SIDES
from jaxconcepts.experiments.evaluators import Evaluator, beside_untrained
from jaxconcepts.experiments.tokens import Tokens
from jaxconcepts.metrics.grouped_probes import read_off, rightly
from jaxconcepts.tasks import biographies_bank
from jaxconcepts.tasks.biographies_encoding import NAME_TOKEN, VALUE_TOKEN
from jaxconcepts.tasks.biographies_vocabulary import Vocabulary
from jaxconcepts.training.experiment import HeldOut, Named

SPOTS = ("name", *(f"before value {number}" for number in range(1, 7)))
"""Where a biography is read: at the name's end, and before its values in the order of the text."""


class Answers(NamedTuple):
    """What a model gives. experiment: whose it is. logits: of the questions [R, t, V]. written: the hinted questions
    with answers as the model wrote them [H, t], None without any. told: of the biographies, the logits [N, T, V] and
    states at the spots [S, L + 1, N, d], None where nothing asks for them."""

    experiment: Any
    logits: Float[Array, "R t V"]
    written: Array | None
    told: tuple[Array, Array] | None


def read(experiment, params, held_out: HeldOut):
    """(the states after each person's name, by concept, and `Answers`) of an `experiments.biographies.Biographies`."""
    metrics, exact = set(experiment.measuring.metrics), held_out.exact
    names = exact["names"]
    _, captured = experiment.by_rows(params, Tokens(names["tokens"], None), names["spots"])
    logits = experiment.by_rows(params, held_out.batch)[0]
    hinted = _hinted(experiment) if "hinted" in metrics else ()
    written = _write(experiment, params, held_out, np.array(hinted)) if len(hinted) else None
    told = None
    if metrics & {"stored", "p_probe"}:
        texts = exact["biographies"]
        scores, states = experiment.by_rows(params, Tokens(texts["tokens"], None), texts["spots"])
        told = scores, jnp.moveaxis(states, 2, 0)
    states = jnp.moveaxis(captured, 2, 0)
    return dict.fromkeys(held_out.concepts, states), Answers(experiment, logits, written, told)


def questions(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """By side of the people (the token column: asked, held_out) and question (the label; a kind alone is the mean over
    its questions): "exact", the share of whole answers that are right, their end included (of an encoder, all masked
    tokens); "first_token", the share of first tokens; "answer_loss", the mean loss of the answers' tokens."""
    batch, asked = held_out.batch, held_out.exact["questions"]
    logits, targets, counts = outputs.logits, batch.tokens, batch.loss_mask > 0
    if batch.inputs is None:
        logits, targets, counts = logits[:, :-1], targets[:, 1:], counts[:, 1:]
    right = (logits.argmax(-1) == targets) | ~counts
    first = jnp.take_along_axis(right, counts.argmax(1)[:, None], 1)[:, 0]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    mean = (losses * counts).sum(1) / counts.sum(1)
    # Where logits are no numbers, none of them is the most likely.
    exact, first = (jnp.where(jnp.isnan(mean), jnp.nan, of) for of in (right.all(1), first))
    rows = {"exact": (exact, "fraction"), "first_token": (first, "fraction"), "answer_loss": (mean, "nats")}
    labels = outputs.experiment.world.labels
    return {name: _by_question(values, asked, labels, unit) for name, (values, unit) in rows.items()}


def _questions_once(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    """ "majority": how often the best constant answer is right, by question, for held-out people."""
    labels, kinds = experiment.world.labels, _kinds(experiment.world.labels)
    share = held_out.exact["majority"]
    means = [jnp.mean(share[np.array(rows)]) for rows in kinds.values()]
    values = jnp.concatenate([share, jnp.stack(means)])
    return {"majority": Named(values, ("label",), "fraction", names=(("label", (*labels, *kinds)),))}


def hinted(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """By side and question: "answer", the share of answers that are right, with their end, where the model writes the
    facts first, whatever these are."""
    experiment = outputs.experiment
    rows = np.array(_hinted(experiment))
    if outputs.written is None:
        return {}
    asked = {name: held_out.exact["questions"][name][rows] for name in ("label", "side", "plain")}
    tokens, counts = held_out.batch.tokens[rows], held_out.batch.loss_mask[rows] > 0
    # The answer is the last `plain` of the tokens that count.
    last = jnp.cumsum(counts[:, ::-1], 1)[:, ::-1] <= asked["plain"][:, None]
    right = ((outputs.written == tokens) | ~(counts & last)).all(1)
    return {"answer": _by_question(right, asked, experiment.world.labels, "fraction")}


def stored(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """Of biographies that were trained on: "recall", the share of the values' tokens that are the most likely after
    what stands before them, by side of the people; "name_loss" and "value_loss", nats a person summed over the tokens;
    "bits_a_parameter", of all people by these (arXiv 2404.05405, definition 4.1)."""
    experiment, texts = outputs.experiment, held_out.exact["biographies"]
    logits, targets, parts = outputs.told[0][:, :-1], texts["tokens"][:, 1:], texts["parts"][:, 1:]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    name, value = (jnp.sum(losses * (parts == part)) / len(losses) for part in (NAME_TOKEN, VALUE_TOKEN))
    right, values = logits.argmax(-1) == targets, parts == VALUE_TOKEN
    recall = [jnp.sum(right & values, where=(texts["side"] == side)[:, None]) for side in (0, 1)]
    counts = [jnp.sum(values, where=(texts["side"] == side)[:, None]) for side in (0, 1)]
    return {
        "recall": Named(jnp.stack(recall) / jnp.stack(counts), ("token",), "fraction", names=(("token", SIDES),)),
        "name_loss": Named(name, unit="nats a person"),
        "value_loss": Named(value, unit="nats a person"),
        "bits_a_parameter": Named(_stored_bits(experiment.task, name, value) / _parameters(experiment), unit="bits"),
    }


def _stored_once(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    """ "bits_ceiling": bits a parameter that all facts would be. "parameters": how many there are. "texts_a_window":
    how many biographies a window of biographies holds, in the mean."""
    task, bank = experiment.task, experiment.world.bank
    told = np.flatnonzero(~bank.question)
    texts = biographies_bank.exposures(bank, told).sum() / len(told)
    ceiling = task.people * biographies_world.bits(task).total / _parameters(experiment)
    return {
        "bits_ceiling": Named(jnp.float32(ceiling), unit="bits"),
        "parameters": Named(jnp.float32(_parameters(experiment)), unit="parameters"),
        "texts_a_window": Named(jnp.float32(texts), unit="texts"),
    }


def _stored_bits(task, name_loss, value_loss):
    """As `biographies_capacity.stored_bits`, traced."""
    most = biographies_world.bits(task)
    name = math.log2(task.cardinalities.names) - name_loss / math.log(2)
    value = most.values - value_loss / math.log(2)
    return task.people * (jnp.clip(name, 0.0, most.name) + jnp.maximum(value, 0.0))


def _parameters(experiment) -> int:
    """Numbers in the trained model, without low-rank additions."""
    shapes = jax.eval_shape(experiment.model.init, jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def q_probe(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """By attribute (the label) and layer: "q_probe", how often it is read off the state after the name alone."""
    return _q("q_probe", next(iter(states.values()))[0], held_out)


def _q_once(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    """ "q_probe_untrained", and "q_probe_majority", always saying the commonest."""
    measured = _q("q_probe_untrained", next(iter(untrained()[0].values()))[0], held_out)
    for name, concept in held_out.concepts.items():
        counts = jnp.bincount(concept.labels, length=concept.classes)
        measured[f"q_probe_majority/{name}"] = Named(jnp.max(counts) / len(concept.labels), unit="fraction")
    return measured


def _q(metric, hidden, held_out):
    right = _read(hidden, held_out)
    return {
        f"{metric}/{name}": Named(right[:, row], ("layer",), "fraction") for row, name in enumerate(held_out.concepts)
    }


def trained_q(metric: str, experiment, params, held_out: HeldOut) -> dict[str, Named]:
    """As `q_probe`, of a probe that is trained through the model (`trained_probes`), on the people that
    `measure.folds` divides."""
    scored = _trained(experiment, params, held_out, held_out.exact["names"])[:, 0]
    return {f"{metric}/{name}": Named(scored[row], unit="fraction") for row, name in enumerate(held_out.concepts)}


def trained_p(metric: str, experiment, params, held_out: HeldOut) -> dict[str, Named]:
    """As `p_probe`, of probes that are trained through the model: for each attribute one change of what the model
    reads, and a read-out for each spot."""
    scored, names = _trained(experiment, params, held_out, held_out.exact["biographies"]), (("token", SPOTS),)
    return {
        f"{metric}/{name}": Named(scored[row], ("token",), "fraction", names=names)
        for row, name in enumerate(held_out.concepts)
    }


def _trained(experiment, params, held_out, texts) -> Float[Array, "concepts spots"]:
    """How often each attribute is read off at each of the texts' spots."""
    spots, settings, concepts = texts["spots"], held_out.settings, held_out.concepts.values()
    # The parameters of an attribute are its spots, each with a read-out there alone.
    shape = (spots.shape[1], *spots.shape)
    valid = jnp.broadcast_to(jnp.eye(shape[0], dtype=bool)[:, None], shape)
    questions = [
        (spots, jnp.broadcast_to(concept.labels[:, None], shape), valid, concept.classes) for concept in concepts
    ]
    asked = trained_probes.stack(texts["tokens"], questions, _persons(held_out.concepts))
    return trained_probes.scores(experiment, params, asked, settings.folds, settings.alpha)[0]


def p_probe(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """By attribute (the label), spot (the token column, see `SPOTS`) and layer: "p_probe", how often it is read off the
    state of a biography there."""
    return _p("p_probe", outputs.told[1], held_out)


def _p_once(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    """ "p_probe_untrained", and "p_probe_position", from the place in the text alone."""
    spots = held_out.exact["biographies"]["spots"]
    places = jax.nn.one_hot(spots.T, experiment.task.window)[:, None]
    return _p("p_probe_untrained", untrained()[1].told[1], held_out) | _p("p_probe_position", places, held_out)


def _p(metric, hidden, held_out):
    right, names = _read(hidden, held_out), (("token", SPOTS),)
    return {
        f"{metric}/{name}": Named(right[..., row], ("token", "layer"), "fraction", names=names)
        for row, name in enumerate(held_out.concepts)
    }


def _read(hidden, held_out):
    """How often each concept is read off the last axes [N, d], with folds that split no person: [..., concepts]."""
    settings, concepts = held_out.settings, list(held_out.concepts.values())
    labels = jnp.stack([concept.labels for concept in concepts])
    classes = tuple(concept.classes for concept in concepts)
    read = read_off(hidden, labels, classes, _persons(held_out.concepts), settings.folds, settings.alpha)
    return rightly(read, labels)


def _persons(concepts):
    """[N], counted from 0: folds are by this number, and those in the table may all share a divisor."""
    group = next(iter(concepts.values())).group
    return jnp.unique(group, size=len(group), return_inverse=True)[1]


def _kinds(labels) -> dict[str, list[int]]:
    """Kind, with the hint if there is one -> the numbers of its questions."""
    kinds: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        kind = label.partition(":")[0] + HINT * label.endswith(HINT)
        kinds.setdefault(kind, []).append(number)
    return {kind: rows for kind, rows in kinds.items() if kind not in labels}


def _by_question(values, asked, labels, unit) -> Named:
    """The mean by side and question, and by kind, the mean over its questions; NaN where none is asked."""
    kinds = _kinds(labels)
    cell = asked["side"] * len(labels) + asked["label"]
    size = 2 * len(labels)
    sums = jax.ops.segment_sum(values.astype(jnp.float32), cell, size).reshape(2, -1)
    counts = jax.ops.segment_sum(jnp.ones(len(cell)), cell, size).reshape(2, -1)
    each = sums / counts
    means = jnp.stack([jnp.nanmean(each[:, np.array(rows)], 1) for rows in kinds.values()], 1)
    names = (("token", SIDES), ("label", (*labels, *kinds)))
    return Named(jnp.concatenate([each, means], 1), ("token", "label"), unit, names=names)


def _hinted(experiment) -> list[int]:
    """The rows of the questions that ask for the facts first."""
    world = experiment.world
    return [row for row, number in enumerate(world.arrays["questions"]["label"]) if world.labels[number].endswith(HINT)]


def _write(experiment, params, held_out, rows):
    """The questions with the most likely token in place of each that counts, from the first on."""
    tokens, counts = held_out.batch.tokens[rows], held_out.batch.loss_mask[rows] > 0
    first = counts.argmax(1)
    tokens = jnp.where(counts, Vocabulary.pad, tokens)
    longest = int((experiment.world.arrays["questions"]["loss_mask"][rows] > 0).sum(1).max())

    def step(number, tokens):
        place = jnp.minimum(first + number, tokens.shape[1] - 1)
        likely, _ = experiment.by_rows(params, Tokens(tokens, None), of_logits=lambda logits, _: logits.argmax(-1))
        chosen = jnp.take_along_axis(likely, (place - 1)[:, None], 1)
        here = (jnp.arange(tokens.shape[1]) == place[:, None]) & counts
        return jnp.where(here, chosen, tokens)

    return jax.lax.fori_loop(0, longest, step, tokens)


EVALUATORS: Mapping[str, Any] = {
    "questions": Evaluator(questions, _questions_once),
    "hinted": hinted,
    "stored": Evaluator(stored, _stored_once),
    "q_probe": Evaluator(q_probe, _q_once),
    "trained_q_probe": beside_untrained(trained_q, "trained_q_probe"),
    "p_probe": Evaluator(p_probe, _p_once),
    "trained_p_probe": beside_untrained(trained_p, "trained_p_probe"),
}
