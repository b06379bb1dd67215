"""GPT-2 on the residual stack: continuous tokens in and numbers out (Garg et al. 2022), or words in and logits out.

Pre-norm blocks, learned positions, gelu_new (the tanh form), as in Hugging Face's `GPT2Model`; no dropout. The paper's
model is 12 layers, 8 heads, 256 wide, vectors of 16 in, one number out. Other kinds of positions, and attention to both
sides, are for the experiments of "Physics of Language Models" (see `positions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jaxconcepts.fields import field
from jaxconcepts.models import bottleneck, decoder, hf_config, layers, positions, residual
from jaxconcepts.models.decoder import Role

ACTIVATIONS = {"gelu_new": lambda x: nn.gelu(x, approximate=True), "relu": nn.relu}


def _named(ours: str, theirs: str, weight: str) -> dict[str, str]:
    return {f"{ours}/{weight}": f"{theirs}.weight", f"{ours}/bias": f"{theirs}.bias"}


@dataclass(frozen=True)
class GPT2Config(decoder.Decoder):
    """The static part of the model.

    layers, heads, width: blocks, attention heads a block, width d of the residual stream (heads divides width).
    context: the longest sequence, in tokens (a pair of the regression task is two).
    input_dim, output_dim: size of a continuous token and of the read-out. With vocab_size > 0 tokens are integers, the
        read-in is an embedding and the read-out its transpose (tied, as GPT-2's).
    mlp_width: hidden width of the feed-forward part, 0 for 4 * width.
    activation: "gelu_new" or "relu".
    qk_norm: normalise queries and keys to unit root mean square before attention (not in GPT-2; eases small models
        trained at a large learning rate).
    bottleneck: numbers in the code that alone takes the examples to a prediction, 0 for a standard transformer; see
        `bottleneck`. For continuous tokens.
    positions: "learned"; "rotary" on the first `rotary_fraction` of each head's dimensions, with the base `rope_theta`;
        "relative", content and distance (DeBERTa); "position_only", weights learned by distance alone; "uniform", head
        h averages the last 2^h - 1 tokens; or "none".
    causal: whether a token attends to those before it alone, or to all (an encoder, for masked-token training).
    eps: of the layer norms.
    dtype: of matrix products, "float32" or "bfloat16"; weights, norms, softmax and the residual stream stay float32.
    remat: recompute blocks in the backward pass, for memory.
    unroll: blocks unrolled in the scan, 0 for the backend's default (all on CPU, one elsewhere).
    stop_tokens: end-of-text ids of a language model.
    """

    layers: int = field(12, "blocks", low=1, high=4096)
    heads: int = field(8, "attention heads a block; they divide the width", low=1, high=65536)
    width: int = field(256, "of the residual stream", low=1, high=65536)
    context: int = 40
    input_dim: int = 16
    output_dim: int = 1
    vocab_size: int = 0
    mlp_width: int = field(0, "hidden width of the feed-forward part, 0 for 4 * width", low=0, high=1_000_000)
    activation: str = field("gelu_new", "of the feed-forward part", choices=tuple(ACTIVATIONS))
    qk_norm: bool = field(False, "normalise queries and keys before attention")
    bottleneck: int = field(0, "numbers in the code between examples and prediction, 0 for none", low=0, high=65536)
    positions: str = "learned"
    rotary_fraction: float = 1.0
    rope_theta: float = 10_000.0
    causal: bool = True
    eps: float = field(1e-5, "of the layer norms", above=0)
    dtype: str = field("float32", "of matrix products", choices=("float32", "bfloat16"))
    remat: bool = field(False, "recompute blocks in the backward pass, for memory")
    unroll: int = field(0, "blocks unrolled in the scan, 0 for the backend's default", low=0, high=4096)
    stop_tokens: tuple[int, ...] = ()

    MODEL_TYPE = "gpt2"
    CHECKPOINT = {
        "embed": "transformer.wte.weight",
        "unembed": "lm_head.weight",
        "positions": "transformer.wpe.weight",
        **_named("ln_f", "transformer.ln_f", "scale"),
        **_named("blocks/ln_1", "transformer.h.{}.ln_1", "scale"),
        **_named("blocks/attn_qkv", "transformer.h.{}.attn.c_attn", "kernel"),
        **_named("blocks/attn_out", "transformer.h.{}.attn.c_proj", "kernel"),
        **_named("blocks/ln_2", "transformer.h.{}.ln_2", "scale"),
        **_named("blocks/mlp_up", "transformer.h.{}.mlp.c_fc", "kernel"),
        **_named("blocks/mlp_down", "transformer.h.{}.mlp.c_proj", "kernel"),
    }
    TRANSPOSED = False
    BASE_PREFIX = "transformer."
    BUFFERS = (r"transformer\.h\.\d+\.attn\.(masked_)?bias",)
    ROLES = (
        (r"embed", Role.TABLE),
        (r"blocks/(attn_qkv|attn_v|mlp_up)/kernel", Role.READS),
        (r"blocks/attn_out/kernel", Role.HEADS),
        (r"blocks/mlp_down/kernel", Role.WRITES),
        (r"(ln_f|blocks/ln_[12])/(scale|bias)", Role.NORM),
        (r"positions|.*/bias|read_(in|out)/kernel|code/.*|blocks/distance_\w+", Role.WHOLE),
    )
    ADAPTED = ("attn_qkv",)

    def __post_init__(self):
        for name in ("layers", "heads", "width", "context", "input_dim", "output_dim"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be a positive integer, got {getattr(self, name)!r}")
        for name in ("vocab_size", "mlp_width", "unroll", "bottleneck"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise ValueError(f"model.{name} must be a positive integer or 0, got {getattr(self, name)!r}")
        if self.width % self.heads:
            raise ValueError(f"model.heads must divide model.width = {self.width}, got {self.heads}")
        if self.bottleneck and (self.vocab_size or self.layers < 2):
            raise ValueError(
                "model.bottleneck is for continuous tokens and two layers at least, got a bottleneck of "
                f"{self.bottleneck} with vocab_size {self.vocab_size} and {self.layers} layers"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"model.activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f'model.dtype must be "float32" or "bfloat16", got {self.dtype!r}')
        self._check_positions()

    def _check_positions(self):
        if self.positions not in positions.KINDS:
            raise ValueError(f"model.positions must be one of {', '.join(positions.KINDS)}, got {self.positions!r}")
        if not isinstance(self.causal, bool):
            raise ValueError(f"model.causal must be True or False, got {self.causal!r}")
        if not 0 < self.rope_theta < float("inf"):
            raise ValueError(f"model.rope_theta must be a positive number, got {self.rope_theta!r}")
        turned = self.head_dim * self.rotary_fraction
        if self.positions == "rotary" and not (0 < self.rotary_fraction <= 1 and turned >= 2 and turned % 2 == 0):
            raise ValueError(
                "model.rotary_fraction must be above 0 and at most 1 and rotate an even number of each head's "
                f"{self.head_dim} dimensions, got {self.rotary_fraction!r}, which rotates {turned:g}"
            )
        if self.bottleneck and (self.positions not in ("learned", "rotary", "none") or not self.causal):
            raise ValueError(
                "model.bottleneck needs causal attention and learned, rotary or no positions, got positions "
                f"{self.positions!r} and causal {self.causal}"
            )

    tied = True  # the read-out of a language model is its embedding table
    kv_heads = property(lambda self: self.heads)
    head_dim = property(lambda self: self.width // self.heads)
    # A fused kernel computes it: causal, and positions are in the stream or in queries and keys.
    plain_attention = property(lambda self: self.causal and self.positions in ("learned", "rotary", "none"))

    def init(self, key):
        return init(self, key)

    def block(self):
        return Block(self)

    def embed(self, params, tokens, positions):
        stream = params["embed"][tokens]
        return stream + params["positions"][positions] if self.positions == "learned" else stream

    def unembed(self, params, stream):
        final = layers.LayerNorm(self.eps).apply({"params": params["ln_f"]}, stream)
        return jnp.einsum("...d,vd->...v", final, params["embed"])

    @classmethod
    def from_hf(cls, fields):
        fields.only("add_cross_attention", False)
        fields.only("scale_attn_weights", True)
        fields.only("scale_attn_by_inverse_layer_idx", False)
        # Moves the scaling before the product, in float32: equal but for rounding.
        fields.only("reorder_and_upcast_attn", False, True)
        fields.only("tie_word_embeddings", True)
        sizes = {
            "vocab_size": fields.count("vocab_size"),
            "context": fields.count("n_positions", most=hf_config.MOST["context"]),
            "width": fields.count("n_embd"),
            "layers": fields.count("n_layer", most=hf_config.MOST["layers"]),
            "heads": fields.count("n_head"),
        }
        if sizes["width"] % sizes["heads"]:
            fields.wrong("n_embd", sizes["width"], f"a multiple of n_head = {sizes['heads']}")
        names = {"context": "max_position_embeddings", "width": "hidden_size"}
        names |= {"layers": "num_hidden_layers", "heads": "num_attention_heads"}
        for ours, theirs in names.items():
            fields.same(theirs, sizes[ours])
        return cls(
            **sizes,
            mlp_width=fields.count("n_inner", 0),
            activation=fields.only("activation_function", *ACTIVATIONS),
            eps=fields.number("layer_norm_epsilon", 1e-5),
        )

    def to_hf(self):
        if self.positions != "learned" or not self.causal:
            raise ValueError(
                "GPT-2 checkpoints have learned positions and causal attention; this model has "
                f"positions {self.positions!r} and causal {self.causal}"
            )
        return {
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": self.vocab_size,
            "n_positions": self.context,
            "n_embd": self.width,
            "n_layer": self.layers,
            "n_head": self.heads,
            "n_inner": self.mlp_width or None,
            "activation_function": self.activation,
            "layer_norm_epsilon": self.eps,
        }


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

    weights: float = field(0.02, "of the blocks' matrices; 0 for 1 / sqrt(inputs) of each", low=0)
    positions: float = field(0.02, "of the position table", low=0)
    read_in: float = field(0.02, "of the read-in", low=0)
    read_out: float = field(0.02, "of the read-out", low=0)


GPT2_SCALES = InitScales()


class Block(nn.Module):
    """One pre-norm block: attention, then the feed-forward part."""

    config: GPT2Config

    @nn.compact
    def __call__(self, stream: Float[Array, "B T d"], context: decoder.Context | None = None, head_edits=None):
        """context None: positions 0, 1, ... and no past. Returns the stream and the `decoder.Written`."""
        config, dtype = self.config, self.config.dtype
        width, asked = stream.shape[-1], (lambda x: x) if context is None else context.asked
        normed = layers.LayerNorm(config.eps, name="ln_1")(stream)
        heads, keys, values = self._attend(normed, context)
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
            v = split(layers.Dense(config.width, config.dtype, name="attn_v")(normed))
            options = {"causal": config.causal}
            if kind == "uniform":
                options["heads_reach"] = positions.spans(config.heads)
            else:
                table = self._by_distance("distance_scores", ())
                options["added"] = lambda distance, _: table[self._row(distance)].transpose(0, 3, 1, 2)
            return positions.attend(None, v[..., :0], v, context, scale=1.0, **options), v[..., :0], v
        qkv = layers.Dense(3 * config.width, config.dtype, name="attn_qkv")(normed)
        q, k, v = (split(part) for part in jnp.split(qkv, 3, axis=-1))
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

    def _by_distance(self, name, shape):
        """A table with a row for each distance between two tokens."""
        config = self.config
        rows = config.context if config.causal else 2 * config.context - 1
        return self.param(name, nn.initializers.normal(0.02), (rows, config.heads, *shape))

    def _row(self, distance):
        """The tables' row of each distance; what is masked may be outside and takes any."""
        least = 0 if self.config.causal else 1 - self.config.context
        return jnp.clip(distance, least, self.config.context - 1) - least


class Output(NamedTuple):
    """out: [B, T, output_dim] (or [B, T, vocabulary]). captured: [L + 1, B, P, d] or None; see `residual.run`.

    heads: None, or the heads' outputs [L, B, P, H, e] at the captured positions, before the output projection.
    """

    out: Float[Array, "B T o"]
    captured: Float[Array, "layers B P d"] | None
    heads: Float[Array, "blocks B P H e"] | None = None


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


def apply(
    config: GPT2Config,
    params: PyTree,
    inputs,
    capture=None,
    edits: residual.Edits | None = None,
    with_heads: bool = False,
) -> Output:
    """The forward pass. inputs: [B, T, input_dim] numbers, or [B, T] integers with a vocabulary.

    capture, edits: see `residual.run`. with_heads: capture the heads' outputs too.
    Raises ValueError for a sequence longer than the context.
    """
    length = inputs.shape[1]
    if length > config.context:
        raise ValueError(f"the model's context is {config.context} tokens, got a sequence of {length}")
    if config.vocab_size:
        stream = config.embed(params, inputs, jnp.arange(length))
    else:
        stream = _dense(config, params, "read_in", config.width)(inputs).astype(jnp.float32)
        if config.positions == "learned":
            stream = stream + params["positions"][:length]
    return _blocks(config, params, stream, capture=capture, edits=edits, heads_at=capture if with_heads else None)


def resume(
    config: GPT2Config,
    params: PyTree,
    stream: Float[Array, "B T d"],
    first: int | Int[Array, ""],
    edits: residual.Edits | None = None,
) -> Float[Array, "B T o"]:
    """The output where the stream after layer `first` (which may be traced) is `stream`, edited from there on."""
    return _blocks(config, params, stream, first=first, edits=edits).out


def _blocks(config, params, stream, heads_at=None, **options) -> Output:
    length = stream.shape[1]
    layer_inputs = bottleneck.layer_inputs(config.layers, length) if config.bottleneck else None

    def block(layer_params, stream, layer_input, head_edits):
        context = None
        if layer_input is not None:
            window, enters = layer_input
            context = decoder.Context(jnp.arange(length)[None], None, window)
            stream = jnp.where(enters, bottleneck.with_code(params["code"], stream, config.eps, config.dtype), stream)
        stream, written = Block(config).apply({"params": layer_params}, stream, context, head_edits)
        return stream, residual.select(layers.merge_heads(written.heads), heads_at)

    unroll = config.unroll or residual.unrolls() or 1
    trace = residual.run(
        block, params["blocks"], stream, layer_inputs=layer_inputs, unroll=unroll, remat=config.remat, **options
    )
    if config.vocab_size:
        out = config.unembed(params, trace.stream)
    else:
        final = layers.LayerNorm(config.eps).apply({"params": params["ln_f"]}, trace.stream)
        out = _dense(config, params, "read_out", config.output_dim)(final).astype(jnp.float32)
    heads = trace.outputs
    if heads is not None:
        heads = heads.reshape(*heads.shape[:3], config.heads, config.head_dim)
    return Output(out, trace.captured, heads)


def _dense(config, params, name, features):
    return lambda x: layers.Dense(features, config.dtype).apply({"params": params[name]}, x)
