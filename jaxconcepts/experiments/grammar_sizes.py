"""Sizes of the grammar experiments, for their configs: fields by dotted name, over the experiment's defaults."""

from __future__ import annotations

from functools import partial
from typing import Any

from jaxconcepts.experiments import sizes

SIZES: dict[str, dict[str, Any]] = {
    # Checks the machinery; states nothing.
    "smoke": {
        "task.window": 80, "model.layers": 2, "model.heads": 2, "model.width": 16, "model.mlp_width": 32,
        "train.steps": 12, "train.batch_size": 4, "measure.count": 3, "measure.per_concept": 12,
        "measure.cd_per_concept": 12, "measure.points": 200, "measure.generations": 8,
    },
    # Two cores train a run in minutes.
    "cpu": {"task.window": 80, "model.layers": 3, "train.batch_size": 8, "train.steps": 1800},
    "small": {
        "task.grammar": "cfg3b", "task.window": 512, "model.layers": 6, "model.heads": 8, "model.width": 256,
        "model.mlp_width": 1024, "train.steps": 10_000, "train.batch_size": 32, "train.learning_rate": 1e-3,
        "measure.count": 11, "measure.prefix": 50, "measure.generations": 256,
    },
    # Physics of Language Models, part 1: GPT2-small, AdamW, 100 000 steps of 96 windows of 512 tokens.
    "paper": {
        "task.grammar": "cfg3f", "task.window": 512, "task.mask_ambiguous": True, "model.layers": 12,
        "model.heads": 12, "model.width": 768, "model.mlp_width": 3072, "model.rotary_fraction": 0.25,
        "model.dtype": "bfloat16", "model.remat": True, "train.steps": 100_000, "train.batch_size": 96,
        "train.learning_rate": 3e-4, "measure.count": 11, "measure.prefix": 50, "measure.points": 4000,
        "measure.generations": 1000,
    },
}  # fmt: skip
"""By name. "cpu" is cfg3b@16, 3 layers of 64, 1 800 steps of 8 windows of 80 tokens."""

fields_of = partial(sizes.of_name, SIZES)
"""The fields of a size: `sizes.of_name`."""
