"""Does Concept Decodability predict in-context accuracy? The paper's two families of tasks on any supported checkpoint.

Command:  python -m jaxconcepts icl --config=configs/icl.py --model=FOLDER|ID --workdir=runs/icl
          python -m jaxconcepts icl --config=configs/icl.py --checkpoints=1000=ID@REVISION,... --workdir=runs/series
Time:     30 cells of 3 500 prompts; each says its prompts per second and the time left. Fewer: --config.shots=4,
          --config.prompts=200, --config.variants=plain.
Expected: for Llama-3.1-8B, 4 shots (read off the paper's figure 4): accuracy 16 to 37 % and CD .53 to .85 by part of
          speech, 2 to 49 % and .24 to .59 by bitwise operation; R² of accuracy against CD .78 and .53. We have run
          SmolLM2-135M only: docs/real_models.md.

--config.families=facts,fact_pairs asks about public facts: backwards, by parity with and without the number written
first, and in comparisons (`prompts/facts.py`).

Each family x shots x variant is a cell, which is stored once it is measured. A stopped study continues with the same
command. For a base model that was trained without a beginning-of-sequence token, set bos to False. For models with
billions of parameters, set dtype to "bfloat16".
"""

from ml_collections import config_dict

from jaxconcepts.studies.icl.config import default_fields


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_fields())
    config.update(families=("bitwise", "pos"), shots=(1, 2, 4, 8, 10), variants=("plain", "rule", "name"))
    config.update(prompts=500, per_draw=100, draws=10, k=10, batch_size=32, multiple=32)
    config.pos.corpus = ""  # a treebank's file; "" for sentences of the built-in grammar
    return config
