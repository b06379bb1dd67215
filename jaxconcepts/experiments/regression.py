"""The synthetic study: what one training run on in-context regression is, and what is measured along it.

`parse` turns a configuration (a nested dict) into the static part and the numbers of a run. `make_measure` gives two
pure functions: `prepare` draws the held-out set and solves it by every reference, once a run; `measure` compares a
model with them at a step: loss per concept and position, distance to each reference's predictions (which algorithm does
the model run?), and Concept Decodability at every layer (arXiv 2412.12276, sections 3 and 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxconcepts.metrics.decodability import concept_decodability_per_concept
from jaxconcepts.models import gpt2
from jaxconcepts.tasks import curriculum, references, regression
from jaxconcepts.training import optimizers, train

TOKENS = ("x", "y")


@dataclass(frozen=True)
class MeasureConfig:
    """When and on what a run is measured.

    count, spacing: how many measurements, "log" or "linear" over the steps, the first at step 0, the last at the end.
    steps: given steps instead.
    per_concept: held-out sequences of each concept. cd_per_concept: how many of them CD is computed on; neighbours: k.
    hidden_count: at how many of the measured steps the hidden states are kept for projections (0 for none).
    checkpoint_steps: steps whose checkpoints are kept for good, for studies over training; the last is kept anyway.
    detail: how much of a measurement is kept, "full" or, for very many runs, "summary" (see `rows`).
    """

    count: int = 50
    spacing: str = "log"
    steps: tuple[int, ...] = ()
    per_concept: int = 250
    cd_per_concept: int = 100
    neighbours: int = 10
    hidden_count: int = 5
    checkpoint_steps: tuple[int, ...] = ()
    detail: str = "full"

    def __post_init__(self):
        least = {"count": 2, "per_concept": 1, "cd_per_concept": 1, "neighbours": 1, "hidden_count": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise ValueError(f"measure.{name} must be an integer of at least {low}, got {value!r}")
        if self.spacing not in ("log", "linear"):
            raise ValueError(f'measure.spacing must be "log" or "linear", got {self.spacing!r}')
        if self.detail not in ("full", "summary"):
            raise ValueError(f'measure.detail must be "full" or "summary", got {self.detail!r}')
        if self.cd_per_concept > self.per_concept:
            raise ValueError(
                f"measure.cd_per_concept must be at most measure.per_concept = {self.per_concept}, got "
                f"{self.cd_per_concept}"
            )

    def at_steps(self, steps: int) -> list[int]:
        """The measured steps of a run of `steps` steps, ascending. Raises ValueError for given steps outside it."""
        for name in ("steps", "checkpoint_steps"):
            outside = [step for step in getattr(self, name) if not isinstance(step, int) or not 0 <= step <= steps]
            if outside:
                raise ValueError(f"measure.{name} must be integers from 0 to train.steps = {steps}, got {outside}")
        if self.steps:
            return sorted(set(self.steps))
        space = np.geomspace(1, steps, self.count - 1) if self.spacing == "log" else np.linspace(0, steps, self.count)
        return sorted({0, steps, *np.round(space).astype(int).tolist()})

    def hidden_steps(self, steps: int) -> list[int]:
        """The measured steps at which hidden states are kept: the last, and others evenly among the measurements."""
        measured = self.at_steps(steps)
        picked = np.linspace(len(measured) - 1, 0, max(1, self.hidden_count))[: self.hidden_count]
        return sorted({measured[round(index)] for index in picked})


@dataclass(frozen=True)
class Static:
    """Everything of a run that changes the compiled program; runs that share it are packed together."""

    task: regression.RegressionConfig
    model: gpt2.GPT2Config
    train: train.TrainConfig
    measure: MeasureConfig


# Fields of the model that follow from the task.
_DERIVED = ("context", "input_dim", "output_dim", "vocab_size", "stop_tokens")
# Fields of the model that a config may leave out, which run directories of before they were there do.
_OPTIONAL = ("bottleneck", "positions", "rotary_fraction", "rope_theta", "causal")


def _field_defaults(cls, without=()) -> dict[str, Any]:
    return {field.name: field.default for field in fields(cls) if field.name not in without}


def default_config() -> dict[str, Any]:
    """The configuration of one run, every field at its default: the paper's main setting."""
    return {
        "seed": 0,
        "task": _field_defaults(regression.RegressionConfig) | {"noise": 0.1, "masks": None, "concept_weights": None},
        "curriculum": dict(curriculum.Curriculum._field_defaults),
        "model": _field_defaults(gpt2.GPT2Config, without=_DERIVED + _OPTIONAL),
        "init": dict(gpt2.InitScales._field_defaults),
        "train": _field_defaults(train.TrainConfig)
        | {"learning_rate": 1e-4, "weight_decay": 0.0, "b1": 0.9, "b2": 0.9999, "eps": 1e-8, "clip_norm": float("inf")},
        "measure": _field_defaults(MeasureConfig),
    }


