"""Demo: a very small training, for `jaxconcepts demo`: how strongly y depends on x is one of three concepts.

Command:  python -m jaxconcepts demo --workdir=runs/demo
Time:     30 s of training on two cores that ten other programs shared; compiling took as long again or longer there.
Expected: seed 0: loss at the last position from 1.81 to 0.14 (Bayes mixture: 0.065), best-layer CD from 0.49 in the
          untrained network to 0.57, chance 0.33. Too short for concepts that must be inferred: see quickstart.py.
"""

from ml_collections import config_dict

from jaxconcepts.runs.loop import default_config


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config())
    config.task.update(num_concepts=3, dim=2, rank=2, num_pairs=8, noise=0.3, bases="given")
    config.task.masks = ((2.0, 2.0), (0.7, 0.7), (0.1, 0.1))
    config.model.update(layers=2, heads=4, width=32, qk_norm=True)
    config.init.update(weights=0.0, positions=0.5, read_in=0.2, read_out=0.0)
    config.train.update(
        steps=2000, batch_size=64, loss="log_mse", optimizer="muon", learning_rate=1e-2, warmup_steps=50,
        schedule="linear", b2=0.99, clip_norm=1.0,
    )  # fmt: skip
    config.measure.update(count=31, spacing="linear", per_concept=128, hidden_count=11)
    config.run.checkpoint_seconds = 10.0
    return config
