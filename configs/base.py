"""What every config starts from: the paper's main setting, and how runs are executed."""

from ml_collections import config_dict

from jaxconcepts.studies import synthetic


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(synthetic.default_config())
    # How many seeds are trained together: seed, seed + 1, ...
    config.num_seeds = 1
    # How, not what: these may change between a run and its resumption.
    config.run = config_dict.ConfigDict(
        {
            "how": "auto",  # runs of a pack side by side ("vmap") or one after another ("map")
            "data": 1,  # devices that each run's batch is sharded over
            "cpu_devices": 1,  # on a CPU, how many devices to make of it
            "checkpoint_seconds": 60.0,
        }
    )
    return config
