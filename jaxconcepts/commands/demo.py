"""demo: one minute of training that ends with a page, and what the page shows in words."""

from __future__ import annotations

from dataclasses import dataclass

from jaxconcepts.commands import arguments, train
from jaxconcepts.fields import field

BEFORE = """\
A transformer of {blocks} blocks reads pairs (x, y) whose y depends on one of {concepts} hidden concepts, and predicts
the next y. It is trained from nothing, and at every layer we measure how well the concept can be read off its hidden
states: concept decodability, CD. At chance it is {chance:.2f}.
"""
AFTER = """
What it shows: as the loss falls below that of ridge regression, which knows no concepts, CD rises above chance.
What it is too short for: {steps} steps of one seed say nothing of other seeds, of larger models or of language, and
where CD ends is below what longer training gives. `{program} train --config=quickstart --workdir=runs/first` trains
four concepts close to the Bayes mixture, in minutes.
page: {page}
"""


@dataclass(frozen=True, kw_only=True)
class Flags(arguments.WorkdirFlags):
    workdir: str = field("runs/demo", "the run directory", low=1)


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    flags, read = arguments.parse_with_config([*argv, "--config=demo"], Flags, train.config_kind, "demo")
    config = read.values
    concepts = config["task"]["num_concepts"]
    print(BEFORE.format(blocks=config["model"]["layers"], concepts=concepts, chance=1 / concepts))
    train.run(["train", *argv[1:], "--config=demo", f"--workdir={flags.workdir}"])
    from pathlib import Path

    from jaxconcepts.figures import report

    print()
    for sentence in report.sentences(flags.workdir):
        print(f"* {sentence}")
    page = (Path(flags.workdir) / "report.html").absolute()
    print(AFTER.format(steps=config["train"]["steps"], program=arguments.program(), page=page))
    return 0
