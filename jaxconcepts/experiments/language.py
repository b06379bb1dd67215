"""A small language model trained from its first weights on in-context tasks in text, on the answers alone.

The prompts and the tokenizer are drawn from the task's fields (`prompt_corpus`), or come as a `Bank` from a study that
has made them. Measured are loss and accuracy of the answers of prompts that are not trained on, and CD of the concept
at the query's last token, before the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from jaxtyping import PyTree

from jaxconcepts.experiments import prompt_corpus
from jaxconcepts.experiments.tokens import TokenExperiment, Tokens
from jaxconcepts.fields import check, field
from jaxconcepts.models import residual
from jaxconcepts.prompts import bitwise, facts, grammar, pos, render
from jaxconcepts.training import answer_loss
from jaxconcepts.training.experiment import Concept, HeldOut

FAMILIES = ("bitwise", "pos", *facts.FAMILIES)
SENTENCES = 4000
"""Of the built-in grammar, for parts of speech."""


@dataclass(frozen=True)
class Corpus:
    """What is trained on."""

    families: tuple[str, ...] = field(("bitwise",), "families of the prompts", choices=FAMILIES)
    prompts: int = field(40_000, "number of different prompts", low=1, high=10_000_000)
    shots: int = field(4, "demonstrations in each prompt; their answers carry loss too", low=0, high=10_000)
    variants: tuple[str, ...] = field(("plain",), "variants of the prompts", choices=render.VARIANTS)
    vocab_size: int = field(600, "largest number of tokens of the tokenizer", low=257, high=1_000_000)
    concept_ratio: float = field(1.0, "how many times as frequent each concept is as the next", above=0)
    length: int = field(256, "tokens in the longest prompt with its answer", low=2, high=1_000_000)
    seed: int = field(0, "seed of the prompts", low=0, high=2**31 - 1)

    __post_init__ = check


@dataclass(frozen=True, eq=False)
class Bank:
    """Arrays that runs share, {"train": `answer_loss.Examples`, "held_out": `Tokens` with labels, or None}.

    Two banks are equal where they are the same object, so that an experiment that holds one can be hashed.
    """

    arrays: PyTree


@dataclass(frozen=True)
class Language(TokenExperiment):
    """See the module's head. bank: what is trained on, None for what the task's fields say."""

    bank: Bank | None = None

    TASK: ClassVar[type] = Corpus
    ROW_STEPS: ClassVar[int] = 50
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "model.family": "llama", "model.mlp_width": 192, "model.rope_theta": 1000.0, "train.steps": 1000,
        "train.batch_size": 32, "train.optimizer": "muon", "train.schedule": "linear", "train.learning_rate": 7e-3,
        "train.b2": 0.99, "train.clip_norm": 1.0, "measure.per_concept": 40, "measure.cd_per_concept": 40,
        "measure.count": 9, "measure.spacing": "linear",
    }  # fmt: skip

    def data(self) -> PyTree:
        return (drawn(self.task, self.measuring.per_concept) if self.bank is None else self.bank).arrays

    def batch(self, numbers, data, step) -> answer_loss.Examples:
        return answer_loss.batch_of_step(data["train"], self.train.batch_size, numbers.seed, step)

    def loss(self, params: PyTree, batch: answer_loss.Examples):
        loss = answer_loss.answer_loss(self.model, params, batch, unroll=self.unroll or residual.unrolls() or 1)
        return loss, {"train_loss": loss}

    def held_out(self, numbers, data) -> HeldOut:
        batch = data["held_out"]
        return HeldOut(batch, {} if batch is None else self.concepts(batch), {}, self.measuring)

    def concepts(self, batch: Tokens) -> dict[str, Concept]:
        labels = batch.labels
        classes = batch.tokens.shape[0] // self.measuring.per_concept
        return {"concept": Concept(labels["concept"], classes, ("query",), labels["query"][:, None])}


@cache
def drawn(task: Corpus, per_concept: int) -> Bank:
    """The prompts that the fields say, and `per_concept` others of every concept, in order. The tokenizer is trained on
    the way and not kept.

    Raises ValueError where a prompt is longer than `length`.
    """
    families, template = [_family(name, task.seed) for name in task.families], render.Template()
    prompts = prompt_corpus.draw(
        families, task.shots, task.prompts, seed=task.seed, variants=task.variants, template=template,
        concept_ratio=task.concept_ratio,
    )  # fmt: skip
    tokenizer = prompt_corpus.train_tokenizer([prompt.whole for prompt in prompts[:4000]], task.vocab_size)
    train = prompt_corpus.examples(tokenizer, prompts, template, task.length)
    asked = [
        render.prompts(family, concept, task.shots, per_concept, seed=task.seed, template=template, split="test")
        for family in families
        for concept in family.labels
    ]
    return Bank({"train": train, "held_out": _held_out(tokenizer, asked)})


def _held_out(tokenizer, asked) -> Tokens:
    rows = [(concept, prompt) for concept, prompts in enumerate(asked) for prompt in prompts]
    ids = [tokenizer(prompt.text, add_special_tokens=False)["input_ids"] for _, prompt in rows]
    whole = [tokenizer(prompt.whole, add_special_tokens=False)["input_ids"] for _, prompt in rows]
    longest = 1 + max(map(len, whole))
    tokens, mask = np.zeros((len(rows), longest), np.int32), np.zeros((len(rows), longest), np.float32)
    for row, (prompt, both) in enumerate(zip(ids, whole, strict=True)):
        tokens[row, : 1 + len(both)] = [tokenizer.bos_token_id, *both]
        mask[row, 1 + len(prompt) : 1 + len(both)] = 1
    labels = {
        "concept": np.array([concept for concept, _ in rows], np.int32),
        "query": np.array([len(prompt) for prompt in ids], np.int32),
    }
    return Tokens(tokens, mask, labels=labels)


def _family(name: str, seed: int):
    if name == "bitwise":
        return bitwise.family(seed=seed)
    if name == "pos":
        return pos.family(grammar.sentences(SENTENCES, seed), seed)
    return facts.FAMILIES[name](seed)
