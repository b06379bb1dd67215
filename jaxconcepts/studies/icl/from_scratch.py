"""Trains a small Llama from its first weights on in-context tasks in text, and saves it along the way for the study.

The checkpoints are Hugging Face folders, tokenizer included, so everything that takes a pretrained model takes them. It
is a model of the tasks: what it shows is how concepts form when nothing but the tasks is learned, not what pretraining
on text brings about.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from jaxconcepts import store
from jaxconcepts.models import llama, pretrained
from jaxconcepts.prompts import render
from jaxconcepts.prompts.family import Family
from jaxconcepts.runs import rows
from jaxconcepts.runs.pacing import Pace
from jaxconcepts.runs.preemption import PreemptedError, stop_requested
from jaxconcepts.runs.progress import Progress
from jaxconcepts.studies.icl import config as icl_config
from jaxconcepts.studies.icl import prompt_corpus
from jaxconcepts.training import language, optimizers

log = logging.getLogger("jaxconcepts")

PACK = "language_model"
ROW_STEPS = 50
"""The most steps that a row of the training loss covers."""


@dataclass(frozen=True)
class CorpusConfig:
    """What is trained on. prompts: how many different ones. shots: demonstrations in each, whose answers count too.
    variants: of the prompts, see `render.prompts`. vocab_size: of the tokenizer, at most. concept_ratio: how often each
    concept comes for once that the next does."""

    prompts: int = 40_000
    shots: int = 4
    variants: tuple[str, ...] = ("plain",)
    vocab_size: int = 600
    concept_ratio: float = 1.0

    def __post_init__(self):
        for name, least in (("prompts", 1), ("shots", 0), ("vocab_size", 257)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"corpus.{name} must be an integer of at least {least}, got {value!r}")
        if not self.concept_ratio > 0:
            raise ValueError(f"corpus.concept_ratio must be a positive number, got {self.concept_ratio!r}")
        if not self.variants or not set(self.variants) <= set(render.VARIANTS):
            raise ValueError(f"corpus.variants must be among {', '.join(render.VARIANTS)}, got {self.variants!r}")


@dataclass(frozen=True)
class FromScratchConfig:
    """A whole training. model: `LlamaConfig`'s sizes (the vocabulary is the tokenizer's). numbers: of the optimiser,
    `LanguageHParams` without the seed. checkpoint_steps: when a folder is saved; the last step is, anyway."""

    corpus: CorpusConfig
    train: language.LanguageTrainConfig
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
    """All fields of a config file at their defaults, nested: the training's sections, `study` (see `icl_config`), and
    `run`: how, not what."""
    numbers = {"learning_rate": 7e-3, "weight_decay": 0.0, "b1": 0.9, "b2": 0.99, "eps": 1e-8, "clip_norm": 1.0}
    model = {
        "width": 64,
        "layers": 4,
        "heads": 4,
        "kv_heads": 4,
        "mlp_width": 192,
        "context": 256,
        "rope_theta": 1000.0,
    }
    return {
        "seed": 0,
        "corpus": asdict(CorpusConfig()),
        "model": model,
        "train": asdict(language.LanguageTrainConfig()) | numbers,
        "checkpoint_steps": (),
        "study": icl_config.default_fields(),
        "run": {"cpu_devices": 1, "checkpoint_seconds": 60.0},
    }


def from_fields(fields: Mapping[str, Any]) -> tuple[FromScratchConfig, icl_config.IclConfig]:
    """The training and the study of nested fields, without `run`. Raises ValueError naming an unknown or bad field."""
    known = default_fields()
    known.pop("run")
    for section, accepted in [("", known)] + [(n, known[n]) for n in ("corpus", "model", "train")]:
        given = fields[section] if section else fields
        if wrong := sorted(set(given) ^ set(accepted)):
            prefix = f"{section}." if section else ""
            raise ValueError(f"unknown or missing config field {prefix}{wrong[0]}; there are {', '.join(accepted)}")
    train = dict(fields["train"])
    numbers = {name: train.pop(name) for name in language.LanguageHParams._fields if name != "seed"}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ValueError(f"train.{name} must be a number of at least 0, got {value!r}")
    training = FromScratchConfig(
        CorpusConfig(**{n: tuple(v) if isinstance(v, list) else v for n, v in fields["corpus"].items()}),
        language.LanguageTrainConfig(**train),
        fields["model"], numbers, fields["seed"], tuple(fields["checkpoint_steps"]),
    )  # fmt: skip
    return training, icl_config.from_fields(fields["study"])


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


def train(
    config: FromScratchConfig,
    families: Sequence[Family],
    run: store.Run,
    template: render.Template | None = None,
    checkpoint_seconds: float = 60.0,
) -> dict[int, Path]:
    """Trains, or goes on where a training in the run directory was stopped; returns the saved folders by step.

    run: the open run directory. The tokenizer goes to `tokenizer/` in it, the folders to `models/step_<step>/`, and the
    training loss to its tables.

    Raises ValueError for a run directory that is not local, fewer prompts than a batch and prompts that do not fit the
    context; PreemptedError after SIGTERM or SIGINT, with everything done so far checkpointed.
    """
    template = render.Template() if template is None else template
    if "://" in str(run.workdir):
        raise ValueError(f"workdir must be a local folder, for checkpoint folders are written to it; got {run.workdir}")
    workdir = Path(run.workdir)
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
    tokenizer = prompt_corpus.train_tokenizer(
        [prompt.whole for prompt in prompts[:4000]], config.corpus.vocab_size, workdir / "tokenizer"
    )
    model = make_model(config, len(tokenizer))
    data = prompt_corpus.examples(tokenizer, prompts, template, model.context)
    log.info(
        "%d prompts of up to %d tokens, %d parameters, vocabulary of %d",
        len(prompts), data.tokens.shape[1], model.num_params(), model.vocab_size,
    )  # fmt: skip
    saved: dict[int, Path] = {}
    for step, params in _states(config, model, jax.tree.map(jnp.asarray, data), run, checkpoint_seconds):
        saved[step] = folder = workdir / "models" / f"step_{step:06d}"
        if not folder.exists():
            save_folder(model, params, workdir / "tokenizer", folder)
    return saved


def save_folder(model, params, tokenizer: Path, folder: Path) -> None:
    """A checkpoint folder with its tokenizer; appears whole (temporary name, then rename)."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    pretrained.save_pretrained(model, params, partial)
    for path in tokenizer.iterdir():
        shutil.copy(path, partial / path.name)
    partial.rename(folder)


