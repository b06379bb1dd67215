"""The paper's main experiment: four orthogonal bases, the 9.49 M parameter GPT-2 (arXiv 2412.12276, section 3).

Command:  python -m jaxconcepts train --config=configs/paper.py --workdir=runs/paper
Time:     we have not run it to its end; see docs/benchmarks.md for the time of a step by device. The paper reports
          about 8 h a seed on one A100. For an accelerator: --config.model.dtype=bfloat16.
Expected: loss / r falls from 1 (zero) to ridge (0.43), then basis by basis toward the Bayes mixture (0.18); CD rises
          from 0.25 toward 1 from about layer 5 of 12. The order in which bases split off depends on the seed.
"""

from ml_collections import config_dict

from jaxconcepts.runs.loop import default_config


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config())  # the defaults are the paper's setting
    config.num_seeds = 5
    config.measure.count = 50
    config.measure.checkpoint_steps = (5_000, 10_000, 20_000, 40_000)
    return config
