"""Do mistakes with their corrections in the training data make a model reason better?

Command:  python -m jaxconcepts sweep --config=configs/reasoning_retry.py:cpu --workdir=runs/reasoning_retry
          (then: python -m jaxconcepts report --workdir=runs/reasoning_retry)
Sizes:    smoke, cpu, small and paper after the colon.
Time:     about 85 minutes at cpu, on one shared core.
Expected: by the paper, better with more retries, also with the weak kind, and worse with the kind "miss". At cpu, of
          problems of trained lengths: .69 without retries, .61 with rate .2, .35 with .5 (docs/reasoning.md).
"""

from ml_collections import config_dict

from jaxconcepts.experiments.reasoning_sizes import fields_of
from jaxconcepts.figures.claims import Arm, Claim, Quantity
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Space, zip_

ARMS = {
    "no retries": (0.0, "uncomputable"), "rate .2": (0.2, "uncomputable"), "rate .5": (0.5, "uncomputable"),
    "weak": (0.2, "weak"), "miss": (0.2, "miss"),
}  # fmt: skip
SOURCE = "arXiv 2408.16293 (operations 23, clean 76.8 %; rates .2 and .5 of solutions 91.6 and 93.6 %; miss 61 %)"


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("reasoning"))
    config.num_seeds = 5
    config.measure.metrics = ("loss", "accuracy", "solving")
    config.measure.count = 4
    config.update_from_flattened_dict(fields_of(size))
    if size == "cpu":  # A quarter of what `reasoning.py` trains, for 25 runs.
        config.train.steps = 2000
    # Wrong names make solutions longer.
    config.task.window = 2 * config.task.window
    return config


def get_sweep() -> Space:
    rates, kinds = zip(*ARMS.values(), strict=True)
    return zip_(**{"task.retry": rates, "task.retry_kind": kinds})


def get_claims() -> list[Claim]:
    hazards = "equal tokens hold fewer problems with retries; a wrong name that is taken back is not counted as wrong"
    better = {
        "rate .2": "Training on solutions with corrected mistakes (rate .2) solves more problems",
        "rate .5": "Training on many corrected mistakes (rate .5) solves more problems",
        "weak": "Names of later sentences as mistakes help too",
        "miss": "Any name that was not computed, used as a mistake, harms",
    }

    def claims(label, problems, published):
        arm = {
            name: Arm(name, {"task.retry": rate, "task.retry_kind": kind}, published.get(name))
            for name, (rate, kind) in ARMS.items()
        }
        for name, statement in better.items():
            yield Claim(
                f"{name} over no retries, {problems}", f"{statement} ({problems})",
                Quantity("solved", {"label": label}), (arm[name], arm["no retries"]),
                expected="less" if name == "miss" else "more", unit="share solved", source=SOURCE, hazards=hazards,
            )  # fmt: skip
        yield Claim(
            f"few retries in right answers, {problems}",
            f"At rate .2 a right solution takes back fewer than .3 names ({problems})",
            Quantity("retries", {"label": label}), (arm["rate .2"],), reference=0.3, expected="less", unit="names",
            source=SOURCE, hazards="of right solutions alone",
        )  # fmt: skip

    hardest = {"no retries": 0.768, "rate .2": 0.916, "rate .5": 0.936, "miss": 0.61}
    return [*claims("trained", "trained lengths", {}), *claims("hardest", "the most operations", hardest)]
