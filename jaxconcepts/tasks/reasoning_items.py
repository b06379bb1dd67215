"""Many problems as arrays: tokens, where loss falls, positions and concept labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer

from jaxconcepts.tasks import reasoning_labels, reasoning_text
from jaxconcepts.tasks.reasoning import Problem, ReasoningConfig
from jaxconcepts.tasks.reasoning_graph import PARAMETERS

CONCEPTS = ("dep", "nece", "known", "value", "can_next", "nece_next")


class Concept(NamedTuple):
    """What is asked of hidden states.

    positions: [N, S] in the tokens. labels: [N, S, P], or [N, S, P, P] for dep. valid: of the labels' shape, where
    there is something to ask. classes: how many. control: [N], a position before the information exists.
    """

    positions: Integer[np.ndarray, "N S"]
    labels: Integer[np.ndarray, "N S ..."]
    valid: Bool[np.ndarray, "N S ..."]
    classes: int
    control: Integer[np.ndarray, " N"]


@dataclass(frozen=True)
class Bank:
    """Problems as arrays.

    config: what was drawn. arrays: as `pack` makes them. hash: of the request and all bytes, for provenance.
    """

    config: ReasoningConfig
    arrays: Mapping[str, np.ndarray] = field(repr=False)
    hash: str = ""

    def __len__(self) -> int:
        return len(self.arrays["lengths"])

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words that the tokens stand for."""
        return reasoning_text.vocabulary(self.config.form, self.config.modulus)

    @property
    def longest(self) -> int:
        """Tokens of the longest problem, start and end included."""
        return int(self.arrays["lengths"].max())

    @property
    def group(self) -> Integer[np.ndarray, " N"]:
        """The problem's number in the bank: what must not be split over folds."""
        return self.arrays["group"]

    @property
    def answers(self) -> Integer[np.ndarray, " N"]:
        """The right answers."""
        return self.arrays["answers"]

    @property
    def operations(self) -> Integer[np.ndarray, " N"]:
        """Operations of each solution."""
        return self.arrays["operations"]

    @property
    def templates(self) -> Integer[np.ndarray, " N"]:
        """The template's hash of each solution."""
        return self.arrays["templates"]

    @property
    def prompts(self) -> Integer[np.ndarray, " N"]:
        """Tokens before each solution, the start included."""
        return self.arrays["prompts"]

    def tokens(self, window: int | None = None) -> Integer[np.ndarray, "N T"]:
        """One row a problem, padded with 0 to `window` (the longest problem by default).

        Raises ValueError where a problem is longer than the window: a cut problem has no answer.
        """
        return _padded(self.arrays["tokens"], self.arrays["lengths"], self._window(window))

    def loss_mask(self, window: int | None = None, on: str = "solution") -> Bool[np.ndarray, "N T"]:
        """Where a token, predicted from those before it, carries loss; never the start or padding.

        on: "solution", or "all" for the problem's text too. Names that are taken back carry none where the config says
        `retry_masked`.
        """
        if on not in ("solution", "all"):
            raise ValueError(f"on must be solution or all, got {on!r}")
        window = self._window(window)
        position, lengths = np.arange(window), self.arrays["lengths"]
        first = self.prompts if on == "solution" else np.ones_like(lengths)
        mask = (position >= first[:, None]) & (position < lengths[:, None])
        if self.config.retry_masked:
            mask &= ~_padded(self.arrays["wrong"], lengths, window)
        return mask

    @property
    def spots(self) -> Integer[np.ndarray, "N S"]:
        """The position before each sentence of the solution, which predicts its name; 0 past the last."""
        return self._sentences("starts")

    @property
    def names(self) -> Integer[np.ndarray, "N S"]:
        """The last position of each sentence's name: what is to come was chosen here; 0 past the last."""
        return self._sentences("names")

    def concept(self, name: str) -> Concept:
        """The labels of "dep", "nece", "known", "value", "can_next" or "nece_next" (see `reasoning_labels.Labels`).

        Raises ValueError where the bank was written without labels.
        """
        if name not in CONCEPTS:
            raise ValueError(f"name must be one of {', '.join(CONCEPTS)}, got {name!r}")
        if "present" not in self.arrays:
            raise ValueError("the bank must be written with labels=True; this one holds none")
        size = len(PARAMETERS)
        present = self._bits("present")
        before, start = self.arrays["before_question"], np.zeros(len(self), np.int32)
        if name == "dep":
            # The question first: the problem's last token is the prompt's last one.
            position = self.arrays["after_question"] if self.config.question_first else before
            valid = present[:, None, :, None] & present[:, None, None, :] & ~np.eye(size, dtype=bool)
            return Concept(position[:, None], self._bits("dep")[:, None], valid, 2, start)
        if name == "nece":
            return Concept(
                self.arrays["after_question"][:, None], self._bits("nece")[:, None], present[:, None], 2, before
            )
        counts = self.arrays["sentences"]
        raw = self.arrays["value"] if name == "value" else self._bits(name)
        labels = _padded(raw, counts, int(counts.max()))
        within = np.arange(labels.shape[1]) < counts[:, None]
        valid = within[:, :, None] & present[:, None, :]
        if name == "value":
            return Concept(self.spots, labels, valid & self.concept("known").labels, self.config.modulus, before)
        return Concept(self.spots, labels, valid, 2, before)

    def _window(self, window: int | None) -> int:
        if window is None:
            return self.longest
        if window < self.longest:
            raise ValueError(f"window must hold the longest problem, {self.longest} tokens, got {window}")
        return window

    def _sentences(self, name: str) -> np.ndarray:
        counts = self.arrays["sentences"]
        return _padded(self.arrays[name], counts, int(counts.max()))

    def _bits(self, name: str) -> np.ndarray:
        return np.unpackbits(self.arrays[name], axis=-1, count=len(PARAMETERS)).astype(bool)


