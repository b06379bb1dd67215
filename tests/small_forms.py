"""Fields and flags by which commands take a few steps on a few numbers."""

from pathlib import Path

TRAINING = {
    "num_seeds": 1, "train.steps": 2, "train.batch_size": 4, "train.warmup_steps": 0, "train.optimizer": "adam",
    "model.heads": 1, "task.num_pairs": 2, "measure.count": 2, "measure.per_concept": 8, "measure.cd_per_concept": 8,
    "measure.neighbours": 3, "measure.hidden_count": 1, "measure.checkpoint_steps": "", "run.data": 1,
    "run.cpu_devices": 1,
}  # fmt: skip
SIZES = {"model.layers": 1, "model.width": 4}


def changes(changed):
    """Fields as flags."""
    return [f"--config.{name}={value}" for name, value in changed.items()]


ASKING = {
    "prompts": 16, "per_draw": 8, "draws": 2, "k": 2, "permutations": 2, "batch_size": 16, "multiple": 16,
}  # fmt: skip
TASKS = {"families": "bitwise", "bitwise.bits": 2, "bitwise.train": 60, "bitwise.test": 40}
TUNING = {"samples": 12, "tune.steps": 2, "tune.batch_size": 6, "tune.warmup_steps": 0, "lora.rank": 2}
GRAMMAR = {
    "num_seeds": 1, "task.grammar": "cfg3b@13", "task.window": 24, "model.layers": 1, "model.heads": 1,
    "model.width": 8, "model.mlp_width": 8, "train.steps": 2, "train.batch_size": 2, "measure.count": 2,
    "measure.per_concept": 8, "measure.cd_per_concept": 8, "measure.neighbours": 3, "measure.points": 40,
    "measure.generations": 2, "measure.prefix": 3,
}  # fmt: skip
REASONING = {
    "num_seeds": 1, "task.problems": 300, "train.steps": 2, "train.batch_size": 2, "train.warmup_steps": 0,
    "measure.count": 2, "measure.per_concept": 12,
}  # fmt: skip
BIOGRAPHIES = {"num_seeds": 1, "train.steps": 4, "train.batch_size": 2, "train.warmup_steps": 0, "measure.count": 2}
PREFIXED = {name: {f"{name}.{key}": value for key, value in ASKING.items()} for name in ("measure", "study")}
# Fields that make a config small, given after those of the documented command.
SMALL = {
    **dict.fromkeys(("quickstart", "paper", "six_bases", "overlapping", "families"), TRAINING | SIZES),
    "dynamics": TRAINING | SIZES | {"model.layers": 2},  # Its first two blocks are tuned.
    "garg": TRAINING | SIZES,
    **dict.fromkeys(("grammar", "grammar_positions", "grammar_noise", "grammar_encoder"), GRAMMAR),
    "reasoning": REASONING,
    **dict.fromkeys(("reasoning_depth", "reasoning_retry"), REASONING | {"measure.metrics": "loss,solving"}),
    **dict.fromkeys(
        ("biographies", "biographies_regimes", "biographies_reversal", "biographies_capacity"), BIOGRAPHIES
    ),
    "explicit_latent": TRAINING | {"model.layers": 2, "model.width": 4},
    "sweep_small": TRAINING | SIZES | {"run.at_once": 2, "run.how": "map", "task.num_pairs": 6},
    "sweep_emergence": TRAINING | {"measure.hidden_count": 0, "run.at_once": 1},
    "my_config": {"train.steps": 2},
    "icl": ASKING | TASKS | {"shots": 1, "variants": "plain", "keep_hidden": 4},
    "icl_from_scratch": PREFIXED["study"] | {f"study.{name}": value for name, value in TASKS.items()} | {
        "study.shots": 1, "study.keep_hidden": 0, "corpus.prompts": 60, "corpus.shots": 1, "corpus.vocab_size": 270,
        "model.layers": 2, "model.width": 8, "model.heads": 2, "model.kv_heads": 2, "model.mlp_width": 16,
        "train.steps": 2, "train.batch_size": 4, "checkpoint_steps": 0,
    },
    "causal": TASKS | {
        "shots": 1, "per_replicate": 2, "replicates": 2, "for_means": 3, "develop": 2, "effects": 2, "steered": 2,
        "ablated": 2, "pairs": 2, "batch_size": 8, "scales": 2.0, "tuning.arms": "",
    },
    "finetune": TUNING | PREFIXED["measure"] | {f"measure.{name}": value for name, value in TASKS.items()} | {
        "shots": 1, "measure.shots": 1, "measure.dtype": "float32", "synthetic.step": -1, "synthetic.per_concept": 8,
    },
}  # fmt: skip
# Fields that a config needs to fit the small model, unless the documented command gives them.
FIRST = {"finetune": {"arms": "first-1,none"}}
# Values of a documented command that need more blocks than the small model's two.
FITTED = {"--config.arms=first-10,last-10": "--config.arms=first-1,last-1"}
FLAGS = {
    "demo": changes(TRAINING | SIZES | {"measure.hidden_count": 2}),
    "patch": ["--per_concept=4", "--mean_per_concept=4", "--layer=1"],
    "extract": ["--batch_size=2"],
    "decodability": ["--k=2"],
    "plan": ["--batch_size=4", "--length=16"],
}
FIRST_POINTS = ("sweep_small", "sweep_emergence")
"""Sweeps of a thousand points and more: the first two of them are run."""


def first_points(source, target):
    """Writes a config file whose sweep is the first two points of `source`'s; returns `target`."""
    cut = "_whole = get_sweep\n\n\ndef get_sweep():\n    return list(_whole())[:2]\n"
    Path(target).write_text(f"{Path(source).read_text()}\n\n{cut}")
    return target