def parse(config: Mapping[str, Any]) -> tuple[Static, train.HParams]:
    """The static part and the numbers (float32 NumPy scalars and arrays) of one run's configuration.

    Raises ValueError naming the field: unknown ones, and values that do not fit.
    """
    check_fields(config)
    sections = {name: dict(part) if isinstance(part, Mapping) else part for name, part in config.items()}
    task_numbers = {name: sections["task"].pop(name) for name in ("noise", "masks", "concept_weights")}
    train_static = {field.name: sections["train"].pop(field.name) for field in fields(train.TrainConfig)}
    task = regression.RegressionConfig(**sections["task"] | {"families": tuple(sections["task"]["families"])})
    static = Static(
        task=task,
        model=gpt2.GPT2Config(context=2 * task.num_pairs, input_dim=task.dim, **_hashable(sections["model"])),
        train=train.TrainConfig(**train_static),
        measure=MeasureConfig(**_hashable(sections["measure"])),
    )
    static.measure.at_steps(static.train.steps)
    points = static.measure.cd_per_concept * task.num_concepts
    if static.measure.neighbours >= points:
        raise ValueError(
            f"measure.neighbours must be below the number of points, {points}, got {static.measure.neighbours}"
        )
    _check_numbers(config)
    numbers = train.HParams(
        seed=np.uint32(config["seed"]),
        init=gpt2.InitScales(**sections["init"]),
        task=regression.hparams(task, **task_numbers),
        curriculum=curriculum.Curriculum(**sections["curriculum"]),
        optimizer=optimizers.OptimizerNumbers(**sections["train"]),
    )
    as_float = jax.tree.map(lambda a: np.asarray(a, np.float32), numbers)
    return static, as_float._replace(seed=np.uint32(config["seed"]))


