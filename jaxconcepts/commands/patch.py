"""patch: what changing the encoded concept does to the runs of a training workdir, at every checkpoint kept."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jaxconcepts.commands import arguments, command_line
from jaxconcepts.fields import field


@dataclass(frozen=True, kw_only=True)
class Flags(arguments.WorkdirFlags):
    """Which runs are patched, at which steps and heads."""

    run: tuple[str, ...] = field(
        (), "runs to patch, by the beginning of their names (seed0,seed1); all if empty", low=1
    )
    step: tuple[int, ...] = field((), "steps that have a checkpoint; all if empty", low=0)
    layer: tuple[int, ...] = field((), "layers to patch, 0 for the embeddings; all if empty", low=0)
    head: tuple[str, ...] = field(
        (), "heads to ablate as BLOCK.HEAD, with blocks from 1 and heads from 0; all if empty", low=1
    )
    per_concept: int = field(100, "sequences of each concept that are patched", low=2, high=1_000_000)
    mean_per_concept: int = field(500, "other sequences of each concept, for the mean states", low=1, high=1_000_000)
    seed: int = field(0, "seed of the sequences and of the random directions", low=0)
    cells_at_once: int = field(
        0, "patched copies that are computed side by side; 0 for the default of the backend", low=0
    )


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    flags = arguments.parse(argv, Flags)
    heads = [re.fullmatch(r"(\d{1,6})\.(\d{1,6})", text, re.ASCII) for text in flags.head]
    if None in heads:
        raise ValueError(f"--head must be BLOCK.HEAD, e.g. 1.0, got {flags.head[heads.index(None)]!r}")

    from etils import epath

    from jaxconcepts.figures.report import write_report
    from jaxconcepts.store import files
    from jaxconcepts.studies.patching import runs as patching_runs
    from jaxconcepts.studies.patching import study as patching

    config = patching.PatchConfig(
        per_concept=flags.per_concept,
        mean_per_concept=flags.mean_per_concept,
        seed=flags.seed,
        layers=flags.layer,
        heads=tuple((int(head[1]), int(head[2])) for head in heads),
        cells_at_once=flags.cells_at_once,
    )
    workdir = epath.Path(flags.workdir)
    files.existing_run(workdir)
    command_line.log_to(workdir / "log.txt")
    patching_runs.patch_runs(workdir, config, flags.run, flags.step)
    command_line.log.info("report: %s", write_report(workdir))
    return 0
