"""Hidden states, logits and greedy answers: against transformers, in padded batches, under edits, with bad input."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from jaxconcepts.models import (
    gemma2,
    gemma3,
    gpt_neox,
    language,
    llama,
    mamba2,
    mistral,
    olmo,
    olmo2,
    olmo3,
    phi3,
    qwen2,
    qwen3,
)
from jaxconcepts.models.residual import Edits

pytestmark = pytest.mark.usefixtures("compiles_fast")

SIZES = {"vocab_size": 31, "width": 16, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 24, "context": 64}
LLAMA = llama.LlamaConfig(layers=3, **SIZES)
GEMMA = gemma2.Gemma2Config(layers=3, window=5, query_scale=8, **SIZES)


FAMILIES = {
    "llama": LLAMA, "gemma2": GEMMA, "olmo": olmo.OlmoConfig(clip_qkv=1.0), "olmo2": olmo2.Olmo2Config(),
    "mistral": mistral.MistralConfig(window=5), "qwen2": qwen2.Qwen2Config(), "qwen3": qwen3.Qwen3Config(),
    "phi3": phi3.Phi3Config(window=None), "gemma3": gemma3.Gemma3Config(window=5), "olmo3": olmo3.Olmo3Config(window=5),
}  # fmt: skip
MAMBA = mamba2.Mamba2Config(
    vocab_size=31, width=16, layers=3, heads=4, head_dim=8, state=8, groups=2, chunk=8, context=64
)
NEOX = gpt_neox.GPTNeoXConfig(vocab_size=31, width=32, layers=3, heads=4, mlp_width=24, context=64)


def random_params(model, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.4).astype(leaf.dtype), shapes)


def random_prompts(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 31, length).tolist() for length in lengths]


def padded(prompts, width, pad=0):
    tokens = np.full((len(prompts), width), pad)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    return tokens, np.array([len(prompt) for prompt in prompts])


@pytest.mark.parametrize("model", [LLAMA, GEMMA, MAMBA], ids=["llama", "gemma2", "mamba2"])
def test_states_are_the_same_alone_and_in_any_padded_batch(model):
    params, prompts = random_params(model), random_prompts([1, 9, 20, 13])
    tokens, lengths = padded(prompts, 24, pad=-100)
    everywhere = language.hidden_states(model, params, tokens, lengths, at="all")
    last, logits = language.hidden_states(model, params, tokens, lengths, with_logits=True)
    for row, prompt in enumerate(prompts):
        alone = language.hidden_states(model, params, np.array([prompt]), at="all")[:, 0]
        # 1e-5 relative to the largest state of the layer.
        for layer in range(4):
            scale = np.abs(alone[layer]).max()
            np.testing.assert_allclose(everywhere[layer, row, : len(prompt)], alone[layer], atol=1e-5 * scale, rtol=0)
            np.testing.assert_allclose(last[layer, row], alone[layer, -1], atol=1e-5 * scale, rtol=0)
        expected = language.logits(model, params, np.array([prompt]))[0, -1]
        np.testing.assert_allclose(logits[row], expected, rtol=1e-4, atol=1e-4)


def test_positions_and_layers_select_from_all_states():
    params = random_params(LLAMA)
    tokens, lengths = padded(random_prompts([12, 7]), 12)
    everywhere = language.hidden_states(LLAMA, params, tokens, lengths, at="all")
    at = np.array([[0, 11], [6, 2]])
    some = language.hidden_states(LLAMA, params, tokens, lengths, at=at, layers=[2, 0])
    expected = np.take_along_axis(np.asarray(everywhere), at[None, :, :, None], axis=2)[[2, 0]]
    np.testing.assert_allclose(some, expected, rtol=1e-5, atol=1e-5)
    shared = language.hidden_states(LLAMA, params, tokens, lengths, at=np.array([3]))
    np.testing.assert_allclose(shared, everywhere[:, :, 3:4], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layers", [[0], [1], [0, 2]], ids=str)
def test_blocks_after_the_last_layer_asked_for_are_not_run(layers):
    params = random_params(LLAMA)
    tokens = np.array(random_prompts([6]))
    expected = language.hidden_states(LLAMA, params, tokens, layers=layers)
    # A block that ran would spread its NaN.
    ruined = params | {"blocks": jax.tree.map(lambda leaf: leaf.copy(), params["blocks"])}
    ruined["blocks"]["q"]["kernel"][max(layers) :] = np.nan
    np.testing.assert_array_equal(language.hidden_states(LLAMA, ruined, tokens, layers=layers), expected)


@pytest.mark.parametrize(("at", "wanted"), [(np.full((3, 1), 19), {60, 3}), (None, {60})])
def test_the_last_block_runs_for_the_tokens_asked_for_alone(at, wanted):
    """Its feed-forward part has a row for each of them, the earlier blocks' one for every token."""
    model, tokens = dataclasses.replace(LLAMA, layers=2, mlp_width=56), np.zeros((3, 20), np.int32)
    states = lambda params: language._states(model, params, tokens, at, None, (0, 1, 2), False)  # noqa: E731
    program = str(jax.make_jaxpr(states)(jax.eval_shape(model.init, jax.random.key(0))))
    assert {int(rows) for rows in re.findall(r"f32\[(\d+),56\] = dot_general", program)} == wanted