def _hashable(section):
    """Tuples for the lists that JSON and the command line give."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}


def check_fields(config: Mapping[str, Any]) -> None:
    """Raises ValueError naming any field of `config` that no run has, or that is missing."""
    known = default_config()
    for name, accepted in [("", known)] + [(name, part) for name, part in known.items() if isinstance(part, dict)]:
        given = config if not name else config.get(name, {})
        if not isinstance(given, Mapping):
            raise ValueError(f"config field {name} must be a section with {', '.join(sorted(accepted))}, got {given!r}")
        prefix = f"{name}." if name else ""
        unknown = sorted(set(given) - set(accepted) - set(_OPTIONAL if name == "model" else ()))
        if unknown:
            raise ValueError(
                f"unknown config field {prefix}{unknown[0]}; {name or 'the config'} has {', '.join(sorted(accepted))}"
            )
        missing = sorted(set(accepted) - set(given))
        if missing:
            raise ValueError(f"config field {prefix}{missing[0]} is missing")


def _check_numbers(config):
    at_least_0 = ("task.noise", "train.learning_rate", "train.weight_decay", "train.eps")
    at_least_0 += tuple(f"init.{name}" for name in gpt2.InitScales._fields)
    positive = ("train.clip_norm", "curriculum.concept_ratio", "curriculum.concept_steps")
    positive += ("curriculum.dim_interval", "curriculum.pairs_interval")
    limits = [
        (at_least_0, lambda value: value >= 0, "a number of at least 0"),
        (positive, lambda value: value > 0, "a positive number"),
        (("train.b1", "train.b2"), lambda value: 0 <= value < 1, "a number of at least 0 and below 1"),
        (("seed",), lambda value: isinstance(value, int) and 0 <= value < 2**32, "an integer from 0 to 2**32 - 1"),
    ]
    for names, holds, accepted in limits:
        for name in names:
            section, _, field = name.rpartition(".")
            value = config[section][field] if section else config[field]
            if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
                raise ValueError(f"{name} must be {accepted}, got {value!r}")


class HeldOut(NamedTuple):
    """A run's held-out sequences, in concept order, and every reference's predictions for them, by name [B, n]."""

    batch: regression.Batch
    predictions: dict[str, Float[Array, "B n"]]


class Measure(NamedTuple):
    """prepare(hparams) -> HeldOut. measure(params, held_out) -> arrays by name. hidden(params, held_out) -> states.

    constant(held_out) -> {"loss_<reference>": [K, n]}. measure gives "loss" [K, n], "distance_<reference>" [K, n] and
    "cd" [token, L + 1, K], the fraction right of each concept's points at the last pair's x token and y token.
    """

    prepare: Callable[[train.HParams], HeldOut]
    constant: Callable[[HeldOut], dict[str, Array]]
    measure: Callable[[PyTree, HeldOut], dict[str, Array]]
    hidden: Callable[[PyTree, HeldOut], Float[Array, "layers N d"]]


def make_measure(static: Static) -> Measure:
    """The measurement of runs with this static part."""
    task, config = static.task, static.measure
    concepts, n = task.num_concepts, task.num_pairs
    last_pair = jnp.array([2 * n - 2, 2 * n - 1])

    def prepare(hparams):
        # One held-out set for all runs that share the task's numbers: the key does not depend on the run.
        batch = regression.balanced(task, hparams.task, jax.random.key(20241212), config.per_concept)
        return HeldOut(batch, references.predict(task, hparams.task, batch))

    def by_concept(values):
        return values.reshape(concepts, config.per_concept, n).mean(1)

    def constant(held_out):
        targets = held_out.batch.targets
        return {f"loss_{name}": by_concept(jnp.square(p - targets)) for name, p in held_out.predictions.items()}

    def decoding_points(values, axis):
        """The first `cd_per_concept` sequences of each concept, along an axis in concept order."""
        keep = np.arange(concepts)[:, None] * config.per_concept + np.arange(config.cd_per_concept)
        return jnp.take(values, keep.ravel(), axis=axis)

    def measure(params, held_out):
        out, captured = train.predictions(static.model, params, held_out.batch, capture=last_pair)
        labels = decoding_points(held_out.batch.concepts, 0)
        states = decoding_points(jnp.moveaxis(captured, 2, 0), 2)
        cd = concept_decodability_per_concept(states, labels, config.neighbours, num_concepts=concepts)
        distances = {f"distance_{name}": by_concept(jnp.square(out - p)) for name, p in held_out.predictions.items()}
        return {"loss": by_concept(jnp.square(out - held_out.batch.targets)), "cd": cd} | distances

    def hidden(params, held_out):
        captured = train.predictions(static.model, params, held_out.batch, capture=last_pair[:1]).captured
        return decoding_points(captured[:, :, 0], 1)

    return Measure(prepare, constant, measure, hidden)


def decoding_labels(static: Static) -> np.ndarray:
    """The concepts [N] of the points that CD and `Measure.hidden` use."""
    return np.repeat(np.arange(static.task.num_concepts), static.measure.cd_per_concept)
