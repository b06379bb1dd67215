"""Checkpoint folders: round trips with transformers, what is refused and how, published sizes, sharding."""

import json
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest

from jaxconcepts.models import (
    gemma2,
    gemma3,
    gpt2,
    gpt_neox,
    language,
    llama,
    mamba2,
    mistral,
    olmo,
    olmo2,
    olmo3,
    phi3,
    pretrained,
    qwen2,
    qwen3,
    rotary,
    safetensors_io,
    sharding,
)
from jaxconcepts.models.decoder import Role

pytestmark = pytest.mark.usefixtures("compiles_fast")

SIZES = {"vocab_size": 30, "width": 16, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 24, "context": 64}
MODELS = {
    "llama": llama.LlamaConfig(layers=3, stop_tokens=(2, 3), **SIZES),
    "tied llama": llama.LlamaConfig(layers=2, tied=True, rope_scaling=None, **SIZES),
    "gemma2": gemma2.Gemma2Config(layers=3, window=5, query_scale=8, local=(True, False, True), **SIZES),
    "olmo": olmo.OlmoConfig(layers=3, clip_qkv=2.0, stop_tokens=(1,), **SIZES),
    "olmo2": olmo2.Olmo2Config(layers=3, **SIZES),
    "gpt2": gpt2.GPT2Config(layers=3, heads=4, width=16, context=64, vocab_size=30, mlp_width=20),
    "gpt_neox": gpt_neox.GPTNeoXConfig(
        layers=3, heads=4, width=32, context=64, vocab_size=30, mlp_width=20, parallel=False, activation="gelu_new"
    ),
    "mistral": mistral.MistralConfig(layers=3, window=5, **SIZES),
    "qwen2": qwen2.Qwen2Config(layers=3, window=6, local=(False, True, True), **SIZES),
    "qwen3": qwen3.Qwen3Config(layers=3, rope_scaling=rotary.Yarn(4.0, 32, 1.5), stop_tokens=(4,), **SIZES),
    "phi3": phi3.Phi3Config(
        layers=3, window=None, rotary_share=0.5,
        rope_scaling=rotary.LongRope((1.0, 1.1), (2.0, 3.0), 50, 1.3), **SIZES | {"width": 32},
    ),
    "gemma3": gemma3.Gemma3Config(layers=3, window=5, query_scale=8, local=(True, False, True),
                                  rope_scaling=rotary.Linear(8.0), **SIZES),
    "mamba2": mamba2.Mamba2Config(
        layers=3, vocab_size=30, width=16, heads=4, head_dim=8, state=8, groups=2, step_limit=(0.1, 0.9), chunk=16
    ),
    "olmo3": olmo3.Olmo3Config(
        layers=3, window=5, local=(True, False, True), rope_scaling=rotary.Yarn(8.0, 16, 1.2), **SIZES
    ),
}  # fmt: skip
TOKENS = np.random.default_rng(0).integers(0, 30, (4, 40))


def random_params(model, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.4).astype(model.dtype), shapes)


@pytest.fixture
def folder(tmp_path):
    pretrained.save_pretrained(MODELS["llama"], random_params(MODELS["llama"]), tmp_path)
    return tmp_path


def edit_config(folder, remove=(), **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if name not in remove}))


