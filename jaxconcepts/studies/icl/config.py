"""What the in-context study is asked to do, and the families that its settings name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxconcepts.prompts import bitwise, facts, grammar, jsonl, pos, render
from jaxconcepts.prompts.family import Family


@dataclass(frozen=True)
class BitwiseConfig:
    """bits: of each operand. train, test: examples a concept."""

    bits: int = 5
    train: int = 10_000
    test: int = 500


@dataclass(frozen=True)
class PosConfig:
    """corpus: a treebank's file, CoNLL-U where it ends in .conllu, else Penn-style; "" for sentences of the built-in
    grammar, `sentences` of them. longest: leave out sentences of more words, to fit a context; 0 for no limit."""

    corpus: str = ""
    sentences: int = 4000
    longest: int = 0


@dataclass(frozen=True)
class IclConfig:
    """families: "bitwise", "pos", "facts", "fact_pairs", or the path of a JSONL file of input, output and concept.
    shots, variants: every one of the one with every one of the other (variants as of `render.prompts`; one that a
        family cannot state is left out for it).
    prompts: a concept, in each cell; the first `per_draw` of them choose the headline layer, CD is of the others.
    per_draw, draws, k: points a concept in each of so many draws; neighbours. permutations: of labels, for the null.
    bos: whether prompts begin with the beginning-of-sequence token. dtype: "float32" or "bfloat16".
    batch_size, multiple: prompts a batch; what widths of batches are rounded up to.
    keep_hidden: prompts a concept whose hidden states are stored, at `keep_layers` layers, for projections.
    jsonl_null: the name of the concept without information in JSONL files, "" for none.

    Raises ValueError naming the field.
    """

    families: tuple[str, ...] = ("bitwise", "pos")
    shots: tuple[int, ...] = (1, 2, 4, 8, 10)
    variants: tuple[str, ...] = ("plain", "rule", "name")
    prompts: int = 500
    per_draw: int = 100
    draws: int = 10
    k: int = 10
    permutations: int = 200
    bos: bool = True
    dtype: str = "float32"
    batch_size: int = 32
    multiple: int = 64
    keep_hidden: int = 0
    keep_layers: int = 5
    seed: int = 0
    jsonl_null: str = ""
    bitwise: BitwiseConfig = field(default_factory=BitwiseConfig)
    pos: PosConfig = field(default_factory=PosConfig)
    template: render.Template = field(default_factory=render.Template)

    def __post_init__(self):
        for name in ("prompts", "per_draw", "draws", "k", "permutations", "batch_size", "multiple", "keep_layers"):
            _integer(name, getattr(self, name), 1)
        for name in ("keep_hidden", "seed"):
            _integer(name, getattr(self, name), 0)
        for name in ("families", "shots", "variants"):
            # From the command line a single value comes without its comma.
            value = getattr(self, name)
            value = tuple(value) if isinstance(value, list | tuple) else (value,)
            object.__setattr__(self, name, value)
            if not value or len(set(value)) != len(value):
                raise ValueError(f"{name} must name at least one, each once; got {value}")
        for shots in self.shots:
            _integer("shots", shots, 0)
        if unknown := set(self.variants) - set(render.VARIANTS):
            raise ValueError(f"variants must be among {', '.join(render.VARIANTS)}; got {min(unknown)!r}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f'dtype must be "float32" or "bfloat16", got {self.dtype!r}')
        if self.k >= self.per_draw:
            raise ValueError(
                f"k must be below per_draw, the points of a concept's own in a draw, {self.per_draw}; got {self.k}"
            )
        if self.prompts < 2 * self.per_draw:
            raise ValueError(
                f"prompts must be at least 2 * per_draw = {2 * self.per_draw}: as many to choose the layer on as in a "
                f"draw; got {self.prompts}"
            )
        if self.keep_hidden > self.prompts - self.per_draw:
            most = self.prompts - self.per_draw
            raise ValueError(f"keep_hidden must be at most prompts - per_draw = {most}, got {self.keep_hidden}")


def from_fields(fields: Mapping[str, Any]) -> IclConfig:
    """The config of nested fields, those left out at their defaults. Raises ValueError naming an unknown field."""
    return read(IclConfig, fields)


def default_fields() -> dict[str, Any]:
    """All fields at their defaults, nested: what a config file starts from."""
    return dataclasses.asdict(IclConfig())


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
            family = jsonl.family(name, config.seed, null=config.jsonl_null or None)
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
    return (pos.read_conllu if config.pos.corpus.endswith(".conllu") else pos.read_penn)(config.pos.corpus)


def read(kind, fields: Mapping[str, Any], prefix: str = ""):
    """The dataclass `kind` of nested fields. Raises ValueError naming, after `prefix`, one that it does not have."""
    known = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := [name for name in fields if name not in known]:
        raise ValueError(f"unknown config field: {prefix}{unknown[0]}; there are {', '.join(known)}")
    values = {}
    for name, value in fields.items():
        nested = known[name].default_factory
        values[name] = read(nested, value, f"{prefix}{name}.") if isinstance(value, Mapping) else value
    return kind(**values)


def _integer(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
