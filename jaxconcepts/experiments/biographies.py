"""Language models on biographies and questions about the people in them (arXiv 2309.14316, 2309.14402, 2404.05405).

A decoder is trained on the next token, an encoder (`model.causal = False`) on masked words and on masked answers. In
the regime "mixed" every window is of biographies or of questions about some of the people, throughout. In "staged" the
last steps, a `task.tuning_share` of them, are on questions alone, and those before on biographies alone. The last steps
train the whole model, or low-rank additions to it, the embedding's included. Measured are (`biographies_measures`):

    questions   whether whole answers, and their first tokens, are right, about people of training and about others
    hinted      the same of answers that state the facts first, written by the model
    stored      losses of names and values in the biographies, and bits stored a parameter
    q_probe     which attributes are read off the hidden state after the name alone by ridge regression
    p_probe     the same in a biography, at the name and before each value
    trained_q_probe, trained_p_probe  the same by probes that are trained through the model (`trained_probes`)
    cd          Concept Decodability of the attributes after the name, a person's own points left out
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxconcepts.experiments import biographies_measures, biographies_world, evaluators
from jaxconcepts.experiments.biographies_world import BiographyTask, World
from jaxconcepts.experiments.tokens import TokenExperiment, Tokens
from jaxconcepts.fields import FieldError, field
from jaxconcepts.models import gpt2
from jaxconcepts.tasks.biographies_vocabulary import Vocabulary
from jaxconcepts.training import lora, optimizers, train
from jaxconcepts.training.experiment import Concept, HeldOut, MeasureConfig

TUNED = "tuned"
"""Where the low-rank additions are, beside the model's parameters."""
DECODERS = ("hinted", "stored")
"""Evaluators that need a decoder."""
READ_OFF = ("q_probe", "p_probe", "trained_q_probe", "trained_p_probe")
"""Evaluators with folds."""


@dataclass(frozen=True)
class BiographyMeasure(MeasureConfig):
    """As `MeasureConfig`, where per_concept is how many people of either side are measured, and cd_per_concept is not
    used."""

    folds: int = field(5, "folds of the probes (ridge regression); no fold splits a person", low=2)
    alpha: float = field(1.0, "ridge penalty of the probes: the weight of the squared coefficients", above=0)

    def __post_init__(self):
        super().__post_init__()
        if not 2 <= self.folds <= self.per_concept:
            raise ValueError(
                f"measure.folds must be an integer from 2 to measure.per_concept = {self.per_concept} people, got "
                f"{self.folds!r}"
            )


