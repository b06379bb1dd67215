"""Does changing the state that encodes a concept change what a language model answers? The whole causal study, one run.

Command:  python -m jaxconcepts causal --config=configs/causal.py --model=FOLDER|ID --workdir=runs/causal
Time:     not measured on a quiet machine; each experiment says what is left.
Expected: with the own concept's mean state patched in, accuracy stays or rises; with the mean of prompts without
          information it falls, from some layer on; a random direction of that length does less.

Patches at every layer, task vectors, function vectors, steering, head ablation and interchange patching, on both
families. What is stored is not computed again: start again to go on. For the final checkpoint of icl_from_scratch give
its folder as --model.
"""

from ml_collections import config_dict

from jaxconcepts.studies.causal_config import default_fields


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_fields())
    config.update(shots=4, per_replicate=20, replicates=5)
    return config
