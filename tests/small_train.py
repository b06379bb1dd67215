"""A config of a training run that takes seconds: two seeds with next to nothing to learn."""

from ml_collections import config_dict

from jaxconcepts.runs.loop import default_config


def get_config():
    config = config_dict.ConfigDict(default_config())
    config.num_seeds = 2
    config.task.update(dim=4, num_concepts=2, rank=1, num_pairs=2)
    config.model.update(layers=1, heads=1, width=4)
    config.train.update(steps=24, batch_size=4)
    config.measure.update(count=5, spacing="linear", per_concept=24, cd_per_concept=24, neighbours=3, hidden_count=3)
    config.run.checkpoint_seconds = 0.0
    return config
