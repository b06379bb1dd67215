"""What the fine-tuning study is asked to do: which arms, how they are tuned, and what is measured before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import PyTree

from jaxconcepts import fields as typed
from jaxconcepts.fields import FieldError, field, section
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.studies.icl import config as icl_config
from jaxconcepts.training import freezing, lora, tuning
from jaxconcepts.training.optimizers import SCHEDULES, OptimizerNumbers


@dataclass(frozen=True)
class Numbers:
    """The optimiser's numbers."""

    learning_rate: float = field(2e-4, "learning rate at the peak of the schedule", low=0)
    weight_decay: float = field(0.01, "weight decay of all tuned parameters, with adamw", low=0)
    b1: float = field(0.9, "decay rate of the first moment", low=0, below=1)
    b2: float = field(0.999, "decay rate of the second moment", low=0, below=1)
    eps: float = field(1e-8, "epsilon, added to the root of the second moment", low=0)
    clip_norm: float = field(1.0, "largest norm of the whole gradient", low=0, infinite=True)

    def __post_init__(self):
        typed.check(self)


@dataclass(frozen=True)
class TuneFields(Numbers):
    """How an arm is tuned."""

    steps: int = field(1000, "number of steps", low=1)
    batch_size: int = field(16, "sequences in a batch", low=1, high=1_000_000)
    optimizer: Literal["adam", "adamw"] = field("adamw", "optimiser")
    schedule: str = field("linear", "schedule of the learning rate", choices=SCHEDULES)
    warmup_steps: int = field(0, "steps of linear warm-up", low=0)
    decay_fraction: float = field(
        1.0, "share of the steps, at the end, in which the learning rate falls", above=0, high=1
    )


@dataclass(frozen=True)
class LoraFields:
    """The adapters."""

    rank: int = field(16, "rank of LoRA; 0 for full fine-tuning", low=0, high=65536)
    alpha: float = field(16.0, "LoRA's alpha: the adapter is scaled by alpha / rank", above=0)
    dropout: float = field(0.1, "share of a projection's inputs that the adapter does not see", low=0, below=1)
    targets: tuple[str, ...] = field(
        (),
        'projections to adapt, by our names ("q", "mlp_up") or the checkpoint\'s; empty for queries and values',
        low=1,
    )

    def __post_init__(self):
        typed.check(self)


@dataclass(frozen=True)
class SyntheticFields:
    """For a training's run directory as the model."""

    run: str = field("", "the run to tune, by the beginning of its name; empty for the first run")
    step: int = field(-1, "the step of the checkpoint to tune; -1 for the last", low=-1)
    per_concept: int = field(250, "held-out sequences of each concept", low=1, high=icl_config.MANY)

    def __post_init__(self):
        typed.check(self)


@dataclass(frozen=True)
class RunFields:
    """How, not what; it may change between a run and its resumption."""

    how: Literal["auto", "vmap", "map"] = field(
        "auto", "tune the arms side by side (vmap) or one after another (map); auto decides by backend"
    )
    remat: bool = field(False, "recompute blocks in the backward pass, to save memory")
    checkpoint_seconds: float = field(60.0, "seconds between checkpoints", low=0)

    def __post_init__(self):
        typed.check(self)


NUMBERS = typed.defaults(Numbers)
SYNTHETIC = typed.defaults(SyntheticFields)


def arms_field(default: tuple[str, ...]) -> Any:
    """The field `arms` of `Arms`, with another default."""
    return field(default, '"first-n", "last-n", "all", "none", "blocks-2-5-7", or a name of patterns', low=1)


@dataclass(frozen=True)
class Arms:
    """What is tuned. Adapters are always saved, merged weights where asked for. Of each family's concepts Null is left
    out of the training prompts: it has nothing to teach. Only the query's answer is learned."""

    arms: tuple[str, ...] = arms_field(("first-10", "last-10", "all", "none"))
    patterns: Mapping[str, Any] = field({}, "your own arms: name -> list of (regular expression, train or freeze)")
    seeds: tuple[int, ...] = field(
        (0,),
        "each arm is tuned once with each seed: of adapters, order of the data, and dropout",
        low=0,
        high=2**32 - 1,
    )
    samples: int = field(
        10_000, "training prompts of each family, equally many for each concept", low=1, high=icl_config.MANY
    )
    merged: tuple[str, ...] = field((), "arms whose merged weights are saved as a checkpoint folder", low=1)

    def __post_init__(self):
        typed.check(self)
        for name in ("arms", "seeds"):
            icl_config.check_names(name, getattr(self, name))
        if unknown := [name for name in self.merged if name not in self.arms]:
            raise FieldError("merged", f"must name arms ({', '.join(self.arms)}), got {unknown[0]!r}")
        if idle := [name for name in self.patterns if name not in self.arms]:
            raise FieldError("patterns", f"must be of arms ({', '.join(self.arms)}), got {idle[0]!r}")
        for name, value in self.patterns.items():
            pairs = value if isinstance(value, list | tuple) else [value]
            if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
                message = f"must be pairs of a regular expression and train or freeze, got {value!r}"
                raise FieldError(f"patterns.{name}", message)


