"""Eight overlapping bases in 16 dimensions: B1-4 inside dimensions 1-8, B5-8 inside 9-16 (arXiv 2412.12276, appendix).

The paper gives no masks; ours are four cyclic windows of four dimensions in each half, so neighbours share two.

Command:  python -m jaxconcepts train --config=configs/overlapping.py --workdir=runs/overlapping
Time:     a step takes as long as in `paper.py`; we have not run it to its end.
Expected: the two groups separate together with one steep drop; the members of a group never do.
"""

from ml_collections import config_dict

from jaxconcepts.runs.loop import default_config


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config())
    config.task.update(num_concepts=8, dim=16, rank=4, bases="overlapping")
    config.num_seeds = 5
    return config
