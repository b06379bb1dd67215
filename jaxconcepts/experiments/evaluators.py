"""What can be measured of a run, by name: `measure.metrics = ("loss", "cd", "probe")` in a config.

An evaluator is a function of (states, outputs, held_out) that gives named arrays, `dict[str, Named]`; all of them run
inside one compiled measurement. "module:function" in a config adds one of your own.

    states     concept -> [tokens, layers + 1, points, width]: hidden states at the tokens of each of held_out.concepts
    outputs    what the model gives for held_out.batch
    held_out   `training.experiment.HeldOut`: the batch, its concepts, exact answers, and the settings of measuring

Some measure a control instead, once, before training: "untrained" (CD of a model that nothing trained) and "surface"
(CD of what can be read off the input without a model).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxconcepts import experiments
from jaxconcepts.experiments import own_code
from jaxconcepts.interventions import heads
from jaxconcepts.metrics.decodability import concept_decodability_per_concept, pairwise_decodability
from jaxconcepts.metrics.geometry import linear_cka, silhouette, two_nn
from jaxconcepts.metrics.probes import linear_probe
from jaxconcepts.metrics.statistics import decodability_interval
from jaxconcepts.training.experiment import Concept, HeldOut, Named, check_named

States = Mapping[str, Any]


class Evaluator(NamedTuple):
    """each(states, outputs, held_out): at every measured step. once(experiment, held_out, untrained): before training;
    untrained() gives the states and outputs of a model that nothing trained. of_model(experiment, params, held_out):
    at every measured step, for what runs the model again, by `experiment.edited` and `experiment.score`.
    of_untrained(experiment, params, held_out): the same before training, of a model that nothing trained.
    fits(experiment): raises ValueError where it cannot be measured, before anything is compiled."""

    each: Callable[..., dict[str, Named]] | None = None
    once: Callable[..., dict[str, Named]] | None = None
    of_model: Callable[..., dict[str, Named]] | None = None
    of_untrained: Callable[..., dict[str, Named]] | None = None
    fits: Callable[..., None] | None = None


def beside_untrained(function: Callable[..., dict[str, Named]], metric: str) -> Evaluator:
    """function(metric, experiment, params, held_out) of the trained model, and of an untrained one as
    "<metric>_untrained"."""
    return Evaluator(of_model=partial(function, metric), of_untrained=partial(function, f"{metric}_untrained"))


def measure(experiment, params, held_out: HeldOut) -> dict[str, Named]:
    """All that `measure.metrics` names, of an experiment with `read(params, held_out) -> (states, outputs)`.

    Raises ValueError, naming the evaluator, for what is no named array and axes that are not known.
    """
    if not experiment.measuring.metrics:
        return {}
    states, outputs = experiment.read(params, held_out)
    measured: dict[str, Named] = {}
    for name in experiment.measuring.metrics:
        made = evaluator(experiment, name)
        if made.each is not None:
            measured |= _checked(name, made.each, states, outputs, held_out)
        if made.of_model is not None:
            measured |= _checked(name, made.of_model, experiment, params, held_out)
    return measured


def constants(experiment, held_out: HeldOut, untrained: Callable[[], Any]) -> dict[str, Named]:
    """What the evaluators of `measure.metrics` measure once. untrained() gives the parameters of an untrained model."""
    measured: dict[str, Named] = {}
    for name in experiment.measuring.metrics:
        made = evaluator(experiment, name)
        if made.once is not None:
            measured |= _checked(name, made.once, experiment, held_out, lambda: experiment.read(untrained(), held_out))
        if made.of_untrained is not None:
            measured |= _checked(name, made.of_untrained, experiment, untrained(), held_out)
    return measured


def evaluator(experiment, name: str) -> Evaluator:
    """The evaluator of that name, the experiment's own (`EVALUATORS`) before the common ones.

    Raises ValueError for an unknown name and for what cannot be imported.
    """
    known = dict(COMMON)
    for kind in reversed(type(experiment).__mro__):
        known |= vars(kind).get("EVALUATORS", {})
    if name not in known and ":" not in name:
        raise ValueError(f"measure.metrics must be among {', '.join(sorted(known))}, or module:function, got {name!r}")
    made = known[name] if name in known else experiments.load(name, "evaluator")
    if not isinstance(made, Evaluator) and not callable(made):
        raise ValueError(f"evaluator {name} must be a function of (states, outputs, held_out), got {made!r}")
    return made if isinstance(made, Evaluator) else Evaluator(made)


def check(experiment, points: int) -> None:
    """Raises ValueError, before anything is compiled, for steps, neighbours and metrics that do not fit; points: on
    which CD is computed."""
    settings = experiment.measuring
    settings.at_steps(experiment.train.steps)
    if settings.neighbours >= points:
        raise ValueError(f"measure.neighbours must be below the number of points, {points}, got {settings.neighbours}")
    for name in settings.metrics:
        if (fits := evaluator(experiment, name).fits) is not None:
            fits(experiment)


def metric(name: str, concept: str) -> str:
    """The key of a metric of one of several concepts: "cd/number"; "cd" for the concept that is called "concept"."""
    return name if concept == "concept" else f"{name}/{concept}"


def cd(states: States, outputs, held_out: HeldOut) -> dict[str, Named]:
    """Concept Decodability at every token and layer, by concept."""
    return _cd(states, held_out, "cd")


def cd_interval(states: States, outputs, held_out: HeldOut) -> dict[str, Named]:
    """The 95 % interval of CD over all concepts at every token and layer; costs several times what CD does."""

    def ends(hidden, labels, num_concepts):
        cd = concept_decodability_per_concept(hidden, labels, k, ties="split", group=group, num_concepts=num_concepts)
        low, high = decodability_interval(hidden, labels, cd, k, group=group, num_concepts=num_concepts)
        return jnp.stack([low[..., -1], high[..., -1]], -1)

    measured, k = {}, held_out.settings.neighbours
    for kind, concept in held_out.concepts.items():
        group = concept.group
        both = _by_token(partial(ends, num_concepts=concept.classes), states[kind], concept)
        for place, name in enumerate(("cd_low", "cd_high")):
            names = (("token", concept.tokens),)
            measured[metric(name, kind)] = Named(both[..., place], ("token", "layer"), "fraction", names=names)
    return measured


def pairwise_cd(states: States, outputs, held_out: HeldOut) -> dict[str, Named]:
    """CD within each pair of concepts; the label is the other one."""
    measured = {}
    for name, concept in held_out.concepts.items():
        score = _split(pairwise_decodability, held_out, concept)
        names = (("token", concept.tokens), ("label", tuple(map(str, range(concept.classes)))))
        axes = ("token", "layer", "concept", "label")
        measured[metric("pairwise_cd", name)] = Named(
            _by_token(score, states[name], concept), axes, "fraction", 0.5, names=names
        )
    return measured


def cka(states: States, outputs, held_out: HeldOut) -> dict[str, Named]:
    """Linear CKA of every layer with the last."""

    def with_last(hidden, labels, num_concepts):
        return linear_cka(hidden, jnp.broadcast_to(hidden[..., -1:, :, :], hidden.shape))

    return _by_layer("cka", with_last, states, held_out)


def intrinsic_dimension(states: States, outputs, held_out: HeldOut) -> dict[str, Named]:
    """The intrinsic dimension of every layer's states (`metrics.geometry.two_nn`)."""

    def dimension(hidden, labels, num_concepts):
        return two_nn(hidden)

    return _by_layer("two_nn", dimension, states, held_out, "dimensions")


