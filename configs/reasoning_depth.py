"""Does depth help reasoning, at equal size, and against layers of four times the size?

Command:  python -m jaxconcepts sweep --config=configs/reasoning_depth.py:cpu --workdir=runs/reasoning_depth
          (then: python -m jaxconcepts report --workdir=runs/reasoning_depth)
Sizes:    smoke, cpu, small and paper after the colon. All arms have the size's learning rate; tune it for each on
          another seed first (--config.seed=100 --config.num_seeds=1 --config.train.learning_rate=...).
Time:     about 45 minutes at cpu, on one shared core.
Expected: by the paper, the deep and narrow model above the shallow and wide one of the same size, and above the shallow
          one of twice the width. At cpu, of problems of trained lengths: .28 deep, .41 shallow, .26 twice as wide; no
          claim is shown (docs/reasoning.md).
"""

from ml_collections import config_dict

from jaxconcepts.experiments.reasoning_sizes import fields_of
from jaxconcepts.figures.claims import Arm, Claim, Quantity
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Space, zip_

SHAPES = {"deep": (8, 48), "shallow": (2, 96), "shallow and twice as wide": (2, 192)}
"""Layers and width of the arms; layers times squared width are equal, but for the last."""


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("reasoning"))
    config.num_seeds = 5
    config.measure.metrics = ("loss", "accuracy", "solving", "probe")
    config.measure.count = 4
    config.update_from_flattened_dict(fields_of(size))
    if size == "cpu":  # A quarter of what `reasoning.py` trains, for fifteen runs.
        config.train.steps = 2000
    return config


def get_sweep() -> Space:
    layers, widths = zip(*SHAPES.values(), strict=True)
    sizes = {"model.width": widths, "model.mlp_width": [4 * width for width in widths]}
    return zip_(**{"model.layers": layers, "model.heads": [4] * len(SHAPES)}, **sizes)


def get_claims() -> list[Claim]:
    def claim(label, problems, other, widths):
        arms = [
            Arm(name, {"model.layers": SHAPES[name][0], "model.width": SHAPES[name][1]}) for name in ("deep", other)
        ]
        statement = f"A deeper model solves more problems of {problems} than {widths}"
        return Claim(
            f"deep over {other}, {problems}", statement, Quantity("solved", {"label": label}), tuple(arms),
            unit="share solved", source="arXiv 2407.20311, section 6 (16 layers of 576 above 4 layers of 1920)",
            hazards="one learning rate for all shapes; a deep net may fail to be optimised",
        )  # fmt: skip

    others = {
        "shallow": "a shallow one of equal size",
        "shallow and twice as wide": "a shallow one of four times the size",
    }
    return [
        claim(label, problems, *other)
        for label, problems in (("trained", "trained lengths"), ("hardest", "the most operations"))
        for other in others.items()
    ]