def rewrite(folder, change, name="model.safetensors"):
    """Applies `change` to the dict of tensors and writes them back."""
    tensors = {name: entry.read() for name, entry in safetensors_io.scan_folder(folder).items()}
    tensors = change(tensors) or tensors
    safetensors_io.write(folder / name, [(n, t.shape, t.dtype, lambda t=t: t) for n, t in tensors.items()])


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_what_is_saved_loads_to_the_same_model_and_weights(tmp_path, model):
    params = random_params(model)
    pretrained.save_pretrained(model, params, tmp_path)
    loaded, loaded_params = pretrained.load_pretrained(tmp_path)
    assert jax.tree.structure(loaded_params) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded_params, params)
    assert loaded == model


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_transformers_loads_what_is_saved_to_equal_logits(tmp_path, model):
    torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
    transformers = pytest.importorskip("transformers", reason="the reference implementation is transformers'")
    params = random_params(model)
    pretrained.save_pretrained(model, params, tmp_path)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    with torch.no_grad():
        expected = theirs(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(language.logits(model, params, TOKENS), expected, atol=1e-4 * np.abs(expected).max())


def test_configs_of_transformers_4_are_understood(folder):
    rope = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 8192
    edit_config(
        folder, remove=("rope_parameters", "dtype"), rope_theta=123.0, rope_scaling=rope, torch_dtype="bfloat16"
    )
    model, _ = pretrained.load_pretrained(folder)
    assert (model.rope_theta, model.rope_scaling) == (123.0, llama.RopeScaling(factor=32.0))
    edit_config(folder, rope_scaling=None)
    assert pretrained.read_config(folder).rope_scaling is None


def test_stop_tokens_come_from_the_generation_config_first(folder):
    assert pretrained.read_config(folder).stop_tokens == (2, 3)
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert pretrained.read_config(folder).stop_tokens == (5, 6)


def test_shards_listed_in_an_index_are_read(folder):
    whole = pretrained.load_pretrained(folder)[1]
    tensors = {name: entry.read() for name, entry in safetensors_io.scan_folder(folder).items()}
    where = {name: f"model-0000{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for shard in set(where.values()):
        mine = [(n, t.shape, t.dtype, lambda t=t: t) for n, t in tensors.items() if where[n] == shard]
        safetensors_io.write(folder / shard, mine)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    jax.tree.map(np.testing.assert_array_equal, pretrained.load_pretrained(folder)[1], whole)
    (folder / "model-00001.safetensors").unlink()
    with pytest.raises(ValueError, match=r"index\.json lists the shard model-00001\.safetensors, which is missing"):
        pretrained.load_pretrained(folder)


def test_the_safetensors_library_agrees_on_every_type(tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="the reference reader")
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(4, dtype=np.int64),
        "e": np.ones((0, 2)),
    }
    library.save_file(tensors, tmp_path / "theirs.safetensors")
    for name, entry in safetensors_io.scan(tmp_path / "theirs.safetensors").items():
        np.testing.assert_array_equal(entry.read(), tensors[name])
    tensors["c"] = np.arange(3).astype(ml_dtypes.bfloat16)
    tensors["scalar"] = np.array(0.5, np.float32)
    safetensors_io.write(tmp_path / "ours", [(n, t.shape, t.dtype, lambda t=t: t) for n, t in tensors.items()])
    read = library.load_file(tmp_path / "ours")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(np.asarray(read[name], np.float32), tensor.astype(np.float32))


REFUSED_CONFIGS = {
    "a list nobody knows": (
        {"experts": [4]},
        r"config\.json has experts = \[4\], which is not implemented for 'llama'",
    ),
    "biases": ({"attention_bias": True}, "attention_bias = True, which is not implemented"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act = 'gelu', which is not implemented .* only 'silu'"),
    "another rope": (
        {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}},
        "rope_type of rope_parameters must be 'default' or .*, got 'longrope'",
    ),
    "a rope number": (
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        r"rope_parameters must be without these: .*, got \{'partial_rotary_factor': 0\.5\}",
    ),
    "another family": (
        {"model_type": "t5"},
        "model_type 't5' is not supported; supported: gemma2, ",
    ),
    "key heads": (
        {"num_key_value_heads": 3},
        "num_key_value_heads must be a divisor of num_attention_heads = 4, got 3",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED_CONFIGS.values(), ids=REFUSED_CONFIGS.keys())
def test_configs_that_are_not_implemented_are_refused_by_name(folder, changes, message):
    edit_config(folder, **changes)
    with pytest.raises(ValueError, match=message):
        pretrained.load_pretrained(folder)


def test_a_missing_size_is_named(folder):
    edit_config(folder, remove=("hidden_size",))
    with pytest.raises(ValueError, match="must have 'hidden_size', and it is missing"):
        pretrained.load_pretrained(folder)


NORM = "model.norm.weight"
REFUSED_TENSORS = {
    "missing": (lambda t: t.pop(NORM) is None, r"missing: model\.norm\.weight"),
    "left over": (lambda t: t.update(extra=np.ones(3)), "left over: extra"),
    "one of another family": (
        lambda t: t.update({"model.layers.0.self_attn.q_norm.weight": np.ones(8)}),
        "left over: model.layers.0.self_attn.q_norm.weight",
    ),
    "misshapen": (
        lambda t: t.update({NORM: np.ones(3)}),
        r"misshapen: model\.norm\.weight is \(3,\), the config says \(16,\)",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED_TENSORS.values(), ids=REFUSED_TENSORS.keys())
def test_tensors_that_do_not_fit_are_refused_by_name(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message):
        pretrained.load_pretrained(folder)


def test_a_tied_checkpoint_may_hold_the_table_twice_but_not_two_tables(tmp_path):
    model = MODELS["tied llama"]
    pretrained.save_pretrained(model, random_params(model), tmp_path)
    rewrite(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}))
    pretrained.load_pretrained(tmp_path)
    rewrite(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))
    with pytest.raises(ValueError, match="lm_head.weight differs from the embedding table, but tie_word_embeddings"):
        pretrained.load_pretrained(tmp_path)


