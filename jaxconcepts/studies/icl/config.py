"""What the in-context study is asked to do, and the families that its settings name."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxconcepts import fields as typed
from jaxconcepts.fields import FieldError, field, section
from jaxconcepts.prompts import bitwise, facts, grammar, jsonl, pos, render
from jaxconcepts.prompts.family import Family

MANY = 10_000_000
"""More prompts, sentences or points than any study has: a slip of the keyboard is refused before memory runs out."""


@dataclass(frozen=True)
class BitwiseConfig:
    """Bit operations on two numbers."""

    bits: int = field(5, "bits in each operand", low=1, high=32)
    train: int = field(10_000, "examples of each concept for demonstrations", low=1, high=MANY)
    test: int = field(500, "examples of each concept for queries", low=1, high=MANY)

    def __post_init__(self):
        typed.check(self)


@dataclass(frozen=True)
class PosConfig:
    """The first word with a part of speech."""

    corpus: str = field("", "files of a treebank, separated by commas; * stands for any letters; CoNLL-U if they end "
                        "in .conllu, else Penn style; empty for the built-in grammar")  # fmt: skip
    sentences: int = field(4000, "number of sentences of the built-in grammar", low=1, high=MANY)
    longest: int = field(0, "leave out sentences with more words, to fit a context; 0 for no limit", low=0)

    def __post_init__(self):
        typed.check(self)


@dataclass(frozen=True)
class Tasks:
    """Which tasks a language model is asked, and how prompts are written."""

    families: tuple[str, ...] = field(
        ("bitwise", "pos"),
        "bitwise, pos, facts, fact_pairs, or the path of a JSONL file of input, output and concept",
        low=1,
    )
    bos: bool = field(True, "begin each prompt with the beginning-of-sequence token")
    dtype: Literal["float32", "bfloat16"] = field("float32", "number format that the model computes in")
    seed: int = field(0, "seed of prompts, draws and directions", low=0)
    jsonl_null: str = field("", "the concept without information in JSONL files; empty for none")
    jsonl_skip_missing: bool = field(
        False, "leave out lines of JSONL files whose concept is null, NaN or absent", added=True
    )
    bitwise: BitwiseConfig = section(BitwiseConfig)
    pos: PosConfig = section(PosConfig)
    template: render.Template = section(render.Template)


@dataclass(frozen=True)
class Measuring:
    """How accuracy and CD are measured."""

    variants: tuple[str, ...] = field(("plain", "rule", "name"), "variants of the prompts", choices=render.VARIANTS)
    prompts: int = field(
        500, "prompts of a concept in a cell: the first per_draw choose the headline layer, the others give CD",
        low=1, high=MANY,
    )  # fmt: skip
    per_draw: int = field(100, "prompts of a concept in each draw", low=1, high=MANY)
    draws: int = field(
        10, "largest number of draws that CD is the mean over; draws share no prompt", low=1, high=100_000
    )
    k: int = field(10, "number of neighbours", low=1)
    permutations: int = field(200, "number of permutations of labels, for the null of CD", low=1, high=1_000_000)
    batch_size: int = field(32, "prompts in a batch", low=1, high=1_000_000)
    multiple: int = field(64, "lengths of batches are rounded up to a multiple of this", low=1, high=1_000_000)
    keep_hidden: int = field(0, "prompts of a concept whose hidden states are stored for projections", low=0)
    keep_layers: int = field(5, "number of layers at which they are stored", low=1)

    def __post_init__(self):
        typed.check(self)
        check_names("variants", self.variants)
        if self.k >= self.per_draw:
            raise FieldError(
                "k", f"must be below per_draw = {self.per_draw}, a concept's points in a draw, got {self.k}"
            )
        if self.prompts < 2 * self.per_draw:
            raise FieldError(
                "prompts",
                f"must be at least 2 * per_draw = {2 * self.per_draw}: as many to choose the layer on as in a draw; "
                f"got {self.prompts}",
            )
        if self.keep_hidden > self.prompts - self.per_draw:
            most = self.prompts - self.per_draw
            raise FieldError("keep_hidden", f"must be at most prompts - per_draw = {most}, got {self.keep_hidden}")


@dataclass(frozen=True)
class IclConfig(Tasks, Measuring):
    """The in-context study: each of the shots with each of the variants is a cell. A variant that a family cannot state
    is left out for it.

    Raises FieldError naming the field.
    """

    shots: tuple[int, ...] = field((1, 2, 4, 8, 10), "demonstrations in a prompt", low=0, high=10_000)
    untrained: bool = field(
        True, "in the in-context study: also measure CD of an untrained model of the same shape, once for each shape, "
        "on per_draw prompts of a concept", added=True,
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        for name in ("families", "shots"):
            check_names(name, getattr(self, name))


def check_names(name: str, value: tuple[Any, ...]) -> None:
    """Raises FieldError unless the tuple names something, and nothing twice."""
    if not value or len(set(value)) != len(value):
        raise FieldError(name, f"must name at least one, each once; got {value}")


def from_fields(fields: Mapping[str, Any]) -> IclConfig:
    """The config of nested fields, those left out at their defaults. Raises FieldError as `fields.read` does."""
    return typed.read(IclConfig, fields)


def default_fields() -> dict[str, Any]:
    """All fields at their defaults, nested: what a config file starts from."""
    return typed.defaults(IclConfig)


def families(config: IclConfig) -> dict[str, Family]:
    """The families by their names. Raises ValueError for an unknown one, two of one name, and as the families do."""
    made: dict[str, Family] = {}
    for name in config.families:
        if name == "bitwise":
            family = bitwise.family(**dataclasses.asdict(config.bitwise), seed=config.seed)
        elif name == "pos":
            family = pos.family(_sentences(config), config.seed, longest=config.pos.longest or None)
        elif name in facts.FAMILIES:
            family = facts.FAMILIES[name](config.seed)
        elif name.endswith((".jsonl", ".json")):
            family = jsonl.family(
                name, config.seed, null=config.jsonl_null or None, skip_missing=config.jsonl_skip_missing
            )
        else:
            known = ", ".join(("bitwise", "pos", *facts.FAMILIES))
            raise ValueError(f"families must be among {known}, or the path of a .jsonl file; got {name!r}")
        if family.name in made:
            raise ValueError(f"families must have distinct names, got {family.name!r} twice")
        made[family.name] = family
    return made


def _sentences(config: IclConfig):
    if not config.pos.corpus:
        return grammar.sentences(config.pos.sentences, config.seed)
    paths = [
        path for part in config.pos.corpus.split(",") for path in sorted(glob.glob(part.strip())) or [part.strip()]
    ]
    return [s for path in paths for s in (pos.read_conllu if path.endswith(".conllu") else pos.read_penn)(path)]
