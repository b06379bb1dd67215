"""A language model reads biographies with questions about half of the people, and is asked about all of them.

Command:  python -m jaxconcepts train --config=configs/biographies.py:cpu --workdir=runs/biographies
Sizes:    smoke, cpu, small and paper after the colon.
Time:     we have not run it to its end.
Expected: see docs/biographies.md for sweeps of the same experiment.
"""

from ml_collections import config_dict

from jaxconcepts.experiments.biographies_sizes import fields_of
from jaxconcepts.runs.loop import default_config


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("biographies"))
    config.measure.metrics = ("questions", "stored", "q_probe", "p_probe", "cd")
    config.update_from_flattened_dict(fields_of(size))
    return config
