"""Uses of a language model: hidden states of every layer, logits, and greedy answers, with or without edits.

Prompts are right-padded. Attention is causal, so the states of a prompt do not depend on the padding or the batch. In
float32 the matrix products run at full precision on every device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxconcepts.models import residual, sharding, through_transformers
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.models.decoding import decode, drawn, forward, greedy, read


def hidden_states(
    model: Decoder,
    params: PyTree,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"] | None = None,
    at: str | Int[Array, " P"] | Int[Array, "B P"] = "last",
    layers: Sequence[int] | None = None,
    edits: residual.Edits | None = None,
    with_logits: bool = False,
    attention: str = "auto",
) -> Array | tuple[Array, Array]:
    """The residual stream after each block, before the final norm. Layer 0 is the embeddings.

    tokens: right-padded prompts. lengths: the number of real tokens of each prompt (default: all).
    at: "last" for the last token of each prompt -> [layers, B, d]; "all" -> [layers, B, T, d], without meaning at
        padding; positions [P] or [B, P] -> [layers, B, P, d].
    layers: some of 0 ... L, in any order (default: all L + 1). Blocks after the last of them are not run.
    edits: changes of the stream, see `residual.Edits`.
    with_logits: return (states, logits). The logits are [B, V] or [B, P, V], at the same positions. Runs every block.
    attention: "xla", "cudnn" or "auto", see `attention_of`.

    Raises ValueError for a prompt that is empty or longer than the model's context, a token outside the vocabulary, a
    layer or position that does not exist, and as `attention_of` does.
    """
    tokens, lengths = checked_tokens(model, tokens, lengths)
    layers = tuple(range(model.layers + 1)) if layers is None else tuple(layers)
    if not layers or not all(0 <= layer <= model.layers for layer in layers):
        raise ValueError(f"layers must be among 0 ... {model.layers}, got {list(layers)}")
    positions = _positions(at, lengths, tokens.shape)
    if isinstance(model, through_transformers.TransformersModel):
        through_transformers.refuse_edits(edits)
        states, logits = through_transformers.states(model, params, tokens, lengths, positions, layers, with_logits)
    else:
        model = model.for_lengths(lengths)
        tokens, positions = (None if a is None else sharding.shard_batch(a, params) for a in (tokens, positions))
        attention = attention_of(model, _device_of(params), attention)
        with exact_products(model):
            states, logits = _states(model, params, tokens, positions, edits, layers, with_logits, attention)
    if isinstance(at, str) and at == "last":
        states, logits = states[:, :, 0], (logits[:, 0] if with_logits else None)
    return (states, logits) if with_logits else states


def logits(
    model: Decoder, params: PyTree, tokens: Int[Array, "B T"], lengths: Int[Array, " B"] | None = None,
    at: str | Int[Array, " P"] | Int[Array, "B P"] = "all", edits: residual.Edits | None = None,
) -> Float[Array, "B *P V"]:  # fmt: skip
    """Next-token logits in float32: [B, T, V], or [B, V] for at="last". Arguments and errors: see `hidden_states`."""
    return hidden_states(model, params, tokens, lengths, at, (model.layers,), edits, with_logits=True)[1]


def generate(
    model: Decoder,
    params: PyTree,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"] | None = None,
    max_new_tokens: int = 8,
    edits: residual.Edits | None = None,
    stop_tokens: Sequence[int] | None = None,
) -> Int[Array, "B new"]:
    """The greedy continuation of each prompt, as token ids [B, max_new_tokens].

    tokens, lengths: see `hidden_states`.
    edits: changes of the prompt's tokens (see `residual.Edits`). They affect the new tokens through the cache.
    stop_tokens: ids that end a row (default: those of the checkpoint). The rest of the row is the first of them.

    Raises ValueError as `hidden_states` does, and if prompt and answer together are longer than the context.
    """
    model, tokens, lengths, stop_tokens = _continued(model, params, tokens, lengths, max_new_tokens, stop_tokens)
    if isinstance(model, through_transformers.TransformersModel):
        through_transformers.refuse_edits(edits)
        return through_transformers.generate(model, params, tokens, lengths, max_new_tokens, stop_tokens)
    with exact_products(model):
        return _generate(model, params, tokens, lengths, edits, max_new_tokens, stop_tokens)


def sample(
    model: Decoder,
    params: PyTree,
    key: Key[Array, ""],
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"] | None = None,
    max_new_tokens: int = 8,
    temperature: float = 1.0,
    stop_tokens: Sequence[int] | None = None,
) -> Int[Array, "B new"]:
    """Continuations that are drawn from the model's distribution at a temperature. The rest is as in `generate`.

    Raises ValueError as `generate` does, and for a temperature that is not a positive number.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be a positive number, got {temperature!r}; generate gives the most likely")
    model, tokens, lengths, stop_tokens = _continued(model, params, tokens, lengths, max_new_tokens, stop_tokens)
    with exact_products(model):
        return _sample(model, params, key, tokens, lengths, temperature, max_new_tokens, stop_tokens)


