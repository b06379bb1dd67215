"""The one loader of tokenizers: from a checkpoint's folder or GGUF file, and never by running Python from there."""

from __future__ import annotations

from pathlib import Path

from jaxconcepts import extras
from jaxconcepts.models import gguf_file

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def load(folder: Path):
    """The tokenizer of a checkpoint folder or a GGUF file, as transformers reads it.

    Raises ValueError where the folder has none, where it cannot be read, and where it would need code of the folder.
    """
    in_file = gguf_file.is_named(folder)
    if not in_file and not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise ValueError(f"{folder} has no tokenizer: none of {', '.join(TOKENIZER_FILES)}")
    transformers = extras.load("transformers", "hf", f"reading the tokenizer of {folder}")
    options = {"gguf_file": folder.name} if in_file else {}
    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder.parent if in_file else folder, trust_remote_code=False, **options
        )
    except Exception as error:  # The library has another kind for each way in which it fails.
        reason = " ".join(str(error).split())
        raise ValueError(f"the tokenizer of {folder} cannot be read: {reason}") from error
