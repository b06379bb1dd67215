"""What a measurement consists of: arrays that say what they are, what is read off hidden states, and when.

Part of the contract of `experiment`, which gives all of these names too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Int, PyTree, Shaped

from jaxconcepts.fields import field

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

    metrics: tuple[str, ...] = field(("loss", "cd"), "names of evaluators, or module:function for your own", low=1)
    count: int = field(50, "number of measurements", low=2, high=1_000_000)
    spacing: str = field("log", "spacing of the measurements over the steps", choices=("log", "linear"))
    steps: tuple[int, ...] = field((), "steps to measure at, instead of count and spacing", low=0)
    per_concept: int = field(250, "held-out sequences of each concept", low=1, high=1_000_000)
    cd_per_concept: int = field(100, "held-out sequences of each concept that CD uses", low=1, high=1_000_000)
    neighbours: int = field(10, "k of CD, the number of neighbours", low=1)
    hidden_count: int = field(5, "number of measured steps whose hidden states are kept for projections", low=0)
    checkpoint_steps: tuple[int, ...] = field((), "steps whose checkpoints are kept, besides the last", low=0)
    detail: str = field("full", "how much of each measurement is kept; summary is for very many runs", choices=DETAILS)

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
