"""A block of `gpt2`: attention by kind of positions, then the feed-forward part; and a model's initial weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxconcepts.fields import field
from jaxconcepts.models import bottleneck, decoder, layers, positions, residual

if TYPE_CHECKING:
    from jaxconcepts.models.gpt2 import GPT2Config

ACTIVATIONS = {"gelu_new": lambda x: nn.gelu(x, approximate=True), "relu": nn.relu}


class InitScales(NamedTuple):
    """Standard deviations of the initial weights; numbers, so that a sweep over them compiles once.

    weights: matrices of the blocks (GPT-2: 0.02; 0 means 1 / sqrt(inputs) for each matrix). Output projections of the
        residual branches are divided by sqrt(2 * layers), as in GPT-2.
    positions, read_in, read_out: the position table, the read-in and the read-out (GPT-2: 0.02 each).
    """

    weights: Float[Array, ""] | float = 0.02
    positions: Float[Array, ""] | float = 0.02
    read_in: Float[Array, ""] | float = 0.02
    read_out: Float[Array, ""] | float = 0.02


@dataclass(frozen=True)
class InitFields:
    """`InitScales` as a config has them."""

    weights: float = field(
        0.02, "initial standard deviation of the blocks' matrices; 0 for 1 / sqrt(inputs) of each", low=0
    )
    positions: float = field(0.02, "initial standard deviation of the position table", low=0)
    read_in: float = field(0.02, "initial standard deviation of the read-in", low=0)
    read_out: float = field(0.02, "initial standard deviation of the read-out", low=0)


GPT2_SCALES = InitScales()


class Block(nn.Module):
    """One pre-norm block: attention, then the feed-forward part. weigh: it gives its attention's weights instead."""

    config: GPT2Config
    weigh: bool = False

    @nn.compact
    def __call__(
        self, stream: Float[Array, "B T d"], context: decoder.Context | None = None, head_edits=None
    ) -> tuple[Float[Array, "B A d"], decoder.Written] | Float[Array, "B T h T"]:
        """context None: positions 0, 1, ... and no past. Returns the stream and the `decoder.Written`."""
        config, dtype = self.config, self.config.dtype
        width, asked = stream.shape[-1], (lambda x: x) if context is None else context.asked
        normed = layers.LayerNorm(config.eps, name="ln_1")(stream)
        heads, keys, values = self._attend(normed, context)
        if self.weigh:
            return heads
        heads = residual.edit_heads(heads, head_edits)
        stream = asked(stream) + layers.Dense(width, dtype, name="attn_out")(layers.merge_heads(heads))
        normed = layers.LayerNorm(config.eps, name="ln_2")(stream)
        up = layers.Dense(config.mlp_width or 4 * width, dtype, name="mlp_up")(normed)
        stream = stream + layers.Dense(width, dtype, name="mlp_down")(ACTIVATIONS[config.activation](up))
        return stream, decoder.Written((keys, values), heads)

    def _attend(self, normed, context):
        """(the heads' outputs, keys, values), by kind of positions."""
        config, kind = self.config, self.config.positions
        split = lambda x: x.reshape(*x.shape[:2], -1, config.head_dim)  # noqa: E731
        asked = (lambda x: x) if context is None else context.asked
        if kind in positions.WITHOUT_QUERIES:
            v = self._values(split(layers.Dense(config.width, config.dtype, name="attn_v")(normed)))
            options = {"causal": config.causal}
            if kind == "uniform":
                options["heads_reach"] = positions.spans(config.heads)
            else:
                table = self._by_distance("distance_scores", ())
                options["added"] = lambda distance, _: table[self._row(distance)].transpose(0, 3, 1, 2)
            return positions.attend(None, v[..., :0], v, context, scale=1.0, **options), v[..., :0], v
        qkv = layers.Dense(3 * config.width, config.dtype, name="attn_qkv")(normed)
        q, k, v = (split(part) for part in jnp.split(qkv, 3, axis=-1))
        v = self._values(v)
        if config.qk_norm:
            q, k = (layers.rms_normalise(a, 1e-6).astype(a.dtype) for a in (q, k))
        if kind == "rotary":
            at = jnp.arange(normed.shape[1])[None] if context is None else context.positions
            q, k = (positions.rotate(a, at, config.rope_theta, config.rotary_fraction) for a in (q, k))
        q, scale = asked(q), config.head_dim**-0.5
        if kind == "relative":
            tables = (self._by_distance(name, (config.head_dim,)) for name in ("distance_keys", "distance_queries"))
            keys, queries = tables

            def added(distance, all_keys):
                return positions.relative_scores(q, all_keys, keys, queries, self._row(distance))

            return positions.attend(q, k, v, context, scale=scale * 3**-0.5, causal=config.causal, added=added), k, v
        if not config.causal:
            return positions.attend(q, k, v, context, scale=scale, causal=False), k, v
        return layers.attend(q, k, v, context, scale), k, v

    def _values(self, v):
        """The values; or, to read the weights off what they weigh, a one for each token at its own place."""
        return jnp.broadcast_to(jnp.eye(v.shape[1])[None, :, None], (*v.shape[:3], v.shape[1])) if self.weigh else v

    def _by_distance(self, name, shape):
        """A table with a row for each distance between two tokens."""
        config = self.config
        rows = config.context if config.causal else 2 * config.context - 1
        return self.param(name, nn.initializers.normal(0.02), (rows, config.heads, *shape))

    def _row(self, distance):
        """The tables' row of each distance; what is masked may be outside and takes any."""
        least = 0 if self.config.causal else 1 - self.config.context
        return jnp.clip(distance, least, self.config.context - 1) - least


