"""Is an explicit latent better? The quickstart's transformer beside one whose context passes through a concept code.

Command:  python -m jaxconcepts sweep --config=configs/explicit_latent.py --workdir=runs/explicit_latent
          python -m jaxconcepts patch --workdir=runs/explicit_latent
          python -m jaxconcepts report --workdir=runs/explicit_latent
Time:     four runs of 4 000 steps, half of the quickstart's; on one core of an AMD EPYC (2.4 GHz, AVX2) 13 minutes
          (standard) and 20 (explicit) each. We ran seed 0 of both.
Expected: see Mittal et al. 2024 (arXiv 2405.19162): the explicit model is not better in distribution. Seed 0 ended at
          1.36 times the Bayes mixture's loss at the last position and CD 0.87 (standard), and at 12.0 times and CD 0.45
          (explicit), which learned the first basis better than the standard model and predicts zero for the others.

The prediction of a query depends on the examples only through model.bottleneck = 16 numbers (see models/bottleneck.py);
w has 8. Both models draw the same sequences in the same order, and share the initial weights that both have. At the x
tokens the concept cannot be read before layer 3, where the code enters, so compare CD at the y tokens there. Two other
explicit models were not better in seed 0. A code that is added before block 2 predicted zero for 2 900 steps. A code
that scales and shifts before block 2 was at 11.3 times after 1 600 steps, and had learned one basis too.
"""

import importlib.util
import pathlib

from ml_collections import config_dict

from jaxconcepts.sweeps import product


def get_config() -> config_dict.ConfigDict:
    spec = importlib.util.spec_from_file_location("quickstart", pathlib.Path(__file__).with_name("quickstart.py"))
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    config = quickstart.get_config()
    with config.unlocked():
        config.model.bottleneck = 0
    config.train.steps = 4000
    config.run.update(data=1, cpu_devices=1)
    return config


def get_sweep():
    return product(**{"model.bottleneck": [0, 16], "seed": [0, 1]})
