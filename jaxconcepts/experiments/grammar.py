"""Language models on strings of a layered grammar: what one run is (arXiv 2305.13673).

A decoder is trained on the next token of windows cut from joined strings, an encoder (`model.causal = False`) on masked
tokens. Everything is measured on whole strings that are held out, against exact answers (`grammar_held_out`):

    loss        cross-entropy of the strings, what it is above the exact solution's, and the divergence from the exact
                distribution of the next token
    generation  how many strings that the model writes are in the language, from the begin and after a true prefix
    noise       the same after prefixes whose tokens are corrupted, which nobody told the model
    probe       how well each level's ancestor is read off the hidden states by ridge regression, and its ceiling
    boundary    the same for the ends of each level's symbols
    cd          Concept Decodability of the ancestors, a string's own points being left out
    span, mixing, attention, patch    whether it works like dynamic programming, see `grammar_trees`
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxconcepts.experiments import evaluators, grammar_generation, grammar_held_out, grammar_measures, grammar_trees
from jaxconcepts.experiments.tokens import MOST_TOKENS, TokenExperiment, Tokens
from jaxconcepts.field_values import SMALLEST_FLOAT
from jaxconcepts.fields import FieldError, check, field
from jaxconcepts.tasks import grammar, grammar_stream
from jaxconcepts.training.experiment import Concept, HeldOut, MeasureConfig, Named

LABELLED = ("probe", "boundary", "cd", "pairwise_cd", "untrained", "silhouette", *grammar_trees.EVALUATORS)
"""Evaluators that need the ancestors of a string to be known."""
WRITING = ("generation", "noise", "patch")
"""Evaluators that need a decoder."""

SURFACE = 8
"""Tokens back that the evaluator "surface" sees."""


@dataclass(frozen=True)
class GrammarTask:
    """The section "task" of a config. The grammar is loaded once, when a run's configuration is checked."""

    grammar: str = field(
        "cfg3b@16", "a packaged grammar or the path of a CSV; @SYMBOL after it makes this symbol the root"
    )
    window: int = field(
        128, "tokens in a training window, which may cut strings; the model's context", low=4, high=MOST_TOKENS
    )
    mask_ambiguous: bool = field(False, "leave strings with several trees out of the held-out strings")
    noise: Literal[*grammar.NOISES] = field("token", "what noise changes, see tasks.grammar.Noise")
    noise_share: float = field(0.0, "share of the training strings that noise changes", low=0, high=1)
    noise_rate: float = field(0.15, "probability that a symbol of such a string changes", low=0, high=1)
    mask_rate: float = field(0.15, "share of the tokens that an encoder must fill in", above=0, high=1)

    vocab_size = property(lambda self: self.of.vocabulary)
    length = property(lambda self: self.window)

    def __post_init__(self):
        check(self)
        shortest = self.of.min_length + 2
        if self.window < shortest:
            raise FieldError(
                "window", f"must hold the shortest string of {self.grammar}, {shortest} tokens with its begin and end, "
                f"got {self.window}",
            )  # fmt: skip

    @property
    def of(self) -> grammar.Grammar:
        """The grammar."""
        return _loaded(self.grammar, os.stat(self.grammar).st_mtime_ns if os.path.isfile(self.grammar) else 0)


@dataclass(frozen=True)
class GrammarMeasure(MeasureConfig):
    """As `MeasureConfig`, where per_concept is how many strings are held out, and cd_per_concept is not used."""

    points: int = field(2000, "largest number of positions of the held-out strings whose hidden states are read", low=2)
    folds: int = field(5, "folds of the probes; no fold splits a string", low=2)
    alpha: float = field(1.0, "ridge penalty of the probes: the weight of the squared coefficients", above=0)
    generations: int = field(128, "strings that are generated from each start", low=1)
    prefix: int = field(15, "tokens of a true string that a generation continues", low=1)
    corruption: float = field(
        0.15, "probability that a token of a corrupted prefix changes, for the metric noise; from 0 to 1"
    )
    temperatures: tuple[float, ...] = field((1.0,), "temperatures of the generation, positive")

    def __post_init__(self):
        super().__post_init__()
        check(self)
        if not 0 <= self.corruption <= 1:
            raise ValueError(f"measure.corruption must be from 0 to 1, got {self.corruption!r}")
        # In float32, where the smallest numbers are 0.
        if not self.temperatures or not all(value >= SMALLEST_FLOAT for value in self.temperatures):
            raise ValueError(f"measure.temperatures must be positive numbers, got {self.temperatures!r}")
        if len({f"{value:g}" for value in self.temperatures}) < len(self.temperatures):
            raise ValueError(
                f"measure.temperatures must differ in six digits, by which rows are named, got {self.temperatures!r}"
            )
        if self.folds > self.per_concept:
            raise ValueError(
                f"measure.folds must be at most measure.per_concept = {self.per_concept} strings, got {self.folds}"
            )


