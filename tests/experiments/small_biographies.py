"""A config of trainings on biographies that take seconds: two shares of questions, which share a program."""

from ml_collections import config_dict

from jaxconcepts.experiments.biographies_sizes import fields_of
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import product


def get_config():
    config = config_dict.ConfigDict(default_config("biographies"))
    config.update_from_flattened_dict(fields_of("smoke"))
    config.measure.metrics = ("questions", "stored", "q_probe")
    config.run.checkpoint_seconds = 0.0
    return config


def get_sweep():
    return product(**{"task.qa_share": [0.5, 0.8]})
