"""Solutions that a model writes: on the device the most likely tokens, on the host what the checker says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Int, PyTree

from jaxconcepts.experiments.reasoning_data import HeldOutProblems
from jaxconcepts.models import decoding
from jaxconcepts.tasks import reasoning_check, reasoning_labels
from jaxconcepts.training.experiment import Named

WRITTEN = "written"
"""The measured tokens [N, new] that `judged` turns into rows."""
MISTAKES = tuple(kind for kind in reasoning_check.KINDS if kind not in ("ok", "unneeded"))


def write(model, params: PyTree, rows: Int[Array, "N W"], prompts: Int[Array, " N"], new: int) -> Int[Array, "N new"]:
    """The most likely continuation of each prompt, padded with the end token."""
    trace = decoding.read(model, params, rows, prompts, keep="cache")
    return decoding.greedy(
        model, params, trace.captured[-1, :, 0], trace.outputs, prompts, new, (reasoning_labels.EOS,)
    )


def verdicts(test: HeldOutProblems, written: Int[np.ndarray, "N new"]) -> list[reasoning_check.Verdict]:
    """What the checker says of each solution."""
    words = test.bank.vocabulary
    return [
        reasoning_check.check(problem, reasoning_labels.decode(row, words))
        for problem, row in zip(test.problems, written.tolist(), strict=True)
    ]


def judged(test: HeldOutProblems, written: Int[np.ndarray, "R N new"]) -> dict[str, Named]:
    """Of the solutions that each of R runs wrote, by operations (the label): "solved", the share in which every step
    and the answer are right; "answered", the share whose answer is; "unneeded", unneeded steps, and "retries", names
    taken back, per right solution (NaN where there is none). Over all: "first_mistake", the share of each kind of first
    wrong step, and "ending", of each kind of end (the labels)."""
    operations = test.bank.operations
    of_runs = [_judged(verdicts(test, rows), operations) for rows in written]
    first = of_runs[0]
    return {name: _stacked([run[name] for run in of_runs]) for name in first}


def _judged(given: Sequence[reasoning_check.Verdict], operations) -> dict[str, dict[str, float]]:
    by_number = {str(number): np.flatnonzero(operations == number) for number in np.unique(operations)}
    correct = np.array([verdict.correct for verdict in given])
    answered = np.array([verdict.ending == "right" for verdict in given])
    unneeded = np.array([sum(kind == "unneeded" for _, kind in verdict.steps) for verdict in given])
    retries = np.array([len(verdict.retries) for verdict in given])

    def per_right(counts):
        return {n: counts[at][correct[at]].mean() if correct[at].any() else np.nan for n, at in by_number.items()}

    mistakes = Counter(verdict.first_mistake for verdict in given)
    endings = Counter(verdict.ending for verdict in given)
    return {
        "solved": {number: correct[at].mean() for number, at in by_number.items()},
        "answered": {number: answered[at].mean() for number, at in by_number.items()},
        "unneeded": per_right(unneeded),
        "retries": per_right(retries),
        "first_mistake": {kind: mistakes[kind] / len(given) for kind in MISTAKES},
        "ending": {kind: endings[kind] / len(given) for kind in reasoning_check.ENDINGS},
    }


def _stacked(of_runs: Sequence[Mapping[str, float]]) -> Named:
    labels = tuple(of_runs[0])
    values = np.array([[run[label] for label in labels] for run in of_runs], np.float64)
    return Named(values, ("label",), "fraction", names=(("label", labels),))


def baselines(test: HeldOutProblems, operations: Sequence[int]) -> dict[str, Named]:
    """By operations (the label), what is right without reasoning: "guessed", the commonest answer; "copied", the answer
    of the most similar training problem. "unneeded_if_all": unneeded steps of a solver that computes all it can."""
    from jaxconcepts.tasks import reasoning_baselines

    bank, labels = test.bank, tuple(map(str, operations))
    at = [bank.operations == number for number in operations]
    values = {
        "guessed": bank.answers == test.commonest,
        "copied": test.copied == bank.answers,
        "unneeded_if_all": np.array([reasoning_baselines.unneeded_if_all_is_computed(p) for p in test.problems]),
    }
    names = (("label", labels),)
    return {
        name: Named(np.array([of[rows].mean() for rows in at], np.float32), ("label",), names=names)
        for name, of in values.items()
    }
