"""What every decoder-only language model is made of: the contract between a family's file and everything that runs it.

A family is one file: a frozen config dataclass that inherits `Decoder` (the `model` that users hold), a Linen `Block`,
and the tables that name its parameters in a Hugging Face checkpoint and shard them over a mesh. Parameters are a plain
dict: "embed" [V, d], "unembed" [V, d] where it is not tied, "final_norm", and "blocks" stacked on a leading layer axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PyTree

# Matrices that read the stream are split by their outputs, those that write to it by their inputs, tables by words.
SHARDING = (
    (r"(un)?embed", P("model", None)),
    (r"blocks/(q|k|v|gate|up)/kernel", P(None, None, "model")),
    (r"blocks/(out|down)/kernel", P(None, "model", None)),
    (r"blocks/\w*norm/scale|final_norm/scale", P()),
)

EVERYWHERE = 2**30  # a window wider than any context


class Context(NamedTuple):
    """Where a block's tokens stand.

    positions: [B or 1, T] of the new tokens.
    past: keys and values [B, S, kv_heads, head_dim] of earlier tokens, slot s holding position s; the slots before a
        row's first new position are seen, the others are not.
    window: how many positions back attention reaches, itself included; [T, 1] where tokens differ in it.
    queries: [B, P] which of the new tokens (counted from 0) have their stream taken further, None for all. The others
        still give keys and values: what the last block is for, where the stream is read at a few tokens.
    attention: "xla", the reference; "cudnn", a fused kernel, where positions are 0, 1, ... and there is no window and
        no soft-cap (see `language.attention_of`).
    """

    positions: Int[Array, "B T"]
    past: tuple[Array, Array] | None = None
    window: Int[Array, "*each"] | None = None
    attention: str = "xla"
    queries: Int[Array, "B P"] | None = None

    def asked(self, x: Float[Array, "B T ..."]) -> Float[Array, "B P ..."]:
        """x at the tokens whose stream is taken further."""
        if self.queries is None:
            return x
        places = self.queries.reshape(*self.queries.shape, *[1] * (x.ndim - 2))
        return jnp.take_along_axis(jnp.broadcast_to(x, (len(places), *x.shape[1:])), places, axis=1)


class Written(NamedTuple):
    """What a block hands on beside the stream: keys and values [B, T, kv_heads, head_dim] of the new tokens, and the
    heads' outputs [B, T, heads, head_dim] before the output projection, as edited."""

    keys: Array
    values: Array
    heads: Array


class Decoder:
    """Base of the families' configs; no fields of its own.

    Fields that a family's dataclass has: vocab_size, width, layers, heads, kv_heads, head_dim, context, eps, tied,
    dtype ("float32" or "bfloat16": of weights, matrix products and the stream), stop_tokens (end-of-text ids).
    """

    MODEL_TYPE: ClassVar[str]
    # Parameter path -> tensor name, {} standing for the layer.
    CHECKPOINT: ClassVar[Mapping[str, str]]
    # Whether the checkpoint's matrices are [outputs, inputs], as torch's Linear keeps them.
    TRANSPOSED: ClassVar[bool] = True
    # A prefix that checkpoints of the bare model leave out, and expressions for tensors that are no parameters.
    BASE_PREFIX: ClassVar[str] = ""
    BUFFERS: ClassVar[tuple[str, ...]] = ()
    SHARDING: ClassVar[tuple[tuple[str, P], ...]] = SHARDING

    def block(self) -> nn.Module:
        """Called as block(stream, context, head_edits) -> (stream, `Written`); see `residual.HeadEdits`."""
        raise NotImplementedError

    def final_norm(self) -> nn.Module:
        raise NotImplementedError

    @classmethod
    def from_hf(cls, fields) -> Decoder:
        """The config that the checkpoint's config.json says; `fields` is a `hf_config.Fields`."""
        raise NotImplementedError

    def to_hf(self) -> dict[str, Any]:
        """What config.json says of this model, model_type, dtype and stop tokens aside."""
        raise NotImplementedError

    def windows(self) -> Int[np.ndarray, " layers"] | None:
        """How far back each layer's attention reaches; None where all reach everywhere."""
        return None

    def embed(self, params: PyTree, tokens: Int[Array, "B T"], positions) -> Float[Array, "B T d"]:
        return params["embed"][tokens]

    def unembed(self, params: PyTree, stream: Float[Array, "*B d"]) -> Float[Array, "*B V"]:
        """Final norm and logits in float32."""
        normed = self.final_norm().apply({"params": params["final_norm"]}, stream).astype(self.dtype)
        table = params["embed" if self.tied else "unembed"]
        return jnp.einsum("...d,vd->...v", normed, table, preferred_element_type=jnp.float32)

    def init(self, key) -> PyTree:
        """Random parameters (normal, deviation 0.02; norms at their neutral value), mostly for shapes and tests."""
        block_key, embed_key, unembed_key = jax.random.split(key, 3)
        stream, context = jnp.zeros((1, 1, self.width)), Context(jnp.zeros((1, 1), int))
        one_block = lambda k: self.block().init(k, stream, context).get("params", {})  # noqa: E731
        table = (self.vocab_size, self.width)
        params = {
            "embed": jax.random.normal(embed_key, table) * 0.02,
            "blocks": jax.vmap(one_block)(jax.random.split(block_key, self.layers)),
            "final_norm": self.final_norm().init(key, stream).get("params", {}),
        }
        if not self.tied:
            params["unembed"] = jax.random.normal(unembed_key, table) * 0.02
        return jax.tree.map(lambda leaf: leaf.astype(self.dtype), params)

    def num_params(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(self.init, jax.random.key(0))))


def check_sizes(config, names: tuple[str, ...]) -> None:
    """Raises ValueError unless the fields `names` are positive integers and the heads come in whole groups."""
    for name in names:
        if not isinstance(value := getattr(config, name), int) or value < 1:
            raise ValueError(f"model.{name} must be a positive integer, got {value!r}")
    if config.heads % config.kv_heads:
        raise ValueError(f"model.kv_heads must divide model.heads = {config.heads}, got {config.kv_heads}")
    if config.dtype not in ("float32", "bfloat16"):
        raise ValueError(f'model.dtype must be "float32" or "bfloat16", got {config.dtype!r}')
