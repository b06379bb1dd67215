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
from functools import partial
from typing import Any, ClassVar, Self, get_type_hints

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped

from jaxconcepts.fields import field
from jaxconcepts.training import optimizers

AXES = ("run", "layer", "token", "concept", "position", "label")
"""The axes that a measured array may have; each is a column of the metrics table."""
DETAILS = ("full", "summary")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values"],
    meta_fields=["axes", "unit", "chance", "means", "names", "brief"],
)
@dataclass(frozen=True)
class Named:
    """A measured array that says what it is; `store.tidy` makes rows of it.

    values: one entry an index of each axis. axes: what they are, out of `AXES` ("run" is added by the loop).
    unit: of the values, such as "nats". chance: the value of something that knows nothing, None where there is no such.
    means: axes whose mean is a row too, with nothing in the axis' column. names: (axis, names of its entries) for the
        axes that are text, "token" and "label".
    brief: what the detail "summary" keeps: "concepts" (the mean and the last of the positions; by concept at the first
        token alone) or "mean" (the mean over everything).
    """

    values: Shaped[Array, ...]
    axes: tuple[str, ...] = ()
    unit: str = ""
    chance: float | None = None
    means: tuple[str, ...] = ()
    names: tuple[tuple[str, tuple[str, ...]], ...] = ()
    brief: str = "concepts"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["labels", "positions", "group"],
    meta_fields=["classes", "tokens"],
)
@dataclass(frozen=True)
class Concept:
    """What is read off hidden states: the labels of the held-out points.

    labels: [N] or [P, N], from 0 to classes - 1, at each of P tokens if they differ. positions: [P] or [N, P], where in
    the sequences those tokens are, None where the experiment reads its states itself. All points count: whatever
    has no label is left out of the held-out sequences. group: [N], whole numbers, what must not be split over folds or
    be its own neighbour (a string, a problem, a person), None where every point is its own. tokens: the names of the P
    positions at which states are read.
    """

    labels: Int[Array, "*tokens N"]
    classes: int
    tokens: tuple[str, ...] = ("last",)
    positions: Int[Array, "*each P"] | None = None
    group: Int[Array, " N"] | None = None


