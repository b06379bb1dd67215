"""demo: one minute of training, a page, and its results in words."""

from __future__ import annotations

from dataclasses import dataclass

from jaxconcepts.commands import arguments, train
from jaxconcepts.fields import field

BEFORE = """\
A transformer of {blocks} blocks reads pairs (x, y) and predicts the next y. It is trained from random weights.
Each sequence has one of {concepts} hidden concepts: how strongly y depends on x. At every layer we measure how well the
concept can be read from the hidden states. This is Concept Decodability, CD. Chance is {chance:.2f}.
"""
AFTER = """
Result: the loss at the last position went from {first_loss:.2g} to {last_loss:.2g}. The Bayes mixture has {bayes:.2g}.
CD of the best layer went from {first_cd:.2f} in the untrained network to {last_cd:.2f}. Chance is {chance:.2f}.
Limits: this concept is partly visible without learning, because large y stand out. Concepts that must be inferred form
later. {steps} steps of one seed say nothing about other seeds, larger models or language.
Next: `{program} train --config=quickstart --workdir=runs/first` trains four concepts that must be inferred, in minutes.
page: {page}
"""


@dataclass(frozen=True, kw_only=True)
class Flags(arguments.WorkdirFlags):
    """Where the demo's run goes."""

    workdir: str = field("runs/demo", "the run directory", low=1)


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    flags, read = arguments.parse_with_config([*argv, "--config=demo"], Flags, train.config_kind, "demo")
    config = read.values
    blocks, concepts = config["model"]["layers"], config["task"]["num_concepts"]
    print(BEFORE.format(blocks=blocks, concepts=concepts, chance=1 / concepts))
    train.train(read, flags.workdir)
    from pathlib import Path

    from jaxconcepts import store
    from jaxconcepts.figures import report
    from jaxconcepts.figures.tables import Study

    study = Study(store.metrics(flags.workdir), store.runs(flags.workdir), config)
    run, rank = study.names[0], study.rank(study.names[0])
    position = study.last_position(run)
    losses, cd = study.curve(run, "loss", position=position).values / rank, study.best_cd(run)[0].values
    print("\n".join(["", *(f"* {sentence}" for sentence in report.sentences(flags.workdir))]))
    print(
        AFTER.format(
            first_loss=losses[0], last_loss=losses[-1], bayes=study.level(run, "loss_bayes", position=position) / rank,
            first_cd=cd[0], last_cd=cd[-1], chance=1 / concepts, steps=config["train"]["steps"],
            program=arguments.program(), page=(Path(flags.workdir) / "report.html").absolute(),
        )
    )  # fmt: skip
    return 0
