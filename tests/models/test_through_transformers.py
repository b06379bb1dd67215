"""Models of architectures that are not ours, run by transformers: BLOOM (ALiBi) and OPT (learned positions, a list of
blocks below a decoder), tiny; states, answers and log-probabilities against transformers called prompt by prompt."""

import numpy as np
import pytest

import jaxconcepts as jc
from jaxconcepts.models import language, pretrained, scoring, through_transformers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "bloom": {"hidden_size": 16, "n_layer": 3, "n_head": 2},
    "opt": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "ffn_dim": 24,
            "word_embed_proj_dim": 16, "max_position_embeddings": 64},
}  # fmt: skip
LENGTHS = np.array([9, 4, 9, 6])


@pytest.fixture(scope="module", params=SIZES)
def loaded(request, tmp_path_factory):
    """(their module, our model, its params, tokens) of an architecture."""
    sizes = SIZES[request.param] | {"vocab_size": 50, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    torch.manual_seed(0)
    module = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(request.param, **sizes)
    ).eval()
    with torch.no_grad():
        for part in module.parameters():
            part.mul_(3).add_(0.1 * torch.randn(part.shape))
    folder = tmp_path_factory.mktemp(request.param)
    module.save_pretrained(folder)
    tokens = np.random.default_rng(0).integers(3, 50, (len(LENGTHS), 9))
    return module, *pretrained.load_pretrained(folder, through="transformers"), tokens


def theirs(module, ids):
    with torch.no_grad():
        return module(torch.tensor(ids[None]), output_hidden_states=True)


def test_the_stream_is_theirs_before_the_final_norm(loaded):
    module, model, params, tokens = loaded
    last = language.hidden_states(model, params, tokens, LENGTHS)
    every, logits = language.hidden_states(model, params, tokens, LENGTHS, at="all", with_logits=True)
    norm = dict(module.named_modules())[
        "transformer.ln_f" if model.architecture == "bloom" else "model.decoder.final_layer_norm"
    ]
    assert (model.layers, model.width, last.shape) == (3, 16, (4, 4, 16))
    for row, length in enumerate(LENGTHS):
        output = theirs(module, tokens[row, :length])
        for layer in range(4):
            stream = torch.tensor(np.array(every[layer, row, :length]))
            expected = output.hidden_states[layer][0]
            stream = norm(stream) if layer == 3 else stream
            np.testing.assert_allclose(stream.detach(), expected, atol=1e-5)
            np.testing.assert_array_equal(last[layer, row], every[layer, row, length - 1])
        np.testing.assert_allclose(logits[row, :length], output.logits[0], atol=1e-5)
    assert not np.array(every)[:, 1, 4:].any()
    chosen = language.hidden_states(model, params, tokens, LENGTHS, at=[0, 2], layers=(3, 1))
    np.testing.assert_array_equal(chosen, every[np.array([3, 1])][:, :, [0, 2]])


def test_answers_and_log_probabilities_are_theirs(loaded):
    module, model, params, tokens = loaded
    rng = np.random.default_rng(1)
    continuations, counts = rng.integers(3, 50, (4, 2, 3)), np.array([[3, 1], [2, 0], [1, 2], [3, 3]])
    found = scoring.score(
        model, params, tokens, LENGTHS, max_new_tokens=5, stop_tokens=(7, 2), continuations=(continuations, counts)
    )  # fmt: skip
    for row, length in enumerate(LENGTHS):
        ids = tokens[row, :length]
        for step in range(5):
            expected = int(theirs(module, ids).logits[0, -1].argmax())
            assert found.answers[row, step] == expected
            if expected in (7, 2):
                assert (found.answers[row, step + 1 :] == 7).all()
                break
            ids = np.append(ids, expected)
        for concept, count in enumerate(counts[row]):
            whole = np.append(tokens[row, :length], continuations[row, concept, :count])
            steps = torch.log_softmax(theirs(module, whole).logits[0].double(), -1)[length - 1 : -1]
            expected = steps[np.arange(count), whole[length:]].sum()
            np.testing.assert_allclose(found.log_probs[row, concept], expected, atol=1e-4)


def test_an_untrained_model_has_other_weights_and_the_seed_s(loaded):
    module, model, *_ = loaded
    first, again, other = (through_transformers.untrained(model, seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and first.shape == module.lm_head.weight.shape
    assert model.num_params() == sum(part.numel() for part in module.parameters())
    assert f"{model.architecture} through transformers" == model.MODEL_TYPE


def test_what_it_cannot_do_is_refused(loaded, tmp_path):
    _, model, params, tokens = loaded
    edits = jc.Edits() if hasattr(jc, "Edits") else object()
    with pytest.raises(ValueError, match="edits must be None: a model that runs through=transformers is read"):
        language.hidden_states(model, params, tokens, LENGTHS, edits=edits)
    with pytest.raises(ValueError, match="has no config.json; through=transformers reads checkpoint folders"):
        pretrained.load_pretrained(tmp_path, through="transformers")
    with pytest.raises(ValueError, match="through must be 'transformers' or None, got 'torch'"):
        pretrained.load_pretrained(tmp_path, through="torch")
    with pytest.raises(
        ValueError, match="model_type '(bloom|opt)' is not supported; .* others run through=transformers"
    ):
        pretrained.load_pretrained(model.folder)
