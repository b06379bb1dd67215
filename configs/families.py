"""Function families as concepts: linear, sparse linear, leaky ReLU, quadratic (arXiv 2412.12276, appendix).

Command:  python -m jaxconcepts train --config=configs/families.py --workdir=runs/families
Time:     a step takes as long as in `paper.py`; we have not run it to its end.
Expected: all but quadratic are learned and share representations.
"""

from ml_collections import config_dict

from jaxconcepts.runs.loop import default_config


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config())
    config.task.update(
        num_concepts=4, bases="families", families=("linear", "sparse_linear", "leaky_relu", "quadratic")
    )
    config.num_seeds = 5
    return config