def pack(
    problems: Iterable[Problem], ids: Mapping[str, int], group: Iterable[int], labels: bool = False
) -> dict[str, np.ndarray]:
    """The arrays of a bank, rows of unequal length one after the other.

    tokens, wrong: [sum of lengths]. starts, names, parameters, struck: [sum of sentences]. lengths, sentences, prompts,
    before_question, after_question, answers, operations, templates, group: [N]. With labels also present, nece: [N, P];
    dep: [N, P, P]; known, can_next, nece_next: [sum of sentences, P], all as bits of their last axis; value: [sum of
    sentences, P].
    """
    columns: dict[str, list] = {}
    for problem in problems:
        item = reasoning_labels.encode(problem, ids)
        row = {key: value for key, value in item._asdict().items() if key != "prompt"}
        row |= {"lengths": len(item.tokens), "sentences": len(item.starts), "prompts": item.prompt}
        row |= {"answers": problem.answer, "operations": problem.operations, "templates": problem.template_hash}
        if labels:
            values = reasoning_labels.label(problem)._asdict()
            row["value"] = values.pop("value")
            row |= {key: np.packbits(bits, axis=-1) for key, bits in values.items()}
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    stacked = ("present", "nece", "dep")
    arrays = {}
    for key, rows in columns.items():
        if np.ndim(rows[0]) == 0:
            arrays[key] = np.array(rows, np.int64 if key == "templates" else np.int32)
        else:
            arrays[key] = np.stack(rows) if key in stacked else np.concatenate(rows)
    return arrays | {"group": np.array(list(group), np.int64)}


def _padded(values: np.ndarray, counts: np.ndarray, width: int) -> np.ndarray:
    """[sum of counts, ...] to [N, width, ...], filled with zeros."""
    result = np.zeros((len(counts), width, *values.shape[1:]), values.dtype)
    result[np.arange(width) < counts[:, None]] = values
    return result