def clusters(states: States, outputs, held_out: HeldOut) -> dict[str, Named]:
    """The silhouette of the concepts as clusters, at every layer."""
    return _by_layer("silhouette", silhouette, states, held_out, chance=0.0)


def probe(states: States, outputs, held_out: HeldOut) -> dict[str, Named]:
    """Cross-validated accuracy of a linear probe, at every layer; the points of a group are in one fold."""
    measured = {}
    for kind, concept in held_out.concepts.items():
        score = partial(linear_probe, num_concepts=concept.classes, group=concept.group)
        measured[metric("probe", kind)] = Named(
            _by_token(score, states[kind], concept), ("token", "layer"), "fraction", 1 / concept.classes,
            names=(("token", concept.tokens),),
        )  # fmt: skip
    return measured


def _has_heads(experiment) -> None:
    if not experiment.model.ATTENDS:
        kind = experiment.model.MODEL_TYPE
        raise ValueError(f"measure.metrics: head_ablation needs heads, and a {kind} model has none")


def head_ablation(experiment, params, held_out: HeldOut) -> dict[str, Named]:
    """How much the held-out loss grows where one head's outputs are 0, at every head of every block; layer 0, the
    embeddings, has none. It runs the model once for each head.
    """
    model = experiment.model
    loss = experiment.score(experiment.edited(params, held_out, None), held_out)

    def change(mask):
        return experiment.score(experiment.edited(params, held_out, heads.zero(mask)), held_out) - loss

    changes = jax.lax.map(change, jnp.asarray(heads.one_at_a_time(model.layers, model.heads)))
    values = jnp.pad(changes.reshape(model.layers, model.heads), [(1, 0), (0, 0)])
    names = tuple(f"head {head}" for head in range(model.heads))
    unit = next(iter(experiment.REPORTED.values()))
    return {"head_ablation": Named(values, ("layer", "label"), unit, 0.0, names=(("label", names),))}


