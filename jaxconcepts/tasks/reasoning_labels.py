"""Problems as tokens, with the positions that are asked about and what could be known there.

Labels have one entry for each of the P parameters that there can be (`reasoning_graph.PARAMETERS`). In the compact form
parameter and token are one to one, so an entry means the same in every problem; in English the names differ by problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer

from jaxconcepts.tasks import reasoning_text
from jaxconcepts.tasks.reasoning import Problem
from jaxconcepts.tasks.reasoning_graph import INDEX, PARAMETERS

PAD, BOS, EOS = range(3)


class Item(NamedTuple):
    """A problem as tokens: start, problem and question, solution, end.

    prompt: tokens before the solution, start included. wrong: the words of names that a solution takes back.
    before_question, after_question: positions of the last token before the question (the start where the question is
    first) and of the last token before the solution. starts: the last position before each of the S sentences of the
    solution, wrong names among them. names: the last position of each sentence's name. parameters: which one it names.
    struck: whether it is taken back.
    """

    tokens: Integer[np.ndarray, " T"]
    prompt: int
    wrong: Bool[np.ndarray, " T"]
    before_question: int
    after_question: int
    starts: Integer[np.ndarray, " S"]
    names: Integer[np.ndarray, " S"]
    parameters: Integer[np.ndarray, " S"]
    struck: Bool[np.ndarray, " S"]


class Labels(NamedTuple):
    """present: the problem's parameters. dep[a, b]: a's value depends on b. nece: the answer depends on it. At each
    sentence start: known (stated before), value (where known, else 0), can_next (not known, all inputs known),
    nece_next (that, and needed)."""

    present: Bool[np.ndarray, " P"]
    dep: Bool[np.ndarray, "P P"]
    nece: Bool[np.ndarray, " P"]
    known: Bool[np.ndarray, "S P"]
    value: Integer[np.ndarray, "S P"]
    can_next: Bool[np.ndarray, "S P"]
    nece_next: Bool[np.ndarray, "S P"]


def ids(vocabulary: Sequence[str]) -> dict[str, int]:
    """The number of each word."""
    return {word: number for number, word in enumerate(vocabulary)}


def decode(tokens: Sequence[int], vocabulary: Sequence[str]) -> str:
    """The text of tokens up to the end, as `reasoning_check.check` reads it; padding and start are left out."""
    result = []
    for token in tokens:
        if token == EOS:
            break
        if token not in (PAD, BOS):
            result.append(vocabulary[token])
    return " ".join(result)


def encode(problem: Problem, ids: Mapping[str, int]) -> Item:
    """The problem's tokens and positions; ids: the number of each word of its form's vocabulary."""
    split = reasoning_text.words
    tokens = [BOS, *(ids[word] for word in split(problem.question))]
    prompt = len(tokens)
    question_first = problem.question.startswith(problem.asked)
    before = 0 if question_first else prompt - 1 - len(split(problem.asked))
    starts, names, wrong = [], [], []
    for sentence in problem.sentences:
        starts.append(len(tokens) - 1)
        name = [ids[word] for word in split(sentence.name)]
        if sentence.struck:
            wrong.extend(range(len(tokens), len(tokens) + len(name)))
        tokens += name
        names.append(len(tokens) - 1)
        tokens += [ids[word] for word in split(sentence.rest)]
    tokens.append(EOS)
    wrong_mask = np.zeros(len(tokens), bool)
    wrong_mask[wrong] = True
    return Item(
        np.array(tokens, np.uint16),
        prompt,
        wrong_mask,
        before,
        prompt - 1,
        np.array(starts, np.int32),
        np.array(names, np.int32),
        np.array([INDEX[sentence.parameter] for sentence in problem.sentences], np.uint8),
        np.array([sentence.struck for sentence in problem.sentences], bool),
    )


def label(problem: Problem) -> Labels:
    """What holds of each parameter, before, after and along the solution."""
    graph, size = problem.graph, len(PARAMETERS)
    named = {parameter: INDEX[parameter] for parameter in graph.named}
    present, nece = np.zeros(size, bool), np.zeros(size, bool)
    present[list(named.values())] = True
    nece[[INDEX[parameter] for parameter in graph.order]] = True
    dep = np.zeros((size, size), bool)
    ancestors = graph.ancestors()
    for parameter, index in named.items():
        dep[index, [INDEX[other] for other in ancestors[parameter]]] = True
    known, can_next, value = (np.zeros((len(problem.sentences), size), kind) for kind in (bool, bool, np.uint16))
    stated = set()
    for row, sentence in enumerate(problem.sentences):
        for parameter, index in named.items():
            if parameter in stated:
                known[row, index], value[row, index] = True, graph.values[parameter]
            else:
                can_next[row, index] = stated.issuperset(graph.definitions[parameter].inputs)
        if not sentence.struck:
            stated.add(sentence.parameter)
    return Labels(present, dep, nece, known, value, can_next, can_next & nece)
