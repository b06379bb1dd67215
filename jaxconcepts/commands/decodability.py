"""decodability: CD of a label of an extraction, at every layer."""

from __future__ import annotations

from dataclasses import dataclass

from jaxconcepts.commands import arguments
from jaxconcepts.fields import REQUIRED, field


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Which stored states are scored, and by which label."""

    workdir: str = field(REQUIRED, "the workdir of `extract`", low=1)
    label: str = field(REQUIRED, "the name of a label in the prompts file", low=1)
    k: int = field(10, "number of neighbours", low=1)
    skip_missing: bool = field(False, "leave out prompts that do not have this label")


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    flags = arguments.parse(argv, Flags)
    from jaxconcepts.studies.extraction import study as extraction

    table = extraction.decodability(flags.workdir, flags.label, flags.k, flags.skip_missing)
    for row in table.iter_rows(named=True):
        print(f"layer {row['layer']:>3}  CD {row['cd']:.3f}")
    return 0
