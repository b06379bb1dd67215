"""Problems that reasoning runs are trained and measured on, as arrays: made once on the host, the same for all runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
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
from jaxconcepts.tasks.reasoning import Problem, ReasoningConfig, generate
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
    """problems: on the host, for the checker. bank: the same as arrays, with labels. copied: [N], the answer of the
    most similar training problem. commonest: the training problems' commonest answer. seen: the share of the drawn
    problems, before any were left out, whose prompt is also a training problem's."""

    problems: tuple[Problem, ...]
    bank: Bank
    copied: Int[np.ndarray, " N"]
    commonest: int
    seen: float


@lru_cache(maxsize=4)
def train_bank(config: ReasoningConfig, count: int, seed: int) -> Bank:
    """The bank of training problems: read where it is complete, else written (`reasoning_bank.write`).

    It is kept in the folder that the environment's JAXCONCEPTS_BANKS names, ~/.cache/jaxconcepts/banks without it.
    """
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
def held_out(config: ReasoningConfig, bank: tuple[int, int], operations: tuple[int, ...], each: int) -> HeldOutProblems:
    """`each` problems of every number of operations, none of which is a training problem; no wrong names among them.

    bank: count and seed of the training problems. Raises ValueError where too few are left.
    """
    train = train_bank(config, *bank)
    ids = reasoning_labels.ids(reasoning_text.vocabulary(config.form, config.modulus))
    known = {row[:prompt].tobytes() for row, prompt in zip(train.tokens(), train.prompts, strict=True)}
    problems, drawn, repeated = [], 0, 0
    for number in operations:
        fresh = held_out_config(config, number)
        left = each
        for seed in range(TRIES * each):
            if not left:
                break
            problem = generate(fresh, HELD_OUT_SEED + seed * 1000 + number)
            item = reasoning_labels.encode(problem, ids)
            prompt = item.tokens[: item.prompt].tobytes()
            drawn, repeated = drawn + 1, repeated + (prompt in known)
            if prompt not in known:
                known.add(prompt)
                problems.append(problem)
                left -= 1
        if left:
            raise ValueError(
                f"measure.per_concept must be at most {each - left}: of {number} operations no more problems that are "
                f"not among task.problems were met; got {each}"
            )
    test = Bank(config, pack(problems, ids, range(len(problems)), labels=True))
    copied = reasoning_baselines.copied_answers(_first(train, COPIED_FROM), test)
    commonest = reasoning_baselines.commonest_answer(train)
    return HeldOutProblems(tuple(problems), test, copied, commonest, repeated / drawn)


def held_out_config(config: ReasoningConfig, operations: int) -> ReasoningConfig:
    """What problems of a number of operations are held out: with no wrong names; of the test split's templates where
    training is on the others and there are any."""
    split = "test" if config.split == "train" and operations >= 5 else "all"
    return replace(config, operations=(operations, operations), retry=0.0, split=split)


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
        "solution": bank.loss_mask(window).astype(np.float32), "group": bank.group.astype(np.int32),
    }  # fmt: skip
