"""A language model learns to solve grade-school problems with a known graph, and is judged step by step.

Command:  python -m jaxconcepts train --config=configs/reasoning.py:cpu --workdir=runs/reasoning
Sizes:    smoke, cpu, small and paper behind the colon.
"""

from ml_collections import config_dict

from jaxconcepts.experiments.reasoning_sizes import fields_of
from jaxconcepts.runs.loop import default_config


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("reasoning"))
    config.update_from_flattened_dict(fields_of(size))
    return config
