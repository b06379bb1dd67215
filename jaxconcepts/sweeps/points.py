"""Points of a sweep: one run's full configuration, its name, and the group that it is compiled with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxconcepts.studies import synthetic
from jaxconcepts.training.train import HParams


@dataclass(frozen=True)
class Point:
    """One run. config: its full configuration. hash: of that configuration. run: its name in every table."""

    config: Mapping[str, Any]
    static: synthetic.Static
    hparams: HParams
    hash: str

    @property
    def run(self) -> str:
        return f"seed{self.config['seed']}-{self.hash[:8]}"

    def hyper_parameters(self) -> dict[str, Any]:
        """Every field by dotted name, for the runs table; sequences as JSON text."""
        flat = {}
        for section, part in self.config.items():
            if isinstance(part, Mapping):
                flat |= {f"{section}.{name}": value for name, value in part.items()}
        return {name: json.dumps(v) if isinstance(v, list | tuple) else v for name, v in flat.items()}


def make_point(config: Mapping[str, Any]) -> Point:
    """Checks a run's configuration and names it. Raises ValueError as `synthetic.parse` does."""
    static, hparams = synthetic.parse(config)
    canonical = json.dumps(config, sort_keys=True, default=list)
    return Point(config, static, hparams, hashlib.sha256(canonical.encode()).hexdigest())


def group(points: Sequence[Point]) -> list[list[Point]]:
    """The points by static part, in order of first appearance: one compilation a group."""
    groups: dict[synthetic.Static, list[Point]] = {}
    for point in points:
        groups.setdefault(point.static, []).append(point)
    return list(groups.values())
