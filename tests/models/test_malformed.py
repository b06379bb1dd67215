"""Checkpoint folders that are not as they should be: each ends in a ValueError that names the file, what is wrong and
what is accepted; never in an error of another kind."""

import json
import os
import shutil
import struct

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxconcepts.models import gpt2, llama, pretrained, safetensors_io
from tests.models.published import PUBLISHED, cut

SIZES = {"vocab_size": 30, "width": 16, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 24, "context": 64}
MODELS = {
    "llama": llama.LlamaConfig(layers=1, **SIZES),
    "gpt2": gpt2.GPT2Config(layers=1, heads=4, width=16, context=64, vocab_size=30, mlp_width=20),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder a family, written once."""
    folders = {}
    for name, model in MODELS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        pretrained.save_pretrained(model, jax.tree.map(lambda leaf: np.ones(leaf.shape, "f4"), shapes), folders[name])
    return folders


@pytest.fixture
def folder(written, tmp_path):
    """folder(family) -> a copy that a test may ruin."""
    return lambda family="llama": shutil.copytree(written[family], tmp_path / family)


def refused(folder, file, *words):
    """The message of the ValueError, which must name the file and every word."""
    with pytest.raises(ValueError) as caught:
        pretrained.load_pretrained(folder)
    message = str(caught.value)
    assert str(folder / file) in message, message
    assert "\n" not in message and all(word in message for word in words), message
    return message


NAN, INF = float("nan"), float("inf")
# Attribute -> values that are wrong; each message names the attribute.
BAD_VALUES = {
    "hidden_size": (0, -4, 1.5, True, "16", [16], 2**40),
    "num_hidden_layers": (0, 10**9, "2", 2.0),
    "num_attention_heads": (0, -1, {}, "four"),
    "num_key_value_heads": (0, 3, -2, 8, 1.0),
    "head_dim": (7, 0, "8"),
    "vocab_size": (0, -30, 10**12, [30]),
    "max_position_embeddings": (0, -1, 2**40, "64"),
    "intermediate_size": (0, 0.5, None, False),
    "rms_norm_eps": (-1e-5, 0, "1e-5", NAN, INF),
    "rope_theta": (0, -1.0, "x", True),
    "rope_parameters": ([1], "default", 5, 0, False),
    "rope_scaling": ([1], "yarn", 0, True),
    "eos_token_id": (30, -1, "2", [2, 99], 1.0, {"a": 1}, True),
    "tie_word_embeddings": (1, "no", []),
    "model_type": (None, 3, ["llama"], "bert", {}),
    "hidden_act": (["silu"], "relu", 3),
}
BAD_CONFIGS = [("llama", {name: value}, (name,)) for name, values in BAD_VALUES.items() for value in values]
# Objects within, and what their messages say.
LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}
BAD_ROPES = [
    *(({"rope_type": "linear", "factor": value}, "factor of rope_parameters") for value in (0, -2, None, "2", [2])),
    ({"rope_type": ["linear"]}, "rope_type of rope_parameters"),
    ({"rope_type": "default", "rope_theta": 0}, "rope_theta of rope_parameters"),
    ({"rope_type": "default", "factor": 2.0}, "without these"),
    (LLAMA_3, "above low_freq_factor"),
    ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 0}, "original_max_position_embeddings"),
    ({"type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 2}, "beta_fast"),
    ({"type": "yarn", "factor": 4.0, "truncate": 1}, "truncate"),
]
BAD_CONFIGS += [("llama", {"rope_parameters": rope}, ("rope_parameters", word)) for rope, word in BAD_ROPES]
BAD_CONFIGS += [
    ("llama", {"head_dim": None, "hidden_size": 18}, ("hidden_size", "multiple of num_attention_heads = 4")),
    ("llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, ("gptq", "GGUF")),
    ("llama", {"quantization_config": {"quant_method": "fp8"}}, ("fp8", "dequantise")),
    ("llama", {"quantization_config": "awq"}, ("awq",)),
]
BAD_CONFIGS += [
    ("gpt2", changes, words)
    for changes, words in [
        ({"n_embd": 18}, ("n_embd", "multiple of n_head = 4")),
        ({"n_layer": 10**9}, ("n_layer", "from 1 to 10000")),
        ({"n_positions": "many"}, ("n_positions",)),
        ({"hidden_size": 99}, ("hidden_size", "16")),
        ({"layer_norm_epsilon": -1}, ("layer_norm_epsilon",)),
        ({"n_inner": -3}, ("n_inner",)),
        ({"activation_function": "tanh"}, ("activation_function", "gelu_new")),
    ]
]


@pytest.mark.parametrize(("family", "changes", "words"), BAD_CONFIGS, ids=lambda part: str(part)[:60])
def test_a_config_that_is_wrong_is_refused_by_the_names_of_the_file(folder, family, changes, words):
    path = folder(family) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    message = refused(path.parent, "config.json", *words)
    assert "model.width" not in message and "model.kv_heads" not in message


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[1]", b"3", b"null", b"\xff\xfe{}", b'{"a": 1, "a": 2}', b"{'a': 1}", b"[" * 100_000, b'{"a": 1}x'],
    ids=lambda text: str(text[:12]),
)  # fmt: skip
def test_json_that_is_broken_is_refused_by_its_file(folder, file, text):
    path = folder() / file
    path.write_bytes(text)
    refused(path.parent, file, "JSON")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(folder, file, kind):
    path = folder() / file
    path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    refused(path.parent, file, "no file")


def header_of(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_header(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


NORM = "model.norm.weight"


def last_of(header):
    return max((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"][1])


def change(name=None, **parts):
    def do(header, data):
        header[name or NORM] |= parts
        return header, data

    return do


def shifted(by):
    def do(header, data):
        start, stop = header[NORM]["data_offsets"]
        header[NORM]["data_offsets"] = [start + by, stop + by]
        return header, data

    return do


BAD_HEADERS = {
    "trailing bytes": (lambda h, d: (h, d + b"1234"), ("4 bytes after its last tensor",)),
    "truncated": (lambda h, d: (h, d[:-1]), ("truncated",)),
    "no data": (lambda h, d: (h, b""), ("truncated",)),
    "overlap": (shifted(-4), ("overlaps",)),
    "hole": (lambda h, d: (shifted(4)(h, d)[0], d + b"1234"), ("leaves bytes unused",)),
    "negative offsets": (change(data_offsets=[-64, 0]), ("data_offsets", NORM)),
    "offsets the wrong way round": (change(data_offsets=[64, 0]), ("data_offsets", NORM)),
    "one offset": (change(data_offsets=[0]), ("data_offsets", NORM)),
    "offsets of text": (change(data_offsets=["0", "64"]), ("data_offsets", NORM)),
    "offsets of flags": (change(data_offsets=[False, True]), ("data_offsets", NORM)),
    "offsets beyond counting": (change(data_offsets=[0, 2**70]), ("data_offsets", NORM)),
    "no shape": (lambda h, d: (h[NORM].pop("shape") and h, d), (NORM, "must have dtype, shape and data_offsets")),
    "a negative shape": (change(shape=[-16]), ("shape", NORM)),
    "a shape of text": (change(shape="16"), ("shape", NORM)),
    "a shape of fractions": (change(shape=[16.0]), ("shape", NORM)),
    "another shape": (change(shape=[17]), ("corrupt", NORM)),
    "an unknown type": (change(dtype="F4"), ("dtype 'F4'", "understood")),
    "a type of another kind": (change(dtype=32), ("dtype 32",)),
    "a tensor that is a list": (lambda h, d: (h | {NORM: [1]}, d), (NORM, "must have dtype")),
    "a header that is a list": (lambda h, d: ([1], d), ("object",)),
    "a header twice": (lambda h, d: (json.dumps(h).encode()[:-1] + b', "model.norm.weight": {}}', d), ("given twice",)),
    "a header of other bytes": (lambda h, d: (b"\xff\xfe" * 8, d), ("is not JSON",)),
    "an empty header": (lambda h, d: ({}, b""), ("missing: ",)),
    "integers": (change(dtype="I32"), (NORM, "I32", "weights are one of")),
    "flags": (lambda h, d: change(dtype="U8", shape=[64])(h, d), (NORM,)),
    "metadata that is a list": (lambda h, d: (h | {"__metadata__": [1]}, d), ("can be read", "expected a map")),
}


@pytest.mark.parametrize(("ruin", "words"), BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
def test_a_safetensors_file_that_is_wrong_is_refused_by_name(folder, ruin, words):
    path = folder() / "model.safetensors"
    write_header(path, *ruin(*header_of(path)))
    message = refused(path.parent, "", *words)
    assert str(path) in message or "do not fit its config" in message


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3000), st.binary(min_size=1, max_size=8))
def test_changed_bytes_are_read_or_refused_and_never_a_traceback(written, tmp_path, at, new):
    """Any bytes in the header or the length before it: the scan ends in entries or in a ValueError with the file."""
    data = bytearray((written["llama"] / "model.safetensors").read_bytes())
    at %= struct.unpack("<Q", data[:8])[0] + 8
    data[at : at + len(new)] = new
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    try:
        safetensors_io.scan(path)
    except ValueError as error:
        assert str(path) in str(error)


ROPE_NAMES = [
    "rope_type", "type", "factor", "rope_theta", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor",
    "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale", "truncate", "other",
    "partial_rotary_factor", "full_attention", "sliding_attention",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**66) | st.floats() | st.text(max_size=4) | st.integers(0, 40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(ROPE_NAMES), inner, max_size=4),
    max_leaves=6,
)
ROPES = st.fixed_dictionaries(
    {"rope_type": st.sampled_from(["default", "linear", "dynamic", "yarn", "longrope", "llama3", "su"])},
    optional={name: st.sampled_from([1, 2.0, 0.5, 0, -1, None, "a", [1.0], True, 64]) for name in ROPE_NAMES[2:]},
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:.*so it is ignored")
@given(st.data())
def test_any_value_of_any_attribute_is_read_or_refused_by_its_file(tmp_path, data):
    """Of every family's published attributes: a model, or a ValueError that names the file; nothing else."""
    name = data.draw(st.sampled_from(sorted(PUBLISHED)))
    config = cut(PUBLISHED[name])
    for attribute in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=2, unique=True)):
        config[attribute] = data.draw(ROPES | JSON if attribute.startswith("rope") else JSON)
    (tmp_path / "config.json").write_text(json.dumps(config))
    try:
        model = pretrained.read_config(tmp_path)
    except ValueError as error:
        assert str(tmp_path) in str(error) and "\n" not in str(error), error
    else:
        # What is read can be built, as shapes, and can be written again.
        jax.eval_shape(model.init, jax.random.key(0))
        json.dumps(model.to_hf())