@dataclass(frozen=True)
class Biographies(TokenExperiment):
    """See the module's head."""

    TASK = BiographyTask
    MEASURE = BiographyMeasure
    NUMBERS = ("qa_share", "tuning_rate")
    EVALUATORS: ClassVar[Mapping[str, Any]] = biographies_measures.EVALUATORS
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "model.layers": 2, "model.positions": "rotary", "init.weights": 0.0, "train.steps": 1000,
        "train.batch_size": 32, "train.optimizer": "adamw", "train.schedule": "linear", "train.learning_rate": 5e-3,
        "train.warmup_steps": 100, "train.weight_decay": 0.05, "train.b2": 0.98, "train.eps": 1e-6,
        "train.clip_norm": 1.0, "measure.metrics": ("questions", "stored"), "measure.count": 4,
        "measure.spacing": "linear", "measure.per_concept": 120, "measure.cd_per_concept": 120,
    }  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Biographies:
        """Raises ValueError naming the field: as `TokenExperiment` does, for texts that a window does not hold, stages
        that leave no step, a model without low-rank tuning, and what an encoder cannot be asked."""
        made = super().from_config(config)
        task, steps = made.task, made.train.steps
        if task.regime == "staged" and not 0 < made.tuning_steps < steps:
            raise FieldError(
                "task.tuning_share", f"must leave each stage a step of train.steps = {steps}, got {task.tuning_share}"
            )
        if not made.causal and (asked := sorted(set(made.measuring.metrics) & set(DECODERS))):
            raise ValueError(f"measure.metrics: {asked[0]} needs a decoder, got model.causal = False")
        if not made.causal and task.hint_share:
            raise FieldError(
                "task.hint_share", f"must be 0 for an encoder (model.causal = False), got {task.hint_share}"
            )
        if made.low_rank and not isinstance(made.model, gpt2.GPT2Config):
            raise FieldError("task.tuning", f"must be full for model.family {made.model.MODEL_TYPE}, got low_rank")
        # Raises for texts that do not fit. Of a side with fewer than measure.per_concept people all are measured.
        people, settings = len(made.world.arrays["names"]["side"]), made.measuring
        for name, value, most, of in (
            ("folds", settings.folds, people, READ_OFF),
            ("neighbours", settings.neighbours, people - 1, evaluators.OF_NEIGHBOURS),
        ):
            if value > most and set(settings.metrics) & set(of):
                raise FieldError(
                    f"measure.{name}", f"must be at most {most}, as {people} people are measured, got {value}"
                )
        return made

    causal = property(lambda self: getattr(self.model, "causal", True))
    tuning_steps = property(lambda self: round(self.task.tuning_share * self.train.steps))
    low_rank = property(lambda self: self.task.regime == "staged" and self.task.tuning == "low_rank")

    @property
    def world(self) -> World:
        """People, windows and what is measured; made once."""
        return biographies_world.make(self.task, self.measuring.per_concept, self.causal)

    def data(self) -> dict[str, Any]:
        return self.world.arrays

    def init(self, numbers, data: PyTree) -> PyTree:
        params = super().init(numbers, data)
        if not self.low_rank:
            return params
        key = jax.random.fold_in(train.init_key(numbers.seed), 1)
        task, (size, width) = self.task, params["embed"].shape
        tuned = lora.init(lora.LoraConfig(task.rank, task.rank), self.model, params, key)
        a = jax.random.normal(jax.random.fold_in(key, 1), (task.embedding_rank, width)) * width**-0.5
        return params | {TUNED: tuned | {"embed": {"a": a, "b": jnp.zeros((size, task.embedding_rank))}}}

    def model_params(self, params: PyTree, numbers, data, step) -> PyTree:
        """With the low-rank additions in place. The embedding is W + b @ a, for reading in and out."""
        if not self.low_rank:
            return params
        plain = {name: part for name, part in params.items() if name != TUNED}
        adapters = {path: pair for path, pair in params[TUNED].items() if path != "embed"}
        added = params[TUNED]["embed"]
        scales = dict.fromkeys(adapters, jnp.ones(self.model.layers))
        return lora.attach(plain | {"embed": plain["embed"] + added["b"] @ added["a"]}, adapters, scales)

    def rule(self, numbers) -> optax.GradientTransformation:
        """Each stage has the schedule of `train` over its own steps. Where additions are tuned, the rate of the others
        is exactly 0 in that stage, and theirs before it."""
        if self.task.regime == "mixed":
            return super().rule(numbers)
        config, late = self.train, self.tuning_steps
        early = config.steps - late
        first, second = (
            optimizers.schedule(config.schedule, steps, config.warmup_steps, config.decay_fraction)
            for steps in (early, late)
        )
        rate, off = numbers.task["tuning_rate"], optax.constant_schedule(0.0)
        tuning = lambda count: rate * second(count)  # noqa: E731
        made = lambda *parts: optimizers.optimizer(  # noqa: E731
            config.optimizer, optax.join_schedules(parts, [early]), numbers.optimizer
        )
        if not self.low_rank:
            return made(first, tuning)
        labels = lambda params: {name: name == TUNED for name in params}  # noqa: E731
        return optax.partition({False: made(first, off), True: made(off, tuning)}, labels)

    def check_longer(self, done: int) -> None:
        """Stages are shares of train.steps: those of a longer run begin elsewhere."""
        if self.task.regime == "staged":
            raise FieldError("task.regime", f"must be mixed to go on to more than {self.train.steps} steps, got staged")
        optimizers.check_longer(self.train, done)

    def batch(self, numbers, data, step) -> Tokens:
        """Windows of biographies and of questions, drawn with replacement. In the regime mixed each is of questions
        with the probability that makes `qa_share` of the tokens theirs; a stage has one kind alone."""
        key, kind_key, mask_key = jax.random.split(jax.random.fold_in(train.data_key(numbers.seed), step), 3)
        count = self.train.batch_size
        told, asked = data["told"], data["asked"]
        place = jax.random.uniform(key, (count,))
        rows = [jnp.int32(place * len(part["tokens"])) for part in (told, asked)]
        question = jax.random.uniform(kind_key, (count,)) < self.share(numbers, data, step)
        drawn = {
            name: jnp.where(question[:, None], asked[name][rows[1]], told[name][rows[0]])
            for name in ("tokens", "loss_mask", "words")
        }
        if self.causal:
            return Tokens(drawn["tokens"], drawn["loss_mask"])
        words = drawn["words"]
        by_word = jax.random.bernoulli(mask_key, self.task.mask_rate, words.shape)
        whole = (words >= 0) & jnp.take_along_axis(by_word, jnp.maximum(words, 0), 1)
        answers = (drawn["loss_mask"] > 0) & (drawn["tokens"] != Vocabulary.eos)
        masked = jnp.where(question[:, None], answers, whole)
        return Tokens(drawn["tokens"], masked.astype(jnp.float32), jnp.where(masked, Vocabulary.mask, drawn["tokens"]))

    def share(self, numbers, data, step):
        """The probability that a window is of questions (as `biographies_bank.window_share`)."""
        if self.task.regime == "staged":
            return jnp.where(step >= self.train.steps - self.tuning_steps, 1.0, 0.0)
        share, (told, asked) = numbers.task["qa_share"], data["mean_lengths"]
        return share * told / (share * told + (1 - share) * asked)

    def held_out(self, numbers, data) -> HeldOut:
        names, concepts = data["names"], {}
        for row, (name, classes) in enumerate(self.world.concepts.items()):
            concepts[name] = Concept(names["labels"][row], classes, ("end",), group=names["group"])
        questions = data["questions"]
        batch = Tokens(questions["tokens"], questions["loss_mask"], questions["masked"])
        exact = {name: data[name] for name in ("questions", "names", "biographies", "majority")}
        return HeldOut(batch, concepts, exact, self.measuring)

    def read(self, params: PyTree, held_out: HeldOut):
        """The states after the name of each person, the same for every concept, and `biographies_measures.Answers`."""
        return biographies_measures.read(self, params, held_out)

    def describe(self) -> str:
        task = self.task
        how = task.regime if task.regime == "mixed" else f"staged, {task.tuning} tuning"
        kind = "" if self.causal else ", an encoder"
        return f"{super().describe()}; {task.people} people, {task.variant} biographies, {how}{kind}"
