"""extract: a language model's hidden states of every prompt of a file, streamed to disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxconcepts.commands import arguments, command_line
from jaxconcepts.commands.command_line import log
from jaxconcepts.fields import REQUIRED, field


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What is extracted, from what, and where to."""

    model: str = field(
        REQUIRED, "a checkpoint folder, a GGUF file, a Hugging Face repository id, or smollm2-135m", low=1
    )
    prompts: str = field(REQUIRED, 'a JSON Lines file, each line {"prompt": text, label: value, ...}', low=1)
    bos: bool = field(REQUIRED, "begin each prompt with the tokenizer's BOS token: --bos or --nobos")
    workdir: str = field(REQUIRED, "the folder for the results: a local path or gs://...", low=1)
    dtype: Literal["float32", "bfloat16"] = field("float32", "number format that the model computes in")
    attention: Literal["auto", "xla", "cudnn"] = field(
        "auto", "auto uses cudnn on an NVIDIA GPU where the result is the same, else xla"
    )
    revision: str | None = field(None, "branch, tag or commit of the Hugging Face repository", low=1)
    through: Literal["transformers"] | None = field(
        None, "transformers runs a model of any architecture with PyTorch; config.json records it"
    )
    batch_size: int = field(16, "prompts in a batch", low=1, high=65536)
    skip_missing: bool = field(False, "accept lines with a missing label (null, NaN or absent)")


def run(argv: list[str]) -> int:
    """Returns the exit code."""
    flags = arguments.parse(argv, Flags)
    from etils import epath

    from jaxconcepts.studies.extraction import study as extraction

    config = extraction.ExtractConfig(
        flags.model, flags.prompts, flags.bos, flags.dtype, flags.revision, flags.batch_size,
        attention=flags.attention, skip_missing=flags.skip_missing, through=flags.through,
    )  # fmt: skip
    workdir = epath.Path(flags.workdir)
    command_line.log_to(workdir / "log.txt")
    log.info("hidden states: %s", extraction.extract(config, workdir) / "hidden.zarr")
    return 0
