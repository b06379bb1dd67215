"""The in-context study on a small Llama trained on the tasks themselves: no weights to download, minutes on a CPU.

Command:  python -m jaxconcepts icl_from_scratch --config=configs/icl_from_scratch.py --workdir=runs/icl_from_scratch
Time:     19 minutes on two cores of an AMD EPYC (2.4 GHz, AVX2): training 13, the study of eight checkpoints 5.
Expected: at 4 shots, accuracy of at least 0.99 on all six bit operations and CD 0.92 to 0.99; parts of speech 0.44 to
          0.90 and CD 1.00. Both rise along training, the concepts in the order of their frequency.

It is a model trained on the tasks, not a pretrained one: bit operations on two five-digit numbers, and the first word
with a part of speech (sentences of a built-in grammar), in prompts of four demonstrations whose answers all count.
"""

from ml_collections import config_dict

from jaxconcepts.studies.icl.from_scratch import default_fields


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_fields())
    config.corpus.update(prompts=60_000, shots=4, vocab_size=600, concept_ratio=1.5)
    config.model.update(layers=4, width=64, heads=4, kv_heads=4, mlp_width=192, context=256, rope_theta=100.0)
    config.train.update(steps=3000, batch_size=32, optimizer="muon", learning_rate=7e-3, warmup_steps=50)
    config.checkpoint_steps = (0, 250, 500, 750, 1000, 1500, 2000)
    config.study.update(shots=(1, 2, 4), variants=("plain",), prompts=300, keep_hidden=60)
    return config
