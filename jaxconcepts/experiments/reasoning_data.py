"""Problems that reasoning runs are trained and measured on, as arrays: made once on the host, the same for all runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxconcepts.tasks import reasoning_bank, reasoning_baselines, reasoning_labels, reasoning_text
from jaxconcepts.tasks.reasoning import SPLIT_OPERATIONS, Problem, ReasoningConfig, generate
from jaxconcepts.tasks.reasoning_items import Bank, pack

FOLDER = "JAXCONCEPTS_BANKS"
"""The environment's variable that names the folder banks are kept in."""
HELD_OUT_SEED = 1 << 62
"""Problems of seeds from here on are held out; no bank's seeds come near."""
TRIES = 50
"""Problems drawn for each that is held out, at most: those that were trained on are left out."""
COPIED_FROM = 20_000
"""Problems of the bank that the baseline "copied" looks for the most similar one in."""
OPEN_ROWS = 8
"""Rows that a problem may still be put into; more of them fill rows better and take longer."""

log = logging.getLogger("jaxconcepts")


class HeldOutProblems(NamedTuple):
    """problems: to be solved, on the host, for the checker. bank: the same as arrays. probed: others that hidden states
    are read of, with labels, None where there are none. copied: [N], the answer of the most similar training problem.
    commonest: the training problems' commonest answer. seen: the share of the drawn problems that were left out, for
    they are training problems or were drawn before."""

    problems: tuple[Problem, ...]
    bank: Bank
    probed: Bank | None
    copied: Int[np.ndarray, " N"]
    commonest: int
    seen: float


