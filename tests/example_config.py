"""A config of `example_experiment`: four runs, which differ in two of its numbers alone."""

from ml_collections import config_dict

from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import product


def get_config():
    config = config_dict.ConfigDict(default_config("tests/example_experiment.py:Copying"))
    config.task.update(pairs=3, vocab_size=8, shifts=2)
    config.model.update(layers=1, heads=1, width=8, mlp_width=16)
    config.train.update(steps=12, batch_size=8, optimizer="muon", learning_rate=0.01)
    config.measure.update(count=3, spacing="linear", per_concept=24, cd_per_concept=24, neighbours=3, hidden_count=2)
    config.run.checkpoint_seconds = 0.0
    return config


def get_sweep():
    return product(**{"task.noise": [0.0, 0.5], "task.skew": [0.0, 1.0]})
