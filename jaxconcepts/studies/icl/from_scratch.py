"""Trains a small Llama from its first weights on in-context tasks in text, and saves it along the way for the study.

The checkpoints are Hugging Face folders, tokenizer included, so everything that takes a pretrained model takes them. It
is a model of the tasks: what it shows is how concepts form when nothing but the tasks is learned, not what pretraining
on text brings about.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxconcepts import fields as typed
from jaxconcepts import store
from jaxconcepts.experiments import prompt_corpus
from jaxconcepts.experiments.language import Bank, Language
from jaxconcepts.experiments.tokens import Numbers
from jaxconcepts.fields import FieldError, field, section
from jaxconcepts.models import gpt2, llama, pretrained
from jaxconcepts.prompts import render
from jaxconcepts.prompts.family import Family
from jaxconcepts.runs import loop, packs
from jaxconcepts.runs.points import Point
from jaxconcepts.studies.icl import config as icl_config
from jaxconcepts.sweeps import sizing, trained
from jaxconcepts.training import optimizers
from jaxconcepts.training.answer_loss import Examples
from jaxconcepts.training.experiment import MeasureConfig
from jaxconcepts.training.train import TrainConfig

log = logging.getLogger("jaxconcepts")

PACK = "language_model"


@dataclass(frozen=True)
class CorpusConfig:
    """What is trained on."""

    prompts: int = field(40_000, "number of different prompts", low=1, high=icl_config.MANY)
    shots: int = field(4, "demonstrations in each prompt; their answers carry loss too", low=0, high=10_000)
    variants: tuple[str, ...] = field(("plain",), "variants of the prompts", choices=render.VARIANTS)
    vocab_size: int = field(600, "largest number of tokens of the tokenizer", low=257, high=1_000_000)
    concept_ratio: float = field(1.0, "how many times as frequent each concept is as the next", above=0)

    def __post_init__(self):
        typed.check(self)
        icl_config.check_names("variants", self.variants)


@dataclass(frozen=True)
class ModelFields:
    """Sizes of the Llama; its vocabulary is the tokenizer's."""

    width: int = field(64, "width of the residual stream", low=1, high=65536)
    layers: int = field(4, "number of blocks", low=1, high=1024)
    heads: int = field(4, "attention heads in a block", low=1, high=1024)
    kv_heads: int = field(4, "heads of keys and values in a block", low=1, high=1024)
    mlp_width: int = field(192, "hidden width of the feed-forward part", low=1, high=1_000_000)
    context: int = field(256, "tokens in the longest prompt", low=1, high=1_000_000)
    rope_theta: float = field(1000.0, "base of the rotary frequencies", above=0)

    def __post_init__(self):
        typed.check(self)
        if self.width % self.heads:
            raise FieldError("heads", f"must divide width = {self.width}, got {self.heads}")
        if self.heads % self.kv_heads:
            raise FieldError("kv_heads", f"must divide heads = {self.heads}, got {self.kv_heads}")
        if self.width // self.heads % 2:
            raise FieldError("width", f"must be an even number of times heads = {self.heads}, got {self.width}")


@dataclass(frozen=True)
class TrainFields:
    """How it is trained."""

    steps: int = field(1000, "number of steps", low=1)
    batch_size: int = field(32, "prompts in a batch", low=1, high=1_000_000)
    optimizer: str = field("muon", "optimiser", choices=optimizers.OPTIMIZERS)
    schedule: str = field("linear", "schedule of the learning rate", choices=optimizers.SCHEDULES)
    warmup_steps: int = field(0, "steps of linear warm-up", low=0)
    decay_fraction: float = field(
        1.0, "share of the steps, at the end, in which the learning rate falls", above=0, high=1
    )
    learning_rate: float = field(7e-3, "learning rate at the peak of the schedule", low=0)
    weight_decay: float = field(0.0, "weight decay of all parameters", low=0)
    b1: float = field(0.9, "decay rate of the first moment", low=0, below=1)
    b2: float = field(0.99, "decay rate of the second moment", low=0, below=1)
    eps: float = field(1e-8, "epsilon, added to the root of the second moment", low=0)
    clip_norm: float = field(1.0, "largest norm of the whole gradient", above=0, infinite=True)

    def __post_init__(self):
        typed.check(self)