@dataclass(frozen=True)
class FinetuneFields(Arms):
    """What a config file has. Raises FieldError naming the field."""

    shots: int = field(4, "demonstrations in a training prompt", low=0, high=10_000)
    tune: TuneFields = section(TuneFields)
    lora: LoraFields = section(LoraFields)
    measure: icl_config.IclConfig = section(icl_config.IclConfig, shots=(4,), variants=("plain",))
    synthetic: SyntheticFields = section(SyntheticFields)
    run: RunFields = section(RunFields)


@dataclass(frozen=True)
class FinetuneConfig(Arms):
    """What a tuning is: as `FinetuneFields`, in the parts that the program takes.

    tune, numbers: the static part and the optimiser's numbers. how, remat: as of `RunFields`.

    Raises FieldError naming the field.
    """

    tune: tuning.TuneConfig = section(tuning.TuneConfig)
    numbers: Mapping[str, float] = field(NUMBERS, "the optimiser's numbers")
    shots: int = field(4, "demonstrations in a training prompt", low=0, high=10_000)
    measure: icl_config.IclConfig = section(icl_config.IclConfig)
    how: Literal["auto", "vmap", "map"] = field(
        "auto", "tune the arms side by side (vmap) or one after another (map); auto decides by backend"
    )
    remat: bool = field(False, "recompute blocks in the backward pass, to save memory")


def recorded(config: FinetuneConfig) -> dict[str, Any]:
    """The config as run directories keep it: without fields of `measure` that came later and are at their default."""
    measure = typed.identity(icl_config.IclConfig, typed.plain(config.measure))
    return dataclasses.asdict(config) | {"measure": measure}


@dataclass(frozen=True)
class Arm:
    """One tuning. run: its name in every table. blocks: the numbers of the blocks in which it trains anything."""

    run: str
    name: str
    seed: int
    patterns: Sequence[tuple[str, str]]
    hparams: tuning.TuneHParams
    blocks: list[int]


def make_arms(config: FinetuneConfig, model: Decoder, params: PyTree, prefix: str) -> list[Arm]:
    """Every arm with every seed; params may be shapes. prefix: of the runs' names.

    Raises ValueError, naming the arm, where its patterns do not fit the model.
    """
    made = []
    for name in config.arms:
        given = config.patterns.get(name)
        patterns = freezing.arm(name, model.layers) if given is None else [tuple(pattern) for pattern in given]
        try:
            masks = tuning.arm_masks(config.tune, model, params, patterns)
        except ValueError as error:
            raise ValueError(f"arm {name!r}: {error}") from error
        for seed in config.seeds:
            numbers = OptimizerNumbers(**{field: np.float32(value) for field, value in config.numbers.items()})
            hparams = tuning.TuneHParams(np.uint32(seed), numbers, masks)
            blocks = freezing.trained_blocks(masks)
            made.append(Arm(f"{prefix}-{name}-seed{seed}", name, seed, patterns, hparams, blocks))
    return made


def default_fields() -> dict[str, Any]:
    """All fields at their defaults, nested: what a config file starts from."""
    return typed.defaults(FinetuneFields)


def from_fields(fields: Mapping[str, Any] | FinetuneFields) -> FinetuneConfig:
    """The config of nested fields, those left out at their defaults ("synthetic" and the checkpoints' interval are not
    in it). Raises FieldError as `fields.read` does."""
    read = typed.read(FinetuneFields, fields) if isinstance(fields, Mapping) else fields
    static = {f.name: getattr(read.tune, f.name) for f in dataclasses.fields(tuning.TuneConfig) if f.name != "lora"}
    low_rank = None if read.lora.rank == 0 else lora.LoraConfig(**vars(read.lora))
    return FinetuneConfig(
        tune=tuning.TuneConfig(**static, lora=low_rank),
        numbers=vars(typed.part(read.tune, Numbers)),
        measure=read.measure,
        how=read.run.how,
        remat=read.run.remat,
        shots=read.shots,
        **{of.name: getattr(read, of.name) for of in dataclasses.fields(Arms)},
    )
