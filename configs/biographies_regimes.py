"""Is knowledge extracted for people about whom no question was trained on? Mixed against staged training, and encoders.

Command:  python -m jaxconcepts sweep --config=configs/biographies_regimes.py:cpu --workdir=runs/biographies_regimes
          (then: python -m jaxconcepts report --workdir=runs/biographies_regimes)
Sizes:    smoke, cpu, small and paper after the colon; claims about augmented biographies need small or paper.
Time:     cpu took 13m46s on one core of two (20 runs of 240 people).
Expected: five seeds of cpu: training questions all right; held-out ones .42 mixed, .10 staged with full tuning, .07
          with low-rank tuning, .17 by an encoder; the most common answers are right for .085 (docs/biographies.md).
"""

from ml_collections import config_dict

from jaxconcepts.experiments.biographies_sizes import fields_of
from jaxconcepts.figures.claims import Arm, Claim, Quantity
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Space

SOURCE = "arXiv 2309.14316"
MIXED = {"task.regime": "mixed", "model.causal": True, "task.variant": "single"}
LOW_RANK = MIXED | {"task.regime": "staged", "task.tuning": "low_rank"}
FULL = LOW_RANK | {"task.tuning": "full"}
ENCODER = MIXED | {"model.causal": False}
AUGMENTED = "multi5+permute"


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("biographies"))
    config.num_seeds = 5
    # What an encoder can be asked too.
    config.measure.metrics = ("questions", "q_probe")
    config.update_from_flattened_dict(fields_of(size))
    return config


def get_sweep(size: str = "cpu") -> Space:
    arms = Space([MIXED, LOW_RANK, FULL, ENCODER])
    # A small model gains nothing by several texts a person.
    return arms + Space([LOW_RANK | {"task.variant": AUGMENTED}]) if size in ("small", "paper") else arms


def get_claims() -> list[Claim]:
    exact = {side: Quantity("exact", {"token": side, "label": "extract"}) for side in ("asked", "held_out")}
    mixed, low_rank, full = (
        Arm("mixed", MIXED, 0.866), Arm("staged, low rank", LOW_RANK, 0.097), Arm("staged, full", FULL)
    )  # fmt: skip
    learned = [
        Claim(
            f"training questions, {arm.name}", f"Questions about people of training are answered ({arm.name})",
            exact["asked"], (Arm(arm.name, arm.where),), reference=0.95, unit="whole answers right", source=SOURCE,
        )
        for arm in (mixed, low_rank, full)
    ]  # fmt: skip
    generalises = [
        Claim(
            f"mixed over {arm.name}", "After mixed training a model answers questions about held-out people better "
            f"than after staged training ({arm.name})",
            exact["held_out"], (mixed, arm), unit="whole answers right", source=f"{SOURCE}, bioS single",
            hazards="the best constant answer is not 0; training questions must be answered in both",
        )
        for arm in (low_rank, full)
    ]  # fmt: skip
    majority = Quantity("majority", {"label": "extract"}, at=0)
    constant = [
        Claim(
            f"{arm.name} no better than a constant", "After staged training a model answers questions about held-out "
            f"people no better than the most common answer ({arm.name})", exact["held_out"],
            (Arm(arm.name, arm.where, arm.published), Arm("commonest answer", arm.where)), expected="within",
            bound=0.05, against=majority, unit="whole answers right", source=f"{SOURCE}, bioS single",
            hazards="in a small world with few values some of what is stored is extracted",
        )
        for arm in (low_rank, full)
    ]  # fmt: skip
    return [*learned, *generalises, *constant, _encoder(exact["held_out"], mixed), *_augmented(exact["held_out"])]


def _encoder(quantity, mixed) -> Claim:
    return Claim(
        "decoder over encoder", "A decoder answers more questions about held-out people than an encoder", quantity,
        (Arm("decoder", mixed.where), Arm("encoder", ENCODER)), unit="whole answers right",
        source=f"{SOURCE}, section 6",
        hazards="no gap is expected where a value is one token and does not depend on others",
    )  # fmt: skip


def _augmented(quantity) -> list[Claim]:
    arms = tuple(
        Arm(name, LOW_RANK | {"task.variant": variant}, published)
        for name, variant, published in (("five texts", AUGMENTED, 0.966), ("one text", "single", 0.097))
    )
    claims = [
        Claim(
            "diversity decides", "After staged training a model answers more if it read several wordings and orders",
            quantity, arms, unit="whole answers right", source=SOURCE,
        )
    ]  # fmt: skip
    for metric, where, published in (
        ("q_probe", {"label": "university"}, (0.726, 0.003)),
        ("p_probe", {"label": "university", "token": "name"}, (0.760, None)),
    ):
        claims.append(
            Claim(
                f"stored at the name, {metric}", "A probe reads a fact from the name after several wordings",
                Quantity(metric, where, reduce="max"),
                tuple(Arm(arm.name, arm.where, number) for arm, number in zip(arms, published, strict=True)),
                unit="read off the best layer", source=f"{SOURCE}, figure 7",
                hazards="a probe overfits where classes are many and people few; folds split no person",
            )
        )  # fmt: skip
    return claims
