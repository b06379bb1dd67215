"""How many bits about people does a parameter store? People by size of the model, each person read equally often.

Command:  python -m jaxconcepts sweep --config=configs/biographies_capacity.py:cpu --workdir=runs/biographies_capacity
          (then: python -m jaxconcepts report --workdir=runs/biographies_capacity)
Sizes:    smoke, cpu, small and paper after the colon.
Time:     cpu took 19 minutes on one shared core (12 models; 9 minutes of CPU time).
Expected: at most .62 bits a parameter after 100 readings (1 600 people, 32 wide), and still rising; by the paper, 1 bit
          where there is more to store.
"""

from ml_collections import config_dict

from jaxconcepts.experiments.biographies_sizes import fields_of
from jaxconcepts.figures.claims import Arm, Claim, Quantity
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Space, zip_

SOURCE = "arXiv 2404.05405"
PEOPLE = {"smoke": (24,), "cpu": (200, 400, 800, 1600), "small": (2000, 5000, 10_000, 20_000, 50_000)}
WIDTHS = {"smoke": (8, 16), "cpu": (16, 32, 64), "small": (64, 128, 256, 512)}
READINGS, BATCH = 100, 64
"""How often each biography is read, one a window."""


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("biographies"))
    config.measure.metrics = ("stored",)
    config.measure.count = 9
    # Names are combined of few parts, so that the table of tokens is small beside what is to be stored.
    config.task.update(first=20, middle=20, last=20, qa_share=0.0)
    config.update_from_flattened_dict(fields_of(size))
    config.train.batch_size = BATCH
    config.task.passes = 1  # A window has one text, and no neighbour to learn it by.
    if size in ("small", "paper"):
        config.task.window = 80  # One English text a window: they have 46 to 69 tokens.
    return config


def get_sweep(size: str = "cpu") -> Space:
    people, widths = (sizes.get(size, sizes["small"]) for sizes in (PEOPLE, WIDTHS))
    measured = [min(count // 2, 1000) for count in people]
    of_people = {
        "task.people": people, "train.steps": [count * READINGS // BATCH for count in people],
        "measure.per_concept": measured, "measure.cd_per_concept": measured,
    }  # fmt: skip
    return zip_(**of_people) * zip_(**{"model.width": widths, "model.mlp_width": [4 * width for width in widths]})


def get_claims() -> list[Claim]:
    stored = Quantity("bits_a_parameter")
    least, most = min(WIDTHS["cpu"]), max(PEOPLE["cpu"])
    full = {"task.people": most, "model.width": least}
    return [
        Claim(
            "a bit a parameter", f"After {READINGS} readings the model that has most to store ({most} people, {least} "
            "wide) stores a bit a parameter", stored, (Arm(f"{most} people", full, 1.0),), reference=1.0,
            unit="bits a parameter", source=f"{SOURCE}, 100 exposures",
            hazards="the table of tokens counts as parameters; a rate that is too low looks like little capacity",
        )
    ]  # fmt: skip
