"""decodability: CD of a label of an extraction, at every layer."""

from __future__ import annotations

from absl import flags

from jaxconcepts.commands import command_line


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    values = command_line.text_flags(
        ("workdir", None, "where `extract` stored"),
        ("label", None, "a label of the prompts file"),
        required=["workdir", "label"],
    )
    flags.DEFINE_integer("k", 10, "neighbours", flag_values=values)
    flags.DEFINE_bool("skip_missing", False, "leave out the prompts without that label", flag_values=values)
    command_line.parse(argv, values)
    from jaxconcepts.studies.extraction import study as extraction

    table = extraction.decodability(values.workdir, values.label, values.k, values.skip_missing)
    for row in table.iter_rows(named=True):
        print(f"layer {row['layer']:>3}  CD {row['cd']:.3f}")
    return 0
