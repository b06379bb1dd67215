"""Questions that a model fails although it knows the facts: reversed ones, and parity without writing the month first.

Command:  python -m jaxconcepts sweep --config=configs/biographies_reversal.py:cpu --workdir=runs/biographies_reversal
          (then: python -m jaxconcepts report --workdir=runs/biographies_reversal)
Sizes:    smoke, cpu, small and paper after the colon.
Time:     cpu took 19 minutes on one shared core (10 runs of 240 people; 8 minutes of CPU time).
Expected: facts of held-out people are stored (recall .95) and no reversed question about them is answered. Parity is
          answered in .65 at once and in .60 with the month written first (docs/biographies.md).
"""

from ml_collections import config_dict

from jaxconcepts.experiments.biographies_sizes import fields_of
from jaxconcepts.figures.claims import Arm, Claim, Quantity
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Space, product

SOURCE = "arXiv 2309.14402"
FORWARD, REVERSED = {"task.variant": "single"}, {"task.variant": "reverse"}


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("biographies"))
    config.num_seeds = 5
    # Comparisons need more people than a small world has.
    config.task.kinds = ("extract", "classify", "reverse") + (("compare",) if size in ("small", "paper") else ())
    config.task.update(hint_share=0.5, window=40)
    config.measure.metrics = ("questions", "hinted", "stored", "q_probe")
    config.update_from_flattened_dict(fields_of(size))
    return config


def get_sweep() -> Space:
    return product(**{"task.variant": ["single", "reverse"]})


def get_claims() -> list[Claim]:
    def held_out(metric, label):
        return Quantity(metric, {"token": "held_out", "label": label})

    name_first, name_last = Arm("name first", FORWARD, 0.0), Arm("name last", REVERSED)
    with_hint, without = Arm("month said first", FORWARD, 0.942), Arm("asked at once", FORWARD, 0.803)
    parity = "classify:birth_month:2"
    return [
        Claim(
            "the facts are stored", "A model continues the biographies of held-out people with the right values",
            Quantity("recall", {"token": "held_out"}), (Arm("name first", FORWARD),), reference=0.9,
            unit="value tokens right", source=SOURCE,
        ),
        Claim(
            "no reversal", "A model that has read names first cannot give the name of held-out people from their "
            "facts", held_out("exact", "reverse"), (name_first,), expected="within", bound=0.05,
            unit="whole names right", source=SOURCE, hazards="chance is 1 over the number of people",
        ),
        Claim(
            "reversal is trained", "A model that has read the name last gives more names from facts",
            held_out("exact", "reverse"), (name_last, name_first), unit="whole names right", source=SOURCE,
        ),
        Claim(
            "no parity without saying", "The parity of the month of birth is answered better if the month is written "
            "first", held_out("answer", f"{parity} hint"), (with_hint, without),
            against=held_out("exact", parity), unit="answers right", source=SOURCE,
            hazards="more people close the gap (95 % without a hint at 50 000); chance is a half",
        ),
        Claim(
            "parity unsaid is a guess", "Without writing the month, the parity of a held-out person's month is a guess",
            held_out("exact", parity), (without,), reference=0.5, expected="within", bound=0.1, unit="answers right",
            source=SOURCE,
        ),
        Claim(
            "comparison needs saying", "Which person was born in a later month is answered better if both months are "
            "written first", held_out("answer", "compare:birth_month hint"), (with_hint, without),
            against=held_out("exact", "compare:birth_month"), unit="answers right", source=SOURCE,
        ),
        Claim(
            "the month can be read off", "A probe reads the month of birth from the state after the name far above "
            "chance, although its parity is not answered", Quantity("q_probe", {"label": "birth_month"}, reduce="max"),
            (Arm("name first", FORWARD),), reference=1 / 12, unit="read off the best layer", source=SOURCE,
        ),
    ]  # fmt: skip