BAD_INDICES = {
    "a shard outside": {"weight_map": {NORM: "../model.safetensors"}},
    "an absolute shard": {"weight_map": {NORM: "/etc/model.safetensors"}},
    "a shard in a folder": {"weight_map": {NORM: "a/model.safetensors"}},
    "a shard by backslash": {"weight_map": {NORM: "..\\model.safetensors"}},
    "the folder itself": {"weight_map": {NORM: ".."}},
    "another file": {"weight_map": {NORM: "config.json"}},
    "a pickle": {"weight_map": {NORM: "pytorch_model.bin"}},
    "a number": {"weight_map": {NORM: 3}},
    "a zero byte": {"weight_map": {NORM: "a\0.safetensors"}},
    "no map": {},
    "an empty map": {"weight_map": {}},
    "a list": {"weight_map": [NORM]},
    "a missing shard": {"weight_map": {NORM: "nowhere.safetensors"}},
    "a tensor that the shard lacks": {"weight_map": {"absent": "model.safetensors"}},
}


@pytest.mark.parametrize("index", BAD_INDICES.values(), ids=BAD_INDICES.keys())
def test_an_index_that_is_wrong_is_refused_by_name(folder, index):
    path = folder() / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    refused(path.parent, path.name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.mlp.up_proj.weight"])
def test_weights_that_are_not_finite_are_a_warning_that_names_them(folder, name, value):
    path = folder() / "model.safetensors"
    tensors = {tensor: entry.read() for tensor, entry in safetensors_io.scan(path).items()}
    tensors[name].reshape(-1)[3] = value
    safetensors_io.write(path, [(n, t.shape, t.dtype, lambda t=t: t) for n, t in tensors.items()])
    with pytest.warns(UserWarning, match=f"{path.parent}: some numbers are not finite in float32 in {name}"):
        pretrained.load_pretrained(path.parent)


@pytest.mark.parametrize(
    "tensors",
    [["q_proj.qweight", "q_proj.qzeros", "q_proj.scales"], ["q_proj.weight.absmax", "q_proj.weight.quant_map"],
     ["q_proj.SCB"], ["q_proj.weight_scale_inv"]],
    ids=["GPTQ", "bitsandbytes", "bitsandbytes, 8 bits", "fp8"],
)  # fmt: skip
def test_packed_weights_are_refused_by_name_with_what_to_do(folder, tensors):
    path = folder() / "model.safetensors"
    found = {name: entry.read() for name, entry in safetensors_io.scan(path).items()}
    found.pop("model.layers.0.self_attn.q_proj.weight")
    found |= {f"model.layers.0.self_attn.{name}": np.ones(4, np.uint8) for name in tensors}
    safetensors_io.write(path, [(n, t.shape, t.dtype, lambda t=t: t) for n, t in found.items()])
    refused(path.parent, "", "packed numbers", tensors[0], "GGUF")
