"""GPT-NeoX (Black et al. 2022, arXiv 2204.06745), the architecture of Pythia (Biderman et al. 2023, arXiv 2304.01373):
attention and feed-forward part read the same stream, and rotary positions turn a part of each head."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxconcepts.models import decoder, hf_config, layers, rotary, subblocks
from jaxconcepts.models.decoder import Role

BLOCK = "gpt_neox.layers.{}."
ACTIVATIONS = {
    "gelu": partial(nn.gelu, approximate=False),
    # Three names of the tanh form.
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), partial(nn.gelu, approximate=True)),
    "relu": nn.relu,
}
MODULES = {
    "attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm", "attn_qkv": "attention.query_key_value",
    "out": "attention.dense", "up": "mlp.dense_h_to_4h", "down": "mlp.dense_4h_to_h",
}  # fmt: skip


def _checkpoint() -> dict[str, str]:
    names = {"embed": "gpt_neox.embed_in.weight", "unembed": "embed_out.weight"}
    modules = {f"blocks/{ours}": BLOCK + theirs for ours, theirs in MODULES.items()}
    modules["final_norm"] = "gpt_neox.final_layer_norm"
    for path, module in modules.items():
        weight = "scale" if path.endswith("norm") else "kernel"
        names |= {f"{path}/{weight}": f"{module}.weight", f"{path}/bias": f"{module}.bias"}
    return names


@dataclass(frozen=True)
class GPTNeoXConfig(decoder.Decoder):
    """Pythia-6.9B by default. rotary_share: of each head's dimensions, the part that is turned. parallel: attention and
    feed-forward part read the same stream; else the latter reads what the former wrote. activation: one of ACTIVATIONS.
    The rest as in `llama.LlamaConfig`."""

    vocab_size: int = 50432
    width: int = 4096
    layers: int = 32
    heads: int = 32
    mlp_width: int = 16384
    context: int = 2048
    rope_theta: float = 10000.0
    rotary_share: float = 0.25
    rope_scaling: rotary.Scaling | None = None
    parallel: bool = True
    activation: str = "gelu"
    eps: float = 1e-5
    tied: bool = False
    dtype: str = "float32"
    stop_tokens: tuple[int, ...] = ()

    MODEL_TYPE = "gpt_neox"
    CHECKPOINT = _checkpoint()
    BUFFERS = (r"gpt_neox\.layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)",)
    ROLES = (
        (r"blocks/(attn_qkv|up)/kernel", Role.READS),
        (r"(blocks/\w*norm|final_norm)/bias", Role.NORM),
        (r"blocks/\w+/bias", Role.WHOLE),
        *decoder.ROLES,
    )
    ADAPTED = ("attn_qkv",)

    kv_heads = property(lambda self: self.heads)
    head_dim = property(lambda self: self.width // self.heads)
    amplitude = property(lambda self: 1.0 if self.rope_scaling is None else self.rope_scaling.amplitude)

    def __post_init__(self):
        decoder.check_sizes(self, ("vocab_size", "width", "layers", "heads", "mlp_width", "context"))
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"model.activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")

    def block(self):
        return Block(self)

    def final_norm(self):
        return layers.LayerNorm(self.eps)

    def frequencies(self):
        return rotary.frequencies(self.rope_theta, int(self.head_dim * self.rotary_share), self.rope_scaling)

    @classmethod
    def from_hf(cls, fields):
        sizes = fields.sizes()
        turned = fields.turned(sizes["head_dim"], 0.25, "rotary_pct")
        theta, scaling = fields.rope(
            ("default", "linear", "dynamic", "yarn"), 10000.0, sizes["context"], turned, "rotary_emb_base"
        )
        fields.only("attention_bias", True)
        if (sizes.pop("kv_heads"), sizes.pop("head_dim")) != (sizes["heads"], sizes["width"] // sizes["heads"]):
            fields.wrong("num_key_value_heads or head_dim", "others", "absent, or num_attention_heads and its share")
        return cls(
            **sizes,
            rope_theta=theta,
            rope_scaling=scaling,
            rotary_share=turned / (sizes["width"] // sizes["heads"]),
            parallel=fields.flag("use_parallel_residual", True),
            activation=fields.only("hidden_act", *ACTIVATIONS),
            eps=fields.number("layer_norm_eps", 1e-5),
            tied=fields.flag("tie_word_embeddings", False),
        )

    def to_hf(self):
        written = hf_config.llama_like(self, "GPTNeoXForCausalLM")
        for absent in ("num_key_value_heads", "head_dim"):
            written.pop(absent)
        written["rope_parameters"]["partial_rotary_factor"] = self.rotary_share
        written |= {"hidden_act": self.activation, "layer_norm_eps": self.eps, "attention_bias": True}
        return written | {"use_parallel_residual": self.parallel}


class Block(nn.Module):
    """x + attention(norm(x)) + mlp(norm(x)), or one after the other."""

    config: GPTNeoXConfig

    @nn.compact
    def __call__(self, stream, context: decoder.Context, head_edits=None):
        c, dense = self.config, partial(layers.Dense, dtype=self.config.dtype)
        norm = partial(layers.LayerNorm, c.eps)
        # A head's queries, keys and values lie together.
        split = lambda x: jnp.split(x.reshape(*x.shape[:2], c.heads, -1), 3, axis=-1)  # noqa: E731
        attended, written = subblocks.self_attention(
            c, norm(name="attn_norm")(stream), context, head_edits, fused=split, bias=True, out_bias=True
        )
        stream = context.asked(stream)
        read = norm(name="mlp_norm")(stream if c.parallel else stream + attended)
        up = ACTIVATIONS[c.activation](dense(c.mlp_width, name="up")(read))
        return stream + attended + dense(c.width, name="down")(up), written
