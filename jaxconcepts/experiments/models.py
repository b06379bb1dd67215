"""The section "model" of a training's config: a family of decoders at a small model's sizes.

`family` is the model type of any family in `models` (`pretrained.FAMILIES`). The other fields are those of the family's
config, but for what follows from the task (vocabulary, context) and from the sizes (width of a head).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxconcepts.fields import FieldError
from jaxconcepts.models import gpt2
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.models.pretrained import FAMILIES

SIZES = {
    "layers": 4, "heads": 4, "kv_heads": 4, "width": 64, "mlp_width": 256, "tied": True, "rope_scaling": None,
    "rope_theta": 10_000.0, "local_theta": 10_000.0, "state": 16, "chunk": 64,
}  # fmt: skip
"""Defaults where they are not those of the family."""
DERIVED = (
    "context", "input_dim", "output_dim", "vocab_size", "stop_tokens", "head_dim", "query_scale", "bottleneck", "unroll"
)  # fmt: skip
"""Fields of the model that follow from others."""

DOCS = {
    "family": "architecture: one of docs/models/README.md; it decides which fields `model` and `init` have",
    "layers": "number of blocks",
    "heads": "attention heads in a block",
    "kv_heads": "heads of keys and values in a block",
    "width": "width of the residual stream",
    "mlp_width": "hidden width of the feed-forward part",
    "activation": "activation function of the feed-forward part",
    "eps": "epsilon of the norms",
    "tied": "use the embedding as the read-out",
    "dtype": "number format of weights and matrix products",
    "rope_theta": "base of the rotary frequencies",
    "rope_scaling": "scaling of the rotary frequencies",
    "rotary_share": "share of each head's dimensions that are rotated",
    "local_theta": "base of the rotary frequencies in blocks with a window",
    "window": "tokens that a block with a window sees",
    "local": "which blocks have a window",
    "score_cap": "soft cap of the attention scores; none for no cap",
    "logit_cap": "soft cap of the logits; none for no cap",
    "parallel": "attention and feed-forward part read the same stream",
    "clip_qkv": "queries, keys and values are clipped to this absolute value; none for no clipping",
    "state": "numbers that the state space keeps for each channel",
    "groups": "groups of heads; a group shares what it writes to the state and reads from it",
    "taps": "tokens that the convolution sees",
    "chunk": "tokens that are computed at once; it does not change results",
    "step_limit": "bounds of the step of the state space; none for no bounds",
    "float32_stream": "keep the residual stream in float32",
}
"""What the fields mean whose family declares no doc."""


def declared(family: str) -> tuple[type, ...]:
    """The dataclasses that declare the section's fields: docs alone, and the family's config."""
    of_docs = [(name, Any, dataclasses.field(default=None, metadata={"doc": doc})) for name, doc in DOCS.items()]
    return dataclasses.make_dataclass("Described", of_docs), FAMILIES[family]


def family_of(values: Mapping[str, Any] | None, default: str) -> str:
    """The family that a config's values name. Raises FieldError for one that there is not."""
    family = ((values or {}).get("model") or {}).get("family", default)
    if not isinstance(family, str) or family not in FAMILIES:
        raise FieldError("model.family", f"must be one of {', '.join(FAMILIES)}, got {family!r}")
    return family


def defaults(family: str) -> dict[str, Any]:
    """The section's fields at their defaults."""
    own = {of.name: of.default for of in dataclasses.fields(FAMILIES[family]) if of.name not in DERIVED}
    return {"family": family} | own | {name: value for name, value in SIZES.items() if name in own}


def make(section: Mapping[str, Any], vocab_size: int, context: int) -> Decoder:
    """The model of a section that has been read. Raises ValueError for sizes that do not fit together."""
    sizes = {name: value for name, value in section.items() if name != "family"}
    kind = FAMILIES[section["family"]]
    names = {of.name for of in dataclasses.fields(kind)}
    if kind is not gpt2.GPT2Config:
        width = sizes["width"] if "state" not in names else 2 * sizes["width"]
        if sizes["heads"] < 1 or width % (2 * sizes["heads"]):
            raise FieldError("model.width", f"must be an even multiple of model.heads, got {sizes['width']!r}")
        derived = {"head_dim": width // sizes["heads"], "query_scale": width // sizes["heads"]}
        sizes |= {name: value for name, value in derived.items() if name in names}
    return kind(**sizes, vocab_size=vocab_size, context=context)