@dataclass(frozen=True)
class RunFields:
    """How, not what."""

    cpu_devices: int = field(1, "on a CPU, the number of devices that it is split into", low=1, high=1024)
    checkpoint_seconds: float = field(60.0, "seconds between checkpoints", low=0)

    def __post_init__(self):
        typed.check(self)


@dataclass(frozen=True)
class FromScratchFields:
    """What a config file has: the training's sections, the study, and how it runs."""

    seed: int = field(0, "seed of weights, data and prompts", low=0, high=2**32 - 1)
    corpus: CorpusConfig = section(CorpusConfig)
    model: ModelFields = section(ModelFields)
    train: TrainFields = section(TrainFields)
    checkpoint_steps: tuple[int, ...] = field(
        (), "steps at which a checkpoint folder is saved; the last step always is", low=0
    )
    study: icl_config.IclConfig = section(icl_config.IclConfig)
    run: RunFields = section(RunFields)

    def __post_init__(self):
        typed.check(self)
        if outside := [step for step in self.checkpoint_steps if step > self.train.steps]:
            raise FieldError("checkpoint_steps", f"must be at most train.steps = {self.train.steps}, got {outside[0]}")


@dataclass(frozen=True)
class FromScratchConfig:
    """A whole training. model: `LlamaConfig`'s sizes (the vocabulary is the tokenizer's). numbers: of the optimiser,
    `OptimizerNumbers`' names. checkpoint_steps: when a folder is saved; the last step is, anyway."""

    corpus: CorpusConfig
    train: TrainConfig
    model: Mapping[str, Any]
    numbers: Mapping[str, float]
    seed: int = 0
    checkpoint_steps: tuple[int, ...] = ()

    def __post_init__(self):
        outside = [s for s in self.checkpoint_steps if not isinstance(s, int) or not 0 <= s <= self.train.steps]
        if outside:
            raise ValueError(f"checkpoint_steps must be integers from 0 to train.steps = {self.train.steps}: {outside}")
        make_model(self, self.corpus.vocab_size)

    @property
    def saved_steps(self) -> list[int]:
        return sorted({*self.checkpoint_steps, self.train.steps})


def default_fields() -> dict[str, Any]:
    """All fields of a config file at their defaults, nested."""
    return typed.defaults(FromScratchFields)


def from_fields(fields: Mapping[str, Any] | FromScratchFields) -> tuple[FromScratchConfig, icl_config.IclConfig]:
    """The training and the study of nested fields. Raises FieldError naming an unknown or bad field."""
    read = typed.read(FromScratchFields, fields) if isinstance(fields, Mapping) else fields
    numbers = {name: getattr(read.train, name) for name in optimizers.OptimizerNumbers._fields}
    training = FromScratchConfig(
        read.corpus, typed.part(read.train, TrainConfig), vars(read.model), numbers, read.seed,
        read.checkpoint_steps,
    )  # fmt: skip
    return training, read.study


def make_model(config: FromScratchConfig, vocab_size: int) -> llama.LlamaConfig:
    """The model that is trained. Raises ValueError naming a size that it does not have or that does not fit."""
    sizes = dict(config.model)
    known = ("width", "layers", "heads", "kv_heads", "mlp_width", "context", "rope_theta")
    if wrong := sorted(set(sizes) ^ set(known)):
        raise ValueError(f"model must have the fields {', '.join(known)}; unknown or missing: {', '.join(wrong)}")
    if not isinstance(sizes["heads"], int) or sizes["heads"] < 1 or sizes["width"] % sizes["heads"]:
        raise ValueError(f"model.heads must divide model.width = {sizes['width']}, got {sizes['heads']!r}")
    head_dim = sizes["width"] // sizes["heads"]
    if head_dim % 2:
        raise ValueError(f"model.width / model.heads must be even for rotary positions, got {head_dim}")
    return llama.LlamaConfig(vocab_size=vocab_size, head_dim=head_dim, rope_scaling=None, tied=True, **sizes)


class Prepared(NamedTuple):
    """What is trained, on what: made and checked before anything is written."""

    tokenizer: Any
    model: llama.LlamaConfig
    point: Point


