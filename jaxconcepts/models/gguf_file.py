"""GGUF files, one file a model: sizes, weights (most often quantised) and vocabulary. The `gguf` library reads them, a
tensor at a time: dequantised to float32 when its turn comes, then placed and dropped.

A file says which architecture it holds in llama.cpp's names; the tables here give the names of config.json and of our
parameters. Keys, tensors and types that are in no table are errors that name them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxconcepts import extras
from jaxconcepts.models import rotary
from jaxconcepts.models.decoder import Decoder

TYPES = (
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
    "IQ4_XS",
)  # fmt: skip
# Key of the file, after the architecture's name -> attribute of config.json.
KEYS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
# Read elsewhere here, or of no account.
OTHER_KEYS = {"vocab_size", "rope.dimension_count", "attention.value_length", "rope.scaling.finetuned"}
SCALING_KEYS = {"type": "rope_type", "factor": "factor", "original_context_length": "original_max_position_embeddings"}
TENSORS = {
    "embed": "token_embd.weight",
    "unembed": "output.weight",
    "final_norm/scale": "output_norm.weight",
    "blocks/attn_norm/scale": "blk.{}.attn_norm.weight",
    "blocks/mlp_norm/scale": "blk.{}.ffn_norm.weight",
    "blocks/attn_out_norm/scale": "blk.{}.post_attention_norm.weight",
    "blocks/mlp_out_norm/scale": "blk.{}.post_ffw_norm.weight",
    "blocks/out/kernel": "blk.{}.attn_output.weight",
    **{f"blocks/{name}/kernel": f"blk.{{}}.attn_{name}.weight" for name in "qkv"},
    **{f"blocks/{name}/bias": f"blk.{{}}.attn_{name}.bias" for name in "qkv"},
    **{f"blocks/{name}_norm/scale": f"blk.{{}}.attn_{name}_norm.weight" for name in "qk"},
    **{f"blocks/{name}/kernel": f"blk.{{}}.ffn_{name}.weight" for name in ("gate", "up", "down")},
}
ROPE_FACTORS = "rope_freqs.weight"


class Architecture(NamedTuple):
    """model_type: of config.json. attributes: what the file does not say and the architecture implies. turned: queries
    and keys are stored for rotary positions that pair neighbours. offset: the file's norms hold scale + offset."""

    model_type: str
    attributes: dict[str, Any] = {}
    turned: bool = False
    offset: float = 0.0


_GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
ARCHITECTURES = {
    "llama": Architecture("llama", turned=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "gemma2": Architecture("gemma2", _GEMMA, offset=1.0),
    "gemma3": Architecture("gemma3_text", _GEMMA, offset=1.0),
}


class Tensor(NamedTuple):
    """A tensor of the file, in the place of a `safetensors_io.Entry`."""

    stored: Any
    shape: tuple[int, ...]
    change: Callable[[np.ndarray], np.ndarray] | None = None
    type_name: str = "F32"

    def read(self) -> np.ndarray:
        """The weights, dequantised to float32."""
        quants = extras.load("gguf.quants", "gguf", "reading a GGUF file")
        array = np.asarray(quants.dequantize(self.stored.data, self.stored.tensor_type), np.float32)
        array = array.reshape(self.shape)
        return array if self.change is None else self.change(array)


def is_named(path: Path) -> bool:
    """Whether a path is one of a GGUF file, by its name."""
    return path.suffix.lower() == ".gguf"


class File:
    """An open GGUF file: its metadata and where its tensors lie. Raises ValueError naming the file for anything that is
    not GGUF, is cut short, or has tensors that overlap or whose type is not in TYPES."""

    def __init__(self, path: Path):
        gguf = extras.load("gguf", "gguf", f"reading {path}")
        if not path.is_file():
            raise ValueError(f"{path} must be a GGUF file, and it is {'no file' if path.exists() else 'missing'}")
        try:
            self._reader = gguf.GGUFReader(path)
        except Exception as error:  # The library checks little, and fails in many ways.
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{path} is not a whole GGUF file: {reason}") from None
        self.path = path
        self.tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self._check()
        name = self.value("general.architecture")
        if name not in ARCHITECTURES:
            raise ValueError(f"{path}: architecture {name!r} is not supported; supported: {', '.join(ARCHITECTURES)}")
        self.architecture: Architecture = ARCHITECTURES[name]
        self._prefix = f"{name}."

    def value(self, key: str, default: Any = None) -> Any:
        """A value of the metadata; `default` where the file does not have it."""
        field = self._reader.fields.get(key)
        if field is None:
            return default
        try:
            return field.contents()
        except Exception as error:
            raise ValueError(f"{self.path}: the value of {key!r} cannot be read: {error}") from None

    def attributes(self) -> dict[str, Any]:
        """The config.json that the file amounts to."""
        attributes = dict(self.architecture.attributes) | {"model_type": self.architecture.model_type}
        scaling = {}
        for key in self._reader.fields:
            if not key.startswith(self._prefix):
                continue
            name = key.removeprefix(self._prefix)
            if name in KEYS:
                attributes[KEYS[name]] = self.value(key)
            elif name.startswith("rope.scaling.") and name.removeprefix("rope.scaling.") in SCALING_KEYS:
                scaling[SCALING_KEYS[name.removeprefix("rope.scaling.")]] = self.value(key)
            elif name not in OTHER_KEYS:
                raise ValueError(f"{self.path} has {key} = {self.value(key)!r:.80}, which is not implemented")
        if scaling and scaling.get("rope_type") != "none":
            attributes["rope_scaling"] = scaling
        words, table = self.value("tokenizer.ggml.tokens"), self.tensors.get(TENSORS["embed"])
        rows = None if table is None else int(table.shape[-1])
        if words is not None and rows is not None and len(words) != rows:
            raise ValueError(
                f"{self.path}: its vocabulary has {len(words)} tokens, and {TENSORS['embed']} has {rows} rows; "
                "they must be as many"
            )
        attributes["vocab_size"] = rows if words is None else len(words)
        attributes["eos_token_id"] = self.value("tokenizer.ggml.eos_token_id")
        attributes["tie_word_embeddings"] = TENSORS["unembed"] not in self.tensors
        if self.architecture.model_type == "qwen2":
            attributes["use_sliding_window"] = False
        return attributes

    def model(self, read: Decoder) -> Decoder:
        """The model with what tensors say of it: Llama 3.1's scaling of rotary frequencies is one of factors."""
        turned = self.value(self._prefix + "rope.dimension_count", read.head_dim)
        if turned != read.head_dim:
            raise ValueError(f"{self.path}: rope.dimension_count must be a head's {read.head_dim}, got {turned!r}")
        if (stored := self.tensors.get(ROPE_FACTORS)) is None:
            return read
        factors = tuple(map(float, Tensor(stored, (read.head_dim // 2,)).read()))
        scaling = rotary.LongRope(factors, factors, read.context, 1.0)
        return type(read)(**{**vars(read), "rope_scaling": scaling})

    def entries(self, model: Decoder) -> dict[str, Tensor]:
        """The tensors by their names in a checkpoint of the model's family. Raises ValueError for one that it lacks."""
        names = {}
        for path, checkpoint_name in model.CHECKPOINT.items():
            for layer in range(model.layers) if path.startswith("blocks/") else (0,):
                names[TENSORS[path].format(layer)] = checkpoint_name.format(layer), path
        if unknown := sorted(set(self.tensors) - set(names) - {ROPE_FACTORS}):
            raise ValueError(
                f"{self.path} holds tensors that no {model.MODEL_TYPE} model has: {', '.join(unknown[:8])}"
            )
        found = {}
        for name, stored in self.tensors.items():
            if name in names:
                checkpoint_name, path = names[name]
                shape = tuple(int(size) for size in reversed(stored.shape))
                found[checkpoint_name] = Tensor(stored, shape, self._change(model, path))
        return found

    def _change(self, model: Decoder, path: str) -> Callable[[np.ndarray], np.ndarray] | None:
        """What the file's form of a parameter needs to become the checkpoint's."""
        if self.architecture.turned and path in ("blocks/q/kernel", "blocks/k/kernel"):
            return lambda array: _halves(array, model.head_dim)
        if self.architecture.offset and path.endswith("norm/scale"):
            return lambda array: array - np.float32(self.architecture.offset)
        return None

    def _check(self) -> None:
        end, before = 0, ""
        for tensor in sorted(self._reader.tensors, key=lambda tensor: int(tensor.data_offset)):
            kind = tensor.tensor_type.name
            if kind not in TYPES:
                accepted = ", ".join(TYPES)
                raise ValueError(
                    f"{self.path}: tensor {tensor.name!r} is {kind}, which is not read; read are {accepted}"
                )
            if int(tensor.data_offset) < end:
                raise ValueError(f"{self.path}: tensor {tensor.name!r} overlaps {before!r}")
            end, before = int(tensor.data_offset) + int(tensor.n_bytes), tensor.name
        if len(self.tensors) != len(self._reader.tensors):
            raise ValueError(f"{self.path} has two tensors of one name")


def _halves(array: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of a projection, heads one after another, from pairs of neighbours to pairs of halves."""
    pairs = array.reshape(-1, head_dim // 2, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)
