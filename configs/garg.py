"""Sparse linear regression as Garg et al. (arXiv 2208.01066) train it: a fresh support of 3 in 20 dimensions.

The curriculum grows the dimensions from 5 to 20, one more every 2 000 steps, and the pairs from 11 to 41, two more.

Command:  python -m jaxconcepts train --config=configs/garg.py --workdir=runs/garg
Time:     we have not run it to its end (500 000 steps of the paper-sized model on 82 tokens).
Expected: the loss by position follows Lasso rather than ridge (there is one concept, so no CD to speak of).
"""

from ml_collections import config_dict

from jaxconcepts.runs.loop import default_config


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config())
    config.task.update(num_concepts=1, dim=20, rank=3, num_pairs=41, bases="random_support", noise=0.0)
    config.curriculum.update(
        dim_start=5.0, dim_increment=1.0, dim_interval=2000.0, pairs_start=11.0, pairs_increment=2.0,
        pairs_interval=2000.0,
    )  # fmt: skip
    config.train.update(steps=500_000, batch_size=64, b2=0.999)
    config.measure.update(per_concept=1000)
    return config