def attention_weights(
    config: GPT2Config, params: PyTree, stream: Float[Array, "B T d"], block: int | Array
) -> Float[Array, "B H T T"]:
    """How much each head of block `block` (from 0, may be traced) attends from each token (axis 2) to each (axis 3),
    where `stream` goes into that block. A row's weights sum to 1."""
    of_block = jax.tree.map(lambda a: a[block], params["blocks"])
    return Block(config, weigh=True).apply({"params": of_block}, stream).transpose(0, 2, 1, 3)


def init(config: GPT2Config, key, scales: InitScales = GPT2_SCALES) -> PyTree:
    """Fresh float32 parameters; blocks stacked on a leading layer axis under "blocks".

    Drawn with unit deviation and scaled, so that `scales` may be traced.
    """
    block_key, key = jax.random.split(key)
    read_in_key, position_key, read_out_key = jax.random.split(key, 3)
    dummy = jnp.zeros((1, 2, config.width))
    blocks = jax.vmap(lambda k: Block(config).init(k, dummy)["params"])(jax.random.split(block_key, config.layers))

    def rescale(path, leaf):
        if path[-1].key != "kernel":
            return leaf
        fan_in = leaf.shape[1] ** -0.5
        scale = jnp.where(jnp.asarray(scales.weights) > 0, scales.weights, fan_in)
        residual_branch = path[0].key in ("attn_out", "mlp_down")
        return leaf / 0.02 * scale * ((2 * config.layers) ** -0.5 if residual_branch else 1.0)

    normal = jax.random.normal
    params = {
        "blocks": jax.tree_util.tree_map_with_path(rescale, blocks),
        "ln_f": {"scale": jnp.ones(config.width), "bias": jnp.zeros(config.width)},
    }
    if config.positions == "learned":
        params["positions"] = normal(position_key, (config.context, config.width)) * scales.positions
    if config.bottleneck:
        # A key of its own: all other weights are those of the model without.
        code_key = jax.random.fold_in(key, 0)
        params["code"] = bottleneck.init(config.width, config.bottleneck, code_key, scales.weights)
    if config.vocab_size:
        return params | {"embed": normal(read_in_key, (config.vocab_size, config.width)) * scales.read_in}
    return params | {
        "read_in": {
            "kernel": normal(read_in_key, (config.input_dim, config.width)) * scales.read_in,
            "bias": jnp.zeros(config.width),
        },
        "read_out": {
            "kernel": normal(read_out_key, (config.width, config.output_dim)) * scales.read_out,
            "bias": jnp.zeros(config.output_dim),
        },
    }
