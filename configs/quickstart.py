"""Quickstart: a small transformer learns four concepts, on a laptop's CPU, in minutes.

Command:  bash launch/quickstart.sh [DIR] [--config.seed=1 ...]
          python -m jaxconcepts train --config=configs/quickstart.py --workdir=runs/quickstart
Time:     7m45s with installing and with the report, on two cores of an AMD EPYC (Zen 5) that were partly busy; 13 to 21
          minutes on those of an older one (2.4 GHz, AVX2).
Expected: best-layer CD from chance (0.25) to 0.94 or 0.95 (seed 3: 0.83), and held-out loss at the last position from
          the level of ridge (0.40) to within 1.3 times that of the Bayes mixture (0.13); seeds 0 to 4: 1.16 to 1.22.

Four bases of two dimensions in eight, ten pairs, noise 0.3. What makes it fast, against the paper's setting: Muon,
large initial positions and QK norm; a loss in which late positions count as much as early ones; and concepts drawn
unequally often in turn, without which a model this small stays for thousands of steps at the symmetric solution, ridge.
"""

from ml_collections import config_dict

from jaxconcepts.runs.loop import default_config


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config())
    config.task.update(num_concepts=4, dim=8, rank=2, num_pairs=10, noise=0.3)
    config.model.update(layers=4, heads=4, width=64, qk_norm=True)
    config.init.update(weights=0.0, positions=0.5, read_in=0.2, read_out=0.0)
    config.train.update(
        steps=8000, batch_size=256, loss="log_mse", optimizer="muon", learning_rate=7e-3, warmup_steps=200,
        schedule="linear", b2=0.99, clip_norm=1.0,
    )  # fmt: skip
    config.curriculum.update(concept_ratio=2.0, concept_steps=2100.0)
    config.measure.update(count=41, spacing="linear")
    config.run.update(data=2, cpu_devices=2)
    return config
