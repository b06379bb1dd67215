"""Sizes of the experiment on biographies, for its configs: fields by dotted name, over the experiment's defaults."""

from __future__ import annotations

from functools import partial
from typing import Any

from jaxconcepts.experiments import sizes

# The values there are in arXiv 2309.14316, in English: biographies of 46 to 74 tokens.
WHOLE = {
    "task.first": 400, "task.middle": 400, "task.last": 1000, "task.years": 200, "task.months": 12, "task.days": 28,
    "task.cities": 200, "task.universities": 300, "task.majors": 100, "task.employers": 263, "task.form": "english",
    "measure.count": 11,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    # Checks the machinery; states nothing.
    "smoke": {
        "task.people": 24, "task.last": 24, "model.layers": 1, "model.heads": 2, "model.width": 16,
        "model.mlp_width": 32, "train.steps": 12, "train.batch_size": 4, "train.warmup_steps": 2, "measure.count": 3,
        "measure.per_concept": 12, "measure.cd_per_concept": 12, "measure.folds": 3, "measure.neighbours": 3,
    },
    "cpu": {},
    "small": WHOLE | {
        "task.people": 20_000, "task.window": 512, "task.passes": 5, "model.layers": 6, "model.heads": 8,
        "model.width": 512, "model.mlp_width": 2048, "train.steps": 20_000, "train.batch_size": 96,
        "train.learning_rate": 1e-3, "measure.per_concept": 1000,
    },
    # Physics of Language Models, part 3.1: GPT2-small, AdamW, 80 000 steps of 96 windows of 512 tokens.
    "paper": WHOLE | {
        "task.people": 100_000, "task.window": 512, "task.passes": 5, "task.tuning_rate": 0.3,
        "task.embedding_rank": 128, "model.layers": 12, "model.heads": 12, "model.width": 768, "model.mlp_width": 3072,
        "model.rotary_fraction": 0.25, "model.dtype": "bfloat16", "model.remat": True, "train.steps": 80_000,
        "train.batch_size": 96, "train.learning_rate": 1e-3, "train.warmup_steps": 1000, "train.schedule": "cosine",
        "measure.per_concept": 2000,
    },
}  # fmt: skip
"""By name. "cpu" is the experiment's defaults: 240 people of one text each, one token a value, 2 layers of 64."""

fields_of = partial(sizes.of_name, SIZES)
"""The fields of a size: `sizes.of_name`."""
