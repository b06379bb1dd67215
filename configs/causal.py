"""Does changing the state that encodes a concept change what a language model answers? The whole causal study, one run.

Command:  python -m jaxconcepts causal --config=configs/causal.py --model=FOLDER|ID --workdir=runs/causal
Time:     8 minutes on one core of an AMD EPYC (2.4 GHz, AVX2) for the final checkpoint of icl_from_scratch.
Expected: there, steering at the last token makes up to two thirds of part-of-speech answers those of another concept, a
          random direction none. The own concept's mean state keeps more accuracy than the mean of prompts without
          information; both lose what the same token holds of the query.

Patches at every layer, task vectors, function vectors, steering, head ablation and interchange patching, on both
families. What is stored is not computed again: start again to go on. For the final checkpoint of icl_from_scratch give
its folder as --model.
"""

from ml_collections import config_dict

from jaxconcepts.studies.causal_config import default_fields


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_fields())
    config.update(shots=4, per_replicate=20, replicates=5)
    config.tuning.arms = ("first-2", "last-2", "all", "none")
    config.tuning.tune.update(steps=200, batch_size=16, warmup_steps=20, learning_rate=1e-3)
    config.tuning.measure.prompts = 200
    return config
