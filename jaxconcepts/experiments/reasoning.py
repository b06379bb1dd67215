"""Language models on grade-school problems with a known graph: what one run is (arXiv 2407.20311, 2408.16293).

A decoder is trained on the next token of rows that hold whole problems with their solutions, from a bank that all runs
share (`reasoning_data`). Problems that are held out, of trained and of more operations, are solved greedily and judged
step by step by the checker, on the host.

    loss        cross-entropy of the true solutions' tokens
    accuracy    how often the most likely token of a true solution is the right one
    solving     what the model's own solutions are worth (`reasoning_written.judged`), and baselines
    probe       what is read off hidden states of the compact form: dependencies before the question, what is needed
                after it, and what is known and can be computed at each sentence (`reasoning_probes`)
    trained_probe  the same by probes that are trained through the model (`trained_probes`)
    foresee     whether a probe at a name that the model wrote foresees that this step is wrong
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxconcepts.experiments import evaluators, reasoning_data, reasoning_probes, reasoning_written, tokens
from jaxconcepts.experiments.evaluators import Evaluator
from jaxconcepts.experiments.tokens import TokenExperiment, Tokens
from jaxconcepts.fields import FieldError, check, field
from jaxconcepts.tasks import reasoning_labels, reasoning_text
from jaxconcepts.tasks.reasoning import DRAWS, RETRY_KINDS, SPLITS, ReasoningConfig, generate
from jaxconcepts.training import train
from jaxconcepts.training.experiment import HeldOut, MeasureConfig, Named

COMPACT = ("probe", "trained_probe", "foresee")
"""Evaluators that need one token a parameter."""
HAS = "trained_probe and probe read hidden states"
ASKED = 64
"""Problems of the most operations that a window is checked with before any bank is written."""


@dataclass(frozen=True)
class ReasoningTask:
    """The section "task" of a config: `tasks.reasoning.ReasoningConfig`, and what is made of it."""

    form: Literal[*reasoning_text.FORMS] = field(
        "compact", "form of the problems: english, or compact with one token a parameter"
    )
    modulus: int = field(7, "all arithmetic is modulo this number", low=2, high=1000)
    max_instances: int = field(8, "largest number of parameters that a problem defines", low=1, high=48)
    operations: tuple[int, int] = field(
        (1, 6), "smallest and largest number of operations of a training problem", low=1
    )
    operation_draw: Literal[*DRAWS] = field(
        "uniform", "how the number of operations is drawn: uniform, or the smaller of two uniform draws"
    )
    beyond: int = field(2, "measure also problems with up to so many operations more than in training", low=0, high=100)
    depths: tuple[int, int] = field((2, 4), "smallest and largest number of layers of items", low=2, high=4)
    widths: tuple[int, int] = field((2, 4), "smallest and largest number of items in a layer", low=1, high=4)
    question_first: bool = field(False, "put the question before the problem")
    retry: float = field(0.0, "rate of wrong names that training solutions write and take back", low=0, high=0.99)
    retry_kind: Literal[*RETRY_KINDS] = field("uncomputable", "which wrong names these are")
    retry_masked: bool = field(False, "these wrong names carry no loss")
    split: Literal[*SPLITS[:2]] = field(
        "all", "train: problems from 5 operations on use only templates that are not of the test split"
    )
    problems: int = field(200_000, "number of training problems, which are made once", low=1, high=2**32)
    bank_seed: int = field(0, "seed of the training problems", low=0, high=2**29)
    window: int = field(
        128, "tokens in a training row, which never cuts a problem; the model's context", low=8, high=tokens.MOST_TOKENS
    )
    loss_on: Literal["solution", "all"] = field("solution", "the tokens that carry loss")

    vocab_size = property(lambda self: len(reasoning_text.vocabulary(self.form, self.modulus)))
    length = property(lambda self: self.window)

    def __post_init__(self):
        check(self)
        drawn = replace(self.drawn, split="all")
        generate(drawn)  # Raises for operations that are not reached, which those beyond are not then either.
        most = self.measured_operations[-1]
        try:
            generate(replace(drawn, operations=(most, most)))
        except ValueError as error:
            raise FieldError("beyond", f"is {self.beyond}, which adds up to {most} operations, but {error}") from error
        _check_window(replace(drawn, operations=(most, most)), self.window)

    @property
    def drawn(self) -> ReasoningConfig:
        """What training problems are drawn."""
        names = {one.name for one in fields(ReasoningConfig)}
        return ReasoningConfig(**{one.name: getattr(self, one.name) for one in fields(self) if one.name in names})

    @property
    def measured_operations(self) -> tuple[int, ...]:
        """The trained numbers of operations and `beyond` more."""
        low, high = self.operations
        return tuple(range(low, high + self.beyond + 1))


@cache
def _check_window(largest: ReasoningConfig, window: int) -> None:
    ids = reasoning_labels.ids(reasoning_text.vocabulary(largest.form, largest.modulus))
    longest = max(len(reasoning_labels.encode(generate(largest, seed), ids).tokens) for seed in range(ASKED))
    if longest > window:
        number = largest.operations[1]
        raise FieldError("window", f"must hold problems of {number} operations, up to {longest} tokens, got {window}")


@dataclass(frozen=True)
class ReasoningMeasure(MeasureConfig):
    """As `MeasureConfig`, where per_concept is how many problems of each number of operations are held out, and
    cd_per_concept is not used."""

    folds: int = field(3, "folds of the probes; no fold splits a problem", low=2, high=100)
    alpha: float = field(10.0, "ridge penalty of the probes: the weight of the squared coefficients", above=0)
    probed: int = field(3000, "problems that the probes read; their numbers of operations are trained ones", low=1)
    fewest: int = field(20, "a probe asks about a parameter only if so many problems have either answer", low=2)
    asked: int = field(
        24, "largest number of parameters, or pairs of parameters, that a probe asks about, for each concept", low=1
    )

    def __post_init__(self):
        super().__post_init__()
        check(self)


class Answers(NamedTuple):
    """losses, weights, right: [N, W - 1], of the true rows (`tokens.scored`). written: [N, new] or None. foreseen:
    `reasoning_probes.Foreseen` or None."""

    losses: Float[Array, "N t"]
    weights: Float[Array, "N t"]
    right: Bool[Array, "N t"]
    written: Int[Array, "N new"] | None
    foreseen: Any


@dataclass(frozen=True)
class Reasoning(TokenExperiment):
    """See the module's head."""

    TASK = ReasoningTask
    MEASURE = ReasoningMeasure
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "model.positions": "rotary", "init.weights": 0.0, "train.steps": 5000, "train.batch_size": 32,
        "train.optimizer": "adamw", "train.schedule": "cosine", "train.learning_rate": 3e-3, "train.weight_decay": 0.05,
        "train.b2": 0.98, "train.eps": 1e-6, "train.clip_norm": 1.0, "train.warmup_steps": 100,
        "measure.metrics": ("loss", "accuracy", "solving", "probe", "foresee"), "measure.count": 6,
        "measure.spacing": "linear", "measure.per_concept": 256, "measure.cd_per_concept": 1,
    }  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Reasoning:
        """Raises ValueError naming the field, before anything is made: as `TokenExperiment` does, and for measurements
        that the form or the model cannot have."""
        made = super().from_config(config)
        asked = sorted(set(made.measuring.metrics) & set(COMPACT))
        if asked and made.task.form != "compact":
            raise ValueError(f'measure.metrics: {asked[0]} needs task.form="compact", got {made.task.form!r}')
        if none := sorted(set(made.measuring.metrics) & set(evaluators.OF_CONCEPTS) - {*Reasoning.EVALUATORS}):
            raise ValueError(
                f"measure.metrics: {none[0]} needs concepts at one place of every row, and problems have none; {HAS}"
            )
        if made.measuring.hidden_count:
            raise FieldError("measure.hidden_count", f"must be 0 for reasoning, got {made.measuring.hidden_count}")
        if not getattr(made.model, "causal", True):
            raise ValueError("model.causal must be True: solutions are written from left to right")
        return made

    @property
    def held_out_count(self) -> int:
        return self.measuring.per_concept * len(self.task.measured_operations)

    @property
    def test(self) -> reasoning_data.HeldOutProblems:
        """The problems held out, on the host; made once."""
        task = self.task
        bank, measuring = (task.problems, task.bank_seed), self.measuring
        probed = measuring.probed if set(measuring.metrics) & set(COMPACT) else 0
        return reasoning_data.held_out(task.drawn, bank, task.measured_operations, measuring.per_concept, probed)

    def data(self) -> dict[str, Any]:
        """The bank's rows, and the problems held out."""
        task = self.task
        bank = reasoning_data.train_bank(task.drawn, task.problems, task.bank_seed)
        rows, mask, count = reasoning_data.packed(bank, task.window, task.loss_on)
        held_out = reasoning_data.arrays(self.test, task.window)
        if self.test.probed is not None:
            held_out |= reasoning_probes.arrays(self.test.probed, self.measuring, task.window)
        return {"rows": rows, "mask": mask, "tokens": np.float32(count), "held_out": held_out}

    def batch(self, numbers, data, step) -> Tokens:
        """The bank's rows in order, each pass from another place. The last batch of a pass reaches into its start."""
        count, size = data["rows"].shape[0], self.train.batch_size
        epoch, place = jnp.divmod(step, -(-count // size))
        first = jax.random.randint(jax.random.fold_in(train.data_key(numbers.seed), epoch), (), 0, count)
        rows = (first + place * size + jnp.arange(size)) % count
        return Tokens(data["rows"][rows].astype(jnp.int32), data["mask"][rows].astype(jnp.float32))

    def held_out(self, numbers, data) -> HeldOut:
        known = data["held_out"]
        batch = Tokens(known["rows"], known["solution"])
        read = {"rows": data["rows"].shape[0], "tokens": data["tokens"] / data["rows"].shape[0]}
        return HeldOut(batch, {}, known | {"bank": read}, self.measuring)

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a sentence."""
        ids = reasoning_labels.ids(reasoning_text.vocabulary(self.task.form, self.task.modulus))
        return tuple(ids[word] for word in (reasoning_text.END[self.task.form], reasoning_text.BACK))

    @property
    def new_tokens(self) -> int:
        """The most tokens of a solution that a model writes: what the window leaves after the longest prompt."""
        return self.task.window - int(self.test.bank.prompts.max())

    def read(self, params: PyTree, held_out: HeldOut):
        """No states by concept, since each parameter has points of its own, and `Answers`."""
        exact, metrics = held_out.exact, set(self.measuring.metrics)
        scored, _ = self.by_rows(params, held_out.batch, of_logits=tokens.scored)
        written, foreseen, states = None, None, {}
        if "probe" in metrics:
            states["spots"] = self.by_rows(params, Tokens(exact["probed"], None), exact["spots"])[1]
        if metrics & {"solving", "foresee"}:
            written = reasoning_written.write(self.model, params, exact["rows"], exact["prompts"], self.new_tokens)
        if "foresee" in metrics:
            foreseen = reasoning_probes.foresee(self, params, held_out, written)
        return states, Answers(*scored, written, foreseen)

    def constants(self, held_out: HeldOut, untrained) -> dict[str, Named]:
        # Nothing is asked of what an untrained model writes, so that it need not write.
        kept = tuple(name for name in self.measuring.metrics if name not in ("solving", "foresee"))
        reading = replace(self, measuring=replace(self.measuring, metrics=kept))
        bank = held_out.exact["bank"]
        read = self.train.steps * self.train.batch_size
        measured = {
            "epochs": Named(jnp.float32(read / bank["rows"]), unit="passes over the bank"),
            "tokens_a_step": Named(bank["tokens"] * self.train.batch_size, unit="tokens"),
        }
        if "solving" in self.measuring.metrics:
            measured |= reasoning_written.baselines(self.test)
            measured["drawn_seen"] = Named(jnp.float32(self.test.seen), unit="fraction")
        return measured | evaluators.constants(reading, held_out, untrained)

    def on_host(self, measured: Mapping[str, Named]) -> dict[str, Named]:
        kept = dict(measured)
        written = kept.pop(reasoning_written.WRITTEN, None)
        if written is None:
            return kept
        tokens_of_runs = np.asarray(written.values)
        if "solving" in self.measuring.metrics:
            kept |= reasoning_written.judged(self.test, tokens_of_runs)
        if "foresee" in self.measuring.metrics:
            kept |= reasoning_probes.judged(self.test, tokens_of_runs, kept)
        return kept

    def describe(self) -> str:
        task = self.task
        low, high = task.operations
        return f"{super().describe()}; problems of {low} to {high} operations modulo {task.modulus}, {task.form}"


def loss(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """The cross-entropy of the true solutions, in nats a token."""
    return {"loss": Named(tokens.weighted_mean(outputs.losses, outputs.weights), unit="nats")}


def accuracy(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """How often the most likely token of a true solution is the right one."""
    return {"accuracy": Named(tokens.weighted_mean(outputs.right, outputs.weights), unit="fraction")}


def written(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """The tokens that the model wrote, which the host judges."""
    return {reasoning_written.WRITTEN: Named(outputs.written, ("concept", "position"))}


def foresee(states, outputs: Answers, held_out: HeldOut) -> dict[str, Named]:
    """Scores of the names that the model wrote, which the host compares with the checker's verdicts."""
    return written(states, outputs, held_out) | outputs.foreseen.named()


Reasoning.EVALUATORS = {
    "loss": loss, "accuracy": accuracy, "solving": written, "foresee": foresee,
    "probe": Evaluator(reasoning_probes.probe, reasoning_probes.probe_once),
    "trained_probe": evaluators.beside_untrained(reasoning_probes.trained, "trained_probe"),
}  # fmt: skip
