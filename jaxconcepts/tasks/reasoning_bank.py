"""A bank of problems as tokens: made once by several processes, kept in a folder, read whole.

    bank = write("banks/train", config, count=100_000, seed=0, processes=2, progress=print)
    tokens, mask = bank.tokens(), bank.loss_mask()
    bank.hash                                  # for a run's provenance

Problem i of seed s is `generate(config, s * 2**32 + i)`, so a bank depends on neither processes nor interruptions, and
banks of two seeds have no problem's seed in common. Each part of a bank is one file that is written whole or not at
all, with a checksum of its bytes in its name; a writer that was killed goes on with the parts that are missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import numpy as np

from jaxconcepts.tasks import bank, reasoning_labels, reasoning_text
from jaxconcepts.tasks.reasoning import ReasoningConfig, generate
from jaxconcepts.tasks.reasoning_items import Bank, pack

FORMAT = 1
SEED_STRIDE = 2**32


def write(
    folder: str | os.PathLike,
    config: ReasoningConfig,
    count: int,
    seed: int = 0,
    processes: int = 1,
    labels: bool = False,
    part_size: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> Bank:
    """Writes the bank, or what is missing of it, and reads it.

    count: problems. labels: whether the probes' labels are stored too (about 6 kB a problem). part_size: problems a
    file. progress: called with (problems done, count), first with what was there already.

    Raises ValueError where a number is not accepted, the config's operations cannot be reached, or the folder holds
    another bank or other files.
    """
    numbers = (("count", count, 1), ("seed", seed, 0), ("processes", processes, 1), ("part_size", part_size, 1))
    for name, value, least in numbers:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    if count > SEED_STRIDE:
        raise ValueError(f"count must be at most 2**32, got {count}")
    # Raises for a config without problems before there is a folder.
    generate(config, seed * SEED_STRIDE)
    request = {"format": FORMAT, "config": asdict(config), "count": count, "seed": seed, "labels": bool(labels)}
    request |= {"part_size": part_size}
    sizes = [min(part_size, count - start) for start in range(0, count, part_size)]
    make = partial(_part, config, count, seed, bool(labels), part_size)
    return _bank(bank.write(folder, request, sizes, make, processes, progress))


def load(folder: str | os.PathLike) -> Bank:
    """Reads a bank that is complete; raises ValueError as `bank.load` does."""
    return _bank(bank.load(folder))


def _bank(stored: bank.Stored) -> Bank:
    # JSON knows no tuples.
    fields = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.request["config"].items()}
    return Bank(ReasoningConfig(**fields), stored.arrays, stored.hash)


def _part(
    config: ReasoningConfig, count: int, seed: int, labels: bool, part_size: int, index: int
) -> dict[str, np.ndarray]:
    numbers = range(index * part_size, min((index + 1) * part_size, count))
    ids = reasoning_labels.ids(reasoning_text.vocabulary(config.form, config.modulus))
    return pack((generate(config, seed * SEED_STRIDE + number) for number in numbers), ids, numbers, labels)
