"""What the causal study of a language model is asked to do: its experiments, and the tuning of layers beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxconcepts import fields as typed
from jaxconcepts.fields import FieldError, field, section
from jaxconcepts.studies.finetuning import config as finetuning_config
from jaxconcepts.studies.finetuning.config import FinetuneConfig
from jaxconcepts.studies.icl import config as icl_config
from jaxconcepts.studies.icl.config import MANY

EXPERIMENTS = ("patching", "task_vectors", "function_vectors", "steering", "heads", "interchange")
OF_HEADS = ("function_vectors", "heads")
"""Those that need a model with attention heads."""


@dataclass(frozen=True)
class CausalConfig(icl_config.Tasks):
    """The experiments on one checkpoint. Raises FieldError naming the field."""

    experiments: tuple[str, ...] = field(EXPERIMENTS, "the experiments to do", choices=EXPERIMENTS)
    shots: int = field(4, "demonstrations in a few-shot prompt", low=1, high=10_000)
    per_replicate: int = field(20, "test prompts of each concept in a replicate", low=1, high=MANY)
    replicates: int = field(5, "number of replicates: disjoint sets of test prompts", low=2, high=100_000)
    for_means: int = field(
        100, "prompts of each concept for the mean states; only rightly answered ones count", low=1, high=MANY
    )
    develop: int = field(20, "zero-shot prompts of each concept that a layer is chosen on", low=1, high=MANY)
    effects: int = field(
        20, "prompts of each concept, with shuffled labels, for the indirect effects of heads", low=1, high=MANY
    )
    top_heads: int = field(0, "number of heads in a function vector; 0 for a tenth of all heads, and at least 4", low=0)
    scales: tuple[float, ...] = field((0.5, 1.0, 2.0, 4.0), "factors of the steering vector")
    steered: int = field(20, "test prompts of each concept that are steered", low=1)
    ablated: int = field(50, "test prompts of each concept that are asked with a head ablated", low=1)
    pairs: int = field(8, "prompt pairs of each concept for interchange patching", low=1, high=MANY)
    batch_size: int = field(50, "prompts in a batch", low=1, high=1_000_000)
    multiple: int = field(64, "lengths of batches are rounded up to a multiple of this", low=1, high=1_000_000)

    def __post_init__(self):
        typed.check(self)
        for name in ("families", "experiments", "scales"):
            icl_config.check_names(name, getattr(self, name))
        for name in ("steered", "ablated"):
            if (value := getattr(self, name)) > self.test_prompts:
                raise FieldError(name, f"must be at most per_replicate * replicates = {self.test_prompts}, got {value}")

    @property
    def test_prompts(self) -> int:
        """Test prompts of each concept."""
        return self.per_replicate * self.replicates


@dataclass(frozen=True)
class Tuning(finetuning_config.Arms):
    """The tuning beside the experiments, on their tasks and shots. Without arms it is not done."""

    arms: tuple[str, ...] = finetuning_config.arms_field(())
    tune: finetuning_config.TuneFields = section(finetuning_config.TuneFields)
    lora: finetuning_config.LoraFields = section(finetuning_config.LoraFields)
    measure: icl_config.Measuring = section(icl_config.Measuring, variants=("plain",))
    run: finetuning_config.RunFields = section(finetuning_config.RunFields)

    def __post_init__(self):
        typed.check(self)


@dataclass(frozen=True)
class CausalFields(CausalConfig):
    """What a config file has: the experiments, and the tuning beside them."""

    tuning: Tuning = section(Tuning)


def from_fields(fields: Mapping[str, Any] | CausalFields) -> tuple[CausalConfig, FinetuneConfig | None]:
    """The config of nested fields, those left out at their defaults; and that of the tuning beside the experiments, on
    the same tasks and shots, None where it names no arms.

    Raises FieldError as `fields.read` does.
    """
    read = typed.read(CausalFields, fields) if isinstance(fields, Mapping) else fields
    config, tuning = typed.part(read, CausalConfig), read.tuning
    if not tuning.arms:
        return config, None
    tasks = {of.name: getattr(config, of.name) for of in dataclasses.fields(icl_config.Tasks)}
    arms = {of.name: getattr(tuning, of.name) for of in dataclasses.fields(finetuning_config.Arms)}
    measure = icl_config.IclConfig(shots=(config.shots,), **tasks, **vars(tuning.measure))
    try:
        tuned = finetuning_config.FinetuneFields(
            shots=config.shots, measure=measure, tune=tuning.tune, lora=tuning.lora, run=tuning.run, **arms
        )
    except FieldError as error:
        raise error.under("tuning.") from None
    return config, finetuning_config.from_fields(tuned)


def default_fields() -> dict[str, Any]:
    """All fields at their defaults, nested: what a config file starts from. "tuning" without arms is not done."""
    return typed.defaults(CausalFields)
