"""Every layer of every family against transformers, in float32, at 1e-4; and each feature's removal is noticed.

Weights are large (logits of about 10), windows and caps bite, prompts are 300 tokens: at default initialisation a wrong
model passes.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.models import decoder, gemma2, gpt2, gpt_neox, language, layers, llama, rotary, state_space

pytestmark = pytest.mark.usefixtures("compiles_fast")

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 131072, "tie_word_embeddings": False,
}  # fmt: skip


def rope(factor, theta=500000.0):
    """The rope parameters of Llama 3.1 (factor 8) and 3.2 (factor 32)."""
    numbers = {"factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return {"rope_type": "llama3", "rope_theta": theta, "original_max_position_embeddings": 8192, **numbers}


PLAIN = {"rope_type": "default", "rope_theta": 500000.0}
GEMMA = dict(
    SMALL, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, sliding_window=20, query_pre_attn_scalar=24,
    attn_logit_softcapping=3.0, final_logit_softcapping=8.0,
)  # fmt: skip
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}
SHARE = {"partial_rotary_factor": 0.25}
NEOX = dict(SMALL, hidden_size=64, rope_parameters={"rope_type": "default", "rope_theta": 5000.0} | SHARE)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100, "rope_theta": 5000.0}
QWEN = {
    "num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
}  # fmt: skip
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0], "long_factor": [2.0, 4.0, 9.0], "rope_theta": 5000.0}
PHI = dict(
    SMALL, max_position_embeddings=8192, original_max_position_embeddings=4096,
    rope_parameters=LONG | {"partial_rotary_factor": 0.75},
)  # fmt: skip
BY_KIND = {"sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}
GEMMA_3 = dict(
    SMALL, num_hidden_layers=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, sliding_window=20,
    query_pre_attn_scalar=24, final_logit_softcapping=8.0,
    layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    rope_parameters=BY_KIND | {"full_attention": LINEAR},
)  # fmt: skip
OLMO_3 = dict(
    SMALL, num_hidden_layers=4, num_key_value_heads=2, sliding_window=20, max_position_embeddings=400,
    rope_parameters=BY_KIND | {"full_attention": YARN | {"attention_factor": 1.2}},
)  # fmt: skip
MAMBA = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_heads": 8, "head_dim": 8, "state_size": 16,
    "n_groups": 2, "chunk_size": 64, "time_step_limit": [0.05, 0.5],
}  # fmt: skip
LLAMA_31 = dict(SMALL, num_key_value_heads=2, head_dim=16, rope_parameters=rope(8.0))
CASES = {
    "gpt2": ("GPT2Config", {"vocab_size": 97, "n_positions": 300, "n_embd": 32, "n_layer": 3, "n_head": 4}),
    "gpt2, narrow mlp": (
        "GPT2Config",
        {"vocab_size": 97, "n_positions": 300, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 48},
    ),
    "llama 3": ("LlamaConfig", dict(SMALL, rope_parameters=PLAIN)),
    "llama 3.1, grouped": ("LlamaConfig", LLAMA_31),
    "llama 3.2, tied, one key head": (
        "LlamaConfig",
        dict(SMALL, num_key_value_heads=1, head_dim=16, rope_parameters=rope(32.0), tie_word_embeddings=True),
    ),
    "olmo, clipped": ("OlmoConfig", dict(SMALL, clip_qkv=1.0, num_key_value_heads=2)),
    "olmo2": ("Olmo2Config", dict(SMALL, num_key_value_heads=2, rope_parameters=PLAIN)),
    "gemma2": ("Gemma2Config", GEMMA),
    "gemma2, one key head, four layers": ("Gemma2Config", dict(GEMMA, num_hidden_layers=4, num_key_value_heads=1)),
    "gpt_neox": ("GPTNeoXConfig", NEOX),
    "gpt_neox, one after the other": (
        "GPTNeoXConfig", dict(NEOX, use_parallel_residual=False, hidden_act="gelu_new", rope_parameters=SHARE | LINEAR),
    ),
    "mistral": ("MistralConfig", dict(SMALL, num_key_value_heads=2, head_dim=16, sliding_window=20)),
    "qwen2": ("Qwen2Config", dict(SMALL, **QWEN, rope_parameters=YARN)),
    "qwen3": ("Qwen3Config", dict(SMALL, **QWEN, head_dim=16, rope_parameters=PLAIN)),
    "phi3": ("Phi3Config", PHI | {"num_key_value_heads": 2, "sliding_window": 20}),
    "phi3, the longer context": ("Phi3Config", PHI | {"original_max_position_embeddings": 100}),
    "gemma3": ("Gemma3TextConfig", GEMMA_3),
    "olmo3": ("Olmo3Config", OLMO_3),
    "mamba2": ("Mamba2Config", MAMBA),
}  # fmt: skip

# A removed feature moves some layer or the logits by at least three times what the comparison lets pass.
TOLERANCE, NOTICED = 1e-4, 3e-4


@pytest.mark.parametrize(("config_name", "sizes"), CASES.values(), ids=CASES.keys())
def test_every_layer_and_the_logits_equal_transformers(reference, config_name, sizes):
    found = reference(config_name, **sizes)
    assert 3 < np.abs(found.logits).max() < 20
    ours = found.errors()
    # Transformers' own float32 noise against float64 is up to 1e-5 on these weights; ours must stay within its order.
    assert max(ours) < TOLERANCE, ours
    assert max(ours) < 1e-6 + 4 * found.noise, (ours, found.noise)


# Removing a feature must show. A change of our config, by case:
SETTINGS = {
    "gpt2": [{"eps": 1e-2}, {"activation": "relu"}],
    "llama 3.1, grouped": [
        {"rope_scaling": None},
        {"rope_scaling": llama.RopeScaling(factor=32.0)},
        {"rope_scaling": llama.RopeScaling(high_freq_factor=1.001)},
        {"rope_theta": 10000.0},
        {"eps": 1e-2},
    ],
    "olmo, clipped": [{"clip_qkv": None}],
    "olmo2": [{"rope_theta": 10000.0}, {"eps": 1e-2}],
    "gemma2": [
        {"score_cap": None},
        {"logit_cap": None},
        {"window": 10**6},
        {"local": (True, True, True)},
        {"local": (False, True, False)},
        {"query_scale": 16.0},
        {"eps": 1e-2},
    ],
    "gpt_neox": [{"parallel": False}, {"rotary_share": 0.5}, {"rope_theta": 100.0}, {"eps": 1e-1}],
    "gpt_neox, one after the other": [{"activation": "relu"}, {"rope_scaling": None}],
    "mistral": [{"window": None}, {"window": 19}],
    "qwen2": [
        {"local": ()},
        {"local": (True, True, True)},
        {"rope_scaling": None},
        {"rope_scaling": rotary.Yarn(4.0, 100, 1.0)},
        {"rope_scaling": rotary.Yarn(4.0, 50, 0.1 * math.log(4) + 1)},
    ],
    "phi3": [{"rotary_share": 0.5, "rope_scaling": None}, {"window": None}],
    "phi3, the longer context": [{"rope_scaling": None}],
    "gemma3": [
        {"rope_scaling": None},
        {"local_theta": 10000.0},
        {"local": (True, True, True, True)},
        {"window": 10**6},
        {"logit_cap": None},
        {"query_scale": 16.0},
    ],
    "mamba2": [{"step_limit": None}, {"step_limit": (0.05, 0.6)}, {"eps": 1e-1}],
    "olmo3": [
        {"rope_scaling": None},
        {"rope_scaling": rotary.Yarn(4.0, 100, 1.0)},
        {"local_theta": 10000.0},
        {"local": (True, False, True, False)},
        {"window": 10**6},
    ],
}


@pytest.mark.parametrize(
    ("case", "change"), [(case, change) for case, changes in SETTINGS.items() for change in changes], ids=str
)
def test_the_comparison_notices_a_changed_setting(reference, case, change):
    found = reference(CASES[case][0], **CASES[case][1])
    assert max(found.errors(dataclasses.replace(found.model, **change))) > NOTICED


def no_norm(*skipped):
    class Skipping(RMSNorm):
        def __call__(self, x):
            return x if self.name in skipped else super().__call__(x)

    return Skipping


class Uncentred(nn.Module):
    def __call__(self, x):
        return layers.rms_normalise(x, 1e-5)


def rotated_by_neighbours(x, positions, frequencies):
    """Rotary positions in the layout of Meta's own checkpoints: pairs (x_2i, x_2i+1)."""
    halves = jnp.concatenate([x[..., ::2], x[..., 1::2]], -1)
    left, right = jnp.split(rope_of(halves, positions, frequencies), 2, -1)
    return jnp.stack([left, right], -1).reshape(x.shape)


