"""Any decoder on any task of tokens: what an experiment on text inherits, to be one file (docs/adding_a_task.md).

    @dataclass(frozen=True)
    class Copying(TokenExperiment):
        TASK = CopyingTask      # the config's section "task": a dataclass with `vocab_size` and `length`
        NUMBERS = ("noise",)    # which of its fields are numbers: swept without compiling again

        def sample(self, task, data, key, count) -> Tokens      # `count` sequences; task: NUMBERS' values by name
        def concepts(self, batch) -> {name: Concept}            # what is to be read off the hidden states, and where

The model is of any family of decoders (`model.family`, see `experiments.models`), trained on the cross-entropy of the
next token where `loss_mask` is 1. Measured are "loss", "accuracy", what `evaluators` has, and evaluators of your own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jaxconcepts import fields
from jaxconcepts.experiments import evaluators, models
from jaxconcepts.models import decoder, decoding, gpt2, residual
from jaxconcepts.training import initial, optimizers, train
from jaxconcepts.training.experiment import Concept, Experiment, HeldOut, MeasureConfig, Named

METRICS = ("loss", "accuracy", "cd")
HELD_OUT_SEED = 20241214
MOST_TOKENS = 65_536
"""The most tokens of a row that a task takes: whole rows are made on the host, before any memory is reckoned."""


class Tokens(NamedTuple):
    """Sequences. tokens: [B, T]. loss_mask: [B, T], 1 where a token counts: it is predicted from those before it.

    inputs: [B, T], what the model reads in place of the tokens, where that differs (masked tokens); with them a token
    is predicted at its own place. labels: whatever `concepts` needs to know of the sequences, by name.
    """

    tokens: Int[Array, "B T"]
    loss_mask: Float[Array, "B T"]
    inputs: Int[Array, "B T"] | None = None
    labels: Mapping[str, Array] | None = None


class Numbers(NamedTuple):
    """The numbers of a run. init: standard deviations of a GPT-2's initial weights. task: by name, see `NUMBERS`."""

    seed: Int[Array, ""]
    optimizer: optimizers.OptimizerNumbers
    init: gpt2.InitScales
    task: Mapping[str, Float[Array, ...]]