def tokenize(tokenizer, texts: Sequence[str], bos: bool) -> list[list[int]]:
    """The token ids of each text, without special tokens. bos: begin with the beginning-of-sequence token.

    This token changes the hidden states, and tokenizers differ in adding it, so `bos` has no default. Raises ValueError
    if `bos` is true and the tokenizer has no such token.
    """
    if bos and tokenizer.bos_token_id is None:
        raise ValueError("bos=True, but the tokenizer has no beginning-of-sequence token")
    start = [tokenizer.bos_token_id] if bos else []
    return [start + list(tokenizer.encode(text, add_special_tokens=False)) for text in texts]


def tokens_with(token_texts: Sequence[str], stop_strings: Sequence[str]) -> tuple[int, ...]:
    """The ids of the tokens whose text contains a stop string, for `generate`'s stop_tokens.

    token_texts: the text of each id. A stop string that spans several tokens is not found. Use `cut` for these.
    """
    return tuple(i for i, text in enumerate(token_texts) if any(stop in text for stop in stop_strings))


def cut(text: str, stop_strings: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((text.find(stop) for stop in stop_strings if stop in text), default=len(text))]


def batches(
    prompts: Sequence[Sequence[int]], batch_size: int, multiple: int = 64
) -> Iterator[tuple[np.ndarray, Int[np.ndarray, "B T"], Int[np.ndarray, " B"]]]:
    """Yields (indices into `prompts`, tokens, lengths): batches of prompts of similar length, right-padded with 0.

    The longest prompts come first, so the first batch needs the most memory. The width of a batch is the length of its
    longest prompt, rounded up to a multiple of `multiple`. Each distinct width is compiled once. The last batch is
    filled with copies of its first prompt, with index -1.
    """
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        filled = rows + rows[:1] * (batch_size - len(rows))
        width = -(-max(len(prompts[rows[0]]), 1) // multiple) * multiple
        tokens = np.zeros((batch_size, width), np.int32)
        for row, i in enumerate(filled):
            tokens[row, : len(prompts[i])] = prompts[i]
        indices = np.array(rows + [-1] * (batch_size - len(rows)))
        yield indices, tokens, np.array([len(prompts[i]) for i in filled], np.int32)


def attention_of(model: Decoder, device: jax.Device, attention: str = "auto") -> str:
    """How `hidden_states` computes attention: "xla", or on an NVIDIA GPU "cudnn", one fused kernel.

    attention: "xla", "cudnn" or "auto". "auto" uses cuDNN if it gives the same result. This needs bfloat16, no layer
    with a window, no soft-cap of the scores, and heads of a supported size (a multiple of 8, at most 128). Raises
    ValueError with the reason if "cudnn" is asked for and cannot be used.
    """
    if attention not in ("auto", "xla", "cudnn"):
        raise ValueError(f"attention must be auto, xla or cudnn, got {attention!r}")
    if isinstance(model, through_transformers.TransformersModel):
        return through_transformers.THROUGH
    nvidia = device.platform == "gpu" and "rocm" not in device.client.platform_version
    reasons = {
        f"it needs an NVIDIA GPU, and the model is on {device.platform}": not nvidia,
        f"it computes in bfloat16, and the model in {model.dtype}": model.dtype != "bfloat16",
        "the model has local layers": model.layer_inputs().window is not None,
        "the model has no attention": not model.ATTENDS,
        "the model's attention is not the plain causal one": not getattr(model, "plain_attention", True),
        "the model's scores are soft-capped": getattr(model, "score_cap", None) is not None,
        f"it takes heads of 8, 16, ... 128, and the model's are {model.head_dim}": model.head_dim
        not in range(8, 129, 8),
    }
    against = [reason for reason, holds in reasons.items() if holds]
    if attention == "cudnn" and against:
        raise ValueError(f"attention cannot be cudnn: {against[0]}")
    return "xla" if attention == "xla" or against else "cudnn"


def exact_products(model: Decoder):
    """Full-precision products in float32: accelerators would otherwise round the factors to TF32 or bfloat16."""
    return jax.default_matmul_precision("highest" if model.dtype == "float32" else "default")


@partial(jax.jit, static_argnums=(0, 5, 6, 7))
def _states(model, params, tokens, positions, edits, layers, with_logits, attention="xla"):
    depth = model.layers if with_logits else max(layers)
    capture = "all" if positions is None else positions
    places = jnp.arange(tokens.shape[1])[None]
    fewer = positions is not None and edits is None and depth > 0
    trace = forward(model, params, tokens, places, None, capture, edits, depth, attention=attention, nowhere_else=fewer)
    states = trace.captured if layers == tuple(range(model.layers + 1)) else trace.captured[jnp.array(layers)]
    return states, model.unembed(params, trace.captured[-1]) if with_logits else None


def _continued(model, params, tokens, lengths, max_new_tokens, stop_tokens):
    """What `generate` and `sample` are given, checked and placed."""
    tokens, lengths = checked_tokens(model, tokens, lengths)
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be positive, got {max_new_tokens}")
    if (longest := int(lengths.max()) + max_new_tokens) > model.context:
        raise ValueError(f"prompt and answer take {longest} tokens, the model's context is {model.context}")
    stop_tokens = model.stop_tokens if stop_tokens is None else tuple(stop_tokens)
    if isinstance(model, through_transformers.TransformersModel):
        return model, tokens, lengths, stop_tokens
    model = model.for_lengths(np.concatenate([lengths, lengths + max_new_tokens]))
    tokens, lengths = (sharding.shard_batch(a, params) for a in (tokens, lengths))
    return model, tokens, lengths, stop_tokens


@partial(jax.jit, static_argnums=(0, 5, 6))
def _generate(model, params, tokens, lengths, edits, max_new_tokens, stop_tokens):
    trace = read(model, params, tokens, lengths, edits, keep="cache")
    return greedy(model, params, trace.captured[-1, :, 0], trace.outputs, lengths, max_new_tokens, stop_tokens)


@partial(jax.jit, static_argnums=(0, 6, 7))
def _sample(model, params, key, tokens, lengths, temperature, max_new_tokens, stop_tokens):
    trace = read(model, params, tokens, lengths, keep="cache")
    choose = drawn(key, temperature)
    return decode(model, params, trace.captured[-1, :, 0], trace.outputs, lengths, max_new_tokens, stop_tokens, choose)


def checked(model: Decoder, tokens, lengths) -> tuple[np.ndarray, np.ndarray]:
    """`checked_tokens` for a program that runs the model as it is, whatever the lengths.

    Raises ValueError too where prompts of these lengths need other rotary frequencies than the model has.
    """
    tokens, lengths = checked_tokens(model, tokens, lengths)
    if model.for_lengths(lengths) != model:
        raise ValueError(
            f"prompts of {lengths.max()} tokens take other rotary frequencies in this {model.MODEL_TYPE} model than "
            "shorter ones; hidden_states, generate, sample and scores choose them, this study does not"
        )
    return tokens, lengths


def checked_tokens(model: Decoder, tokens, lengths) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and lengths as int32 arrays on the host, or a ValueError that says what is wrong with which prompt."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise ValueError(f"tokens must be integers [batch, length], got {tokens.dtype} of shape {tokens.shape}")
    batch, longest = tokens.shape
    lengths = np.full(batch, longest) if lengths is None else np.asarray(lengths)
    if lengths.shape != (batch,):
        raise ValueError(f"lengths must have one entry a prompt, [{batch}], got shape {lengths.shape}")
    for wrong, what in (
        (lengths < 1, "is empty; a prompt needs at least one token"),
        (lengths > longest, f"is longer than tokens has columns ({longest})"),
        (lengths > model.context, f"is longer than the model's context of {model.context} tokens"),
    ):
        if wrong.any():
            raise ValueError(f"prompt {wrong.argmax()} ({lengths[wrong.argmax()]} tokens) {what}")
    real = np.arange(longest) < lengths[:, None]
    outside = real & ((tokens < 0) | (tokens >= model.vocab_size))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"token {tokens[row, column]} at position {column} of prompt {row} is outside the vocabulary of "
            f"{model.vocab_size}"
        )
    # Whatever pads the prompts, -100 included, must not index outside the tables.
    width = min(longest, model.context)
    return np.where(real, tokens, 0)[:, :width].astype(np.int32), lengths.astype(np.int32)


def _device_of(params: PyTree) -> jax.Device:
    """One that holds the parameters; NumPy ones will go to the default device."""
    leaf = jax.tree.leaves(params)[0]
    return next(iter(leaf.devices())) if isinstance(leaf, jax.Array) else jax.devices()[0]


def _positions(at, lengths, shape) -> np.ndarray | None:
    """[B, P] positions to capture, None for all."""
    if isinstance(at, str):
        if at not in ("last", "all"):
            raise ValueError(f'at must be "last", "all" or an array of positions, got {at!r}')
        return None if at == "all" else lengths[:, None] - 1
    positions = np.asarray(at)
    if positions.ndim not in (1, 2) or positions.dtype.kind not in "iu":
        raise ValueError(f"positions must be integers [P] or [batch, P], got {positions.dtype} of {positions.shape}")
    positions = np.broadcast_to(positions, (shape[0], positions.shape[-1]))
    if (positions < 0).any() or (positions >= lengths[:, None]).any():
        raise ValueError(
            f"positions must lie within every prompt (lengths {lengths.tolist()}), got {np.asarray(at).tolist()}"
        )
    return positions.astype(np.int32)