RMSNorm, rope_of, gelu = layers.RMSNorm, layers.rope, nn.gelu
GroupNorm, scan = state_space.GroupNorm, state_space.scan_chunks

# What no setting removes: (case, object, attribute, what stands in for it).
CODE = {
    "gpt2: tanh form of gelu": ("gpt2", gpt2.ACTIVATIONS, "gelu_new", lambda x: gelu(x, approximate=False)),
    "llama: rope": ("llama 3.1, grouped", layers, "rope", lambda x, positions, frequencies: x),
    "llama: layout of rope's pairs": ("llama 3.1, grouped", layers, "rope", rotated_by_neighbours),
    "llama: silu": ("llama 3.1, grouped", nn, "silu", nn.gelu),
    "olmo: centring": ("olmo, clipped", layers, "PlainLayerNorm", Uncentred),
    "olmo2: query norm": ("olmo2", layers, "RMSNorm", no_norm("q_norm")),
    "olmo2: key norm": ("olmo2", layers, "RMSNorm", no_norm("k_norm")),
    "olmo2: attention norm": ("olmo2", layers, "RMSNorm", no_norm("attn_norm")),
    "olmo2: mlp norm": ("olmo2", layers, "RMSNorm", no_norm("mlp_norm")),
    "gemma2: norm of attention's output": ("gemma2", layers, "RMSNorm", no_norm("attn_out_norm")),
    "gemma2: norm of the mlp's output": ("gemma2", layers, "RMSNorm", no_norm("mlp_out_norm")),
    "gemma2: 1 + w": ("gemma2", layers, "RMSNorm", lambda eps, offset, name=None: RMSNorm(eps, name=name)),
    "gemma2: sqrt(d)": ("gemma2", gemma2.Gemma2Config, "embed", decoder.Decoder.embed),
    "gpt_neox: erf form of gelu": ("gpt_neox", gpt_neox.ACTIVATIONS, "gelu", gpt_neox.ACTIVATIONS["gelu_new"]),
    "qwen3: query norm": ("qwen3", layers, "RMSNorm", no_norm("q_norm")),
    "qwen3: key norm": ("qwen3", layers, "RMSNorm", no_norm("k_norm")),
    "gemma3: query norm": ("gemma3", layers, "RMSNorm", no_norm("q_norm")),
    "gemma3: key norm": ("gemma3", layers, "RMSNorm", no_norm("k_norm")),
    "mamba2: groups of the gated norm": (
        "mamba2",
        state_space,
        "GroupNorm",
        lambda _, eps, name: GroupNorm(1, eps, name=name),
    ),
    "mamba2: activations": ("mamba2", nn, "silu", nn.gelu),
    "mamba2: decay": (
        "mamba2",
        state_space,
        "scan_chunks",
        lambda x, step, decay, *more: scan(x, step, 0 * decay, *more),
    ),
    "gemma2: tanh form of gelu": ("gemma2", nn, "gelu", lambda x, approximate: gelu(x, approximate=False)),
}


