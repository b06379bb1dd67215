"""What the causal study of a language model is asked to do: its experiments, and the tuning of layers beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxconcepts.prompts import render
from jaxconcepts.studies.finetuning import config as finetuning_config
from jaxconcepts.studies.finetuning.config import FinetuneConfig
from jaxconcepts.studies.icl import config as icl_config

EXPERIMENTS = ("patching", "task_vectors", "function_vectors", "steering", "heads", "interchange")
# What the tuning beside the experiments takes over from them: the tasks, their splits and how prompts are written.
SHARED = ("families", "bos", "dtype", "seed", "jsonl_null", "bitwise", "pos", "template")


@dataclass(frozen=True)
class CausalConfig:
    """families: "bitwise", "pos", or the path of a JSONL file; bitwise, pos, jsonl_null: see `icl_config.IclConfig`.
    experiments: which of `EXPERIMENTS`.
    shots: demonstrations of a few-shot prompt.
    per_replicate, replicates: test prompts of each concept in each of so many disjoint sets.
    for_means: prompts of each concept, with queries of the training split, behind the mean states; those answered
        rightly count. develop: zero-shot prompts of each concept, likewise, on which a layer is chosen.
    effects: prompts with shuffled labels, of each concept, behind the heads' indirect effects. top_heads: how many
        heads make a function vector; 0 for a tenth of all, at least 4.
    scales: of steering. steered, ablated: test prompts of each concept that are steered, or asked without a head.
    pairs: prompt pairs of each concept for interchange patching.
    bos: whether prompts begin with the beginning-of-sequence token. dtype: "float32" or "bfloat16".
    batch_size, multiple: prompts a batch; what widths of batches are rounded up to.

    Raises ValueError naming the field.
    """

    families: tuple[str, ...] = ("bitwise", "pos")
    experiments: tuple[str, ...] = EXPERIMENTS
    shots: int = 4
    per_replicate: int = 20
    replicates: int = 5
    for_means: int = 100
    develop: int = 20
    effects: int = 20
    top_heads: int = 0
    scales: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    steered: int = 20
    ablated: int = 50
    pairs: int = 8
    bos: bool = True
    dtype: str = "float32"
    batch_size: int = 50
    multiple: int = 64
    seed: int = 0
    jsonl_null: str = ""
    bitwise: icl_config.BitwiseConfig = field(default_factory=icl_config.BitwiseConfig)
    pos: icl_config.PosConfig = field(default_factory=icl_config.PosConfig)
    template: render.Template = field(default_factory=render.Template)

    def __post_init__(self):
        for name in ("families", "experiments", "scales"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list | tuple) else (value,))
        least = {"seed": 0, "top_heads": 0, "shots": 1, "replicates": 2}
        for name in (
            "shots", "per_replicate", "replicates", "for_means", "develop", "effects", "top_heads", "steered",
            "ablated", "pairs", "batch_size", "multiple", "seed",
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least.get(name, 1):
                raise ValueError(f"{name} must be an integer of at least {least.get(name, 1)}, got {value!r}")
        if unknown := [name for name in self.experiments if name not in EXPERIMENTS]:
            raise ValueError(f"experiments must be among {', '.join(EXPERIMENTS)}; got {unknown[0]!r}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f'dtype must be "float32" or "bfloat16", got {self.dtype!r}')
        for name in ("steered", "ablated"):
            if getattr(self, name) > self.test_prompts:
                raise ValueError(
                    f"{name} must be at most per_replicate * replicates = {self.test_prompts}, got "
                    f"{getattr(self, name)}"
                )

    @property
    def test_prompts(self) -> int:
        """Test prompts of each concept."""
        return self.per_replicate * self.replicates


def from_fields(fields: Mapping[str, Any]) -> tuple[CausalConfig, FinetuneConfig | None]:
    """The config of nested fields, those left out at their defaults; and that of the tuning beside the experiments, on
    the same tasks and shots, None where "tuning" is left out or names no arms.

    Raises ValueError naming an unknown field.
    """
    own = {name: value for name, value in fields.items() if name != "tuning"}
    config, defaults = icl_config.read(CausalConfig, own), default_fields()
    tuning = defaults["tuning"] | fields.get("tuning", {})
    if not tuning["arms"]:
        return config, None
    if taken := [name for name in (*SHARED, "shots") if name in tuning["measure"]]:
        raise ValueError(f"tuning.measure.{taken[0]} is that of the experiments: set {taken[0]}")
    shared = {name: (defaults | own)[name] for name in SHARED}
    tuning |= {"measure": tuning["measure"] | shared | {"shots": (config.shots,)}, "shots": config.shots}
    return config, finetuning_config.from_fields(tuning | {"synthetic": finetuning_config.SYNTHETIC})


def default_fields() -> dict[str, Any]:
    """All fields at their defaults, nested: what a config file starts from. "tuning" without arms is not done."""
    tuning = finetuning_config.default_fields()
    for name in (*SHARED, "shots"):
        del tuning["measure"][name]
    del tuning["shots"], tuning["synthetic"]
    return dataclasses.asdict(CausalConfig()) | {"tuning": tuning | {"arms": ()}}
