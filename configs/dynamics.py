"""The whole course, in three seeds: the quickstart's training, longer, and measured on a log scale.

Command:  python -m jaxconcepts train --config=configs/dynamics.py --workdir=runs/dynamics
Time:     27 000 steps in all, on two cores of an AMD EPYC (2.4 GHz, AVX2): 44 minutes at 97 ms a step, 66 at 147; that
          machine has had both. Our run was stopped and resumed, with other work beside it.
Expected: CD at the last layer rises from 0.25 between steps 500 and 4 000, while the bases split off one after another,
          to 0.95, 0.94 and 0.93. Loss at the last position ends at 1.17, 1.18 and 1.21 times the Bayes mixture's on the
          1 000 held-out sequences, 1.14, 1.17 and 1.14 times on 40 000 fresh ones (standard error 0.007).
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
