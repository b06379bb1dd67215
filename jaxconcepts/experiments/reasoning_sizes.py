"""Sizes of the reasoning experiments, for their configs: fields by dotted name, over the experiment's defaults."""

from __future__ import annotations

from functools import partial
from typing import Any

from jaxconcepts.experiments import sizes

SIZES: dict[str, dict[str, Any]] = {
    # Checks the machinery; states nothing.
    "smoke": {
        "task.modulus": 5, "task.operations": (1, 2), "task.max_instances": 4, "task.depths": (2, 2),
        "task.widths": (2, 2), "task.beyond": 1, "task.problems": 500, "task.window": 64, "model.layers": 2,
        "model.heads": 2, "model.width": 16, "model.mlp_width": 32, "train.steps": 12, "train.batch_size": 4,
        "train.warmup_steps": 2, "measure.count": 3, "measure.per_concept": 30, "measure.probed": 100,
        "measure.fewest": 2, "measure.asked": 4,
    },
    "cpu": {
        "task.modulus": 5, "task.operations": (1, 3), "task.max_instances": 5, "task.depths": (2, 2),
        "task.widths": (2, 3), "task.window": 80, "task.problems": 300_000, "model.layers": 3, "model.width": 64,
        "model.mlp_width": 256, "train.steps": 8000, "train.batch_size": 16, "measure.count": 3,
    },
    "small": {
        "task.modulus": 23, "task.operations": (1, 10), "task.max_instances": 12, "task.operation_draw": "smaller",
        "task.problems": 4_000_000, "task.window": 512, "model.layers": 6, "model.heads": 8, "model.width": 256,
        "model.mlp_width": 1024, "train.steps": 40_000, "train.batch_size": 64, "train.learning_rate": 1e-3,
        "train.warmup_steps": 1000,
    },
    # Ye et al. 2024, iGSM-med: GPT2-small with rotary positions, AdamW, 100 000 steps of 512 rows of 768 tokens.
    "paper": {
        "task.form": "english", "task.modulus": 23, "task.operations": (1, 15), "task.max_instances": 20,
        "task.operation_draw": "smaller", "task.split": "train", "task.beyond": 8, "task.problems": 20_000_000,
        "task.window": 1536, "task.loss_on": "all", "model.layers": 12, "model.heads": 12, "model.width": 768,
        "model.mlp_width": 3072, "model.dtype": "bfloat16", "model.remat": True, "train.steps": 100_000,
        "train.batch_size": 256, "train.learning_rate": 2e-3, "train.warmup_steps": 1000,
        "measure.metrics": ("loss", "accuracy", "solving"), "measure.per_concept": 64,
    },
}  # fmt: skip
"""By name."""

fields_of = partial(sizes.of_name, SIZES)
"""The fields of a size: `sizes.of_name`."""
