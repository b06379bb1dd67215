"""The whole course, in three seeds: the quickstart's training, longer, and measured on a log scale.

Command:  python -m jaxconcepts train --config=configs/dynamics.py --workdir=runs/dynamics
Time:     27 000 steps in all, about 44 minutes at the 97 ms a step of two quiet cores of an AMD EPYC (2.4 GHz, AVX2).
          Not run to its end by us.
Expected: (from the quickstart's runs) in every seed the loss stays near ridge's for some hundred steps, the bases split
          off one after another, CD rises from 0.25 to at least 0.9, and the loss at the last position ends within 1.2
          times the Bayes mixture's.
"""

import importlib.util
import pathlib

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
    spec = importlib.util.spec_from_file_location("quickstart", pathlib.Path(__file__).with_name("quickstart.py"))
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    config = quickstart.get_config()
    config.num_seeds = 3
    config.train.update(steps=9_000, decay_fraction=0.6)
    config.measure.update(count=60, spacing="log", checkpoint_steps=(500, 1_000, 2_000, 4_000))
    return config
