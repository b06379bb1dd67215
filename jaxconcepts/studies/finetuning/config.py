"""What the fine-tuning study is asked to do: which arms, how they are tuned, and what is measured before and after."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import PyTree

from jaxconcepts.models.decoder import Decoder
from jaxconcepts.studies.icl import config as icl_config
from jaxconcepts.training import freezing, lora, tuning
from jaxconcepts.training.optimizers import OptimizerNumbers

NUMBERS = {
    "learning_rate": 2e-4, "weight_decay": 0.01, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "clip_norm": 1.0,
}  # fmt: skip
SYNTHETIC = {"run": "", "step": -1, "per_concept": 250}


@dataclass(frozen=True)
class FinetuneConfig:
    """arms: each "first-n", "last-n", "all", "none", "blocks-2-5-7", or a name of `patterns`.
    patterns: arms of one's own, name -> list of (regular expression, "train" or "freeze"), see `freezing`.
    seeds: every arm is tuned once with each; of adapters, order of the data and dropout.
    tune, numbers: the static part and the optimiser's numbers (`NUMBERS`' names).
    samples, shots: training prompts of each family, over its concepts in equal parts (Null is left out: it has nothing
        to teach), and demonstrations in each. Only the query's answer is learned.
    measure: how CD and accuracy are measured, before and after, and of which families; see `icl_config`.
    merged: arms whose merged weights are saved as a checkpoint folder. Adapters always are.
    how: "vmap", "map" or "auto", see `tuning.over_arms`. remat: recompute blocks in the backward pass, for memory.

    Raises ValueError naming the field.
    """

    arms: tuple[str, ...] = ("first-10", "last-10", "all", "none")
    patterns: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    tune: tuning.TuneConfig = field(default_factory=tuning.TuneConfig)
    numbers: Mapping[str, float] = field(default_factory=lambda: dict(NUMBERS))
    samples: int = 10_000
    shots: int = 4
    measure: icl_config.IclConfig = field(default_factory=icl_config.IclConfig)
    merged: tuple[str, ...] = ()
    how: str = "auto"
    remat: bool = False

    def __post_init__(self):
        for name in ("arms", "seeds", "merged"):
            value = getattr(self, name)
            value = value if isinstance(value, list | tuple) else (value,)
            # From the command line several names come as one text.
            split = [part.split(",") if isinstance(part, str) else [part] for part in value]
            object.__setattr__(self, name, tuple(itertools.chain.from_iterable(split)))
        for name in ("arms", "seeds"):
            if not (value := getattr(self, name)) or len(set(value)) != len(value):
                raise ValueError(f"{name} must name at least one, each once; got {value}")
        if wrong := [seed for seed in self.seeds if not isinstance(seed, int) or not 0 <= seed < 2**32]:
            raise ValueError(f"seeds must be integers from 0 to 2**32 - 1, got {wrong[0]!r}")
        for name, least in (("samples", 1), ("shots", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        if unknown := [name for name in self.merged if name not in self.arms]:
            raise ValueError(f"merged must name arms ({', '.join(self.arms)}), got {unknown[0]!r}")
        if idle := [name for name in self.patterns if name not in self.arms]:
            raise ValueError(f"patterns must be of arms ({', '.join(self.arms)}), got {idle[0]!r}")
        if self.how not in tuning.HOW:
            raise ValueError(f"run.how must be one of {', '.join(tuning.HOW)}, got {self.how!r}")
        for name, value in self.numbers.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise ValueError(f"tune.{name} must be a number of at least 0, got {value!r}")


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
    """All fields at their defaults, nested: what a config file starts from.

    lora.rank 0 is full fine-tuning. synthetic: for a training's run directory as the model; its run (the beginning of a
    name, "" for the first) and step (-1 for the last), and held-out sequences a concept. run: how, not what.
    """
    tune = {f.name: f.default for f in dataclasses.fields(tuning.TuneConfig) if f.name != "lora"}
    measure = icl_config.default_fields() | {"shots": (4,), "variants": ("plain",)}
    return {
        "arms": ("first-10", "last-10", "all", "none"),
        "patterns": {},
        "seeds": (0,),
        "samples": 10_000,
        "shots": 4,
        "merged": (),
        "tune": tune | NUMBERS,
        "lora": dataclasses.asdict(lora.LoraConfig()),
        "measure": measure,
        "synthetic": dict(SYNTHETIC),
        "run": {"how": "auto", "remat": False, "checkpoint_seconds": 60.0},
    }


def from_fields(fields: Mapping[str, Any]) -> FinetuneConfig:
    """The config of nested fields as `default_fields` gives them ("synthetic" and the checkpoints' interval are not in
    it). Raises ValueError naming an unknown or missing field, and as the parts do."""
    known = default_fields()
    _check(fields, known, "")
    for section in ("tune", "lora", "synthetic", "run"):
        _check(fields[section], known[section], f"{section}.")
    tune = dict(fields["tune"])
    numbers = {name: tune.pop(name) for name in NUMBERS}
    adapters = dict(fields["lora"])
    targets = adapters["targets"]
    targets = targets if isinstance(targets, list | tuple) else (targets,)
    adapters["targets"] = tuple(name for text in targets for name in text.split(","))
    low_rank = None if adapters["rank"] == 0 else lora.LoraConfig(**adapters)
    return FinetuneConfig(
        tune=tuning.TuneConfig(**tune, lora=low_rank),
        numbers=numbers,
        measure=icl_config.from_fields(fields["measure"]),
        how=fields["run"]["how"],
        remat=fields["run"]["remat"],
        **{name: fields[name] for name in ("arms", "patterns", "seeds", "samples", "shots", "merged")},
    )


def _check(given, known, prefix):
    if not isinstance(given, Mapping):
        raise ValueError(f"config field {prefix[:-1]} must be a section with {', '.join(known)}, got {given!r}")
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"unknown config field {prefix}{unknown[0]}; there are {', '.join(known)}")
    if missing := sorted(set(known) - set(given)):
        raise ValueError(f"config field {prefix}{missing[0]} is missing")