@pytest.mark.parametrize(("case", "where", "name", "instead"), CODE.values(), ids=CODE.keys())
def test_the_comparison_notices_changed_code(reference, monkeypatch, case, where, name, instead):
    found = reference(CASES[case][0], **CASES[case][1])
    setter = monkeypatch.setitem if isinstance(where, dict) else monkeypatch.setattr
    setter(where, name, instead)
    # Another model to jit, so that the changed code is traced.
    assert max(found.errors(dataclasses.replace(found.model, stop_tokens=(0,)))) > NOTICED
    jax.clear_caches()


def test_the_comparison_notices_an_untied_table(reference):
    found = reference(*CASES["llama 3.2, tied, one key head"][:1], **CASES["llama 3.2, tied, one key head"][1])
    untied = found.params | {"unembed": jnp.roll(found.params["embed"], 1, 0)}
    assert found.errors(dataclasses.replace(found.model, tied=False), untied)[-1] > NOTICED


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_the_comparison_notices_a_bias_that_is_left_out(reference, part):
    found = reference(*CASES["qwen2"][:1], **CASES["qwen2"][1])
    blocks = dict(found.params["blocks"])
    blocks[part] = blocks[part] | {"bias": jnp.zeros_like(blocks[part]["bias"])}
    assert max(found.errors(params=found.params | {"blocks": blocks})) > NOTICED


def test_the_comparison_notices_the_other_table_of_longrope(reference):
    found = reference(*CASES["phi3, the longer context"][:1], **CASES["phi3, the longer context"][1])
    scaling = found.model.rope_scaling
    swapped = dataclasses.replace(found.model, rope_scaling=scaling._replace(short=scaling.long, long=scaling.short))
    assert max(found.errors(swapped)) > NOTICED


def test_prompts_on_both_sides_of_a_longer_context_are_refused_together(reference):
    found = reference(*CASES["phi3, the longer context"][:1], **CASES["phi3, the longer context"][1])
    with pytest.raises(ValueError, match=r"up to 100 tokens and longer ones.* got lengths \[100, 101\]"):
        language.hidden_states(found.model, found.params, found.tokens[:, :101], np.array([100, 101]))
    with pytest.raises(ValueError, match="prompts of 101 tokens take other rotary frequencies in this phi3 model"):
        language.checked(found.model, found.tokens[:, :101], None)
    with pytest.raises(ValueError, match="answers included"):
        language.generate(found.model, found.params, found.tokens[:, :98], max_new_tokens=4)


@pytest.mark.parametrize("chunk", [1, 7, 300])
def test_the_recurrence_and_its_chunks_agree(reference, chunk):
    """Chunks of one token are the recurrence itself."""
    found = reference(*CASES["mamba2"][:1], **CASES["mamba2"][1])
    assert max(found.errors(dataclasses.replace(found.model, chunk=chunk))) < TOLERANCE
