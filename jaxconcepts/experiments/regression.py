"""In-context regression: what one training run is, and what is measured along it.

Measured are the loss per concept and position, the distance to each reference's predictions (which algorithm does the
model run?), and Concept Decodability at every layer, at the x token and the y token of the last pair (arXiv 2412.12276,
sections 3 and 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxconcepts import fields
from jaxconcepts.experiments import evaluators, models, regression_limits
from jaxconcepts.fields import FieldError, field
from jaxconcepts.models import continuous, gpt2
from jaxconcepts.tasks import curriculum, references, regression
from jaxconcepts.training import initial, optimizers, train
from jaxconcepts.training.experiment import Concept, Experiment, HeldOut, MeasureConfig, Named

TOKENS = ("x", "y")
LOSSES = ("mse", "log_mse")
METRICS = ("loss", "cd", "references")
UNIT = "squared error"
HELD_OUT_SEED = 20241212


@dataclass(frozen=True)
class RegressionTrain(train.TrainConfig):
    """As `train.TrainConfig`, and the loss.

    loss: what is minimised. "mse": the mean squared error over batch and positions, the paper's. "log_mse": the mean
        over positions of the logarithm of each position's mean squared error, the likelihood of Gaussian errors with a
        variance for each position: late positions, whose errors are small, count as much as early ones, which no model
        can predict. Reported losses are squared errors either way.
    """

    loss: str = field(
        "mse",
        "what is minimised: mse, or log_mse, the mean over positions of the log of each position's mse",
        choices=LOSSES,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.loss not in LOSSES:
            raise ValueError(f"train.loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")


class Numbers(NamedTuple):
    """The numbers of a run, a pytree of arrays; every leaf may be traced and swept without compiling again."""

    seed: Int[Array, ""]
    optimizer: optimizers.OptimizerNumbers
    init: gpt2.InitScales
    task: regression.RegressionHParams
    curriculum: curriculum.Curriculum


def predictions(model: continuous.Model, params: PyTree, batch: regression.Batch, capture=None, edits=None):
    """The model's predictions for a batch; capture, edits as in `models.residual.run` (token 2i is x_i, 2i+1 y_i)."""
    output = continuous.apply(model, params, regression.interleave(batch), capture=capture, edits=edits)
    return Predictions(output.out[:, ::2, 0], output.captured)


