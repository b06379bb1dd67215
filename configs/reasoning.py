"""A language model learns to solve grade-school problems with a known graph, and is judged step by step.

Command:  python -m jaxconcepts train --config=configs/reasoning.py:cpu --workdir=runs/reasoning_one
          python -m jaxconcepts sweep --config=configs/reasoning.py:cpu --workdir=runs/reasoning
          (one seed; then three with the verdicts of the claims, for: python -m jaxconcepts report)
Sizes:    smoke, cpu (3 layers of 64, 1 to 3 operations), small and paper after the colon.
Time:     cpu took 36 minutes for three seeds on one shared core, with about 6 GB of memory, by
          reading all held-out problems at once. In parts, as now, a process that reads those of one seed has 1.1 GB at
          most (5.9 at once), measured with 3 000 training problems. The compiler plans .26 GB beside the data for
          measuring three seeds (compiled, not run).
Expected: .95 of the problems of trained lengths are solved (.89 to .98 by seed), none of more operations, whose answers
          are right in .35 (5 operations; the most common answer in .21). docs/reasoning.md has all.
"""

from ml_collections import config_dict

from jaxconcepts.experiments.reasoning_sizes import fields_of
from jaxconcepts.figures.claims import Arm, Claim, Quantity
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Space, product

SOURCE = "arXiv 2407.20311"


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("reasoning"))
    config.num_seeds = 3
    config.update_from_flattened_dict(fields_of(size))
    return config


def get_sweep() -> Space:
    return product(**{"task.retry": [0.0]})


def get_claims() -> list[Claim]:
    arms = {"task.retry": 0.0}

    def claim(name, statement, quantity, against, others, unit, hazards="", **expected):
        both = (Arm("model", arms), Arm(others, arms)) if isinstance(against, Quantity) else (Arm("model", arms),)
        versus = {"against": against} if isinstance(against, Quantity) else {"reference": against}
        return Claim(name, statement, quantity, both, unit=unit, source=SOURCE, hazards=hazards, **versus, **expected)

    hardest, trained = {"label": "hardest"}, {"label": "trained"}
    dep = [Quantity(f"probe{kind}_mcc", {"label": "dep"}, reduce="max") for kind in ("", "_untrained")]
    log_prob = Quantity("foresee_log_prob")
    rare = "a good model has few wrong steps; the table has their number"
    claims = [
        claim(
            "reasons rather than guesses", "For problems with more operations than trained, the model's answers are "
            "right more often than the most common answer", Quantity("answered", hardest), Quantity("guessed", hardest),
            "commonest answer", "share right",
        ),
        claim(
            "reasons rather than copies", "For these problems, the model is right more often than a copied answer",
            Quantity("answered", hardest), Quantity("copied", hardest), "most similar problem", "share right",
        ),
        claim(
            "learns dependencies before the question", "A probe reads dependencies before the question better from the "
            "trained model than from an untrained one", *dep, "untrained", "Matthews' correlation",
            "the best layer of each",
        ),
        claim(
            "shortest solutions", "Right solutions have fewer unneeded steps than those of a solver that computes "
            "everything it can", Quantity("unneeded", trained), Quantity("unneeded_if_all", trained), "computes all",
            "unneeded steps", expected="less",
        ),
    ]  # fmt: skip
    for label in ("can_next", "nece_next"):
        probe = Quantity("foresee", {"label": label}, reduce="max")
        claims += [
            claim(f"{label} foresees wrong steps", f"A probe of {label} at a name that the model wrote predicts "
                  "whether the step is wrong", probe, 0.5, "", "AUC", rare),
            claim(f"{label} over the model's confidence", f"A probe of {label} predicts wrong steps better than the "
                  "model's own probability of the name",
                  probe, log_prob, "log-probability", "AUC", f"the best layer; {rare}"),
        ]  # fmt: skip
    return claims
