"""Token banks: windows of whole biographies and windows of whole questions, for training on made-up people.

A bank is a pure function of people, config and tokenizer. `schedule` says which window comes when: mixed, or one stage
after the other (arXiv 2309.14316, sections 3 and 4).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Int

from jaxconcepts.tasks import bank as files
from jaxconcepts.tasks.biographies_encoding import MARKS, NAME, Item, biography_item, question_item, windows
from jaxconcepts.tasks.biographies_people import People, check_form, check_seed
from jaxconcepts.tasks.biographies_people import people as draw_people
from jaxconcepts.tasks.biographies_questions import OF_TWO, ask, check_kind
from jaxconcepts.tasks.biographies_text import compose, parse_variant
from jaxconcepts.tasks.biographies_vocabulary import Tokenizer, vocabulary

# Regime -> its stages, in order.
REGIMES = {"mixed": ("mixed",), "staged": ("biographies", "questions")}
STAGES = ("mixed", "biographies", "questions")


@dataclass(frozen=True)
class BankConfig:
    """What a bank holds.

    window: T, tokens. form: "english" or "compact". variant: of the biographies (`biographies_text.parse_variant`).
    kinds: of the questions. qa_share: tokens of questions among all in the mixed stage, in [0, 1).
    hint_share: of the questions (not of "extract") that ask for the facts first, in [0, 1].
    held_out: share of people about whom no question is asked in training, in (0, 1); their biographies are all there.
    celebrities: share of people whose biographies are of celebrity_variant, in [0, 1). Where there are some, the others
        are held out, and `held_out` (0 is then accepted) is the share of celebrities that is.
    passes: how often all biographies and questions come, each time in another order and, for questions about two
        people, with another partner. answers_only: loss in question windows on the answer and the end alone.
    """

    window: int
    form: str = "english"
    variant: str = "single"
    kinds: tuple[str, ...] = ("extract",)
    qa_share: float = 0.8
    hint_share: float = 0.0
    held_out: float = 0.5
    celebrities: float = 0.0
    celebrity_variant: str = "multi5+permute"
    passes: int = 1
    answers_only: bool = True
    seed: int = 0

    def __post_init__(self):
        check_form(self.form)
        check_seed(self.seed)
        for field in ("variant", "celebrity_variant"):
            try:
                parse_variant(getattr(self, field))
            except ValueError as error:
                raise ValueError(f"bank.{field}{str(error).removeprefix('variant')}") from error
        object.__setattr__(self, "kinds", tuple(check_kind(kind) for kind in self.kinds))
        if not self.kinds or len(set(self.kinds)) != len(self.kinds):
            raise ValueError(f"bank.kinds must be distinct and not empty, got {self.kinds}")
        for field in ("window", "passes"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"bank.{field} must be a positive integer, got {value!r}")
        for field, top in (("qa_share", "1)"), ("hint_share", "1]"), ("held_out", "1)"), ("celebrities", "1)")):
            value = getattr(self, field)
            if not (0 <= value < 1 or (top == "1]" and value == 1)):
                raise ValueError(f"bank.{field} must be in [0, {top}, got {value!r}")


@dataclass(frozen=True, eq=False)
class Split:
    """Which people are asked about in training, which are held out of all questions, and which are celebrities."""

    asked: Bool[np.ndarray, " people"]
    held_out: Bool[np.ndarray, " people"]
    celebrity: Bool[np.ndarray, " people"]


@dataclass(frozen=True, eq=False)
class Bank:
    """W windows of T tokens.

    tokens: [W, T]; each item is bos, text, eos, whole, and padding stands at the end only. loss_mask: [W, T], True
    where a token is a target, predicted from those before it. group: [W, T], the person, -1 on padding. words: [W, T],
    the number of the word that a token is part of, within its window; -1 on special tokens, which are never masked.
    question: [W], whether the window holds questions. spots: [R, 4], rows of (window, position, person, mark): the
    positions from which what is marked is predicted (`MARKS`: each attribute's value, an answer), and for "name" the
    name's last token. asked: [Q, 3], rows of (person, partner or -1, number in LABELS), one for each question in it.
    split, config, tokenizer: what it was made with. hash: of all that, hexadecimal.
    """

    tokens: Int[np.ndarray, "W T"]
    loss_mask: Bool[np.ndarray, "W T"]
    group: Int[np.ndarray, "W T"]
    words: Int[np.ndarray, "W T"]
    question: Bool[np.ndarray, " W"]
    spots: Int[np.ndarray, "R 4"]
    asked: Int[np.ndarray, "Q 3"]
    split: Split
    config: BankConfig
    tokenizer: Tokenizer
    hash: str


def split(people: People, config: BankConfig) -> Split:
    """Divides the people at random. Raises ValueError where nobody would be asked about, or nobody held out."""
    rng = np.random.default_rng((people.seed, config.seed, 0))
    count = len(people)
    order = rng.permutation(count)
    famous = round(config.celebrities * count)
    if config.celebrities and not 0 < famous < count:
        raise ValueError(
            f"bank.celebrities = {config.celebrities} of {count} people makes {famous}; at least one on each side is "
            "accepted"
        )
    candidates = order[:famous] if famous else order
    asked = len(candidates) - round(config.held_out * len(candidates))
    if asked < 1 or asked == count:
        raise ValueError(
            f"bank.held_out = {config.held_out} of {len(candidates)} people leaves {asked} to ask about and "
            f"{count - asked} held out; at least one on each side accepted"
        )
    masks = np.zeros((2, count), bool)
    masks[0, candidates[:asked]] = True
    masks[1, order[:famous]] = True
    return Split(asked=masks[0], held_out=~masks[0], celebrity=masks[1])


def bank(people: People, config: BankConfig, tokenizer: Tokenizer | None = None) -> Bank:
    """All windows of a world: every person's biographies, and questions about the people who are not held out.

    Biographies are shuffled over all people, and so are questions: a person's own texts do not stand together.
    tokenizer: None takes one token a word (`biographies_vocabulary.vocabulary`).

    Raises ValueError where the split leaves no one on a side, or the window is shorter than the longest item.
    """
    tokenizer = vocabulary(people, config.form) if tokenizer is None else tokenizer
    sides = split(people, config)
    parts = [_pass(people, config, sides, tokenizer, number) for number in range(config.passes)]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _bank(people, config, sides, tokenizer, arrays)


def write(
    folder: str | os.PathLike,
    people: People,
    config: BankConfig,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Bank:
    """The same bank, of one token a word, kept in a folder: a file a pass, by several processes (`tasks.bank.write`).

    progress: called with (passes done, all). Raises ValueError as `bank` and `tasks.bank.write` do.
    """
    sides = split(people, config)
    world = {"people": len(people), "seed": people.seed, "cardinalities": asdict(people.cardinalities)}
    make = partial(_part, len(people), people.seed, people.cardinalities, config)
    stored = files.write(folder, {"config": asdict(config)} | world, [1] * config.passes, make, processes, progress)
    return _bank(people, config, sides, vocabulary(people, config.form), dict(stored.arrays))


def _part(count, seed, cardinalities, config, number) -> dict[str, np.ndarray]:
    people = draw_people(count, seed, cardinalities)
    return _pass(people, config, split(people, config), vocabulary(people, config.form), number)


def _pass(people, config, sides, tokenizer, number) -> dict[str, np.ndarray]:
    """The windows of all texts in one order. windows: [1], how many; spots are numbered from this part's first."""
    rng = np.random.default_rng((people.seed, config.seed, 1, number))
    told = _shuffled(_biographies(people, config, sides, tokenizer), rng)
    asked = _shuffled(_questions(people, config, sides, tokenizer, rng), rng)
    longest = max(told + asked, key=len)
    if len(longest) > config.window:
        kind = "question" if longest.label >= 0 else "biography"
        raise ValueError(
            f"bank.window must be at least {len(longest)}, the tokens of the longest {kind} with its start and end, "
            f"because items are not cut; got {config.window}"
        )
    arrays = windows(told, asked, config.window, tokenizer.pad)
    pairs = [(item.persons[0], item.persons[1] if len(item.persons) > 1 else -1, item.label) for item in asked]
    return arrays | {
        "asked": np.array(pairs, np.int32), "windows": np.array([len(arrays["tokens"])]),
        "marked": np.array([len(arrays["spots"])]),
    }  # fmt: skip


def _bank(people, config, sides, tokenizer, arrays) -> Bank:
    windows, marked = arrays.pop("windows"), arrays.pop("marked")
    first = np.repeat(np.cumsum(windows) - windows, marked)
    spots = arrays["spots"]
    arrays["spots"] = np.concatenate([spots[:, :1] + first[:, None].astype(np.int32), spots[:, 1:]], 1)
    return Bank(
        **arrays, split=sides, config=config, tokenizer=tokenizer, hash=_hash(arrays, sides, config, people.seed)
    )


def window_share(bank: Bank) -> float:
    """The share of windows that must be of questions for `qa_share` of the tokens, padding left out, to be."""
    lengths = (bank.group >= 0).sum(axis=1)
    told, asked = lengths[~bank.question].mean(), lengths[bank.question].mean()
    share = bank.config.qa_share
    return float(share * told / (share * told + (1 - share) * asked))


def schedule(bank: Bank, stage: str, count: int, seed: int = 0) -> Int[np.ndarray, " count"]:
    """The windows of `count` draws, in order: what batch after batch is filled with.

    stage: "biographies" or "questions" alone, or "mixed": each draw is of questions with `window_share`. Windows of a
    kind come in random order, all of them before any comes again. The first draws do not depend on `count`.

    Raises ValueError for an unknown stage or a count below 1.
    """
    if stage not in STAGES:
        raise ValueError(f"stage must be one of {', '.join(STAGES)}, got {stage!r}")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"count must be a positive integer, got {count!r}")
    check_seed(seed)
    share = {"mixed": window_share(bank), "biographies": 0.0, "questions": 1.0}[stage]
    question = np.random.default_rng((seed, 0)).random(count) < share
    drawn = np.empty(count, np.int32)
    for kind in (False, True):
        windows = np.flatnonzero(bank.question == kind)
        rounds = -(-int((question == kind).sum()) // len(windows))
        orders = [np.random.default_rng((seed, 1 + kind, number)).permutation(windows) for number in range(rounds)]
        drawn[question == kind] = np.concatenate([*orders, np.empty(0, np.int32)])[: (question == kind).sum()]
    return drawn


def exposures(bank: Bank, drawn: Int[np.ndarray, " count"]) -> Int[np.ndarray, " people"]:
    """How often each person's biographies are read in the windows drawn."""
    times = np.bincount(drawn, minlength=len(bank.tokens))
    rows = bank.spots[(bank.spots[:, 3] == MARKS.index(NAME)) & ~bank.question[bank.spots[:, 0]]]
    return np.bincount(rows[:, 2], times[rows[:, 0]], len(bank.split.asked)).astype(np.int64)


def _shuffled(items: Sequence[Item], rng) -> list[Item]:
    return [items[i] for i in rng.permutation(len(items))]


def _biographies(people, config, sides, tokenizer) -> list[Item]:
    variants = {False: parse_variant(config.variant), True: parse_variant(config.celebrity_variant)}
    return [
        biography_item(compose(people, person, variant, version, config.form), person, tokenizer)
        for person, famous in enumerate(sides.celebrity.tolist())
        for variant in (variants[famous],)
        for version in range(variant.versions)
    ]


def _questions(people, config, sides, tokenizer, rng) -> list[Item]:
    asked = np.flatnonzero(sides.asked)
    if len(asked) < 2 and set(config.kinds) & set(OF_TWO):
        raise ValueError(f"bank.kinds {config.kinds} need two people to ask about in training, got {len(asked)}")
    items = []
    for i, person in enumerate(asked.tolist()):
        for kind in config.kinds:
            partner = None
            if kind in OF_TWO:
                # Only people who may be asked about: a held-out partner would be asked about too.
                partner = int(asked[(i + rng.integers(1, len(asked))) % len(asked)])
            plain = ask(people, person, kind, False, partner, config.form)
            hinted = plain if kind == "extract" else ask(people, person, kind, True, partner, config.form)
            hints = rng.random(len(plain)) < config.hint_share
            items += [
                question_item(hinted[j] if hint else plain[j], people, tokenizer, config.answers_only)
                for j, hint in enumerate(hints)
            ]
    if not items:
        raise ValueError(f"bank.kinds {config.kinds} have no question about the {len(asked)} people of training")
    return items


def _hash(arrays, sides, config, seed):
    digest = hashlib.sha256(json.dumps([asdict(config), seed], sort_keys=True).encode())
    for name, array in sorted({**arrays, **vars(sides)}.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
