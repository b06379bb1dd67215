"""Solutions that a model writes: on the device the most likely tokens, on the host what the checker says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Int, PyTree

from jaxconcepts.experiments.reasoning_data import HeldOutProblems
from jaxconcepts.models import decoding
from jaxconcepts.tasks import reasoning_baselines, reasoning_check, reasoning_labels
from jaxconcepts.training.experiment import Named

WRITTEN = "written"
"""The measured tokens [N, new] that `judged` turns into rows."""
MISTAKES = tuple(kind for kind in reasoning_check.KINDS if kind not in ("ok", "unneeded"))


def write(model, params: PyTree, rows: Int[Array, "N W"], prompts: Int[Array, " N"], new: int) -> Int[Array, "N new"]:
    """The most likely continuation of each prompt, padded with the end token."""

    def some(given):
        rows, prompts = given
        trace = decoding.read(model, params, rows, prompts, keep="cache")
        last = trace.captured[-1, :, 0]
        return decoding.greedy(model, params, last, trace.outputs, prompts, new, (reasoning_labels.EOS,))

    return decoding.by_rows(some, (rows, prompts), rows.shape[1] + new)


def verdicts(test: HeldOutProblems, written: Int[np.ndarray, "N new"]) -> list[reasoning_check.Verdict]:
    """What the checker says of each solution."""
    words = test.bank.vocabulary
    return [
        reasoning_check.check(problem, reasoning_labels.decode(row, words))
        for problem, row in zip(test.problems, written.tolist(), strict=True)
    ]


def by_operations(test: HeldOutProblems) -> dict[str, Int[np.ndarray, " n"]]:
    """The problems of each number of operations, of all trained numbers ("trained"), and of the most ("hardest")."""
    operations = test.bank.operations
    numbers = {str(number): np.flatnonzero(operations == number) for number in np.unique(operations)}
    trained = np.flatnonzero(operations <= test.bank.config.operations[1])
    return numbers | {"trained": trained, "hardest": np.flatnonzero(operations == operations.max())}


def judged(test: HeldOutProblems, written: Int[np.ndarray, "R N new"]) -> dict[str, Named]:
    """Of the solutions that each of R runs wrote, by operations (the label, see `by_operations`): "solved", the share
    in which every step and the answer are right; "answered", the share whose answer is; "unneeded", unneeded steps,
    and "retries", names taken back, per right solution (NaN where there is none). Over all: "first_mistake", the share
    of each kind of first wrong step, and "ending", of each kind of end (the labels)."""
    of_runs = [_judged(verdicts(test, rows), by_operations(test)) for rows in written]
    units = {"unneeded": "steps", "retries": "names"}
    return {name: _stacked([run[name] for run in of_runs], units.get(name, "fraction")) for name in of_runs[0]}


def _judged(given: Sequence[reasoning_check.Verdict], groups) -> dict[str, dict[str, float]]:
    correct = np.array([verdict.correct for verdict in given])
    answered = np.array([verdict.ending == "right" for verdict in given])
    unneeded = np.array([sum(kind == "unneeded" for _, kind in verdict.steps) for verdict in given])
    retries = np.array([len(verdict.retries) for verdict in given])

    def per_right(counts):
        return {label: counts[at][correct[at]].mean() if correct[at].any() else np.nan for label, at in groups.items()}

    mistakes = Counter(verdict.first_mistake for verdict in given)
    endings = Counter(verdict.ending for verdict in given)
    return {
        "solved": {label: correct[at].mean() for label, at in groups.items()},
        "answered": {label: answered[at].mean() for label, at in groups.items()},
        "unneeded": per_right(unneeded),
        "retries": per_right(retries),
        "first_mistake": {kind: mistakes[kind] / len(given) for kind in MISTAKES},
        "ending": {kind: endings[kind] / len(given) for kind in reasoning_check.ENDINGS},
    }


def _stacked(of_runs: Sequence[Mapping[str, float]], unit: str) -> Named:
    labels = tuple(of_runs[0])
    values = np.array([[run[label] for label in labels] for run in of_runs], np.float64)
    return Named(values, ("label",), unit, names=(("label", labels),))


def baselines(test: HeldOutProblems) -> dict[str, Named]:
    """By operations (the label), what is right without reasoning: "guessed", the commonest answer; "copied", the answer
    of the most similar training problem. "unneeded_if_all": unneeded steps of a solver that computes all it can."""
    bank, groups = test.bank, by_operations(test)
    values = {
        "guessed": bank.answers == test.commonest,
        "copied": test.copied == bank.answers,
        "unneeded_if_all": np.array([reasoning_baselines.unneeded_if_all_is_computed(p) for p in test.problems]),
    }
    return {
        name: Named(
            np.array([of[at].mean() for at in groups.values()], np.float32), ("label",),
            "steps" if name.startswith("unneeded") else "fraction", names=(("label", tuple(groups)),),
        )
        for name, of in values.items()
    }  # fmt: skip
