"""A config of grammar runs that take seconds: two shares of noise, which is a number, so that they share a program."""

from ml_collections import config_dict

from jaxconcepts.figures.claims import Arm, Claim, Quantity
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import product


def get_config():
    config = config_dict.ConfigDict(default_config("grammar"))
    config.task.update(grammar="cfg3b@13", window=32)
    config.model.update(layers=1, heads=1, width=8, mlp_width=16)
    config.train.update(steps=12, batch_size=4)
    config.measure.update(
        metrics=("loss", "generation", "noise", "probe", "boundary"), count=3, spacing="linear", per_concept=12,
        cd_per_concept=12, points=60, prefix=3, generations=4, neighbours=3,
    )  # fmt: skip
    config.run.checkpoint_seconds = 0.0
    return config


def get_sweep():
    return product(**{"task.noise_share": [0.0, 1.0]})


def get_claims():
    arms = tuple(Arm(str(share), {"task.noise_share": share}) for share in (1.0, 0.0))
    return [Claim("noise", "Noise raises the loss", Quantity("loss"), arms)]
