"""A language model learns a layered grammar, and is read against exact answers at every step.

Command:  python -m jaxconcepts train --config=configs/grammar.py:cpu --workdir=runs/grammar
          (sizes: smoke, cpu, small, paper; one seed by default, more with --config.num_seeds=3)
"""

from ml_collections import config_dict

from jaxconcepts.experiments.grammar_sizes import fields_of
from jaxconcepts.runs.loop import default_config


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("grammar"))
    config.measure.metrics = ("loss", "generation", "probe", "boundary", "cd")
    config.update_from_flattened_dict(fields_of(size))
    return config
