"""Is fine-tuning's gain from encoding? LoRA on the first or last ten blocks, all, or none; CD before and after.

Command:  python -m jaxconcepts finetune --config=configs/finetune.py --model=FOLDER|ID --workdir=runs/finetune
          ... --model=runs/dynamics --config.arms=first-2,last-2,none --config.synthetic.step=500 --workdir=runs/tuned
Time:     not run on a large model by us. Training reads 10 000 prompts an arm and family an epoch; measuring takes
          3 500 prompts an arm and family.
Expected: (arXiv 2412.12276, table 1, Llama-3.1-8B) first-10 raises CD from .68 to .95 (part of speech, layer 15) and
          from .43 to .85 (bitwise, layer 13), and accuracy from 26 % to 69 % and 90 %; last-10 leaves CD at those
          layers as it is, which it must, and raises accuracy to 34 % and 66 %.

The paper's setting where it is given: r = 16, alpha = 16, dropout 0.1, 10 000 samples, one model a task family, loss on
the answer alone. It names neither targets, learning rate nor epochs: ours are the projections of queries and values,
2e-4 with linear decay, and two epochs of batches of 16.
"""

from ml_collections import config_dict

from jaxconcepts.studies.finetuning.study import default_fields


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_fields())
    config.arms = ("first-10", "last-10", "all", "none")
    config.tune.update(steps=1250, batch_size=16, warmup_steps=50)
    config.run.remat = True
    config.measure.update(families=("bitwise", "pos"), prompts=500, dtype="bfloat16")
    return config
