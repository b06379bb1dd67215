"""Any causal language model that transformers has, run by PyTorch: hidden states, answers and log-probabilities of the
same shape and meaning as of our families, on the CPU. None of our guarantees are given: the numbers are transformers'.

The stream is taken by hooks at the blocks, so that layer L is before the final norm, as everywhere here. Prompts of
equal length run together and none is padded, so that a prompt's states are the same alone and in any batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxconcepts import extras
from jaxconcepts.models import hf_values, json_file
from jaxconcepts.models.decoder import Decoder

THROUGH = "transformers"
# Where architectures say nothing (ALiBi) there is no limit.
CONTEXTS, NO_LIMIT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"), 1_000_000


@dataclass(frozen=True)
class TransformersModel(Decoder):
    """Sizes of a model that transformers runs, in the place of a family's config; its parameters are a PyTorch module.

    folder: where it lies. architecture: the model_type of its config.json.
    """

    folder: str
    architecture: str
    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    context: int
    dtype: str = "float32"
    stop_tokens: tuple[int, ...] = ()

    @property
    def MODEL_TYPE(self) -> str:  # noqa: N802
        return f"{self.architecture} through {THROUGH}"

    def num_params(self) -> int:
        with _library("torch").device("meta"):
            return sum(part.numel() for part in untrained(self, 0).parameters())


def read_config(folder: Path, dtype) -> TransformersModel:
    """The sizes that config.json says. Raises ValueError where there is none, and for what transformers cannot read."""
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} has no config.json; through={THROUGH} reads checkpoint folders and repositories")
    config = _config(folder)
    stated = lambda *names: next((v for n in names if isinstance(v := getattr(config, n, None), int)), None)  # noqa: E731
    sizes = {
        "width": stated("hidden_size"), "layers": stated("num_hidden_layers"), "vocab_size": stated("vocab_size"),
    }  # fmt: skip
    if absent := [name for name, value in sizes.items() if value is None]:
        raise ValueError(f"{folder}: the config of a {config.model_type} model says nothing of its {', '.join(absent)}")
    heads = stated("num_attention_heads") or 0
    ids = json_file.read_object(folder / "config.json").get("eos_token_id")
    return TransformersModel(
        str(folder), config.model_type, **sizes, heads=heads, kv_heads=stated("num_key_value_heads") or heads,
        context=stated(*CONTEXTS) or NO_LIMIT, dtype=jnp.dtype(dtype).name,
        stop_tokens=hf_values.stop_tokens(ids, sizes["vocab_size"], str(folder)),
    )  # fmt: skip


def read_params(model: TransformersModel) -> Any:
    """The PyTorch module with the checkpoint's weights, from safetensors alone."""
    library = _library("transformers").AutoModelForCausalLM
    options = {"dtype": getattr(_library("torch"), model.dtype), "use_safetensors": True, "trust_remote_code": False}
    try:
        module, report = library.from_pretrained(model.folder, output_loading_info=True, **options)
    except Exception as error:  # The library has another kind for each way in which it fails.
        raise ValueError(f"transformers cannot read {model.folder}: {' '.join(str(error).split())}") from error
    if wrong := [f"{kind}: {sorted(map(str, report[kind]))[0]}" for kind in report if report[kind]]:
        raise ValueError(f"the tensors of {model.folder} do not fit its config: {'; '.join(wrong)}")
    return module.eval()


