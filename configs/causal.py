"""Does changing the state that encodes a concept change what a language model answers? The whole causal study, one run.

Command:  python -m jaxconcepts causal --config=configs/causal.py --model=FOLDER|ID --workdir=runs/causal
Time:     for the final checkpoint of icl_from_scratch, on one core of an AMD EPYC (2.4 GHz, AVX2): 8 minutes, and 10
          for the tuning, the other core being at work too.
Expected: for this checkpoint, steering at the last token turns up to two thirds of part-of-speech answers into those of
          another concept; a random direction turns none. The own concept's mean state keeps more accuracy than the
          mean of prompts without information; both lose what the same token holds of the query. Tuning changes almost
          nothing, because the model has learned these tasks already.

The study has patches at every layer, task vectors, function vectors, steering, head ablation and interchange patching,
on both families. Then some layers are tuned, with CD by layer before and after (`configs/finetune.py` has more). Stored
results are not computed again, so a stopped study continues with the same command. For the final checkpoint of
icl_from_scratch, give its folder as --model. A model with more blocks needs other arms
(--config.tuning.arms=first-10,last-10,all,none).
"""

from ml_collections import config_dict

from jaxconcepts.studies.causal.config import default_fields


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_fields())
    config.update(shots=4, per_replicate=20, replicates=5)
    config.tuning.arms = ("first-2", "last-2", "all", "none")
    config.tuning.tune.update(steps=200, batch_size=16, warmup_steps=20, learning_rate=1e-3)
    config.tuning.measure.prompts = 200
    return config
