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
