"""Decoders on sequences of numbers: a read-in in place of the table of tokens, a read-out in place of the logits.

`GPT2Config` has both itself; `Continuous` gives them to every other family. `init`, `apply` and `resume` take either.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxconcepts.models import decoding, gpt2, layers, residual
from jaxconcepts.models.decoder import Decoder, Role


@dataclass(frozen=True)
class Continuous:
    """A family's decoder between a read-in of `input_dim` numbers and a read-out of `output_dim`.

    unroll: blocks unrolled in the scan, 0 for the backend's default.
    """

    decoder: Decoder
    input_dim: int
    output_dim: int = 1
    unroll: int = 0

    layers = property(lambda self: self.decoder.layers)
    width = property(lambda self: self.decoder.width)
    heads = property(lambda self: self.decoder.heads)
    head_dim = property(lambda self: self.decoder.head_dim)
    context = property(lambda self: self.decoder.context)
    dtype = property(lambda self: self.decoder.dtype)
    MODEL_TYPE = property(lambda self: self.decoder.MODEL_TYPE)
    ATTENDS = property(lambda self: self.decoder.ATTENDS)
    ADAPTED = property(lambda self: self.decoder.ADAPTED)

    def role(self, path: str) -> Role:
        """As of `Decoder.role`."""
        return Role.WHOLE if path.startswith("read_") else self.decoder.role(path)


Model = gpt2.GPT2Config | Continuous


def with_readers(
    model: Continuous, params: PyTree, key: Key[Array, ""], read_in: float = 0.02, read_out: float = 0.02
) -> PyTree:
    """A decoder's parameters with a read-in and a read-out in place of its tables; their standard deviations."""
    sizes = {"read_in": (model.input_dim, model.width), "read_out": (model.width, model.output_dim)}
    made = {name: part for name, part in params.items() if name in ("blocks", "final_norm")}
    for each, deviation, (name, (inputs, outputs)) in zip(
        jax.random.split(key), (read_in, read_out), sizes.items(), strict=True
    ):
        kernel = deviation * jax.random.normal(each, (inputs, outputs), model.dtype)
        made[name] = {"kernel": kernel, "bias": jnp.zeros(outputs, model.dtype)}
    return made


def apply(
    model: Model, params: PyTree, inputs: Float[Array, "B T i"], capture=None, edits=None, with_heads: bool = False
) -> gpt2.Output:
    """The forward pass, see `gpt2.apply`. Raises ValueError for a sequence longer than the context, and for the heads
    of a family that has none."""
    if isinstance(model, gpt2.GPT2Config):
        return gpt2.apply(model, params, inputs, capture, edits, with_heads)
    if inputs.shape[1] > model.context:
        raise ValueError(f"the model's context is {model.context} tokens, got a sequence of {inputs.shape[1]}")
    stream = _dense(model, params, "read_in", model.width)(inputs).astype(model.dtype)
    trace = _forward(model, params, (None, stream), capture=capture, edits=edits, keep="heads" if with_heads else None)
    heads = trace.outputs if with_heads else None
    if with_heads:
        heads = heads.reshape(*heads.shape[:3], model.heads, model.head_dim)
    return gpt2.Output(_read_out(model, params, trace.stream), trace.captured, heads)


def resume(
    model: Model, params: PyTree, stream: Float[Array, "B T d"], first: int | Int[Array, ""], edits=None
) -> Float[Array, "B T o"]:
    """The output where the stream after layer `first` (which may be traced) is `stream`, edited from there on."""
    if isinstance(model, gpt2.GPT2Config):
        return gpt2.resume(model, params, stream, first, edits)
    return _read_out(model, params, _forward(model, params, (first, stream), edits=edits).stream)


def _forward(model, params, resume, **options):
    positions = jnp.arange(resume[1].shape[1])[None]
    unroll = model.unroll or residual.unrolls() or 1
    return decoding.forward(model.decoder, params, None, positions, resume=resume, unroll=unroll, **options)


def _read_out(model, params, stream):
    normed = model.decoder.final_norm().apply({"params": params["final_norm"]}, stream)
    return _dense(model, params, "read_out", model.output_dim)(normed).astype(jnp.float32)


def _dense(model, params, name, features):
    return lambda x: layers.Dense(features, model.dtype).apply({"params": params[name]}, x)
