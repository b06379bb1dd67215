"""GPT-2 on the residual stack: continuous tokens in and numbers out (Garg et al. 2022), or words in and logits out.

Pre-norm blocks, learned positions, gelu_new (the tanh form), as in Hugging Face's `GPT2Model`; no dropout. The paper's
model is 12 layers, 8 heads, 256 wide, vectors of 16 in, one number out. Other kinds of positions, and attention to both
sides, are for the experiments of "Physics of Language Models" (see `positions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jaxconcepts.fields import field
from jaxconcepts.models import bottleneck, decoder, hf_config, layers, positions, residual
from jaxconcepts.models.decoder import Role
from jaxconcepts.models.gpt2_block import ACTIVATIONS, Block, init
from jaxconcepts.models.gpt2_block import InitFields as InitFields
from jaxconcepts.models.gpt2_block import InitScales as InitScales


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

    layers: int = field(12, "number of blocks", low=1, high=4096)
    heads: int = field(8, "attention heads in a block; their number divides the width", low=1, high=65536)
    width: int = field(256, "width of the residual stream", low=1, high=65536)
    context: int = 40
    input_dim: int = 16
    output_dim: int = 1
    vocab_size: int = 0
    mlp_width: int = field(0, "hidden width of the feed-forward part; 0 for 4 * width", low=0, high=1_000_000)
    activation: str = field("gelu_new", "activation function of the feed-forward part", choices=tuple(ACTIVATIONS))
    qk_norm: bool = field(False, "normalise queries and keys before attention")
    bottleneck: int = field(
        0, "size of the code between examples and prediction; 0 for a standard transformer", low=0, high=65536
    )
    positions: str = field("learned", "kind of positions: learned, rotary, relative, position_only, uniform or none")
    rotary_fraction: float = field(1.0, "with rotary positions: share of each head's dimensions that are rotated")
    rope_theta: float = field(10_000.0, "with rotary positions: base of the frequencies")
    causal: bool = field(True, "a token attends only to earlier tokens; false makes an encoder")
    eps: float = field(1e-5, "epsilon of the layer norms", above=0)
    dtype: str = field("float32", "number format of matrix products", choices=("float32", "bfloat16"))
    remat: bool = field(False, "recompute blocks in the backward pass, to save memory")
    unroll: int = field(0, "how many blocks the scan unrolls; 0 for the default of the backend", low=0, high=4096)
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


class Output(NamedTuple):
    """out: [B, T, output_dim] (or [B, T, vocabulary]). captured: [L + 1, B, P, d] or None; see `residual.run`.

    heads: None, or the heads' outputs [L, B, P, H, e] at the captured positions, before the output projection.
    """

    out: Float[Array, "B T o"]
    captured: Float[Array, "layers B P d"] | None
    heads: Float[Array, "blocks B P H e"] | None = None


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
