"""Decoder against encoder: how deep in the tree can ancestors be read off, where training fills in masked tokens?

Command:  python -m jaxconcepts sweep --config=configs/grammar_encoder.py:cpu --workdir=runs/grammar_encoder
          (then: python -m jaxconcepts report --workdir=runs/grammar_encoder)
Sizes:    smoke, cpu (cfg3b@20, one level deeper than the others), small and paper after the colon.
Time:     cpu took 18m34s for its 10 runs as two shards on two cores (30 minutes of CPU time).
Expected: by the paper, the encoder below the decoder at the upper levels alone. At cpu it is below at every level that
          is learned: headroom of NT6 .45 against .84, of NT5 .19 against .60 (docs/grammar.md).
"""

from ml_collections import config_dict

from jaxconcepts.experiments.grammar_sizes import fields_of
from jaxconcepts.figures.claims import Arm, Claim, Quantity
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Space, product

SOURCE = "arXiv 2305.13673 (cfg3f: NT2 93.5 against 77.5 %, NT6 100 and 100 %; a probe that looks to both sides)"


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("grammar"))
    config.num_seeds = 5
    config.measure.metrics = ("loss", "probe")
    config.measure.count = 4
    config.update_from_flattened_dict(fields_of(size))
    if size == "cpu":
        # Deeper by one level than that of the other configs: the upper levels are where they differ.
        config.task.update(grammar="cfg3b@20", window=256)
    return config


def get_sweep() -> Space:
    return product(**{"model.causal": [True, False]})


def get_claims() -> list[Claim]:
    def claim(level, statement, **expected):
        return Claim(
            f"decoder and encoder at {level}", statement, Quantity("headroom", {"label": level}, reduce="max"),
            (Arm("decoder", {"model.causal": True}), Arm("encoder", {"model.causal": False})),
            unit="share of headroom", source=SOURCE,
            hazards="the encoder sees the whole string, so that its ceiling is 1; each is compared with its ceiling",
            **expected,
        )  # fmt: skip

    deep = "Relative to what can be known, a decoder encodes more of the upper ancestors than an encoder"
    return [
        claim("NT4", deep),
        claim("NT6", "Both encode the lowest ancestors equally well", expected="within", bound=0.05),
    ]
