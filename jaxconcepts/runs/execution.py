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
        "auto", "train the runs of a pack side by side (vmap) or one after another (map); auto decides by backend"
    )
    unroll: Literal["auto", "all", "none"] = field(
        "auto", "unroll all blocks of the model or scan over them (none); auto decides by backend"
    )
    data: int = field(1, "number of devices that share the batch of a run", low=1)
    at_once: int = field(
        0, "in a sweep, the largest number of runs in a pack; 0 for as many as the memory allows", low=0
    )
    cpu_devices: int = field(1, "on a CPU, the number of devices that it is split into", low=1, high=1024)
    checkpoint_seconds: float = field(60.0, "seconds between checkpoints", low=0)

    trackers: tuple[str, ...] = field((), "programs that also show the tables", choices=TRACKERS)

    def __post_init__(self):
        fields.check(self)
