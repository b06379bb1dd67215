"""Which positions let a transformer learn a grammar: rotary, relative, uniform attention, or a learned table.

Command:  python -m jaxconcepts sweep --config=configs/grammar_positions.py:cpu --workdir=runs/grammar_positions
          (then: python -m jaxconcepts report --workdir=runs/grammar_positions)
Sizes:    smoke, cpu, small and paper behind the colon.
Time:     not run to its end by us at these sizes; docs/grammar.md has a smaller run.
Expected: by the paper, rotary and relative positions above a learned table (cfg3f: 98 and 99 against 57 % of strings
          parse), and uniform attention above it too. Not measured by us at these sizes.
"""

from ml_collections import config_dict

from jaxconcepts.experiments.grammar_sizes import fields_of
from jaxconcepts.figures.claims import Arm, Claim, Quantity
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Space, product

SOURCE = "arXiv 2305.13673, figure 4 (cfg3f), second-hand"
HAZARDS = "one learning rate for all; a position kind that learns later is called worse at this number of steps"


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("grammar"))
    config.num_seeds = 5
    config.measure.metrics = ("loss", "generation", "probe")
    config.measure.count = 4
    config.update_from_flattened_dict(fields_of(size))
    return config


def get_sweep() -> Space:
    return product(**{"model.positions": ["rotary", "learned", "uniform", "relative"]})


def get_claims() -> list[Claim]:
    parses = Quantity("parses", {"label": "begin"})
    arm = {
        name: Arm(name, {"model.positions": name}, published)
        for name, published in {"rotary": 0.976, "relative": 0.988, "learned": 0.571, "uniform": None}.items()
    }
    best_layer = [Quantity(f"headroom{name}", {"label": "NT5"}, reduce="max") for name in ("", "_untrained")]
    return [
        Claim(
            "a grammar is learned", "The ancestors (NT5) are read off a trained model's best layer far better than off "
            "an untrained one's", best_layer[0], (arm["rotary"], Arm("rotary, untrained", arm["rotary"].where)),
            bound=0.5, against=best_layer[1], unit="share of headroom", source="arXiv 2305.13673, section 4",
            hazards="the last tokens of a symbol are easy; all positions are asked",
        ),
        Claim(
            "rotary over learned", "Rotary positions learn the grammar where a learned table does not", parses,
            (arm["rotary"], arm["learned"]), unit="share that parses", source=SOURCE, hazards=HAZARDS,
        ),
        Claim(
            "rotary over learned, KL", "The next token's distribution is nearer to the exact one with rotary positions",
            Quantity("kl"), (arm["rotary"], arm["learned"]), expected="less", unit="nats a token", source=SOURCE,
            hazards=HAZARDS,
        ),
        Claim(
            "relative over learned", "Relative positions learn the grammar where a learned table does not", parses,
            (arm["relative"], arm["learned"]), unit="share that parses", source=SOURCE, hazards=HAZARDS,
        ),
        Claim(
            "uniform over learned", "Uniform attention, which no content steers, beats a learned table", parses,
            (arm["uniform"], arm["learned"]), unit="share that parses", source=SOURCE, hazards=HAZARDS,
        ),
    ]  # fmt: skip
