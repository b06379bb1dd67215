"""Which positions let a transformer learn a grammar: rotary, relative, uniform attention, or a learned table.

Command:  python -m jaxconcepts sweep --config=configs/grammar_positions.py:cpu --workdir=runs/grammar_positions
          (then: python -m jaxconcepts report --workdir=runs/grammar_positions)
Sizes:    smoke, cpu, small and paper after the colon.
Time:     cpu took 20m29s on one core for its 20 runs, compiling included.
Expected: strings that parse .11 relative, .11 rotary, .08 uniform, .01 learned; divergence .073, .078, .087 and .112
          nats a token; all seeds with the paper's sign (cfg3f: 99 and 98 against 57 % parse). docs/grammar.md has all.
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
    config.measure.metrics = ("loss", "generation", "probe", "span", "attention")
    config.measure.update(count=2, spacing="linear")
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
            "a grammar is learned", "Probes read the ancestors (NT5) far better from a trained model's best layer than "
            "from an untrained model's", best_layer[0],
            tuple(Arm(name, arm["rotary"].where) for name in ("trained", "untrained")),
            bound=0.5, against=best_layer[1], unit="share of headroom", source="arXiv 2305.13673, section 4",
            hazards="the last tokens of a symbol are easy; all positions are asked",
        ),
        Claim(
            "rotary over learned", "Rotary positions learn the grammar better than learned positions", parses,
            (arm["rotary"], arm["learned"]), unit="share that parses", source=SOURCE, hazards=HAZARDS,
        ),
        Claim(
            "relative over learned", "Relative positions learn the grammar better than learned positions", parses,
            (arm["relative"], arm["learned"]), unit="share that parses", source=SOURCE, hazards=HAZARDS,
        ),
        Claim(
            "uniform over learned", "Uniform attention, which ignores content, beats learned positions", parses,
            (arm["uniform"], arm["learned"]), unit="share that parses", source=SOURCE, hazards=HAZARDS,
        ),
    ] + [
        Claim(
            f"{name} over learned, KL", f"The next token's distribution is nearer to the exact one with {what}",
            Quantity("kl"), (Arm(name, arm[name].where), Arm("learned", arm["learned"].where)), expected="less",
            unit="nats a token", source=SOURCE, hazards=HAZARDS,
        )
        for name, what in {"rotary": "rotary positions", "relative": "relative positions",
                           "uniform": "uniform attention"}.items()
    ] + _of_dynamic_programming(arm["rotary"])  # fmt: skip


def _of_dynamic_programming(rotary: Arm) -> list[Claim]:
    """What a model does that fills in a table of spans, of the rotary arm alone."""

    def claim(name, statement, ours, theirs, unit, hazards):
        arms = tuple(Arm(name, rotary.where) for name in ours[1:] + theirs[1:])
        return Claim(name, statement, ours[0], arms, against=theirs[0], unit=unit, hazards=hazards,
                     source="arXiv 2305.13673, section 5")  # fmt: skip

    span = Quantity("span_auc", {"label": "NT5"}, reduce="max")
    adjacent = {"label": "NT5", "position": 1}
    return [
        claim(
            "spans over position", "A probe tells whether a symbol (NT5) spans i..j better from the states at i and j "
            "than from the positions", (span, "states"), (Quantity("span_auc_position", {"label": "NT5"}), "positions"),
            "area under the curve", "the best layer is picked; an untrained model's states tell tokens apart too",
        ),
        claim(
            "spans over untrained", "Training makes spans (NT5) readable", (span, "trained"),
            (Quantity("span_auc_untrained", {"label": "NT5"}, reduce="max"), "untrained"),
            "area under the curve", "the best layer of each is picked",
        ),
        claim(
            "ends attend to ends", "The end of a symbol (NT5) attends to the end of the previous one, beyond the "
            "effect of distance and more than before training",
            (Quantity("attention_ends", adjacent, reduce="max"), "trained"),
            (Quantity("attention_ends_untrained", adjacent, reduce="max"), "untrained"),
            "attention weight", "the best layer of each is picked; what is attended is not what is used",
        ),
    ]  # fmt: skip