def untrained(model: TransformersModel, seed: int) -> Any:
    """The module as transformers initialises it."""
    torch = _library("torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _library("transformers").AutoModelForCausalLM.from_config(_config(Path(model.folder)))
    return module.to(getattr(torch, model.dtype)).eval()


def states(model: TransformersModel, module, tokens, lengths, positions, layers, with_logits: bool):
    """The stream [layers, B, P, d] of right-padded prompts at positions [B, P], None for all T, zeros at the padding;
    and logits [B, P, V] there, or None."""
    batch, width = tokens.shape
    positions = np.broadcast_to(np.arange(width), (batch, width)) if positions is None else positions
    stream = np.zeros((len(layers), *positions.shape, model.width), np.float32)
    logits = np.zeros((*positions.shape, model.vocab_size), np.float32) if with_logits else None
    for rows, length in _alike(lengths):
        at = np.minimum(positions[rows], length - 1)
        real = (positions[rows] < length)[..., None]
        with _captured(model, module) as captured:
            # Without logits the table of words is not multiplied.
            output = _run(module if with_logits else module.base_model, tokens[rows, :length])
        for place, layer in enumerate(layers):
            read = captured[layer].float().numpy()
            stream[place, rows] = np.take_along_axis(read, at[..., None], 1) * real
        if with_logits:
            logits[rows] = np.take_along_axis(_logits(output)[..., : model.vocab_size], at[..., None], 1) * real
    return jnp.asarray(stream, model.dtype), None if logits is None else jnp.asarray(logits)


def generate(model: TransformersModel, module, tokens, lengths, max_new_tokens: int, stop_tokens) -> Array:
    """[B, new] greedy answers, filled up after a stop token with the first of them."""
    torch, fill = _library("torch"), stop_tokens[0] if stop_tokens else 0
    answers = np.full((len(tokens), max_new_tokens), fill, np.int32)
    for rows, length in _alike(lengths):
        ids = torch.tensor(np.asarray(tokens[rows, :length], np.int64))
        options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "num_beams": 1, "pad_token_id": fill}
        # An id that is no token where nothing stops, or transformers would take the checkpoint's own.
        options |= {"eos_token_id": list(stop_tokens) or [model.vocab_size], "max_new_tokens": max_new_tokens}
        with torch.no_grad():
            written = module.generate(ids, **options)[:, length:].numpy()
        answers[rows, : written.shape[1]] = written
    return jnp.asarray(answers)


def log_probs(module, tokens, lengths, continuations, continuation_lengths) -> Array:
    """[B, C]: nats of each continuation [B, C, A], of which so many tokens count, after its prompt."""
    torch, found = _library("torch"), np.zeros(continuation_lengths.shape, np.float32)
    whole = lengths[:, None] + continuation_lengths
    for both, total in _alike(whole.reshape(-1)):
        for start in range(0, len(both), len(tokens)):
            row, column = np.divmod(both[start : start + len(tokens)], whole.shape[1])
            ids = np.array([
                np.r_[tokens[r, : lengths[r]], continuations[r, c, : total - lengths[r]]]
                for r, c in zip(row, column, strict=True)
            ])  # fmt: skip
            # No continuation begins before the first of these places.
            first = max(total - continuations.shape[2], 1)
            steps = torch.tensor(_logits(_run(module, ids))[:, first - 1 : -1])
            steps = torch.log_softmax(steps.double(), -1).numpy()
            each = np.take_along_axis(steps, ids[:, first:, None].astype(np.int64), 2)[..., 0]
            counted = np.arange(first, total) >= lengths[row][:, None]
            found[row, column] = (each * counted).sum(1)
    return jnp.asarray(found)


def refuse_edits(edits) -> None:
    """Raises ValueError where there are any."""
    if edits is not None:
        raise ValueError(f"edits must be None: a model that runs through={THROUGH} is read, not changed")


def _alike(lengths) -> Iterator[tuple[np.ndarray, int]]:
    """(rows, their length) of every length."""
    lengths = np.asarray(lengths)
    for length in np.unique(lengths):
        yield np.flatnonzero(lengths == length), int(length)


def _run(module, ids):
    torch = _library("torch")
    with torch.no_grad():
        return module(torch.tensor(np.asarray(ids, np.int64)), use_cache=False)


def _logits(output) -> np.ndarray:
    return output.logits.float().numpy()


@contextlib.contextmanager
def _captured(model: TransformersModel, module) -> Iterator[list]:
    """What the blocks of a forward pass read and write: the stream before the first, and after each."""
    lists = [part for part in module.modules() if type(part).__name__ == "ModuleList" and len(part) == model.layers]
    if not lists:
        raise ValueError(
            f"a {model.architecture} model of transformers has no list of {model.layers} blocks to look at"
        )
    captured, hooks = [], []

    def before(_, args, kwargs):
        captured.append(args[0] if args else kwargs["hidden_states"])

    def after(_, __, output):
        captured.append(output[0] if isinstance(output, tuple) else output)

    hooks.append(lists[0][0].register_forward_pre_hook(before, with_kwargs=True))
    hooks += [block.register_forward_hook(after) for block in lists[0]]
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()


def _config(folder: Path):
    try:
        return _library("transformers").AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    except Exception as error:
        raise ValueError(
            f"transformers cannot read {folder / 'config.json'}: {' '.join(str(error).split())}"
        ) from error


def _library(name: str):
    return extras.load(name, "torch", f"through={THROUGH}")
