"""Quickstart."""

from ml_collections import config_dict

from jaxconcepts.sweeps.execution import default_config


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config())
    config.task.update(num_concepts=4, dim=8, rank=2, num_pairs=6, noise=0.15)
    config.model.update(layers=6, heads=4, width=64, qk_norm=True)
    config.init.update(weights=0.0, positions=0.5, read_in=0.2, read_out=0.02)
    config.train.update(
        steps=6000, batch_size=256, optimizer="muon", learning_rate=7e-3, warmup_steps=200, schedule="linear",
        decay_fraction=0.3, b2=0.99, clip_norm=1.0,
    )  # fmt: skip
    config.curriculum.update(concept_ratio=2.0, concept_steps=2000.0)
    config.measure.update(count=40, spacing="linear")
    config.run.update(data=2, cpu_devices=2)
    return config
