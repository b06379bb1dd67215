"""A series of checkpoints: folders, or revisions of a repository, each fetched for the study and evicted after it."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxconcepts import extras
from jaxconcepts.models import pretrained, safetensors_io
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.models.tokenizer import TOKENIZER_FILES

SIZES = ("vocab_size", "width", "layers", "heads", "kv_heads", "context", "dtype")


class Checkpoint(NamedTuple):
    """step: of pretraining, 0 for a single model. source: a checkpoint folder, a GGUF file, a packaged model's name, or
    a Hugging Face repository id, of which revision is a branch, tag or commit. through: "transformers" for a model that
    PyTorch is to run."""

    step: int
    source: str
    revision: str | None = None
    through: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether nothing needs to be fetched: a folder, a GGUF file or a packaged model."""
        return Path(self.source).exists() or str(self.source).lower() in pretrained.PACKAGED

    @property
    def label(self) -> str:
        """A folder's or file's name, or the repository's id and revision."""
        name = Path(self.source).name if Path(self.source).exists() else str(self.source)
        name = f"{name}@{self.revision}" if self.revision else name
        return f"{name} through {self.through}" if self.through else name

    def described(self, model: Decoder) -> dict[str, Any]:
        """A row of a study's table of models: which checkpoint it is, and what its config.json says of its sizes."""
        sizes = {"model_type": model.MODEL_TYPE} | {name: getattr(model, name) for name in SIZES}
        return sizes | {"checkpoint": self.label, "step": self.step, "parameters": model.num_params()}


def series(text: str) -> list[Checkpoint]:
    """The checkpoints that a text names: STEP=SOURCE[@REVISION],...; SOURCE@step{0,512,...}, revisions by their step;
    or a folder of folders step_000500 and so on. A Pythia goes by its name alone: pythia-160m@step{0,512}.

    Raises ValueError for anything else.
    """
    folder = Path(text)
    if folder.is_dir():
        steps = {int(m[1]): path for path in folder.iterdir() if (m := re.fullmatch(r"step[_-]?(\d+)", path.name))}
        if not steps:
            raise ValueError(f"checkpoints: {folder} holds no folder named step_<number>")
        return [Checkpoint(step, str(steps[step])) for step in sorted(steps)]
    if match := re.fullmatch(r"([^@={},]+)@([^{},]*)\{(\d+(?:,\d+)*)\}([^{},]*)", text.strip()):
        source, before, steps, after = match.groups()
        source = f"EleutherAI/{source}" if source.startswith("pythia-") else source
        return [Checkpoint(int(step), source, f"{before}{step}{after}") for step in steps.split(",")]
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)=([^@=]+)(?:@(.+))?", part.strip())
        if not match:
            raise ValueError(
                "checkpoints must be STEP=SOURCE[@REVISION],..., SOURCE@step{0,512,...} or a folder of step_<number>; "
                f"got {part!r}"
            )
        found.append(Checkpoint(int(match[1]), match[2], match[3]))
    return found


def check_series(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """By step. Raises ValueError where there is none, two at one step, or one that is no folder and no repository."""
    ordered = sorted((Checkpoint(*checkpoint) for checkpoint in checkpoints), key=lambda c: c.step)
    if not ordered:
        raise ValueError("checkpoints must name at least one, got none")
    for checkpoint in ordered:
        if not checkpoint.is_here and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(checkpoint.source)):
            raise ValueError(
                f"{str(checkpoint.source)!r} is neither a folder nor a GGUF file, a repository id (owner/name) or one "
                f"of {', '.join(pretrained.PACKAGED)}"
            )
    for first, second in zip(ordered, ordered[1:], strict=False):
        if first.step == second.step:
            raise ValueError(
                f"checkpoints must have distinct steps, got {first.label} and {second.label} at step {first.step}"
            )
    return ordered


@contextlib.contextmanager
def fetched(checkpoint: Checkpoint, cache: Path, evict: bool) -> Iterator[Path]:
    """The checkpoint's folder, while it is needed.

    A folder is used where it lies, and so is a repository that the machine's own cache holds whole. What else is
    fetched goes into the folder `cache` of this study if it is to be evicted, which deletes that folder alone, and into
    the machine's cache if not.
    """
    if not evict or checkpoint.is_here:
        yield pretrained.resolve(checkpoint.source, checkpoint.revision)
        return
    if (here := _cached(checkpoint)) is not None:
        yield here
        return
    try:
        yield pretrained.resolve(checkpoint.source, checkpoint.revision, cache)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _cached(checkpoint: Checkpoint) -> Path | None:
    """Where the machine's own cache holds the whole checkpoint, None where it does not."""
    hub = extras.load("huggingface_hub", "hf", f"reading the repository {checkpoint.source}")
    try:
        folder = Path(hub.snapshot_download(checkpoint.source, revision=checkpoint.revision, local_files_only=True))
    except Exception:  # The library has a different error for each way in which it is not there.
        return None
    index = folder / "model.safetensors.index.json"
    weights = set(safetensors_io.weight_map(index).values()) if index.exists() else {"model.safetensors"}
    whole = all((folder / name).exists() for name in {"config.json", *weights})
    return folder if whole and any((folder / name).exists() for name in TOKENIZER_FILES) else None