def test_gpt2_checkpoints_of_the_bare_model_with_mask_buffers_are_read(tmp_path):
    model = MODELS["gpt2"]
    pretrained.save_pretrained(model, params := random_params(model), tmp_path)
    rewrite(
        tmp_path,
        lambda t: (
            {n.removeprefix("transformer."): a for n, a in t.items()} | {"h.0.attn.bias": np.ones((1, 1, 64, 64))}
        ),
    )
    jax.tree.map(np.testing.assert_array_equal, pretrained.load_pretrained(tmp_path)[1], params)


def test_damaged_files_are_named(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated: tensor '.*' ends at byte"):
        pretrained.load_pretrained(folder)
    path.write_bytes(whole[:5])
    with pytest.raises(ValueError, match="not a whole safetensors file: it has 5 bytes"):
        pretrained.load_pretrained(folder)
    path.write_bytes(whole[:8] + b"x" * (len(whole) - 8))
    with pytest.raises(ValueError, match=r"the header of .*model\.safetensors is not JSON"):
        pretrained.load_pretrained(folder)
    path.write_bytes(whole.replace(b'"F32"', b'"F64"', 1))
    with pytest.raises(ValueError, match="tensor '.*' is corrupt"):
        pretrained.load_pretrained(folder)


def test_folders_without_a_config_or_safetensors_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"only pytorch_model\.bin: pickled checkpoints are not read"):
        pretrained.load_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no config\.json"):
        pretrained.load_pretrained(folder)
    with pytest.raises(ValueError, match="neither a folder nor a GGUF file, a repository id"):
        pretrained.load_pretrained(folder / "nowhere")


PUBLISHED = {
    "Llama-3.1-8B": (llama.LlamaConfig(), 8_030_261_248),
    "Llama-3.1-70B": (llama.LlamaConfig(width=8192, layers=80, heads=64, mlp_width=28672), 70_553_706_496),
    "Gemma-2-2B": (
        gemma2.Gemma2Config(width=2304, layers=26, heads=8, kv_heads=4, mlp_width=9216),
        2_614_341_888,
    ),
    "Gemma-2-9B": (gemma2.Gemma2Config(), 9_241_705_984),
    "Gemma-2-27B": (
        gemma2.Gemma2Config(
            width=4608, layers=46, heads=32, kv_heads=16, head_dim=128, mlp_width=36864, query_scale=144
        ),
        27_227_128_320,
    ),
    "OLMo-7B": (olmo.OlmoConfig(), 6_888_095_744),
    "OLMo-2-7B": (olmo2.Olmo2Config(), 7_298_617_344),
    "Pythia-70M": (
        gpt_neox.GPTNeoXConfig(vocab_size=50304, width=512, layers=6, heads=8, mlp_width=2048),
        70_426_624,
    ),
    "Pythia-6.9B": (gpt_neox.GPTNeoXConfig(), 6_857_302_016),
    "Mistral-7B-v0.1": (mistral.MistralConfig(), 7_241_732_096),
    "Qwen2.5-7B": (qwen2.Qwen2Config(), 7_615_616_512),
    "Qwen3-8B": (qwen3.Qwen3Config(), 8_190_735_360),
    "Phi-3-mini": (phi3.Phi3Config(), 3_821_079_552),
    "Mamba-2-130M": (mamba2.Mamba2Config(), 128_989_632),
    "Gemma-3-1B": (gemma3.Gemma3Config(), 999_885_952),
    "OLMo-3-7B": (olmo3.Olmo3Config(), 7_298_011_136),
    "GPT-2": (gpt2.GPT2Config(layers=12, heads=12, width=768, context=1024, vocab_size=50257), 124_439_808),
}


