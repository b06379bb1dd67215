"""Mamba-2 (Dao and Gu 2024, arXiv 2405.21060): a recurrent state in place of attention, so a block's cost grows with
the length alone."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from jaxconcepts.models import decoder, hf_config, layers, state_space
from jaxconcepts.models.decoder import Role

BLOCK = "backbone.layers.{}."
# Our names of the sizes: the attributes of config.json, and transformers' defaults.
SIZES = {
    "vocab_size": ("vocab_size", hf_config.REQUIRED), "width": ("hidden_size", hf_config.REQUIRED),
    "layers": ("num_hidden_layers", hf_config.REQUIRED), "heads": ("num_heads", 128), "head_dim": ("head_dim", 64),
    "state": ("state_size", 128), "groups": ("n_groups", 8), "taps": ("conv_kernel", 4), "chunk": ("chunk_size", 256),
}  # fmt: skip
OF_INITIAL_WEIGHTS = ("time_step_rank", "time_step_min", "time_step_max", "time_step_floor", "rescale_prenorm_residual")


@dataclass(frozen=True)
class Mamba2Config(decoder.Decoder):
    """mamba2-130m by default. heads, head_dim: of the state space (heads * head_dim is twice the width, mostly).
    state: numbers kept a channel. groups: heads of one group share what is written to the state and read from it.
    taps: tokens that the convolution sees. chunk: tokens that are computed at once; it changes no result. step_limit:
    bounds of the step, None for none. context: the architecture has no limit; prompts are checked against this one."""

    vocab_size: int = 50288
    width: int = 768
    layers: int = 24
    heads: int = 24
    head_dim: int = 64
    state: int = 128
    groups: int = 1
    taps: int = 4
    chunk: int = 256
    step_limit: tuple[float, float] | None = None
    float32_stream: bool = True
    context: int = 2**20
    eps: float = 1e-5
    tied: bool = True
    dtype: str = "float32"
    stop_tokens: tuple[int, ...] = ()

    MODEL_TYPE = "mamba2"
    CHECKPOINT = {
        "embed": "backbone.embeddings.weight",
        "unembed": "lm_head.weight",
        "final_norm/scale": "backbone.norm_f.weight",
        "blocks/norm/scale": BLOCK + "norm.weight",
        "blocks/in_proj/kernel": BLOCK + "mixer.in_proj.weight",
        "blocks/conv/weight": BLOCK + "mixer.conv1d.weight",
        "blocks/conv/bias": BLOCK + "mixer.conv1d.bias",
        "blocks/step_bias": BLOCK + "mixer.dt_bias",
        "blocks/log_decay": BLOCK + "mixer.A_log",
        "blocks/skip": BLOCK + "mixer.D",
        "blocks/gate_norm/scale": BLOCK + "mixer.norm.weight",
        "blocks/out_proj/kernel": BLOCK + "mixer.out_proj.weight",
    }
    ROLES = (
        (r"blocks/in_proj/kernel", Role.READS),
        (r"blocks/out_proj/kernel", Role.WRITES),
        (r"blocks/(conv/\w+|step_bias|log_decay|skip)", Role.WHOLE),
        *decoder.ROLES,
    )
    ADAPTED = ("in_proj",)
    ATTENDS = False

    inner = property(lambda self: self.heads * self.head_dim)
    channels = property(lambda self: self.inner + 2 * self.groups * self.state)
    kv_heads = property(lambda self: self.heads)

    def __post_init__(self):
        decoder.check_sizes(self, (*SIZES, "context"))
        if self.heads % self.groups:
            raise ValueError(f"model.groups must divide model.heads = {self.heads}, got {self.groups}")

    def block(self):
        return Block(self)

    def final_norm(self):
        return layers.RMSNorm(self.eps)

    def embed(self, params, tokens, positions):
        stream = params["embed"][tokens]
        return stream.astype(jnp.float32) if self.float32_stream else stream

    def with_room(self, state, tokens):
        return state  # of one size, however many tokens there were

    def advanced(self, state, new, rows, positions):
        return new

    @classmethod
    def from_hf(cls, fields):
        _ = [fields.take(name, None) for name in OF_INITIAL_WEIGHTS]
        for name, value in (("hidden_act", "silu"), ("use_bias", False), ("use_conv_bias", True)):
            fields.only(name, value)
        sizes = {
            ours: fields.count(theirs, default, hf_config.MOST.get(ours, hf_config.MOST_OTHERWISE))
            for ours, (theirs, default) in SIZES.items()
        }
        expand = fields.number("expand", 2)
        if int(expand * sizes["width"]) != sizes["heads"] * sizes["head_dim"]:
            fields.wrong("num_heads * head_dim", sizes["heads"] * sizes["head_dim"], "expand * hidden_size")
        if sizes["heads"] % sizes["groups"]:
            fields.wrong("n_groups", sizes["groups"], f"a divisor of num_heads = {sizes['heads']}")
        return cls(
            **sizes, step_limit=fields.bounds("time_step_limit"), float32_stream=fields.flag("residual_in_fp32", True),
            eps=fields.number("layer_norm_epsilon", 1e-5), tied=fields.flag("tie_word_embeddings", False),
        )  # fmt: skip

    def to_hf(self):
        written = {theirs: getattr(self, ours) for ours, (theirs, _) in SIZES.items()}
        # A whole number in transformers 5.
        written["expand"] = self.inner // self.width if self.inner % self.width == 0 else self.inner / self.width
        written |= {} if self.step_limit is None else {"time_step_limit": list(self.step_limit)}
        of_norms = {"layer_norm_epsilon": self.eps, "residual_in_fp32": self.float32_stream}
        return written | of_norms | {"architectures": ["Mamba2ForCausalLM"]}


class Block(nn.Module):
    """x + mixer(norm(x)): a projection, a short convolution, the state space, a gated norm, a projection."""

    config: Mamba2Config

    @nn.compact
    def __call__(self, stream, context: decoder.Context, head_edits=None):
        c = self.config
        past = (None, None) if context.past is None else context.past
        normed = layers.RMSNorm(c.eps, name="norm")(stream)
        projected = layers.Dense(c.inner + c.channels + c.heads, c.dtype, use_bias=False, name="in_proj")(normed)
        gate, mixed, step = jnp.split(projected.astype(jnp.float32), [c.inner, c.inner + c.channels], axis=-1)
        mixed, taps = state_space.Convolution(c.taps, name="conv")(mixed, past[0], context.lengths)
        step_bias = self.param("step_bias", state_space.initial_step, (c.heads,)).astype(jnp.float32)
        step = state_space.steps(step + step_bias, c.step_limit, context.lengths)
        decay = -jnp.exp(self.param("log_decay", state_space.initial_decay, (c.heads,)).astype(jnp.float32))
        parts = jnp.split(mixed, [c.inner, c.inner + c.groups * c.state], axis=-1)
        heads = (c.heads, c.groups, c.groups)
        x, write, read = (a.reshape(*a.shape[:2], n, -1) for a, n in zip(parts, heads, strict=True))
        y, state = state_space.scan_chunks(x, step, decay, write, read, past[1], c.chunk)
        y = y + x * self.param("skip", nn.initializers.ones, (c.heads,)).astype(jnp.float32)[:, None]
        y = context.asked(y.reshape(*y.shape[:2], c.inner)) * nn.silu(context.asked(gate))
        y = state_space.GroupNorm(c.groups, c.eps, name="gate_norm")(y)
        out = layers.Dense(c.width, c.dtype, use_bias=False, name="out_proj")(y)
        return context.asked(stream) + out.astype(stream.dtype), decoder.Written((taps, state), None)