def objective_and_mse(
    model: continuous.Model, kind: str, params: PyTree, batch: regression.Batch
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """What the loss of this kind (one of `LOSSES`) minimises, and beside it the mean squared error over the batch and
    the pairs that carry loss, the zero-example one included."""
    errors = jnp.square(predictions(model, params, batch).out - batch.targets).mean(0)
    over_pairs = lambda values: (values * batch.pair_mask).sum() / batch.pair_mask.sum()  # noqa: E731
    mse = over_pairs(errors)
    return (over_pairs(jnp.log(errors + 1e-4)) if kind == "log_mse" else mse), mse


class Predictions(NamedTuple):
    """out: [B, n], the prediction of y_i read at the token of x_i. captured: [L + 1, B, P, d] or None."""

    out: Float[Array, "B n"]
    captured: Float[Array, "layers B P d"] | None


def square_errors(outputs: Float[Array, "N n"], held_out: HeldOut, targets: Float[Array, "N n"]):
    """The mean squared difference of each concept's sequences, [K, n]."""
    concepts = held_out.concepts["concept"].classes
    return jnp.square(outputs - targets).reshape(concepts, -1, outputs.shape[1]).mean(1)


def loss_by_position(states, outputs, held_out: HeldOut) -> dict[str, Named]:
    """Evaluator "loss": the squared error of each concept at each position."""
    errors = square_errors(outputs, held_out, held_out.batch.targets)
    return {"loss": Named(errors, ("concept", "position"), UNIT, means=("concept", "position"))}


def distances(states, outputs, held_out: HeldOut) -> dict[str, Named]:
    """Evaluator "references": the squared difference to what each reference predicts."""
    return {
        f"distance_{name}": Named(
            square_errors(outputs, held_out, predicted), ("concept", "position"), UNIT, 0.0, ("concept", "position"),
            brief="mean",
        )
        for name, predicted in held_out.exact.items()
    }  # fmt: skip


def reference_losses(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    """The squared error of each reference, once."""
    targets, axes = held_out.batch.targets, ("concept", "position")
    return {
        f"loss_{name}": Named(square_errors(predicted, held_out, targets), axes, UNIT, means=axes)
        for name, predicted in held_out.exact.items()
    }


# Fields of the model that follow from the task.
_DERIVED = ("context", "input_dim", "output_dim", "vocab_size", "stop_tokens")
# Fields of the model that came after run directories had been made without them.
_LATE = ("bottleneck", "positions", "rotary_fraction", "rope_theta", "causal")


@dataclass(frozen=True)
class Regression(Experiment):
    """In-context regression; see the module's head. Runs with equal fields are packed together."""

    task: regression.RegressionConfig
    model: continuous.Model
    train: RegressionTrain
    measuring: MeasureConfig = MeasureConfig(metrics=METRICS)

    REPORTED: ClassVar = {"train_loss": UNIT}
    SECTIONS: ClassVar = {
        "task": (regression.RegressionFields,),
        "curriculum": (curriculum.CurriculumFields,),
        "init": (gpt2.InitFields,),
    }
    LATER: ClassVar = {"experiment": "regression", "measure.metrics": METRICS, "model.family": "gpt2"} | {
        f"model.{name}": value for name, value in fields.defaults(gpt2.GPT2Config).items() if name in _LATE
    }
    EVALUATORS: ClassVar = {"loss": loss_by_position, "references": evaluators.Evaluator(distances, reference_losses)}

    @classmethod
    def declared(cls, values=None) -> dict[str, tuple[type, ...]]:
        return super().declared() | {"model": models.declared(models.family_of(values, "gpt2"))}

    @classmethod
    def later(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        of_gpt2 = models.family_of(config, "gpt2") == "gpt2"
        return {name: value for name, value in cls.LATER.items() if of_gpt2 or not name.startswith("model.")}

    @classmethod
    def default_config(cls, values=None) -> dict[str, Any]:
        """The configuration of one run, every field at its default: the paper's main setting, or that of another family
        of decoders at a small size."""
        family = models.family_of(values, "gpt2")
        return {
            "experiment": "regression",
            "seed": 0,
            "task": fields.defaults(regression.RegressionConfig) | fields.defaults(regression.RegressionFields),
            "curriculum": fields.defaults(curriculum.CurriculumFields),
            "model": (
                fields.defaults(gpt2.GPT2Config, without=_DERIVED + _LATE)
                if family == "gpt2"
                else models.defaults(family)
            ),
            "init": {
                name: value
                for name, value in fields.defaults(gpt2.InitFields).items()
                if family == "gpt2" or name.startswith("read_")
            },
            "train": fields.defaults(RegressionTrain) | fields.defaults(optimizers.OptimizerFields),
            "measure": fields.defaults(MeasureConfig) | {"metrics": METRICS},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Regression:
        """Raises ValueError naming the field: unknown ones, and values that do not fit."""
        given = cls.read_config(config)
        task = fields.part(given.task, regression.RegressionConfig)
        made = cls(
            task=task,
            model=cls.model_of(fields.plain(given.model), task),
            train=fields.part(given.train, RegressionTrain),
            measuring=fields.part(given.measure, MeasureConfig),
        )
        evaluators.check(made, made.measuring.cd_per_concept * task.num_concepts)
        regression_limits.check(made.measuring, task.num_concepts)
        if not getattr(made.model, "causal", True):
            raise FieldError("model.causal", "must be true: a y that the model reads beside its x needs no prediction")
        made.numbers(config)
        curriculum.check_ratio(given.curriculum.concept_ratio, task.num_concepts)
        return made

    @classmethod
    def model_of(cls, section: Mapping[str, Any], task: regression.RegressionConfig) -> continuous.Model:
        """The model of the section "model"; context and input are the task's."""
        if section["family"] == "gpt2":
            section = {name: value for name, value in section.items() if name != "family"}
            return gpt2.GPT2Config(context=2 * task.num_pairs, input_dim=task.dim, **section)
        return continuous.Continuous(models.make(section, 1, 2 * task.num_pairs), task.dim)

    def numbers(self, config: Mapping[str, Any]) -> Numbers:
        """float32 NumPy scalars and arrays, and the seed. Raises ValueError naming a field that does not fit."""
        task = {name: config["task"][name] for name in ("noise", "masks", "concept_weights")}
        numbers = Numbers(
            seed=np.uint32(config["seed"]),
            init=gpt2.InitScales(**config["init"]),
            task=regression.hparams(self.task, **task),
            curriculum=curriculum.Curriculum(**config["curriculum"]),
            optimizer=optimizers.numbers(config["train"]),
        )
        as_float = jax.tree.map(lambda a: np.asarray(a, np.float32), numbers)
        return as_float._replace(seed=np.uint32(config["seed"]))

    def init(self, numbers: Numbers, data) -> PyTree:
        key = train.init_key(numbers.seed)
        if isinstance(self.model, gpt2.GPT2Config):
            return gpt2.init(self.model, key, numbers.init)
        blocks_key, readers_key = jax.random.split(key)
        params = initial.fan_in(self.model.decoder, blocks_key)
        return continuous.with_readers(self.model, params, readers_key, numbers.init.read_in, numbers.init.read_out)

    def batch(self, numbers: Numbers, data, step) -> regression.Batch:
        key = jax.random.fold_in(train.data_key(numbers.seed), step)
        now = curriculum.at_step(numbers.curriculum, numbers.task, step)
        return regression.sample(self.task, now, key, self.train.batch_size)

    def loss(self, params: PyTree, batch: regression.Batch):
        objective, mse = objective_and_mse(self.model, self.train.loss, params, batch)
        return objective, {"train_loss": mse}

    def held_out(self, numbers: Numbers, data) -> HeldOut:
        """As many sequences of each concept, in concept order, and what every reference predicts for them, [N, n]."""
        # One held-out set for all runs that share the task's numbers: the key does not depend on the run.
        key, each = jax.random.key(HELD_OUT_SEED), self.measuring.per_concept
        batch = regression.balanced(self.task, numbers.task, key, each)
        concept = Concept(self._decoding_points(batch.concepts, 0), self.task.num_concepts, TOKENS)
        exact = references.predict(self.task, numbers.task, batch)
        return HeldOut(batch, {"concept": concept}, exact, self.measuring)

    def constants(self, held_out: HeldOut, untrained) -> dict[str, Named]:
        return evaluators.constants(self, held_out, untrained)

    def measure(self, params: PyTree, held_out: HeldOut) -> dict[str, Named]:
        return evaluators.measure(self, params, held_out)

    def read(self, params: PyTree, held_out: HeldOut):
        """The states at the last pair's x token and y token, of the points that CD is computed on, and the predictions
        for all sequences; see `evaluators`."""
        last = 2 * self.task.num_pairs - jnp.array([2, 1])
        out, captured = predictions(self.model, params, held_out.batch, capture=last)
        return {"concept": self._decoding_points(jnp.moveaxis(captured, 2, 0), 2)}, out

    def edited(self, params: PyTree, held_out: HeldOut, edits) -> Float[Array, "N n"]:
        """The predictions under edits of the stream or its heads."""
        return predictions(self.model, params, held_out.batch, edits=edits).out

    def score(self, outputs: Float[Array, "N n"], held_out: HeldOut) -> Float[Array, ""]:
        """The mean squared error of predictions."""
        return jnp.square(outputs - held_out.batch.targets).mean()

    def surface(self, held_out: HeldOut) -> dict[str, Float[Array, "N features"]]:
        """All numbers of a sequence, for the evaluator "surface"."""
        tokens = regression.interleave(held_out.batch)
        return {"concept": self._decoding_points(tokens.reshape(len(tokens), -1), 0)}

    def hidden(self, params: PyTree, held_out: HeldOut):
        """The states [L + 1, N, d] at the last x token, of the points that CD is computed on, and their concepts."""
        last = jnp.array([2 * self.task.num_pairs - 2])
        captured = predictions(self.model, params, held_out.batch, capture=last).captured
        return self._decoding_points(captured[:, :, 0], 1), held_out.concepts["concept"].labels

    def describe(self) -> str:
        model, task, settings = self.model, self.task, self.train
        kind = "" if model.MODEL_TYPE == "gpt2" else f", {model.MODEL_TYPE}"
        return (
            f"{model.layers} layers x {model.width} wide, {model.heads} heads, {model.dtype}{kind}; "
            f"{task.num_concepts} {task.bases} concepts of rank {task.rank}, {task.num_pairs} pairs of {task.dim} "
            f"dimensions; batch {settings.batch_size}, {settings.steps} steps of {settings.optimizer}"
        )

    def program_key(self):
        """All but the concepts (their number, rank and overlap), which only the drawing of data depends on."""
        task = self.task
        return self.model, self.train, task.dim, task.num_pairs, task.families

    def _decoding_points(self, values, axis):
        """The first `cd_per_concept` sequences of each concept, along an axis in concept order."""
        settings = self.measuring
        keep = np.arange(self.task.num_concepts)[:, None] * settings.per_concept + np.arange(settings.cd_per_concept)
        return jnp.take(values, keep.ravel(), axis=axis)
