"""What every decoder-only language model is made of: the contract between a family's file and everything that runs it.

A family is one file: a frozen config dataclass that inherits `Decoder` (the `model` that users hold), a Linen `Block`,
and the tables that name its parameters in a Hugging Face checkpoint and give each its role. Parameters are a plain
dict: "embed" [V, d], "unembed" [V, d] where it is not tied, "final_norm", and "blocks" stacked on a leading layer axis.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

EVERYWHERE = 2**30  # a window wider than any context


class Role(enum.Enum):
    """What a parameter is to the residual stream, whatever its family calls it."""

    READS = "reads the stream"
    HEADS = "writes the heads' outputs into the stream"
    WRITES = "writes into the stream"
    TABLE = "a row a word"
    NORM = "a norm"
    WHOLE = "small: biases, positions, scalars"

    @property
    def writes(self) -> bool:
        return self in (Role.HEADS, Role.WRITES)


# The roles of the Llama lineage's parameters, by expressions for their paths.
ROLES = (
    (r"(un)?embed", Role.TABLE),
    (r"blocks/(q|k|v|gate|up)/kernel", Role.READS),
    (r"blocks/out/kernel", Role.HEADS),
    (r"blocks/down/kernel", Role.WRITES),
    (r"blocks/\w*norm/scale|final_norm/scale", Role.NORM),
)


class LayerInputs(NamedTuple):
    """What differs from layer to layer, as data with a leading layer axis; None where no layer differs.

    window: how many positions back attention reaches, itself included. frequencies: of rotary positions, radians a
    token. amplitude: what their cosine and sine are multiplied by.
    """

    window: Int[np.ndarray, " layers"] | None = None
    frequencies: Float[np.ndarray, "layers half"] | None = None
    amplitude: Float[np.ndarray, " layers"] | None = None


def windows(is_local: Bool[np.ndarray, " layers"], window: int) -> Int[np.ndarray, " layers"]:
    """How far back each layer reaches: `window` where it is local, everywhere else."""
    return np.where(is_local, window, EVERYWHERE).astype(np.int32)


class Context(NamedTuple):
    """Where a block's tokens stand.

    positions: [B or 1, T] of the new tokens.
    past: the state that earlier tokens left, opaque to all but the family. Of attention: keys and values
        [B, S, kv_heads, head_dim], slot s holding position s; the slots before a row's first new position are seen,
        the others are not.
    window: how many positions back attention reaches, itself included; [T, 1] where tokens differ in it.
    queries: [B, P] which of the new tokens (counted from 0) have their stream taken further, None for all. The others
        still give keys and values: what the last block is for, where the stream is read at a few tokens.
    attention: "xla", the reference; "cudnn", a fused kernel, where positions are 0, 1, ... and there is no window and
        no soft-cap (see `language.attention_of`).
    frequencies, amplitude: this layer's rotary positions; None for the config's.
    lengths: [B] how many of the new tokens are real; None for all. What a recurrent state needs to know.
    branch: [T] of the new tokens: those of one number see each other and the past, and not those of another; None where
        all see each other. For attention alone.
    """

    positions: Int[Array, "B T"]
    past: PyTree = None
    window: Int[Array, "*each"] | None = None
    attention: str = "xla"
    queries: Int[Array, "B P"] | None = None
    frequencies: Float[Array, " half"] | None = None
    amplitude: Float[Array, ""] | None = None
    lengths: Int[Array, " B"] | None = None
    branch: Int[Array, " T"] | None = None

    def seen(self) -> Bool[Array, "B P T"]:
        """Which of the new tokens each one asked for sees, windows aside: those before it, of its own branch."""
        seen = self.asked(self.positions)[:, :, None] >= self.positions[:, None, :]
        if self.branch is None:
            return seen
        branch = jnp.broadcast_to(self.branch, (len(self.positions), len(self.branch)))
        return seen & (self.asked(branch)[:, :, None] == self.branch)

    def asked(self, x: Shaped[Array, "#B T ..."]) -> Shaped[Array, "B P ..."]:
        """x at the tokens whose stream is taken further."""
        if self.queries is None:
            return x
        places = self.queries.reshape(*self.queries.shape, *[1] * (x.ndim - 2))
        return jnp.take_along_axis(jnp.broadcast_to(x, (len(places), *x.shape[1:])), places, axis=1)


class Written(NamedTuple):
    """What a block hands on beside the stream: the state that the new tokens leave (of attention: their keys and values
    [B, T, kv_heads, head_dim]), and the heads' outputs [B, P, heads, head_dim] before the output projection, as edited;
    None where a block has no heads."""

    state: PyTree
    heads: Array | None


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
    ROLES: ClassVar[tuple[tuple[str, Role], ...]] = ROLES
    # The projections that are adapted where nothing is said: those that make queries and values.
    ADAPTED: ClassVar[tuple[str, ...]] = ("q", "v")
    # Whether blocks have attention heads, which can be edited and whose keys and values are a state by position.
    ATTENDS: ClassVar[bool] = True

    @classmethod
    def role(cls, path: str) -> Role:
        """The role of a parameter, by its path ("blocks/q/kernel"). Raises ValueError where the family has none."""
        for pattern, role in cls.ROLES:
            if re.fullmatch(pattern, path):
                return role
        raise ValueError(f"no role of {cls.__name__}.ROLES covers {path}")

    def block(self) -> nn.Module:
        """Called as block(stream, context, head_edits) -> (stream, `Written`); see `residual.HeadEdits`."""
        raise NotImplementedError

    def final_norm(self) -> nn.Module:
        """The norm before the read-out. Its parameters are `params["final_norm"]`."""
        raise NotImplementedError

    @classmethod
    def from_hf(cls, fields) -> Decoder:
        """The config that the checkpoint's config.json says; `fields` is a `hf_config.Fields`."""
        raise NotImplementedError

    def to_hf(self) -> dict[str, Any]:
        """What config.json says of this model, model_type, dtype and stop tokens aside."""
        raise NotImplementedError

    def layer_inputs(self) -> LayerInputs:
        """What differs from layer to layer."""
        return LayerInputs()

    def for_lengths(self, lengths: Int[np.ndarray, " n"]) -> Decoder:
        """The model for sequences of these lengths, answers included: itself, but where positions depend on them.

        Raises ValueError where they need different models.
        """
        return self

    def heads_kernel(self, params: PyTree) -> Float[Array, "L He d"]:
        """The stacked kernel that writes the heads' outputs into the stream."""
        kernels = (name for name, part in params["blocks"].items() if isinstance(part, Mapping) and "kernel" in part)
        name = next(name for name in kernels if self.role(f"blocks/{name}/kernel") is Role.HEADS)
        return params["blocks"][name]["kernel"]

    def with_room(self, state: PyTree, tokens: int) -> PyTree:
        """The state of all layers, with room for `tokens` more."""
        return jax.tree.map(lambda a: jnp.pad(a, [(0, 0), (0, 0), (0, tokens), (0, 0), (0, 0)]), state)

    def advanced(self, state: PyTree, new: PyTree, rows: Int[Array, " B"], positions: Int[Array, " B"]) -> PyTree:
        """The state of all layers after one more token a row, which left `new`."""
        # Each row writes to its own slot, over what the prompt's padding left there.
        return jax.tree.map(lambda old, one: old.at[:, rows, positions].set(one[:, :, 0]), state, new)

    def embed(self, params: PyTree, tokens: Int[Array, "B T"], positions) -> Float[Array, "B T d"]:
        """The stream before the first block, layer 0."""
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
        """The number of parameters, without making them."""
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