def test_batches_hold_every_prompt_once_and_compile_once_a_length():
    params, prompts = random_params(LLAMA), random_prompts([3, 17, 9, 30, 31, 8, 25, 1, 16], seed=2)
    states, before = {}, language._states._cache_size()
    for rows, tokens, lengths in language.batches(prompts, batch_size=2, multiple=16):
        assert tokens.shape[1] in (16, 32)
        found = language.hidden_states(LLAMA, params, tokens, lengths)
        for row, i in enumerate(rows):
            if i >= 0:
                assert i not in states
                states[i] = found[:, row]
    assert language._states._cache_size() - before == 2
    assert sorted(states) == list(range(len(prompts)))
    for i, prompt in enumerate(prompts):
        alone = language.hidden_states(LLAMA, params, np.array([prompt + [0] * (32 - len(prompt))]), [len(prompt)])
        np.testing.assert_allclose(states[i], alone[:, 0], rtol=1e-4, atol=1e-4)


def slow_generate(model, params, prompt, count, edits=None):
    """Greedy decoding with no cache: the whole sequence again for every token."""
    sequence = list(prompt)
    for _ in range(count):
        if edits is not None:
            grown = len(sequence) - len(prompt)
            padding = [(0, 0), (0, 0), (0, grown), (0, 0)]
            now = Edits(mask=np.pad(edits.mask, padding[:3]), value=np.pad(edits.value, padding))
        else:
            now = None
        row = np.array([sequence + [0] * (len(prompt) + count - len(sequence))])
        if now is not None:
            missing = row.shape[1] - now.mask.shape[2]
            now = Edits(
                mask=np.pad(now.mask, [(0, 0), (0, 0), (0, missing)]),
                value=np.pad(now.value, [(0, 0), (0, 0), (0, missing), (0, 0)]),
            )
        sequence.append(int(language.logits(model, params, row, [len(sequence)], at="last", edits=now)[0].argmax()))
    return sequence[len(prompt) :]


@pytest.mark.slow
@pytest.mark.parametrize("model", [LLAMA, GEMMA, MAMBA], ids=["llama", "gemma2", "mamba2"])
def test_the_cache_changes_no_answer_and_edits_of_the_prompt_reach_it(model):
    params, prompts = random_params(model, seed=3), random_prompts([4, 9, 7], seed=3)
    tokens, lengths = padded(prompts, 9)
    plain = language.generate(model, params, tokens, lengths, max_new_tokens=6)
    mask = np.zeros((4, 3, 9), bool)
    mask[2, range(3), lengths - 1] = mask[1, :, 1] = True
    value = np.random.default_rng(4).normal(size=(4, 3, 9, 16)).astype(np.float32)
    edited = language.generate(model, params, tokens, lengths, max_new_tokens=6, edits=Edits(mask=mask, value=value))
    assert (np.asarray(plain) != np.asarray(edited)).any()
    for row, prompt in enumerate(prompts):
        assert plain[row].tolist() == slow_generate(model, params, prompt, 6)
        own = Edits(mask=mask[:, row : row + 1, : len(prompt)], value=value[:, row : row + 1, : len(prompt)])
        assert edited[row].tolist() == slow_generate(model, params, prompt, 6, own)


@pytest.mark.parametrize("family", [*FAMILIES, "gpt_neox"])
def test_scaling_a_head_is_scaling_its_rows_of_the_output_matrix(family):
    model = NEOX if family == "gpt_neox" else dataclasses.replace(FAMILIES[family], layers=3, dtype="float32", **SIZES)
    params, tokens = random_params(model), np.array(random_prompts([7, 7]))
    scales = np.random.default_rng(0).normal(size=(3, 1, 4)).astype(np.float32)
    by_edit = language.hidden_states(model, params, tokens, edits=Edits(head_scale=scales))
    assert model.heads_kernel(params) is params["blocks"]["out"]["kernel"]
    out = params["blocks"]["out"]["kernel"] * np.repeat(scales[:, 0], 8, axis=1)[:, :, None]
    out = params["blocks"]["out"] | {"kernel": out}
    by_weights = language.hidden_states(model, params | {"blocks": params["blocks"] | {"out": out}}, tokens)
    np.testing.assert_allclose(by_edit, by_weights, rtol=1e-4, atol=1e-4)
    assert not np.allclose(by_edit, language.hidden_states(model, params, tokens), atol=1e-2)