@pytest.mark.parametrize(("model", "count"), PUBLISHED.values(), ids=PUBLISHED.keys())
def test_published_sizes(model, count):
    assert model.num_params() == count


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_the_sharding_table_covers_every_parameter(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    sharding.specs(model, sharding.auto_mesh(None), shapes)
    with pytest.raises(ValueError, match="no role of .* covers blocks/extra"):
        sharding.specs(
            model, sharding.auto_mesh(None), shapes | {"blocks": shapes["blocks"] | {"extra": shapes["embed"]}}
        )


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_roles_say_which_matrices_read_the_stream_and_which_write_it(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    kernels = {
        name: part["kernel"].shape
        for name, part in shapes["blocks"].items()
        if isinstance(part, dict) and "kernel" in part
    }
    roles = {name: model.role(f"blocks/{name}/kernel") for name in kernels}
    for name, (_, inputs, outputs) in kernels.items():
        assert roles[name].writes == (name in ("out", "attn_out", "down", "mlp_down", "out_proj"))
        assert (roles[name] is Role.READS) == (not roles[name].writes)
        assert (inputs if roles[name] is Role.READS else outputs) == model.width
    if model.ATTENDS:
        assert jax.eval_shape(model.heads_kernel, shapes).shape == (
            model.layers,
            model.heads * model.head_dim,
            model.width,
        )
    assert {model.role(name) for name in ("embed", "unembed") if name in shapes} == {Role.TABLE}


ON_EIGHT = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
import numpy as np
from jaxconcepts.models import language, pretrained
mesh = jax.make_mesh((2, 4), ("data", "model"))
for folder in sys.argv[2:]:
    model, params = pretrained.load_pretrained(folder, mesh=mesh)
    tokens = np.load(sys.argv[1])
    states, logits = language.hidden_states(model, params, tokens, at="all", with_logits=True)
    answers = language.generate(model, params, tokens, max_new_tokens=4)
    split = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(params))
    np.savez(folder + "/eight.npz", states=states, logits=logits, answers=answers, split=split)
"""


@pytest.mark.slow
def test_eight_devices_give_the_states_of_one(tmp_path):
    np.save(tmp_path / "tokens.npy", TOKENS)
    names = ["llama", "gemma2", "gpt2", "gpt_neox", "gemma3"]
    for name in names:
        pretrained.save_pretrained(MODELS[name], random_params(MODELS[name]), tmp_path / name)
    command = [sys.executable, "-c", ON_EIGHT, tmp_path / "tokens.npy", *(tmp_path / name for name in names)]
    subprocess.run([str(part) for part in command], check=True, timeout=300)
    for name in names:
        found = np.load(tmp_path / name / "eight.npz")
        model, params = pretrained.load_pretrained(tmp_path / name)
        states, logits = language.hidden_states(model, params, TOKENS, at="all", with_logits=True)
        for ours, one in zip([*found["states"], found["logits"]], [*states, logits], strict=True):
            np.testing.assert_allclose(ours, one, rtol=0, atol=1e-5 * np.abs(one).max())
        np.testing.assert_array_equal(found["answers"], language.generate(model, params, TOKENS, max_new_tokens=4))
        # The matrices are really split, not copied to every device.
        assert found["split"] >= 4