@dataclass(frozen=True)
class TokenExperiment(Experiment):
    """See the module's head. unroll: blocks unrolled, 0 for the backend's default."""

    task: Any
    model: decoder.Decoder
    train: train.TrainConfig
    measuring: MeasureConfig = MeasureConfig(metrics=METRICS)
    unroll: int = 0

    TASK: ClassVar[type]
    NUMBERS: ClassVar[tuple[str, ...]] = ()
    EVALUATORS: ClassVar[Mapping[str, Any]] = {}
    MEASURE: ClassVar[type[MeasureConfig]] = MeasureConfig
    DEFAULTS: ClassVar[Mapping[str, Any]] = {}
    """Fields by dotted name that are other by default than here, e.g. {"train.steps": 2000}."""

    # What a task says of itself.

    def sample(self, task: Mapping[str, Any], data: PyTree, key: Key[Array, ""], count: int) -> Tokens:
        """`count` sequences from a key."""
        raise NotImplementedError

    def concepts(self, batch: Tokens) -> dict[str, Concept]:
        """What is to be read off the hidden states of held-out sequences; each with the positions to read it at."""
        return {}

    def exact(self, numbers: Numbers, batch: Tokens) -> dict[str, PyTree]:
        """What exact solutions answer for held-out sequences, for evaluators."""
        return {}

    def surface(self, held_out: HeldOut) -> dict[str, Float[Array, "N features"]]:
        """What can be read off the input without a model, by concept, for the evaluator "surface"; by default how often
        each token comes."""
        tokens = held_out.batch.tokens
        counts = jax.vmap(lambda row: jnp.bincount(row, length=self.model.vocab_size))(tokens)
        return {name: counts.astype(jnp.float32) for name in held_out.concepts}

    @property
    def held_out_count(self) -> int:
        """How many sequences are held out; by default `measure.per_concept`."""
        return self.measuring.per_concept

    # The contract.

    @classmethod
    def default_config(cls, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        family = models.family_of(values, cls.DEFAULTS.get("model.family", "gpt2"))
        config = {
            "experiment": (values or {}).get("experiment", _reference(cls)),
            "seed": 0,
            "task": fields.defaults(cls.TASK),
            "model": models.defaults(family),
            "init": fields.defaults(gpt2.InitFields) if family == "gpt2" else {},
            "train": fields.defaults(train.TrainConfig) | fields.defaults(optimizers.OptimizerFields),
            "measure": fields.defaults(cls.MEASURE) | {"metrics": METRICS, "hidden_count": 0},
        }
        for dotted, value in cls.DEFAULTS.items():
            section, _, name = dotted.rpartition(".")
            if section != "model" or (name in config["model"] and name != "family"):
                config[section][name] = value
        return config

    @classmethod
    def declared(cls, values=None) -> dict[str, tuple[type, ...]]:
        family = models.family_of(values, cls.DEFAULTS.get("model.family", "gpt2"))
        sections = {"task": (cls.TASK,), "measure": (cls.MEASURE,), "init": (gpt2.InitFields,)}
        return super().declared() | sections | {"model": models.declared(family)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        given = cls.read_config(config)
        task = fields.read(cls.TASK, fields.plain(given.task), "task.")
        default = fields.defaults(cls.TASK)
        made = cls(
            task=replace(task, **{name: default[name] for name in cls.NUMBERS}),
            model=cls.model_of(fields.plain(given.model), task),
            train=fields.part(given.train, train.TrainConfig),
            measuring=fields.part(given.measure, cls.MEASURE),
        )
        evaluators.check(made, made.held_out_count)
        made.numbers(config)
        return made

    @classmethod
    def model_of(cls, section: Mapping[str, Any], task: Any) -> decoder.Decoder:
        """The model of the section "model"; vocabulary and context are the task's (`vocab_size`, `length`)."""
        return models.make(section, task.vocab_size, task.length)

    def numbers(self, config: Mapping[str, Any]) -> Numbers:
        init = gpt2.InitScales(**{name: np.float32(value) for name, value in config["init"].items()})
        task = {name: np.asarray(config["task"][name], np.float32) for name in self.NUMBERS}
        return Numbers(np.uint32(config["seed"]), optimizers.numbers(config["train"]), init, task)

    def init(self, numbers: Numbers, data: PyTree) -> PyTree:
        key = train.init_key(numbers.seed)
        if isinstance(self.model, gpt2.GPT2Config):
            return gpt2.init(self.model, key, numbers.init)
        return initial.fan_in(self.model, key)

    def batch(self, numbers: Numbers, data: PyTree, step) -> Tokens:
        key = jax.random.fold_in(train.data_key(numbers.seed), step)
        return self.sample(numbers.task, data, key, self.train.batch_size)

    def loss(self, params: PyTree, batch: Tokens):
        logits, _ = self.forward(params, batch)
        loss = cross_entropy(logits, batch)
        return loss, {"train_loss": loss}

    def held_out(self, numbers: Numbers, data: PyTree) -> HeldOut:
        batch = self.sample(numbers.task, data, jax.random.key(HELD_OUT_SEED), self.held_out_count)
        return HeldOut(batch, self.concepts(batch), self.exact(numbers, batch), self.measuring)

    def constants(self, held_out: HeldOut, untrained) -> dict[str, Named]:
        return evaluators.constants(self, held_out, untrained)

    def measure(self, params: PyTree, held_out: HeldOut) -> dict[str, Named]:
        return evaluators.measure(self, params, held_out)

    def read(self, params: PyTree, held_out: HeldOut):
        """The states of each concept at its positions, [P, L + 1, N, d], and the logits."""
        count = held_out.batch.tokens.shape[0]
        at = {
            name: jnp.broadcast_to(jnp.asarray(concept.positions), (count, len(concept.tokens)))
            for name, concept in held_out.concepts.items()
        }
        together = jnp.concatenate(list(at.values()), axis=1) if at else None
        logits, captured = self.by_rows(params, held_out.batch, together)
        states, start = {}, 0
        for name, places in at.items():
            states[name] = jnp.moveaxis(captured[:, :, start : start + places.shape[1]], 2, 0)
            start += places.shape[1]
        return states, logits

    def hidden(self, params: PyTree, held_out: HeldOut):
        name, concept = next(iter(held_out.concepts.items()))
        labels = concept.labels if concept.labels.ndim == 1 else concept.labels[0]
        return self.read(params, held_out)[0][name][0], labels

    def edited(self, params: PyTree, held_out: HeldOut, edits) -> Float[Array, "N T V"]:
        """The logits under edits of the stream or its heads."""
        return self.forward(params, held_out.batch, edits=edits)[0]

    def score(self, outputs: Float[Array, "N T V"], held_out: HeldOut) -> Float[Array, ""]:
        """The mean cross-entropy of logits, in nats."""
        return cross_entropy(outputs, held_out.batch)

    def forward(self, params: PyTree, batch: Tokens, capture=None, edits=None):
        """(logits [B, T, V], captured [L + 1, B, P, d] or None); see `models.residual.run`."""
        inputs = batch.tokens if batch.inputs is None else batch.inputs
        trace = decoding.forward(
            self.model, params, inputs, jnp.arange(inputs.shape[1])[None], capture=capture, edits=edits,
            remat=getattr(self.model, "remat", False), unroll=self.unroll or residual.unrolls() or 1,
        )  # fmt: skip
        return self.model.unembed(params, trace.stream), trace.captured

    def by_rows(self, params: PyTree, batch: Tokens, capture=None, of_logits=lambda logits, batch: logits):
        """`forward` on many rows within the memory of some (`decoding.by_rows`). capture: None, "all" or [B, P].

        of_logits(logits, batch): arrays [B, ...] of some rows, in place of the logits, which are then not kept.
        """
        places = None if isinstance(capture, str) else capture

        def some(rows):
            batch, places = rows
            logits, captured = self.forward(params, batch, capture if places is None else places)
            return of_logits(logits, batch), None if captured is None else jnp.moveaxis(captured, 1, 0)

        made, captured = decoding.by_rows(some, (batch, places), batch.tokens.shape[1])
        return made, None if captured is None else jnp.moveaxis(captured, 0, 1)

    def unrolled(self, everything: bool) -> Self:
        return self if self.unroll else replace(self, unroll=self.model.layers if everything else 1)

    def describe(self) -> str:
        name = type(self).__name__.lower()
        return f"{name}, {self.model.MODEL_TYPE} of {super().describe()}"


def cross_entropy(logits: Float[Array, "B T V"], batch: Tokens) -> Float[Array, ""]:
    """Mean over the tokens that count, in nats."""
    losses, weights, _ = scored(logits, batch)
    return weighted_mean(losses, weights)


def mean_loss(states, outputs, held_out: HeldOut) -> dict[str, Named]:
    """Evaluator "loss": the mean cross-entropy of the held-out tokens that count."""
    return {"loss": Named(cross_entropy(outputs, held_out.batch), unit="nats")}


def accuracy(states, outputs, held_out: HeldOut) -> dict[str, Named]:
    """Evaluator "accuracy": how often the most likely token is the right one, of the held-out tokens that count; NaN
    where their loss is."""
    losses, weights, right = scored(outputs, held_out.batch)
    known = ~jnp.isnan(weighted_mean(losses, weights))
    return {"accuracy": Named(jnp.where(known, weighted_mean(right, weights), jnp.nan), unit="fraction")}


def weighted_mean(values: Float[Array, "B t"] | Bool[Array, "B t"], weights: Float[Array, "B t"]) -> Float[Array, ""]:
    """0 where all weights are."""
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1e-9)


def scored(
    logits: Float[Array, "B T V"], batch: Tokens
) -> tuple[Float[Array, "B t"], Float[Array, "B t"], Bool[Array, "B t"]]:
    """Losses, weights and whether the most likely token is right, for each predicted token."""
    targets, weights = batch.tokens, batch.loss_mask
    if batch.inputs is None:
        logits, targets, weights = logits[:, :-1], targets[:, 1:], weights[:, 1:]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return losses, weights, logits.argmax(-1) == targets


def _reference(cls) -> str:
    """What a config calls the experiment: its registered name, or "module:Class"."""
    from jaxconcepts import experiments

    return experiments.name_of(cls)


TokenExperiment.EVALUATORS = {"loss": mean_loss, "accuracy": accuracy}
