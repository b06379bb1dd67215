"""A language model learns a layered grammar, and is read against exact answers at every step.

Command:  python -m jaxconcepts train --config=configs/grammar.py:cpu --workdir=runs/grammar
Sizes:    smoke, cpu (3 layers of 64 on cfg3b@16), small and paper behind the colon.
Time:     not run to its end by us. A step took 26 ms of CPU (windows of 96 instead of 80; two busy cores), so that the
          1 800 of a run are under a minute of CPU; compiling takes about as long.
Expected: the exact solution's loss is 0.410 nats a token, and the probes' ceilings are 0.84, 0.93 and 0.92 (NT4 to
          NT6) on the held-out strings. No figures of a trained model are stated, for want of a whole run.
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
            "boundaries are used", "A state in which no symbol (NT4) ends, in place of one in which one does, spoils "
            "more continuations than another such end does", parses["other"], (Arm("no end"), Arm("another end")),
            expected="less", against=parses["alike"], unit="share that parses", source="arXiv 2305.13673, section 5",
            hazards="the worst layer of each is picked; a state brings what it holds of the symbols before it, too",
        )
    ]  # fmt: skip