def _states(config, model, data, run: store.Run, checkpoint_seconds: float) -> Iterator[tuple[int, Any]]:
    """(step, parameters) at each saved step, trained on the way or read back."""
    numbers = optimizers.OptimizerNumbers(**{name: np.float32(value) for name, value in config.numbers.items()})
    hparams = language.LanguageHParams(np.uint32(config.seed), numbers)
    training = language.make_train(model, config.train)
    init, chunk = jax.jit(training.init), jax.jit(training.chunk, donate_argnums=0)
    like = jax.eval_shape(init, hparams)
    step, state = run.restore(PACK, like)
    fresh = state is None
    for earlier in config.saved_steps:
        if earlier < step or (earlier == step and not fresh):
            yield earlier, store.load_checkpoint(run.workdir, PACK, earlier, like).params
    if fresh:
        state = init(hparams)
        _write_status(run, config, 0, "running")
        run.save(PACK, 0, state)
        if 0 in config.saved_steps:
            yield 0, state.params
    progress = Progress(log, config.train.steps, step, 1)
    pace, last = Pace(step), time.monotonic()
    losses: list[pl.DataFrame] = []
    with stop_requested() as signals:
        while step < config.train.steps:
            row = step - step % ROW_STEPS
            last_row = max([s for s in config.saved_steps if s <= step] + [row])
            next_row = min([s for s in config.saved_steps if s > step] + [row + ROW_STEPS])
            stop = min(next_row, step + pace.steps)
            state, loss = chunk(state, hparams, data, np.int32(stop - step), since=np.int32(step - last_row))
            loss, step = np.asarray(loss)[None], stop
            pace.reached(step)
            pace.adapt(pace.microseconds)
            if step == next_row:
                losses.append(rows.scalars([PACK], step, "train_loss", loss))
            progress.update(step, loss, None)
            if step in config.saved_steps or signals or time.monotonic() - last >= checkpoint_seconds:
                if losses:
                    run.write_metrics(PACK, step, pl.concat(losses))
                run.save(PACK, step, state)
                losses, last = [], time.monotonic()
                pace.reached(step)  # Writing is not training.
                if int(state.diverged_at) >= 0:
                    _write_status(run, config, step, "diverged", int(state.diverged_at))
                    raise ValueError(
                        f"training diverged at step {int(state.diverged_at)}; lower train.learning_rate, which is "
                        f"{config.numbers['learning_rate']}"
                    )
            if signals and step < config.train.steps:
                raise PreemptedError(f"stopped by a signal at step {step}; start again to go on")
            if step in config.saved_steps:
                yield step, state.params
    _write_status(run, config, step, "done")


def _write_status(run: store.Run, config: FromScratchConfig, step: int, status: str, diverged_at=None) -> None:
    row = {
        "run": PACK, "point": PACK, "status": status, "seed": config.seed, "step": step, "diverged_at": diverged_at,
        "model": json.dumps(dict(config.model)), "train.steps": config.train.steps,
    }  # fmt: skip
    run.write_runs(PACK, pl.DataFrame([row], schema_overrides={"diverged_at": pl.Int64}))
