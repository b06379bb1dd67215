"""Reading a checkpoint's config.json so that nothing in it is silently ignored.

Every attribute is taken by the family; or neutral: of the tables of `hf_attributes`; or an error that names it. A
number, text or flag that no code of the reference reads is a warning that names it. Understands the names of
transformers 4 (rope_theta, rope_scaling) and 5 (rope_parameters).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any, NoReturn

from jaxconcepts.models import hf_attributes, rotary
from jaxconcepts.models.hf_values import is_positive, is_scalar, is_whole, shown

REQUIRED = object()

# Our names of the sizes that decoders of the Llama lineage share, and the attributes that hold them.
SIZES = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "mlp_width": "intermediate_size",
    "context": "max_position_embeddings",
}
# Far beyond every published model, and small enough for any product of two to be counted.
MOST = {"layers": 10_000, "context": 2**30}
MOST_OTHERWISE = 2**24

LAYER_TYPES = ("sliding_attention", "full_attention")

# How checkpoints whose weights are packed numbers say so, and what can be done.
QUANTISED = (
    "quantised weights are not read from safetensors: load the model that it was made from, a GGUF file of it, or "
    "dequantise it first (transformers: model.dequantize(), then save_pretrained)"
)


def llama_like(model, architecture: str) -> dict[str, Any]:
    """A config.json's attributes of a decoder of the Llama lineage: the other way round from `Fields.llama_like`."""
    sizes = {theirs: getattr(model, ours) for ours, theirs in SIZES.items()}
    rope = rotary.to_hf(model.rope_theta, getattr(model, "rope_scaling", None))
    if hasattr(model, "local_theta"):
        rope = dict(zip(LAYER_TYPES, (rotary.to_hf(model.local_theta, None), rope), strict=True))
    return sizes | {"architectures": [architecture], "rope_parameters": rope}


def layer_types(is_local: Iterable[bool]) -> list[str]:
    """layer_types of a config.json: the other way round from `Fields.local`."""
    return [LAYER_TYPES[0] if local else LAYER_TYPES[1] for local in is_local]


