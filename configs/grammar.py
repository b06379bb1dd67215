"""A language model learns a layered grammar, and is read against exact answers at every step.

Command:  python -m jaxconcepts train --config=configs/grammar.py:cpu --workdir=runs/grammar
Sizes:    smoke, cpu (3 layers of 64 on cfg3b@16), small and paper after the colon.
Time:     cpu took 5m55s on one core for three seeds (--config.num_seeds=3), report and compiling included.
Expected: .12 of the generated strings parse; the next-token distribution is .076 nats from the exact one (.490
          against .410 nats a token). The best layer reaches .42, .60 and .86 of the headroom (NT4 to NT6).
          docs/grammar.md has three seeds and the controls.
"""

from ml_collections import config_dict

from jaxconcepts.experiments.grammar_sizes import fields_of
from jaxconcepts.figures.claims import Arm, Claim, Quantity
from jaxconcepts.runs.loop import default_config


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("grammar"))
    config.measure.metrics = ("loss", "generation", "probe", "boundary", "cd", "span", "mixing", "attention", "patch")
    config.measure.update(count=3, spacing="linear")
    config.update_from_flattened_dict(fields_of(size))
    return config


def get_claims() -> list[Claim]:
    parses = {name: Quantity("patched_parses", {"label": name}, reduce="min") for name in ("alike", "other")}
    return [
        Claim(
            "boundaries are used", "Replacing a state where a symbol (NT4) ends by one where none ends spoils more "
            "continuations than replacing it by another such end", parses["other"], (Arm("no end"), Arm("another end")),
            expected="less", against=parses["alike"], unit="share that parses", source="arXiv 2305.13673, section 5",
            hazards="the worst layer of each is picked; a state brings what it holds of the symbols before it, too",
        )
    ]  # fmt: skip
