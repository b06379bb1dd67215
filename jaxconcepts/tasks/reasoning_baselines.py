"""What is right without reasoning: the commonest answer, the answer of the most similar problem that was seen, and how
many steps a solver writes that computes all it can."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer

from jaxconcepts.tasks.reasoning import Problem
from jaxconcepts.tasks.reasoning_items import Bank


def commonest_answer(train: Bank) -> int:
    """The answer that most training problems have; of several the smallest."""
    return int(np.bincount(train.answers).argmax())


def copied_answers(train: Bank, test: Bank) -> Integer[np.ndarray, " N"]:
    """For each test problem, the answer of the training problem that is most like it.

    Training problems whose solution has the same template (`Problem.template_hash`) come first, then those of the
    nearest number of operations; among equals, the one whose prompt shares most words, each counted as often as both
    hold it; then the first. Templates are read off the true solutions, so this is more than a model can copy from.

    Raises ValueError where the banks' words differ.
    """
    if train.vocabulary != test.vocabulary:
        raise ValueError("train and test must have one vocabulary: the same task.form and task.modulus")
    train_words, test_words = _word_counts(train), _word_counts(test)
    result = np.zeros(len(test), train.answers.dtype)
    for index, words in enumerate(test_words):
        distance = 1 + np.abs(train.operations - test.operations[index])
        distance = np.where(train.templates == test.templates[index], 0, distance)
        nearest = np.flatnonzero(distance == distance.min())
        shared = np.minimum(train_words[nearest], words).sum(axis=1)
        result[index] = train.answers[nearest[shared.argmax()]]
    return result


def share_seen(train: Bank, test: Bank) -> float:
    """The share of test problems whose whole prompt, word by word, is also one of the training problems."""
    seen = set(_prompts(train))
    return float(np.mean([prompt in seen for prompt in _prompts(test)]))


def accuracy_by_operations(answers: Integer[np.ndarray, " N"], bank: Bank) -> dict[int, float]:
    """The share of right answers for each number of operations in the bank."""
    right = np.asarray(answers) == bank.answers
    return {int(number): float(right[bank.operations == number].mean()) for number in np.unique(bank.operations)}


def unneeded_if_all_is_computed(problem: Problem) -> float:
    """The mean number of unneeded sentences of a solver that computes, at each step, any parameter that it can, each
    with equal probability, until the answer is there; its expectation is over the order alone.

    Against it stand the unneeded sentences of a model's right answers (Ye et al. 2024: nearly none).
    """
    rng = np.random.default_rng(0)
    graph = problem.graph
    needed = set(graph.order)
    counts: list[int] = []
    for _ in range(32):
        stated: set = set()
        while graph.order[-1] not in stated:
            able = [p for p in graph.named if p not in stated and stated.issuperset(graph.definitions[p].inputs)]
            stated.add(able[rng.integers(len(able))])
        counts.append(len(stated - needed))
    return float(np.mean(counts))


def _prompts(bank: Bank) -> list[bytes]:
    return [row[:prompt].tobytes() for row, prompt in zip(bank.tokens(), bank.prompts, strict=True)]


def _word_counts(bank: Bank) -> Float[np.ndarray, "N V"]:
    """How often each prompt holds each word."""
    tokens, size = bank.tokens(), len(bank.vocabulary)
    within = np.arange(tokens.shape[1]) < bank.prompts[:, None]
    rows = np.broadcast_to(np.arange(len(bank))[:, None], tokens.shape)
    flat = np.bincount(rows[within] * size + tokens[within], minlength=len(bank) * size)
    return flat.reshape(len(bank), size).astype(np.float32)