@dataclass(frozen=True)
class MeasureConfig:
    """When and on what a run is measured.

    metrics: the evaluators, by name (`experiments.evaluators`), or "module:function" for one of your own.
    count, spacing: how many measurements, "log" or "linear" over the steps, the first at step 0, the last at the end.
    steps: given steps instead.
    per_concept: held-out sequences of each concept. cd_per_concept: how many of them CD is computed on; neighbours: k.
    hidden_count: at how many of the measured steps the hidden states are kept for projections (0 for none).
    checkpoint_steps: steps whose checkpoints are kept for good, for studies over training; the last is kept anyway.
    detail: how much of a measurement is kept, "full" or, for very many runs, "summary" (see `Named.brief`).
    """

    metrics: tuple[str, ...] = field(("loss", "cd"), "evaluators by name, or module:function for your own", low=1)
    count: int = field(50, "how many measurements", low=2, high=1_000_000)
    spacing: str = field("log", "of the measurements over the steps", choices=("log", "linear"))
    steps: tuple[int, ...] = field((), "steps that are measured, in place of count and spacing", low=0)
    per_concept: int = field(250, "held-out sequences of each concept", low=1, high=1_000_000)
    cd_per_concept: int = field(100, "of those, on which CD is computed", low=1, high=1_000_000)
    neighbours: int = field(10, "k of CD", low=1)
    hidden_count: int = field(5, "at how many measured steps the hidden states are kept for projections", low=0)
    checkpoint_steps: tuple[int, ...] = field((), "steps whose checkpoints are kept for good, beside the last", low=0)
    detail: str = field("full", "how much of a measurement is kept: summary for very many runs", choices=DETAILS)

    def __post_init__(self):
        for name in ("metrics", "steps", "checkpoint_steps"):
            value = getattr(self, name)
            # From the command line several names come as one text.
            value = tuple(value.split(",")) if isinstance(value, str) else tuple(value)
            object.__setattr__(self, name, value)
        if bad := [name for name in self.metrics if not isinstance(name, str) or not name]:
            raise ValueError(f"measure.metrics must be names, or module:function, got {bad[0]!r}")
        least = {"count": 2, "per_concept": 1, "cd_per_concept": 1, "neighbours": 1, "hidden_count": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise ValueError(f"measure.{name} must be an integer of at least {low}, got {value!r}")
        if self.spacing not in ("log", "linear"):
            raise ValueError(f'measure.spacing must be "log" or "linear", got {self.spacing!r}')
        if self.detail not in DETAILS:
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


@partial(jax.tree_util.register_dataclass, data_fields=["batch", "concepts", "exact"], meta_fields=["settings"])
@dataclass(frozen=True)
class HeldOut:
    """What a run is measured on.

    batch: the sequences, as `Experiment.batch` has them. concepts: what can be read off their hidden states, by name.
    exact: what exact solutions and simpler algorithms answer, by name. settings: when and on what (`MeasureConfig`).
    """

    batch: PyTree
    concepts: Mapping[str, Concept]
    exact: Mapping[str, PyTree]
    settings: MeasureConfig


@dataclass(frozen=True)
class SeedFields:
    """What every config has."""

    experiment: str = field("regression", "what is trained: a name, module:Class or file.py:Class", low=1)
    seed: int = field(0, "of weights and data", low=0, high=2**32 - 1)


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
    def declared(cls) -> dict[str, tuple[type, ...]]:
        """The dataclasses that declare the config's fields, by section ("" for those of no section)."""
        own = {
            name: kind for name, kind in get_type_hints(cls).items() if isinstance(kind, type) and is_dataclass(kind)
        }
        own = {"measure" if name == "measuring" else name: kind for name, kind in own.items()}
        others = Experiment.SECTIONS | dict(cls.SECTIONS)
        return {name: (*others.get(name, ()), *([own[name]] if name in own else [])) for name in {*own, *others}}

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
        for dotted, default in cls.LATER.items():
            section, _, name = dotted.rpartition(".")
            part = kept.get(section, {}) if section else kept
            if name in part and _plain(part[name]) == _plain(default):
                del part[name]
        return kept

    @classmethod
    def completed(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with the fields of `LATER` that it leaves out at their defaults."""
        whole = {name: dict(part) if isinstance(part, Mapping) else part for name, part in config.items()}
        for dotted, default in cls.LATER.items():
            section, _, name = dotted.rpartition(".")
            part = whole.get(section) if section else whole
            if isinstance(part, dict):
                part.setdefault(name, _plain(default))
        return whole


REQUIRED = ("default_config", "from_config", "numbers", "init", "batch", "loss", "held_out", "measure")


def check_experiment(kind: type, name: str) -> None:
    """Raises ValueError where a class is no experiment, or lacks a method; name: what the config called it."""
    if not (isinstance(kind, type) and issubclass(kind, Experiment)):
        raise ValueError(f"experiment {name} must be a subclass of {Experiment.__module__}.Experiment, got {kind!r}")
    lacking = [method for method in REQUIRED if _is_base(kind, method)]
    if lacking:
        raise ValueError(f"experiment {name} lacks the method {lacking[0]}; an experiment has {', '.join(REQUIRED)}")


def check_named(measured: Mapping[str, Named]) -> Mapping[str, Named]:
    """What an evaluator or `measure` gave. Raises ValueError for what is no `Named`, and axes that do not fit it."""
    for metric, named in measured.items():
        if not isinstance(named, Named):
            raise ValueError(f"metric {metric} must be a Named array, got {type(named).__name__}")
        if unknown := [axis for axis in named.axes if axis not in AXES[1:]]:
            raise ValueError(f"metric {metric} has the unknown axis {unknown[0]!r}; axes are {', '.join(AXES[1:])}")
        if len(named.axes) != np.ndim(named.values):
            raise ValueError(
                f"metric {metric} names the axes {named.axes}, but its values have shape {np.shape(named.values)}"
            )
        names = dict(named.names)
        for axis, size in zip(named.axes, np.shape(named.values), strict=True):
            if axis in ("token", "label") and len(names.get(axis, ())) != size:
                raise ValueError(
                    f"metric {metric} must name the {size} entries of its axis {axis}, got {names.get(axis)}"
                )
    return measured


def _is_base(kind, method):
    given = getattr(kind, method, None)
    return getattr(given, "__func__", given) is getattr(
        getattr(Experiment, method), "__func__", getattr(Experiment, method)
    )


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
