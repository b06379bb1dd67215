"""patch: what changing the encoded concept does to the runs of a training workdir, at every checkpoint kept."""

from __future__ import annotations

import re

from absl import flags

from jaxconcepts.commands import command_line


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    values = command_line.workdir_flag()
    flags.DEFINE_list(
        "run", [], "runs, or the beginnings of their names (seed0,seed1); all if none", flag_values=values
    )
    flags.DEFINE_list("step", [], "steps with a checkpoint; all if none", flag_values=values)
    flags.DEFINE_list("layer", [], "layers to patch, 0 for the embeddings; all if none", flag_values=values)
    flags.DEFINE_list("head", [], "heads to ablate as BLOCK.HEAD, blocks from 1, heads from 0", flag_values=values)
    for name, default, text in (
        ("per_concept", 100, "sequences of each concept that are patched"),
        ("mean_per_concept", 500, "other sequences of each concept, behind the mean states"),
        ("seed", 0, "of the sequences and of the random directions"),
        ("cells_at_once", 0, "patched copies side by side; 0: by backend"),
    ):
        flags.DEFINE_integer(name, default, text, flag_values=values)
    command_line.parse(argv, values)
    heads = [re.fullmatch(r"(\d+)\.(\d+)", text) for text in values.head]
    if None in heads:
        raise ValueError(f"--head must be BLOCK.HEAD, e.g. 1.0, got {values.head[heads.index(None)]!r}")

    from etils import epath

    from jaxconcepts.figures.report import write_report
    from jaxconcepts.store import files
    from jaxconcepts.studies.patching import runs as patching_runs
    from jaxconcepts.studies.patching import study as patching

    config = patching.PatchConfig(
        per_concept=values.per_concept,
        mean_per_concept=values.mean_per_concept,
        seed=values.seed,
        layers=_numbers("layer", values.layer),
        heads=tuple((int(found[1]), int(found[2])) for found in heads),
        cells_at_once=values.cells_at_once,
    )
    workdir = epath.Path(values.workdir)
    files.existing_run(workdir)
    command_line.log_to(workdir / "log.txt")
    patching_runs.patch_runs(workdir, config, values.run, _numbers("step", values.step))
    command_line.log.info("report: %s", write_report(workdir))
    return 0


def _numbers(name: str, texts: list[str]) -> tuple[int, ...]:
    if wrong := [text for text in texts if not text.isdecimal()]:
        raise ValueError(f"--{name} must be numbers separated by commas, got {wrong[0]!r}")
    return tuple(map(int, texts))