class Fields:
    """The attributes of a config.json. Each method that returns one marks it as understood and checks its type and
    bounds; `finish` refuses what is left and matters. Every ValueError names the file and the attribute."""

    def __init__(self, attributes: dict[str, Any], path: str = "config.json"):
        self._all, self.path = attributes, path
        self._left = {name: value for name, value in attributes.items() if name not in hf_attributes.NEUTRAL}
        self._model_type = attributes.get("model_type")
        if attributes.get("quantization_config") is not None:
            method = attributes["quantization_config"]
            method = method.get("quant_method", method) if isinstance(method, dict) else method
            raise ValueError(f"{path} has quantization_config of {method!r}, which is not implemented: {QUANTISED}")

    def take(self, name: str, default: Any = REQUIRED) -> Any:
        """The attribute; `default` where it is absent or null. Raises ValueError where it is absent and required."""
        value = self._left.pop(name, None)
        if value is not None:
            return value
        if default is REQUIRED:
            raise ValueError(f"{self.path} of a {self._model_type} model must have {name!r}, and it is missing")
        return default

    def count(self, name: str, default: Any = REQUIRED, most: int = MOST_OTHERWISE) -> Any:
        """A whole number from 1 to `most`."""
        value = self.take(name, default)
        if value is not default and not (is_whole(value) and 1 <= value <= most):
            self.wrong(name, value, f"a whole number from 1 to {most}")
        return value

    def number(self, name: str, default: Any = REQUIRED) -> Any:
        """A positive finite number."""
        value = self.take(name, default)
        if value is not default and not is_positive(value):
            self.wrong(name, value, "a positive number")
        # JAX takes no larger whole number.
        return float(value) if is_whole(value) and value >= 2**31 else value

    def flag(self, name: str, default: Any = REQUIRED) -> Any:
        """true or false."""
        value = self.take(name, default)
        if value is not default and not isinstance(value, bool):
            self.wrong(name, value, "true or false")
        return value

    def cap(self, name: str, default: float | None) -> float | None:
        """A positive number, None where it is null, `default` only where it is absent (transformers' default then)."""
        value = self._left.pop(name, default)
        if value is not None and not is_positive(value):
            self.wrong(name, value, "a positive number or null")
        return None if value is None else float(value)

    def bounds(self, name: str) -> tuple[float, float] | None:
        """[least, most]; None where it is absent or bounds nothing."""
        value = self.take(name, [0, math.inf])
        is_pair = isinstance(value, list) and len(value) == 2 and all(type(one) in (int, float) for one in value)
        if not is_pair or not 0 <= value[0] < value[1]:
            self.wrong(name, value, "[least, most] with 0 <= least < most")
        return None if value == [0, math.inf] else (float(value[0]), float(value[1]))

    def default(self, name: str, value: Any) -> None:
        """What an attribute is where it is absent or null."""
        if self._left.get(name) is None:
            self._left[name] = value

    def only(self, name: str, *accepted: Any) -> Any:
        """The attribute, which must be absent or one of `accepted`: nothing else is implemented."""
        value = self._left.pop(name, accepted[0])
        # 1 is True to Python, and 0 False.
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in accepted):
            raise self._not_implemented({name: value}, f"only {' or '.join(map(repr, accepted))}")
        return value

    def same(self, name: str, value: Any) -> None:
        """An older or newer name of what is `value` here; it may be absent, or must be the same."""
        given = self._left.pop(name, None)
        if given is not None and given != value:
            self.wrong(name, given, f"{value!r}, as the attribute that it repeats")

    def local(self, layers: int) -> tuple[bool, ...]:
        """Which layers see a window alone, by layer_types; empty where it is absent."""
        kinds = self.take("layer_types", ())
        if kinds == ():
            return ()
        if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in LAYER_TYPES for kind in kinds):
            self.wrong("layer_types", kinds, f"a list of {layers}, one a layer, of {', '.join(LAYER_TYPES)}")
        return tuple(kind == LAYER_TYPES[0] for kind in kinds)

    def sizes(self, optional: Iterable[str] = ("num_key_value_heads", "head_dim")) -> dict[str, Any]:
        """The sizes that decoders of the Llama lineage share, by the names of our configs."""
        sizes = {}
        for ours, theirs in SIZES.items():
            default = None if theirs in optional else REQUIRED
            sizes[ours] = self.count(theirs, default, MOST.get(ours, MOST_OTHERWISE))
        sizes["kv_heads"] = sizes["kv_heads"] or sizes["heads"]
        if sizes["heads"] % sizes["kv_heads"]:
            accepted = f"a divisor of num_attention_heads = {sizes['heads']}"
            self.wrong("num_key_value_heads", sizes["kv_heads"], accepted)
        if not sizes["head_dim"] and sizes["width"] % sizes["heads"]:
            accepted = f"a multiple of num_attention_heads = {sizes['heads']} where head_dim is not given"
            self.wrong("hidden_size", sizes["width"], accepted)
        sizes["head_dim"] = sizes["head_dim"] or sizes["width"] // sizes["heads"]
        if sizes["head_dim"] % 2:
            self.wrong("head_dim", sizes["head_dim"], "an even number: rotary positions turn pairs")
        return sizes

    def llama_like(
        self, scalings: Iterable[str] = ("default",), activation: str = "silu", attention_bias: bool = False
    ) -> dict[str, Any]:
        """What the Llama lineage shares, by the names of our configs: sizes, rope_theta, rope_scaling (where a kind
        beside "default" is among `scalings`), tied. Refuses another activation, and biases of attention."""
        shared = self.sizes()
        self.only("hidden_act", activation)
        self.only("attention_bias", attention_bias)
        self.only("pretraining_tp", 1, None)
        theta, scaling = self.rope(scalings, 10000.0, shared["context"], shared["head_dim"])
        if tuple(scalings) != ("default",):
            shared["rope_scaling"] = scaling
        return shared | {"rope_theta": theta, "tied": self.flag("tie_word_embeddings", False)}

    def rope(
        self,
        supported: Iterable[str],
        default_theta: float,
        context: int,
        head_dim: int,
        theta_name: str = "rope_theta",
        original: int | None = None,
    ) -> tuple[float, rotary.Scaling | None]:
        """Base of the rotary frequencies, and their scaling (None for the plain kind).

        original: of original_max_position_embeddings, where the reference has a default. Where both rope_scaling and
        rope_parameters are given the former counts, as in transformers.
        """
        theta = self.number(theta_name, float(default_theta))
        original = self.count("original_max_position_embeddings", original, MOST["context"])
        name, given = self._rope_object()
        for either in ("rope_scaling", "rope_parameters"):
            self._left.pop(either, None)
        return rotary.from_hf(self, name, given, tuple(supported), theta, (context, original), head_dim)

    def turned(self, head_dim: int, default: float, name: str = "partial_rotary_factor") -> int:
        """How many of a head's dimensions rotary positions turn: a share of them, in the rotary object or under `name`;
        to be called before `rope`."""
        share = self.number(name, default)
        where, given = self._rope_object()
        if isinstance(given, dict) and given.get("partial_rotary_factor") is not None:
            self._left[where] = given = dict(given)
            name, share = f"partial_rotary_factor of {where}", given.pop("partial_rotary_factor")
        if not is_positive(share) or share > 1 or int(head_dim * share) % 2 or int(head_dim * share) < 2:
            self.wrong(name, share, f"a share of up to 1 that is an even number of a head's {head_dim} dimensions")
        return int(head_dim * share)

    def rope_by_kind(
        self,
        supported: Iterable[str],
        default_theta: float,
        context: int,
        head_dim: int,
        local_theta: float,
        local_name: str | None = None,
    ) -> tuple[float, rotary.Scaling | None, float]:
        """`rope` where layers that see everything have other rotary frequencies than those that see a window: base and
        scaling of the former, and base of the latter, which are plain."""
        theta = self.number("rope_theta", float(default_theta))
        local_theta = self.number(local_name, float(local_theta)) if local_name else float(local_theta)
        scaling, both = self.take("rope_scaling", {}), self.take("rope_parameters", {})
        for name, value in (("rope_scaling", scaling), ("rope_parameters", both)):
            if not isinstance(value, dict):
                self.wrong(name, value, "an object")
        if set(both) - set(LAYER_TYPES) or any(not isinstance(part, (dict, type(None))) for part in both.values()):
            self.wrong("rope_parameters", both, f"an object with an object for each of {', '.join(LAYER_TYPES)}")
        local, everywhere = (both.get(kind) or {} for kind in LAYER_TYPES)
        names = [f"rope_parameters.{kind}" for kind in LAYER_TYPES]
        contexts = (context, None)
        local_theta, _ = rotary.from_hf(self, names[0], local, ("default",), local_theta, contexts, head_dim)
        supported = tuple(supported)
        theta, scaled = rotary.from_hf(self, names[1], everywhere | scaling, supported, theta, contexts, head_dim)
        return theta, scaled, local_theta

    def window(self, default: int | None) -> int | None:
        """sliding_window: None where it is null, `default` where it is absent."""
        value = self._left.pop("sliding_window", default)
        if value is not None and not (is_whole(value) and 1 <= value <= MOST["context"]):
            self.wrong("sliding_window", value, f"a whole number from 1 to {MOST['context']}, or null")
        return value

    def _rope_object(self) -> tuple[str, Any]:
        name = "rope_scaling" if self._left.get("rope_scaling") not in (None, {}) else "rope_parameters"
        given = self._left.get(name)
        return name, {} if given is None else given

    def finish(self) -> None:
        """Raises ValueError naming every attribute that is left and matters, with its value; warns of scalars that no
        code of the reference reads."""
        left = {n: v for n, v in self._left.items() if not self._is_neutral(n, v)}
        reads = hf_attributes.FAMILY_READS.get(self._model_type, frozenset()) | set(hf_attributes.SHARED_READS)
        matter = {n: v for n, v in left.items() if n in reads or not is_scalar(v)}
        if matter:
            raise self._not_implemented(matter, "loading it would give other hidden states, or might")
        if unread := {n: v for n, v in left.items() if v is not None}:
            named = ", ".join(f"{name} = {value!r}" for name, value in sorted(unread.items()))
            warnings.warn(
                f"{self.path}: {named}: no {self._model_type} model reads this, so it is ignored", stacklevel=3
            )

    def _is_neutral(self, name: str, value: Any) -> bool:
        if name in hf_attributes.GENERATION or name in hf_attributes.EITHER_WAY:
            return True
        for table in (hf_attributes.BASE_DEFAULTS, hf_attributes.SHARED_READS):
            if name in table and (value is None or (value == table[name] and type(value) is type(table[name]))):
                return True
        return False

    def wrong(self, name: str, value: Any, accepted: str) -> NoReturn:
        """Raises the ValueError of a value that is none of what is accepted."""
        raise ValueError(f"{self.path}: {name} must be {accepted}, got {shown(value)}")

    def unread(self, name: str, value: Any) -> None:
        """Leaves a name of a nested object to the rule of `finish`."""
        self._left[name] = value

    def _not_implemented(self, attributes: dict[str, Any], why: str) -> ValueError:
        named = ", ".join(f"{name} = {shown(value)}" for name, value in sorted(attributes.items()))
        return ValueError(f"{self.path} has {named}, which is not implemented for {self._model_type!r} models: {why}")
