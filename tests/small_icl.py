"""A small in-context study for the tests of the command line: three bits, two numbers of shots, few prompts."""

from ml_collections import config_dict

from jaxconcepts.studies.icl.config import default_fields


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_fields())
    config.update(families=("bitwise",), shots=(1, 2), variants=("plain",), prompts=14, per_draw=6, draws=2, k=3)
    config.update(permutations=10, batch_size=98, multiple=128, keep_hidden=2, keep_layers=2)
    config.bitwise.update(bits=3, train=60, test=40)
    return config
