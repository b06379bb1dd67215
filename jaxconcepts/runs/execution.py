"""The section `run` of a training's config: how it runs, not what; it may change between a run and its resumption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxconcepts import fields
from jaxconcepts.fields import field

TRACKERS = ("tensorboard", "wandb", "trackio")


@dataclass(frozen=True)
class Execution:
    """How runs are executed."""

    how: Literal["auto", "vmap", "map"] = field(
        "auto", "runs of a pack side by side (vmap), one after another (map), or by backend"
    )
    unroll: Literal["auto", "all", "none"] = field("auto", "the model's blocks unrolled, scanned, or by backend")
    data: int = field(1, "devices that each run's batch is sharded over", low=1)
    at_once: int = field(0, "in a sweep, the most runs in a pack; 0 for as many as the memory allows", low=0)
    cpu_devices: int = field(1, "on a CPU, how many devices to make of it", low=1, high=1024)
    checkpoint_seconds: float = field(60.0, "seconds between checkpoints", low=0)

    trackers: tuple[str, ...] = field((), "programs that show what is written", choices=TRACKERS)

    def __post_init__(self):
        fields.check(self)
