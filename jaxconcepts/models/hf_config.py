"""Reading a checkpoint's config.json so that nothing in it is silently ignored.

Every attribute is either taken by the family, known not to change the forward pass, or an error that names it.
Understands the names of transformers 4 (rope_theta, rope_scaling) and 5 (rope_parameters).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# What does not change the hidden states or logits of an evaluation: bookkeeping, dropout, initialisation, training.
INERT = frozenset([
        "_attn_implementation", "_attn_implementation_autoset", "_name_or_path", "architectures",
        "attention_dropout", "attn_pdrop", "auto_map", "bos_token_id", "cache_implementation", "dtype",
        "embd_pdrop", "eos_token_id", "gradient_checkpointing", "id2label", "initializer_range",
        "keys_to_ignore_at_inference", "label2id", "max_length", "model_type", "n_ctx", "num_labels",
        "output_attentions", "output_hidden_states", "pad_token_id", "problem_type", "resid_pdrop",
        "return_dict", "sep_token_id", "summary_activation", "summary_first_dropout",
        "summary_proj_to_labels", "summary_type", "summary_use_proj", "task_specific_params", "torch_dtype",
        "transformers_version", "use_cache",
])  # fmt: skip

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


def llama_like(model, architecture: str) -> dict[str, Any]:
    """A config.json's attributes of a decoder of the Llama lineage, with plain rotary frequencies: the other way round
    from `Fields.llama_like`."""
    sizes = {theirs: getattr(model, ours) for ours, theirs in SIZES.items()}
    rope = {"rope_type": "default", "rope_theta": model.rope_theta}
    return sizes | {"architectures": [architecture], "rope_parameters": rope}


class Fields:
    """The attributes of a config.json; each `take` or `only` marks one as understood, `finish` refuses what is left."""

    def __init__(self, attributes: dict[str, Any]):
        self._left = {name: value for name, value in attributes.items() if name not in INERT}
        self._model_type = attributes.get("model_type")

    def take(self, name: str, default: Any = REQUIRED) -> Any:
        """The attribute; `default` where it is absent or null. Raises ValueError where it is absent and required."""
        value = self._left.pop(name, None)
        if value is not None:
            return value
        if default is REQUIRED:
            raise ValueError(f"config.json of a {self._model_type} model must have {name!r}, and it is missing")
        return default

    def only(self, name: str, *accepted: Any) -> Any:
        """The attribute, which must be absent or one of `accepted`: nothing else is implemented."""
        value = self._left.pop(name, accepted[0])
        if value not in accepted:
            raise self._not_implemented({name: value}, f"only {' or '.join(map(repr, accepted))}")
        return value

    def nullable(self, name: str, default: Any) -> Any:
        """The attribute, None where it is null, `default` only where it is absent (transformers' default then)."""
        return self._left.pop(name, default)

    def sizes(self, optional: Iterable[str] = ("num_key_value_heads", "head_dim")) -> dict[str, Any]:
        """The sizes that decoders of the Llama lineage share, by the names of our configs."""
        sizes = {ours: self.take(theirs, None if theirs in optional else REQUIRED) for ours, theirs in SIZES.items()}
        sizes["kv_heads"] = sizes["kv_heads"] or sizes["heads"]
        sizes["head_dim"] = sizes["head_dim"] or sizes["width"] // sizes["heads"]
        return sizes

    def llama_like(self, scalings: Iterable[str] = ("default",)) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """What Llama and OLMo share, by the names of our configs (sizes, rope_theta, tied), and the rotary scaling's
        numbers as of `rope`. Refuses what none of them implements: another activation, biases of attention."""
        shared = self.sizes()
        self.only("hidden_act", "silu")
        self.only("attention_bias", False)
        self.only("pretraining_tp", 1)
        theta, scaling = self.rope(scalings, default_theta=10000.0)
        return shared | {"rope_theta": theta, "tied": self.take("tie_word_embeddings", False)}, scaling

    def rope(self, supported: Iterable[str], default_theta: float) -> tuple[float, dict[str, Any] | None]:
        """Base of the rotary frequencies, and the scaling's numbers (None for the plain kind)."""
        theta = self.take("rope_theta", None)
        found = dict(self.take("rope_parameters", None) or self.take("rope_scaling", None) or {})
        self._left.pop("rope_scaling", None)
        theta = found.pop("rope_theta", theta)
        kind = found.pop("rope_type", found.pop("type", "default"))
        found.pop("type", None)
        if kind not in supported:
            raise self._not_implemented({"rope_type": kind}, f"only {' or '.join(map(repr, supported))}")
        numbers = {"llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}}
        if set(found) != numbers.get(kind, set()):
            raise self._not_implemented(
                {"rope_parameters": found},
                f"{kind!r} takes {', '.join(sorted(numbers.get(kind, ()))) or 'nothing more'}",
            )
        return float(default_theta if theta is None else theta), (found if kind != "default" else None)

    def finish(self) -> None:
        """Raises ValueError naming every attribute, with its value, that nobody understood."""
        if self._left:
            raise self._not_implemented(self._left, "loading it would give other hidden states, or might")

    def _not_implemented(self, attributes: dict[str, Any], why: str) -> ValueError:
        named = ", ".join(f"{name} = {value!r}" for name, value in sorted(attributes.items()))
        return ValueError(
            f"config.json has {named}, which is not implemented for model_type {self._model_type!r}: {why}"
        )
