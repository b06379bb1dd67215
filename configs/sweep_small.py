"""A thousand small runs over learning rate, noise, rank, number of concepts and seed.

Command:  python -m jaxconcepts sweep --config=configs/sweep_small.py --workdir=runs/sweep_small
          (then: python -m jaxconcepts report --workdir=runs/sweep_small)
          python -m jaxconcepts sweep --config=configs/sweep_small.py --search=optuna --workdir=runs/search_small
Time:     6m23s on two cores of an AMD EPYC with AVX-512: 1 050 runs of 500 steps, 12m17s of CPU time, 3 compilations,
          1.77 GB at the most. On an older one (2.4 GHz, AVX2) 12m14s. The search with --config.num_seeds=4, 96 runs:
          1m56s of CPU time.
Expected: losses of two concepts of rank 1 end below 0.5 in some seeds at rates of 3e-3 to 3e-2, where the concepts have
          been told apart; elsewhere they are near the level of ridge, and CD is near chance.
"""

from ml_collections import config_dict

from jaxconcepts.quantity import Quantity
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Search, Space, log_uniform, product, uniform, zip_


def get_config() -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config())
    config.task.update(num_concepts=2, dim=4, rank=1, num_pairs=6)
    config.model.update(layers=2, heads=2, width=16, qk_norm=True)
    config.init.update(weights=0.0, positions=0.5, read_in=0.2, read_out=0.02)
    config.train.update(
        steps=500, batch_size=32, optimizer="muon", warmup_steps=30, schedule="linear", decay_fraction=0.3, b2=0.99,
        clip_norm=1.0,
    )  # fmt: skip
    config.curriculum.update(concept_ratio=2.0, concept_steps=300.0)
    config.measure.update(
        count=11, spacing="linear", per_concept=40, cd_per_concept=40, hidden_count=0, detail="summary"
    )
    # Steps are so short that what XLA:CPU spends on each operation counts: 16 runs side by side on a core share it.
    config.run.update(cpu_devices=2, how="vmap", at_once=32)
    return config


def get_sweep() -> Space:
    concepts = zip_(**{"task.num_concepts": [2, 2, 4], "task.rank": [1, 2, 1]})
    numbers = product(
        **{
            "train.learning_rate": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
            "task.noise": [0.0, 0.05, 0.1, 0.2, 0.5],
        }
    )
    return concepts * numbers * product(seed=range(14))


def get_search() -> Search:
    """The loss that settings of training reach at the last position, all concepts together."""
    fields = {
        "train.learning_rate": log_uniform(1e-3, 1e-1),
        "init.positions": log_uniform(0.05, 5.0),
        "curriculum.concept_steps": uniform(50.0, 450.0),
    }
    return Search(fields=fields, quantity=Quantity("loss", {"concept": None, "position": 5}), points=24, round=8)
