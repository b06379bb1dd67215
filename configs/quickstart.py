"""Quickstart."""

import importlib.util
import pathlib

_spec = importlib.util.spec_from_file_location("base", pathlib.Path(__file__).with_name("base.py"))
base = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(base)


def get_config():
    config = base.get_config()
    config.task.update(num_concepts=4, dim=8, rank=2, num_pairs=6, noise=0.2)
    config.model.update(layers=6, heads=4, width=64, qk_norm=True)
    config.init.update(weights=0.0, positions=0.5, read_in=0.2, read_out=0.02)
    config.train.update(
        steps=6000, batch_size=256, optimizer="muon", learning_rate=4e-3, warmup_steps=200, schedule="linear",
        decay_fraction=0.3, b2=0.99, clip_norm=1.0,
    )  # fmt: skip
    config.curriculum.update(concept_ratio=2.0, concept_steps=2000.0)
    config.measure.update(count=40, spacing="linear")
    return config