@lru_cache(maxsize=4)
def train_bank(config: ReasoningConfig, count: int, seed: int) -> Bank:
    """The bank of training problems: read where it is complete, else written (`reasoning_bank.write`).

    It is kept in the folder that the environment's JAXCONCEPTS_BANKS names, ~/.cache/jaxconcepts/banks without it.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A process of the pool that runs the main script again would wait for its parent, and that for it.
        raise RuntimeError('a script that makes training problems must do so under `if __name__ == "__main__":`')
    request = json.dumps([asdict(config), count, seed, reasoning_bank.FORMAT])
    root = os.environ.get(FOLDER) or Path.home() / ".cache" / "jaxconcepts" / "banks"
    folder = Path(root) / f"reasoning-{hashlib.sha256(request.encode()).hexdigest()[:16]}"
    with _locked(folder):
        bank = reasoning_bank.write(
            folder, config, count, seed, processes=max(1, min(os.cpu_count() or 1, count // 5000)), part_size=5000,
            progress=_Progress(count),
        )  # fmt: skip
    log.info("training problems: %d at %s, sha256 %s", count, folder, bank.hash)
    return bank


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a second process from writing the same bank; it reads what the first has written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Progress:
    """Logs each tenth of the problems."""

    def __init__(self, count):
        self.step, self.next = max(1, count // 10), 0

    def __call__(self, done, count):
        if self.next <= done < count:
            log.info("training problems: %d of %d written", done, count)
            self.next = done + self.step


@lru_cache(maxsize=4)
def held_out(
    config: ReasoningConfig, bank: tuple[int, int], operations: tuple[int, ...], each: int, probed: int
) -> HeldOutProblems:
    """`each` problems of every number of operations to solve, and `probed` of the trained numbers to read hidden states
    of. None is a training problem or there twice, and none has wrong names.

    bank: count and seed of the training problems. Raises ValueError where too few are left.
    """
    train = train_bank(config, *bank)
    known = {row[:prompt].tobytes() for row, prompt in zip(train.tokens(), train.prompts, strict=True)}
    solved: list[Problem] = []
    drawn = 0
    for number in operations:
        made, tried = _fresh(config, (number, number), each, known, number, "measure.per_concept")
        solved += made
        drawn += tried
    read, _ = _fresh(config, config.operations, probed, known, 0, "measure.probed")
    test, probing = (
        Bank(config, pack(problems, _ids(config), range(len(problems)), labels=True)) if problems else None
        for problems in (solved, read)
    )
    copied = reasoning_baselines.copied_answers(_first(train, COPIED_FROM), test)
    commonest = reasoning_baselines.commonest_answer(train)
    return HeldOutProblems(tuple(solved), test, probing, copied, commonest, 1 - len(solved) / drawn)


def _fresh(config, operations, count, known, stream, field) -> tuple[list[Problem], int]:
    """`count` problems whose prompts are not in `known`, which they join, and how many were drawn.

    Of the test split's templates where training is on the others and there are any.
    """
    split = "test" if config.split == "train" and operations[0] >= SPLIT_OPERATIONS else "all"
    fresh, ids = replace(config, operations=operations, retry=0.0, split=split), _ids(config)
    problems: list[Problem] = []
    for tried in range(TRIES * count):
        if len(problems) == count:
            return problems, tried
        problem = generate(fresh, HELD_OUT_SEED + tried * 1000 + stream)
        item = reasoning_labels.encode(problem, ids)
        prompt = item.tokens[: item.prompt].tobytes()
        if prompt not in known:
            known.add(prompt)
            problems.append(problem)
    if len(problems) == count:
        return problems, TRIES * count
    low, high = operations
    raise ValueError(
        f"{field} must be at most {len(problems)}: of {low} to {high} operations no more problems that are not among "
        f"the training problems were met; got {count}"
    )


def _ids(config: ReasoningConfig) -> dict[str, int]:
    return reasoning_labels.ids(reasoning_text.vocabulary(config.form, config.modulus))


def _first(bank: Bank, count: int) -> Bank:
    tokens = int(bank.arrays["lengths"][:count].sum())
    kept = {name: bank.arrays[name][:count] for name in ("lengths", "prompts", "operations", "templates", "answers")}
    return Bank(bank.config, kept | {"tokens": bank.arrays["tokens"][:tokens]}, bank.hash)


def packed(bank: Bank, window: int, on: str) -> tuple[Int[np.ndarray, "R W"], Bool[np.ndarray, "R W"], int]:
    """Whole problems one after the other in rows of `window` tokens, where loss falls, and how many tokens there are.

    Each problem goes into the first of a few open rows that has room; what stays empty is padding, without loss.
    Raises ValueError where a problem is longer than the window.
    """
    if bank.longest > window:
        raise ValueError(f"task.window must hold the longest problem, {bank.longest} tokens, got {window}")
    lengths = bank.arrays["lengths"]
    row, start = _places(lengths.tolist(), window)
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    where = np.repeat(row * window + start, lengths) + within
    rows = int(row.max()) + 1
    tokens, mask = np.zeros(rows * window, np.uint16), np.zeros(rows * window, bool)
    tokens[where] = bank.arrays["tokens"]
    each = bank.loss_mask(on=on)
    mask[where] = each[np.arange(each.shape[1]) < lengths[:, None]]
    return tokens.reshape(rows, window), mask.reshape(rows, window), int(lengths.sum())


def _places(lengths: list[int], window: int) -> tuple[np.ndarray, np.ndarray]:
    """The row of each problem, and its first token's place in it."""
    rows, starts, open_rows, used, count = [], [], [], {}, 0
    for length in lengths:
        fitting = next((row for row in open_rows if used[row] + length <= window), None)
        if fitting is None:
            fitting, count = count, count + 1
            used[fitting] = 0
            open_rows.append(fitting)
            if len(open_rows) > OPEN_ROWS:
                open_rows.remove(max(open_rows[:-1], key=used.__getitem__))
        rows.append(fitting)
        starts.append(used[fitting])
        used[fitting] += length
    return np.array(rows), np.array(starts)


def arrays(test: HeldOutProblems, window: int) -> dict[str, Any]:
    """What is placed on the device of the problems held out, N of them.

    rows: [N, window]. prompts: [N]. solution: [N, window], where the solution's tokens are.
    """
    bank = test.bank
    if bank.longest > window:
        raise ValueError(
            f"task.window must hold the longest problem that is held out, {bank.longest} tokens, got {window}"
        )
    return {
        "rows": bank.tokens(window).astype(np.int32), "prompts": bank.prompts.astype(np.int32),
        "solution": bank.loss_mask(window).astype(np.float32),
    }  # fmt: skip
