"""A sweep that takes seconds: two groups of runs with next to nothing to learn; RATES, RANKS: its points."""

import os

from ml_collections import config_dict

from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import product


def get_config():
    config = config_dict.ConfigDict(default_config())
    config.task.update(dim=4, num_concepts=2, rank=1, num_pairs=2)
    config.model.update(layers=1, heads=1, width=4)
    config.train.update(steps=int(os.environ.get("STEPS", "12")), batch_size=4)
    config.measure.update(count=4, spacing="linear", per_concept=6, cd_per_concept=4, neighbours=3, hidden_count=0)
    config.measure.detail = "summary"
    config.run.at_once = int(os.environ.get("AT_ONCE", "4"))
    config.run.checkpoint_seconds = 0.0
    return config


def get_sweep():
    rates = [float(rate) for rate in os.environ.get("RATES", "1e-3,1e-2").split(",")]
    ranks = [int(rank) for rank in os.environ.get("RANKS", "1,2").split(",")]
    return product(**{"task.rank": ranks, "train.learning_rate": rates, "seed": [0, 1, 2]})
