"""When do concepts emerge? Width x depth x number of concepts x overlap of their bases x seed: 6 912 runs, for a pod.

Overlap: orthogonal bases share nothing; "overlapping" ones share the more dimensions the higher their rank (two groups
of concepts, as in `overlapping.py`). Losses are read divided by the rank.

Command:  python -m jaxconcepts plan --config=configs/sweep_emergence.py --topology=v5p:4x4x4   (first: what it takes)
          python -m jaxconcepts sweep --config=configs/sweep_emergence.py --workdir=gs://BUCKET/emergence
Time:     not run by us; see `plan`.
Expected: as in arXiv 2412.12276 and its appendix: losses fall basis by basis and CD rises with them; the two groups of
          overlapping bases separate together, their members hardly.
"""

from ml_collections import config_dict

from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Space, product, zip_


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config())
    config.model.update(dtype="bfloat16")
    config.train.update(steps=40_000)
    config.measure.update(count=40, hidden_count=0, detail="summary")
    config.run.update(checkpoint_seconds=600.0)
    return config


def get_sweep() -> Space:
    concepts = zip_(
        **{
            "task.bases": ["orthogonal", "overlapping", "overlapping", "orthogonal", "overlapping", "overlapping"],
            "task.num_concepts": [4, 4, 4, 8, 8, 8],
            "task.rank": [4, 5, 6, 2, 3, 4],
        }
    )
    sizes = product(**{"model.width": [64, 128, 256], "model.layers": [4, 8, 12]})
    return sizes * concepts * product(seed=range(128))
