"""extract: a language model's hidden states of every prompt of a file, streamed to disk."""

from __future__ import annotations

from absl import flags

from jaxconcepts.commands import command_line
from jaxconcepts.commands.command_line import log


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    values = command_line.text_flags(
        ("model", None, "a checkpoint folder, or a Hugging Face repository id"),
        ("prompts", None, 'JSON lines: {"prompt": text, label: value, ...}'),
        ("workdir", None, "where to store, local or gs://"),
        ("dtype", "float32", "float32 or bfloat16"),
        ("attention", "auto", "xla, cudnn, or auto: cudnn on an NVIDIA GPU where it computes the same"),
        ("revision", None, "branch, tag or commit of the repository"),
        required=["model", "prompts", "workdir"],
    )
    flags.DEFINE_bool("bos", None, "begin each prompt with the tokenizer's BOS?", required=True, flag_values=values)
    flags.DEFINE_integer("batch_size", 16, "prompts a batch", flag_values=values)
    flags.DEFINE_bool("skip_missing", False, "labels may be missing in some lines", flag_values=values)
    command_line.parse(argv, values)

    from etils import epath

    from jaxconcepts.studies.extraction import study as extraction

    config = extraction.ExtractConfig(
        values.model, values.prompts, values.bos, values.dtype, values.revision, values.batch_size,
        attention=values.attention, skip_missing=values.skip_missing,
    )  # fmt: skip
    workdir = epath.Path(values.workdir)
    command_line.log_to(workdir / "log.txt")
    log.info("hidden states: %s", extraction.extract(config, workdir) / "hidden.zarr")
    return 0
