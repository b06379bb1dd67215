"""The contract of everything that is trained: `Experiment`, what it measures (`Named`), and when (`MeasureConfig`).

An experiment joins a task, a model and what is measured of it. It is a frozen, hashable dataclass: all that changes the
compiled program is in its fields, all that is a number is in `numbers`, which can be swept without compiling again. The
loop, the packs, the sweeps and the plans (`runs`, `sweeps`, `planning`) know nothing else of what they run.

    class Mine(Experiment):                                    # @dataclass(frozen=True)
        task: MyTask; model: MyModel; train: TrainConfig; measuring: MeasureConfig

        default_config(values) -> dict    from_config(config) -> Mine          numbers(config) -> Numbers
        data() -> arrays or None          init(numbers, data) -> params        batch(numbers, data, step) -> Batch
        loss(params, batch) -> (objective, reported)
        held_out(numbers, data) -> HeldOut                    measure(params, held_out) -> {name: Named}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, ClassVar, Self, get_type_hints

import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxconcepts import fields
from jaxconcepts.fields import FieldError, field
from jaxconcepts.inferred_fields import inferred
from jaxconcepts.training import optimizers
from jaxconcepts.training.measured import AXES, Concept, HeldOut, MeasureConfig, Named, check_named

__all__ = [
    "AXES", "Concept", "Experiment", "HeldOut", "MeasureConfig", "Named", "check_experiment", "check_named",
]  # fmt: skip


@dataclass(frozen=True)
class SeedFields:
    """What every config has."""

    experiment: str = field("regression", "the experiment to train: a name, module:Class or file.py:Class", low=1)
    seed: int = field(0, "seed of weights and data", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class Experiment:
    """Base of all experiments; see the module's head for what one has. Every method but the class methods, `numbers`
    and `data` is traced inside compiled programs, over one run; the loop adds the axis of runs.

    A subclass is a frozen dataclass with at least the fields `model`, `train` (`train.TrainConfig`) and `measuring`
    (`MeasureConfig`).
    """

    REPORTED: ClassVar[Mapping[str, str]] = {"train_loss": "nats"}
    """What `loss` reports, name -> unit; the first must be finite, or the run is marked as diverged."""
    ROW_STEPS: ClassVar[int] = 500
    """The most steps that a row of what is reported covers."""
    LATER: ClassVar[Mapping[str, Any]] = {}
    """Fields that were added after runs had been named without them, dotted name -> default: at the default they are
    left out of a run's name and of what is stored, so that old run directories stay valid."""

    SECTIONS: ClassVar[Mapping[str, tuple[type, ...]]] = {
        "": (SeedFields,), "train": (optimizers.OptimizerFields,)
    }  # fmt: skip
    """Dataclasses that declare fields of the config's sections, beside those that the experiment has as its own fields:
    type, bounds and doc, see `jaxconcepts.fields`."""

    @classmethod
    def declared(cls, values: Mapping[str, Any] | None = None) -> dict[str, tuple[type, ...]]:
        """The dataclasses that declare the config's fields, by section ("" for those of no section). values: as of
        `default_config`."""
        own = {
            name: kind for name, kind in get_type_hints(cls).items() if isinstance(kind, type) and is_dataclass(kind)
        }
        own = {"measure" if name == "measuring" else name: kind for name, kind in own.items()}
        others = Experiment.SECTIONS | dict(cls.SECTIONS)
        return {name: (*others.get(name, ()), *([own[name]] if name in own else [])) for name in {*own, *others}}

    @classmethod
    def later(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """`LATER`, where it depends on a config what there is."""
        return cls.LATER

    @classmethod
    def config_kind(cls, values: Mapping[str, Any] | None = None) -> type:
        """The dataclass that a run's configuration is read by: every field with its type, bounds, doc and default.
        values: as of `default_config`."""
        early = cls.stored(cls.default_config(values))
        key = repr(early)
        if (cls, key) not in _kinds:
            _kinds[cls, key] = inferred(early, cls.later(early), cls.declared(early))
        return _kinds[cls, key]

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Any:
        """A run's whole configuration as `config_kind` reads it. Raises FieldError naming a field that is unknown, is
        missing, or has a value that it does not take."""
        kind = cls.config_kind(config)
        read = fields.read(kind, config)
        given = fields.flat(kind, config)
        missing = [name for name, of in fields.declared(kind).items() if not of.added and name not in given]
        if missing:
            raise FieldError(missing[0], "is missing in the config")
        return read

    @classmethod
    def default_config(cls, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Every field at its default, nested: what a config file starts from. values: those of a config, where the
        fields that there are depend on some (such as the model's family)."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The experiment that a run's whole configuration says. Raises ValueError naming the field."""
        raise NotImplementedError

    def numbers(self, config: Mapping[str, Any]) -> Any:
        """The run's numbers, checked: a named tuple of NumPy arrays with at least `seed` (uint32) and `optimizer`
        (`optimizers.OptimizerNumbers`). Raises ValueError naming the field."""
        raise NotImplementedError

    def data(self) -> PyTree:
        """What all runs of this experiment share (a bank of tokens, base weights), as arrays, or None. It is placed on
        the devices once, and no run copies it; it depends on the fields alone."""
        return None

    def init(self, numbers: Any, data: PyTree) -> PyTree:
        """Fresh parameters, from `train.init_key(numbers.seed)`."""
        raise NotImplementedError

    def batch(self, numbers: Any, data: PyTree, step: Int[Array, ""]) -> PyTree:
        """The sequences of a step, from fold_in(train.data_key(numbers.seed), step) and nothing else, so that a run's
        stream does not depend on how it is packed, sharded or resumed."""
        raise NotImplementedError

    def loss(self, params: PyTree, batch: PyTree) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """What is minimised, and the values of `REPORTED`."""
        raise NotImplementedError

    def model_params(self, params: PyTree, numbers: Any, data: PyTree, step: Int[Array, ""] | None) -> PyTree:
        """What `loss` and `measure` get for the trained `params`: themselves, unless only a part of a model is trained.
        step: None where the model is measured."""
        return params

    def rule(self, numbers: Any) -> optax.GradientTransformation:
        """The optimiser, by default that of `train`; another where stages of training differ in rate or in what is
        trained."""
        return optimizers.make(self.train, numbers.optimizer)

    def held_out(self, numbers: Any, data: PyTree) -> PyTree:
        """The sequences that the run is measured on, in concept order, with exact solutions where there are any. Their
        labels must not depend on the run."""
        raise NotImplementedError

    def constants(self, held_out: PyTree, untrained: Callable[[], PyTree]) -> dict[str, Named]:
        """What is measured once, before training. untrained() gives the parameters of a model that nothing trained."""
        return {}

    def measure(self, params: PyTree, held_out: PyTree) -> dict[str, Named]:
        """All that is measured at a step. "name/label" puts the label into the rows' label column."""
        raise NotImplementedError

    def on_host(self, measured: Mapping[str, Named]) -> dict[str, Named]:
        """What becomes rows of a measurement that was fetched: NumPy values with an axis of runs in front. For what a
        compiled program cannot do, such as judging a text; the device goes on meanwhile."""
        return dict(measured)

    def hidden(self, params: PyTree, held_out: PyTree) -> tuple[Float[Array, "layers N d"], Int[Array, " N"]]:
        """Hidden states for projections, and their labels; for `measure.hidden_count`."""
        raise ValueError("measure.hidden_count must be 0 for an experiment without `hidden`")

    # What sweeps, plans and logs ask.

    def describe(self) -> str:
        """What a group of runs is, in a line."""
        model, train = self.model, self.train
        size, how = f"{model.layers} layers x {model.width} wide", f"{train.steps} steps of {train.optimizer}"
        return f"{size}; batch {train.batch_size}, {how}"

    def work(self) -> float:
        """About how much a run takes, for ordering packs and for the time left: tokens times parameters."""
        model, train = self.model, self.train
        parameters = model.layers * 12 * model.width**2 + 10_000  # a floor: tiny steps are mostly overhead
        return float(train.steps * train.batch_size * model.context * parameters)

    def check_longer(self, done: int) -> None:
        """Raises FieldError where the first `done` steps of this training are not those of one with a larger
        train.steps, as which it could then not be gone on with.

        An experiment whose data, loss or `rule` depend on train.steps says so here.
        """
        if type(self).rule is not Experiment.rule and type(self).check_longer is Experiment.check_longer:
            raise FieldError(
                "experiment", f"{type(self).__name__} has a rule, and no check_longer that says of how far"
            )
        optimizers.check_longer(self.train, done)

    def program_key(self) -> Any:
        """What the cost of the training program depends on: experiments with equal keys share a plan."""
        return self

    def unrolled(self, everything: bool) -> Self:
        """The experiment with the model's blocks all unrolled, or scanned, where its config leaves that open."""
        if getattr(self.model, "unroll", 1):
            return self
        return replace(self, model=replace(self.model, unroll=self.model.layers if everything else 1))

    @classmethod
    def canonical(cls, config: Mapping[str, Any]) -> str:
        """The text that a run's name is a hash of."""
        return json.dumps(cls.stored(config), sort_keys=True, default=list)

    @classmethod
    def stored(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration without the fields of `LATER` that are at their defaults."""
        kept = {name: dict(part) if isinstance(part, Mapping) else part for name, part in config.items()}
        for dotted, default in cls.later(config).items():
            section, _, name = dotted.rpartition(".")
            part = kept.get(section, {}) if section else kept
            if name in part and _plain(part[name]) == _plain(default):
                del part[name]
        return kept

    @classmethod
    def completed(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with the fields of `LATER` that it leaves out at their defaults."""
        whole = {name: dict(part) if isinstance(part, Mapping) else part for name, part in config.items()}
        for dotted, default in cls.later(config).items():
            section, _, name = dotted.rpartition(".")
            part = whole.get(section) if section else whole
            if isinstance(part, dict):
                part.setdefault(name, _plain(default))
        return whole


_kinds: dict[tuple[type, str], type] = {}

REQUIRED = ("default_config", "from_config", "numbers", "init", "batch", "loss", "held_out", "measure")


def check_experiment(kind: type, name: str) -> None:
    """Raises ValueError where a class is no experiment, or lacks a method; name: what the config called it."""
    if not (isinstance(kind, type) and issubclass(kind, Experiment)):
        raise ValueError(f"experiment {name} must be a subclass of {Experiment.__module__}.Experiment, got {kind!r}")
    lacking = [method for method in REQUIRED if _is_base(kind, method)]
    if lacking:
        raise ValueError(f"experiment {name} lacks the method {lacking[0]}; an experiment has {', '.join(REQUIRED)}")


def _is_base(kind, method):
    given = getattr(kind, method, None)
    return getattr(given, "__func__", given) is getattr(
        getattr(Experiment, method), "__func__", getattr(Experiment, method)
    )


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