def test_a_model_without_heads_says_so():
    params, tokens = random_params(MAMBA), np.array(random_prompts([7]))
    for edits in (Edits(head_scale=np.ones((3, 1, 4))), Edits(head_mask=np.ones((3, 1, 7, 4)), head_value=0)):
        with pytest.raises(ValueError, match="a mamba2 model has no attention heads to read or edit; edit the stream"):
            language.hidden_states(MAMBA, params, tokens, edits=edits)
    moved = language.hidden_states(MAMBA, params, tokens, edits=Edits(add=np.ones((4, 1, 1, 16))))
    assert not np.allclose(moved, language.hidden_states(MAMBA, params, tokens))


def test_whether_prompts_begin_with_a_bos_token_is_said_and_done():
    class Letters:
        bos_token_id = 9

        def encode(self, text, add_special_tokens):
            return [ord(letter) - ord("a") for letter in text] + ([99] if add_special_tokens else [])

    assert language.tokenize(Letters(), ["ab", "c"], bos=True) == [[9, 0, 1], [9, 2]]
    assert language.tokenize(Letters(), ["ab", "c"], bos=False) == [[0, 1], [2]]
    Letters.bos_token_id = None
    with pytest.raises(ValueError, match="the tokenizer has no beginning-of-sequence token"):
        language.tokenize(Letters(), ["ab"], bos=True)


def test_a_row_ends_at_its_stop_token():
    params, prompts = random_params(LLAMA, seed=3), random_prompts([4, 9, 7], seed=3)
    tokens, lengths = padded(prompts, 9)
    plain = np.asarray(language.generate(LLAMA, params, tokens, lengths, max_new_tokens=6))
    stop = int(plain[0, 2])
    stopped = np.asarray(language.generate(LLAMA, params, tokens, lengths, max_new_tokens=6, stop_tokens=[stop]))
    for row, full in zip(stopped, plain, strict=True):
        end = full.tolist().index(stop) if stop in full else 6
        assert row.tolist() == full[:end].tolist() + [stop] * (6 - end)
    by_config = dataclasses.replace(LLAMA, stop_tokens=(stop,))
    assert (language.generate(by_config, params, tokens, lengths, max_new_tokens=6) == stopped).all()


def test_stop_strings_end_an_answer():
    texts = ["a", " b", "\n", ".\n\n", "Q:", "xQ:y"]
    assert language.tokens_with(texts, ["\n"]) == (2, 3)
    assert language.tokens_with(texts, ["Q:", "\n\n"]) == (3, 4, 5)
    assert language.cut("answer\nQ: more", ["Q:", "\n"]) == "answer"
    assert language.cut("answer", ["\n"]) == "answer"