def prepare(config: FromScratchConfig, families: Sequence[Family], template: render.Template | None = None) -> Prepared:
    """Draws the prompts and trains the tokenizer, the same at every call.

    Raises ValueError for fewer prompts than a batch, prompts that do not fit the context, and a model that does not fit
    the device's memory.
    """
    template = render.Template() if template is None else template
    log.info("drawing %d prompts and training the tokenizer", config.corpus.prompts)
    prompts = prompt_corpus.draw(
        families, config.corpus.shots, config.corpus.prompts,
        seed=config.seed, variants=config.corpus.variants, template=template,
        concept_ratio=config.corpus.concept_ratio,
    )  # fmt: skip
    if len(prompts) < config.train.batch_size:
        raise ValueError(
            f"corpus.prompts must be at least train.batch_size = {config.train.batch_size} shared out among concepts "
            f"and variants, got {len(prompts)}"
        )
    tokenizer = prompt_corpus.train_tokenizer([prompt.whole for prompt in prompts[:4000]], config.corpus.vocab_size)
    model = make_model(config, len(tokenizer))
    data = prompt_corpus.examples(tokenizer, prompts, template, model.context)
    log.info(
        "%d prompts of up to %d tokens, %d parameters, vocabulary of %d",
        len(prompts), data.tokens.shape[1], model.num_params(), model.vocab_size,
    )  # fmt: skip
    point = _point(config, model, data)
    sizing.check_fits([point], packs.Layout())
    return Prepared(tokenizer, model, point)


def train(
    config: FromScratchConfig, prepared: Prepared, run: store.Run, checkpoint_seconds: float = 60.0
) -> dict[int, Path]:
    """Trains, or goes on where a training in the run directory was stopped; returns the saved folders by step.

    prepared: of `prepare`. run: the open run directory. The tokenizer goes to `tokenizer/` in it, the folders to
    `models/step_<step>/`, and the training loss to its tables.

    Raises ValueError for a run directory that is not local and a training that diverged; PreemptedError after SIGTERM
    or SIGINT, with everything done so far checkpointed.
    """
    check_local(run.workdir)
    workdir, (tokenizer, model, point) = Path(run.workdir), prepared
    tokenizer.save_pretrained(workdir / "tokenizer")
    loop.run_pack(PACK, [point], run, packs.Layout(), checkpoint_seconds)
    pack = trained.Trained(PACK, (point,), tuple(config.saved_steps))
    ((diverged_at,),) = store.runs(workdir).filter(run=point.run).select("diverged_at").rows()
    if diverged_at is not None:
        rate = config.numbers["learning_rate"]
        raise ValueError(f"training diverged at step {diverged_at}; lower train.learning_rate, which is {rate}")
    saved = {step: workdir / "models" / f"step_{step:06d}" for step in config.saved_steps}
    for step, folder in saved.items():
        if not folder.exists():
            params = jax.tree.map(lambda a: a[0], trained.load_params(workdir, pack, step))
            save_folder(model, params, workdir / "tokenizer", folder)
    return saved


def check_local(workdir: str | os.PathLike[str]) -> None:
    """Raises ValueError for a bucket: Hugging Face folders are written."""
    if "://" in str(workdir):
        raise ValueError(f"workdir must be a local folder, for checkpoint folders are written to it; got {workdir}")


def _point(config: FromScratchConfig, model: llama.LlamaConfig, data: Examples) -> Point:
    """The training as a run of the experiment "language" on these examples."""
    # Nothing is measured on the way: the study asks the saved folders.
    measuring = MeasureConfig((), steps=(0,), hidden_count=0, checkpoint_steps=tuple(config.saved_steps))
    bank = Bank({"train": data, "held_out": None})
    experiment = Language(config.corpus, model, config.train, measuring, bank=bank)
    numbers = optimizers.OptimizerNumbers(**{name: np.float32(value) for name, value in config.numbers.items()})
    record = {
        "experiment": "language", "seed": config.seed, "task": typed.plain(config.corpus), "model": dict(config.model),
        "train": asdict(config.train) | dict(config.numbers),
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    return Point(record, experiment, Numbers(np.uint32(config.seed), numbers, gpt2.InitScales(), {}), digest)


def save_folder(model, params, tokenizer: Path, folder: Path) -> None:
    """A checkpoint folder with its tokenizer; appears whole (temporary name, then rename)."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    pretrained.save_pretrained(model, params, partial)
    for path in tokenizer.iterdir():
        shutil.copy(path, partial / path.name)
    partial.rename(folder)
