"""Does noise in the training strings make a language model robust to corrupted prefixes?

Command:  python -m jaxconcepts sweep --config=configs/grammar_noise.py:cpu --workdir=runs/grammar_noise
          (then: python -m jaxconcepts report --workdir=runs/grammar_noise)
Sizes:    smoke, cpu, small and paper after the colon.
Time:     cpu took 18m52s for its 15 runs on one shared core (12 minutes of CPU time).
Expected: by the paper, robustness from a tenth of noisy strings on, at little cost. At cpu it is not so: corrupted
          prefixes are completed in .16 of cases without noise and in .09 with a tenth of it (docs/grammar.md).
"""

from ml_collections import config_dict

from jaxconcepts.experiments.grammar_sizes import fields_of
from jaxconcepts.figures.claims import Arm, Claim, Quantity
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Space, product

SOURCE = "arXiv 2305.13673, section 6, second-hand"


def get_config(size: str = "cpu") -> config_dict.ConfigDict:
    config = config_dict.ConfigDict(default_config("grammar"))
    config.num_seeds = 5
    config.measure.metrics = ("loss", "generation", "noise")
    config.measure.temperatures = (1.0, 0.2)
    config.measure.count = 4
    config.update_from_flattened_dict(fields_of(size))
    return config


def get_sweep() -> Space:
    return product(**{"task.noise_share": [0.0, 0.1, 1.0]})


def get_claims() -> list[Claim]:
    arms = {share: Arm(f"{share:g} of strings noisy", {"task.noise_share": share}) for share in (0.0, 0.1, 1.0)}
    claims = []
    for temperature in ("", " at 0.2"):
        claims += [
            Claim(
                f"noise makes robust{temperature}", "After training with a tenth of noisy strings, a model continues "
                "more corrupted prefixes in a way that some true prefix completes to a string",
                Quantity("parses", {"label": f"corrupted{temperature}"}), (arms[0.1], arms[0.0]),
                unit="share that parses", source=SOURCE,
                hazards="a completion is right if any prefix of the same length fits it",
            ),
            Claim(
                f"noise costs little{temperature}", "A model trained with a tenth of noisy strings completes true "
                "prefixes equally well", Quantity("parses", {"label": f"prefix{temperature}"}),
                (arms[0.1], arms[0.0]), expected="within", bound=0.02, unit="share that parses", source=SOURCE,
                hazards="at temperature 1 a model trained with noise also writes noise",
            ),
        ]  # fmt: skip
    return claims