def _cd_points(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    return {
        metric("cd_points", name): Named(jnp.float32(concept.labels.shape[-1]), unit="points")
        for name, concept in held_out.concepts.items()
    }


def _cd_untrained(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    return _cd(untrained()[0], held_out, "cd_untrained")


def _cd_surface(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    """Of `experiment.surface(held_out)`: concept -> [points, features]."""
    features = experiment.surface(held_out)
    measured = {}
    for name, values in features.items():
        concept = held_out.concepts[name]
        states = jnp.broadcast_to(values, (len(concept.tokens), 1, *values.shape))
        scores = _by_token(_split(concept_decodability_per_concept, held_out, concept), states, concept)
        measured[metric("cd_surface", name)] = Named(
            scores[:, 0], ("token", "concept"), "fraction", 1 / concept.classes, ("concept",),
            (("token", concept.tokens),),
        )  # fmt: skip
    return measured


def _cd(states, held_out, name):
    measured = {}
    for kind, concept in held_out.concepts.items():
        score = _split(concept_decodability_per_concept, held_out, concept)
        measured[metric(name, kind)] = Named(
            _by_token(score, states[kind], concept), ("token", "layer", "concept"), "fraction", 1 / concept.classes,
            ("concept",), (("token", concept.tokens),),
        )  # fmt: skip
    return measured


def _split(measure, held_out: HeldOut, concept: Concept):
    """A score of neighbours as it is reported: ties split, and no votes within a group."""
    options = {"ties": "split", "group": concept.group, "num_concepts": concept.classes}
    return partial(measure, k=held_out.settings.neighbours, **options)


def _by_layer(name, score, states, held_out, unit="", chance=None):
    measured = {}
    for kind, concept in held_out.concepts.items():
        values = _by_token(partial(score, num_concepts=concept.classes), states[kind], concept)
        names = (("token", concept.tokens),)
        measured[metric(name, kind)] = Named(values, ("token", "layer"), unit, chance, names=names)
    return measured


def _by_token(score, states, concept: Concept):
    """score(hidden, labels) over the leading axis of tokens, whose labels may differ."""
    if concept.labels.ndim == 1:
        return score(states, concept.labels)
    return jnp.stack([score(states[token], concept.labels[token]) for token in range(states.shape[0])])


def _checked(name, function, *given):
    measured = own_code.call(name, function, *given) if ":" in name else function(*given)
    if not isinstance(measured, dict):
        raise ValueError(f"evaluator {name} must give a dict of Named arrays, got {type(measured).__name__}")
    try:
        return check_named(measured)
    except ValueError as error:
        raise ValueError(f"evaluator {name}: {error}") from error


COMMON: Mapping[str, Any] = {
    "cd": Evaluator(cd, _cd_points),
    "cd_interval": cd_interval,
    "pairwise_cd": pairwise_cd,
    "probe": probe,
    "cka": cka,
    "two_nn": intrinsic_dimension,
    "silhouette": clusters,
    "head_ablation": Evaluator(of_model=head_ablation, fits=_has_heads),
    "untrained": Evaluator(once=_cd_untrained),
    "surface": Evaluator(once=_cd_surface),
}

OF_NEIGHBOURS = ("cd", "cd_interval", "pairwise_cd", "untrained", "surface")
"""Those that ask for the nearest `measure.neighbours` points."""
OF_CONCEPTS = tuple(name for name in COMMON if name != "head_ablation")
"""Those that are of `held_out.concepts`, and give nothing where there are none."""