SHAPES = {
    "GPT2Config": {"vocab_size": 97, "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4},
    "LlamaConfig": {"num_key_value_heads": 2},
    "OlmoConfig": {"clip_qkv": 1.0},
    "Olmo2Config": {},
    "Gemma2Config": {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 16},
    "Mamba2Config": {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_heads": 8, "head_dim": 8, "state_size": 16,
        "n_groups": 2, "chunk_size": 8,
    },
    "GPTNeoXConfig": {},
    "MistralConfig": {"num_key_value_heads": 2, "sliding_window": 6},
    "Qwen2Config": {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "Qwen3Config": {"num_key_value_heads": 2, "head_dim": 16},
    "Phi3Config": {"num_key_value_heads": 2, "sliding_window": 6},
    "Gemma3TextConfig": {
        "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "Olmo3Config": {
        "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}  # fmt: skip
COMMON = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("config_name", SHAPES)
def test_generated_tokens_equal_transformers(reference, config_name):
    torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
    sizes = SHAPES[config_name] if config_name in ("GPT2Config", "Mamba2Config") else COMMON | SHAPES[config_name]
    found = reference(config_name, length=20, **sizes)
    rng, count = np.random.default_rng(5), 12
    lengths = rng.integers(1, 24, count)
    tokens = rng.integers(0, 97, (count, 24))
    ours = np.asarray(language.generate(found.model, found.params, tokens, lengths, max_new_tokens=6))
    for row in range(count):
        prompt = torch.tensor(tokens[row : row + 1, : lengths[row]])
        theirs = found.theirs.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=6, pad_token_id=0
        )
        assert theirs[0, lengths[row] :].tolist() == ours[row].tolist()


@pytest.mark.parametrize("config_name", SHAPES)
def test_bfloat16_stays_near_float32_at_every_layer(reference, config_name):
    from jaxconcepts.models import pretrained

    sizes = SHAPES[config_name] if config_name in ("GPT2Config", "Mamba2Config") else COMMON | SHAPES[config_name]
    found = reference(config_name, length=20, **sizes)
    model, params = pretrained.load_pretrained(found.folder, dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}
    states = language.hidden_states(model, params, found.tokens, at="all")
    # Mamba-2's stream stays in float32.
    assert states.dtype == ("float32" if config_name == "Mamba2Config" else "bfloat16")
    for ours, exact in zip(np.asarray(states, np.float32), found.states, strict=True):
        # Root mean square: bfloat16 keeps 8 bits, and these weights amplify each rounding.
        assert np.sqrt(np.square(ours - exact).mean() / np.square(exact).mean()) < 0.1


@pytest.mark.parametrize(
    ("tokens", "lengths", "more", "message"),
    [
        ([[1, 2]], [0], {}, r"prompt 0 \(0 tokens\) is empty"),
        ([[1, 2], [3, 4]], [2, 3], {}, r"prompt 1 \(3 tokens\) is longer than tokens has columns \(2\)"),
        ([[1] * 65], None, {}, r"prompt 0 \(65 tokens\) is longer than the model's context of 64 tokens"),
        ([[1, 31]], None, {}, "token 31 at position 1 of prompt 0 is outside the vocabulary of 31"),
        ([[1, -1]], None, {}, "token -1 at position 1 of prompt 0 is outside the vocabulary of 31"),
        ([[1.0, 2.0]], None, {}, r"tokens must be integers \[batch, length\], got float64 of shape \(1, 2\)"),
        ([1, 2], None, {}, r"tokens must be integers \[batch, length\], got int64 of shape \(2,\)"),
        ([[1, 2]], [1, 1], {}, r"lengths must have one entry a prompt, \[1\], got shape \(2,\)"),
        ([[1, 2]], None, {"at": "first"}, 'at must be "last", "all" or an array of positions, got \'first\''),
        ([[1, 2]], [1], {"at": [1]}, r"positions must lie within every prompt \(lengths \[1\]\), got \[1\]"),
        ([[1, 2]], None, {"layers": [4]}, r"layers must be among 0 ... 3, got \[4\]"),
    ],
)
def test_bad_input_is_named(tokens, lengths, more, message):
    with pytest.raises(ValueError, match=message):
        language.hidden_states(LLAMA, random_params(LLAMA), np.array(tokens), lengths, **more)


def test_an_answer_beyond_the_context_is_refused():
    with pytest.raises(ValueError, match="prompt and answer take 66 tokens, the model's context is 64"):
        language.generate(LLAMA, random_params(LLAMA), np.ones((1, 60), int), max_new_tokens=6)


def test_sampled_tokens_follow_the_model_s_distribution_at_each_temperature():
    """Two tokens drawn after one prompt 4 000 times: the pair's frequencies against the product of the softmaxes."""
    model = llama.LlamaConfig(
        vocab_size=5, width=8, layers=1, heads=2, kv_heads=2, head_dim=4, mlp_width=8, context=8, rope_scaling=None
    )
    params = jax.tree.map(lambda leaf: 4 * leaf, random_params(model))
    prompts = np.tile([[1, 3, 2]], (4000, 1))
    for temperature in (1.0, 0.5):
        drawn = language.sample(
            model, params, jax.random.key(0), prompts, max_new_tokens=2, temperature=temperature, stop_tokens=()
        )
        frequencies = np.zeros((5, 5))
        np.add.at(frequencies, tuple(np.asarray(drawn).T), 1 / len(prompts))
        first = language.logits(model, params, prompts[:1], at="last")[0]
        longer = np.column_stack([np.tile(prompts[:1], (5, 1)), np.arange(5)])
        second = language.logits(model, params, longer, at="last")
        expected = jax.nn.softmax(first / temperature)[:, None] * jax.nn.softmax(second / temperature, axis=-1)
        assert np.abs(frequencies - expected).max() < 0.02
        assert np.asarray(expected).max() > 0.15


def test_sampling_is_reproducible_by_key_and_greedy_at_a_low_temperature():
    params = random_params(LLAMA)
    tokens = np.arange(12).reshape(2, 6)
    draw = lambda seed, temperature: np.asarray(  # noqa: E731
        language.sample(LLAMA, params, jax.random.key(seed), tokens, max_new_tokens=6, temperature=temperature)
    )
    np.testing.assert_array_equal(draw(0, 1.0), draw(0, 1.0))
    assert (draw(0, 1.0) != draw(1, 1.0)).any()
    np.testing.assert_array_equal(draw(0, 1e-6), language.generate(LLAMA, params, tokens, max_new_tokens=6))
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature must be a positive number"):
            draw(0, wrong)
