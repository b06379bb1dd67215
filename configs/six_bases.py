"""Six orthogonal bases of four dimensions in 24, three times the paper's steps (arXiv 2412.12276, appendix).

Command:  python -m jaxconcepts train --config=configs/six_bases.py --workdir=runs/six_bases
Time:     about four times `paper.py` (three times the steps, six concepts to measure); we have not run it to its end.
Expected: the bases split off one after another.
"""

from ml_collections import config_dict

from jaxconcepts.runs.loop import default_config


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config())
    config.task.update(num_concepts=6, dim=24, rank=4)
    config.train.steps = 240_000
    config.num_seeds = 5
    return config