@dataclass(frozen=True)
class Grammar(TokenExperiment):
    """See the module's head."""

    TASK = GrammarTask
    MEASURE = GrammarMeasure
    NUMBERS = ("noise_share", "noise_rate")
    EVALUATORS: ClassVar[Mapping[str, Any]] = {**grammar_measures.EVALUATORS, **grammar_trees.EVALUATORS}
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "model.positions": "rotary", "init.weights": 0.0, "train.steps": 2500, "train.batch_size": 16,
        "train.optimizer": "adamw", "train.schedule": "linear", "train.learning_rate": 3e-3, "train.weight_decay": 0.1,
        "train.b2": 0.98, "train.eps": 1e-6, "train.clip_norm": 1.0, "measure.metrics": ("loss", "generation", "probe"),
        "measure.count": 6, "measure.per_concept": 64, "measure.cd_per_concept": 64,
    }  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Grammar:
        """Raises ValueError naming the field, before anything is compiled: as `TokenExperiment` does, and for
        measurements that the grammar or the model cannot have."""
        made = super().from_config(config)
        metrics, of = set(made.measuring.metrics), made.task.of
        if not made.causal and (asked := sorted(metrics & set(WRITING))):
            raise ValueError(f"measure.metrics: {asked[0]} needs a decoder, got model.causal = False")
        if metrics & {"generation", "noise"} and made.measuring.prefix >= of.min_length:
            raise ValueError(
                f"measure.prefix must be below the shortest string of {of.name}, {of.min_length} tokens, got "
                f"{made.measuring.prefix}"
            )
        if metrics & set(evaluators.OF_NEIGHBOURS) and made.measuring.neighbours >= made.measuring.points:
            raise ValueError(
                f"measure.neighbours must be below measure.points = {made.measuring.points}, got "
                f"{made.measuring.neighbours}"
            )
        if metrics & set(LABELLED):
            grammar_held_out.check_labels(of, made.task.mask_ambiguous)
        return made

    @property
    def causal(self) -> bool:
        """Whether the model is a decoder."""
        return getattr(self.model, "causal", True)

    def data(self) -> dict[str, Any]:
        settings = self.measuring
        return grammar_held_out.make(
            self.task.of, settings.per_concept, self.task.window, points=settings.points, prefix=settings.prefix,
            corruption=settings.corruption, unambiguous=self.task.mask_ambiguous,
            mask_rate=None if self.causal else self.task.mask_rate, metrics=settings.metrics,
        )  # fmt: skip

    def sample(self, task: Mapping[str, Any], data: PyTree, key, count: int) -> Tokens:
        """Windows of training strings."""
        noise = grammar.Noise(task["noise_share"], task["noise_rate"], self.task.noise)
        draw_key, mask_key = jax.random.split(key)
        tokens = grammar_stream.windows(self.task.of, draw_key, count, self.task.window, noise).tokens
        if self.causal:
            return Tokens(tokens, jnp.ones(tokens.shape))
        masked = jax.random.bernoulli(mask_key, self.task.mask_rate, tokens.shape)
        return Tokens(tokens, masked.astype(jnp.float32), jnp.where(masked, self.task.of.mask, tokens))

    def held_out(self, numbers, data) -> HeldOut:
        of, concepts = self.task.of, {}
        for level, labels in data["ancestors"].items():
            classes = len(of.levels[of.level_index(level)])
            concepts[level] = Concept(labels, classes, ("terminal",), group=data["group"])
        batch = Tokens(data["rows"], data["loss_mask"], data["masked"])
        return HeldOut(batch, concepts, data, self.measuring)

    def read(self, params: PyTree, held_out: HeldOut):
        """The states at the held-out points, the same for every concept, and `grammar_measures.Answers`."""
        whole = held_out.batch._replace(inputs=None)
        logits, captured = self.by_rows(params, whole, "all")
        layers, _, _, width = captured.shape
        states = captured.reshape(layers, -1, width)[:, held_out.exact["points"]][None]
        if not self.causal:
            logits = self.by_rows(params, held_out.batch)[0]
        starts = [start for name, start in grammar_generation.STARTS if name in self.measuring.metrics]
        written = grammar_generation.write(self, params, held_out, starts) if starts else {}
        metrics, given = self.measuring.metrics, (self, params, captured, held_out)
        residues = grammar_trees.residues(*given) if "attention" in metrics else {}
        patched = grammar_trees.patched(*given) if "patch" in metrics else None
        answers = grammar_measures.Answers(logits, written, captured, residues, patched)
        return dict.fromkeys(held_out.concepts, states), answers

    def constants(self, held_out: HeldOut, untrained) -> dict[str, Named]:
        # Nothing is asked of what an untrained model writes, so that it need not write.
        metrics = tuple(name for name in self.measuring.metrics if name not in WRITING)
        reading = replace(self, measuring=replace(self.measuring, metrics=metrics))
        return evaluators.constants(reading, held_out, untrained)

    def describe(self) -> str:
        kind = getattr(self.model, "positions", "rotary") + (" positions" if self.causal else " positions, an encoder")
        return f"{super().describe()}; {self.task.grammar} in windows of {self.task.window}, {kind}"

    def surface(self, held_out: HeldOut) -> dict[str, jax.Array]:
        """The last `SURFACE` tokens at each point, for the evaluator "surface"."""
        rows = held_out.batch.tokens
        row, place = jnp.divmod(held_out.exact["points"], rows.shape[1])
        back = place[:, None] - jnp.arange(SURFACE)
        seen = jnp.where(back >= 0, rows[row[:, None], jnp.maximum(back, 0)], -1)
        features = jax.nn.one_hot(seen, self.model.vocab_size).reshape(len(row), -1)
        return dict.fromkeys(held_out.concepts, features)


@lru_cache(maxsize=32)
def _loaded(source: str, changed: int) -> grammar.Grammar:
    """changed: when the file was, so that a new one is read."""
    try:
        return grammar.load(source)
    except (ValueError, OSError) as error:
        raise FieldError("grammar", f"cannot be read: {error}") from error
