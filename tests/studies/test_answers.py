"""Greedy answers: those of transformers, prompt by prompt; exact match; edits."""

import numpy as np
import pytest

from jaxconcepts.models import language
from jaxconcepts.models.residual import Edits
from jaxconcepts.prompts import render
from jaxconcepts.studies.asking import answers


@pytest.fixture(scope="module")
def prompts(bits2):
    """Of one to three shots, so of several lengths."""
    return [p for shots in (1, 2, 3) for c in bits2.labels for p in render.prompts(bits2, c, shots, 3, seed=shots)]


@pytest.fixture(scope="module")
def found(checkpoint, prompts):
    return answers.correct(*checkpoint[1:], prompts, bos=True, batch_size=16, max_new_tokens=12, multiple=32)


def test_answers_are_those_of_transformers_prompt_by_prompt(checkpoint, prompts, found):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint.folder).eval()
    tokenizer = checkpoint.tokenizer
    expected = []
    for prompt in prompts:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(prompt.text, add_special_tokens=False)]])
        written = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0
        )
        text = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        expected.append(text.split("\n")[0].strip())
    assert found.texts == expected
    # The model ends some of its answers, and not all at once.
    assert len(set(map(len, expected))) > 3
    assert not found.correct.any() or np.all(
        found.correct == [a == p.answer for a, p in zip(expected, prompts, strict=True)]
    )


def test_an_answer_is_right_where_it_is_the_prompt_s(checkpoint, prompts, found):
    even = [
        p._replace(answer=text) if i % 2 == 0 else p
        for i, (p, text) in enumerate(zip(prompts, found.texts, strict=True))
    ]
    again = answers.correct(*checkpoint[1:], even, bos=True, batch_size=16, max_new_tokens=12, multiple=32)
    assert again.texts == found.texts
    expected = [i % 2 == 0 or text == p.answer for i, (p, text) in enumerate(zip(prompts, found.texts, strict=True))]
    assert again.correct.tolist() == expected and not all(expected)


def test_edits_are_made_in_every_batch(checkpoint, prompts, found):
    """The same push at the last token of every prompt, given by a function of a batch; and everywhere, given once."""
    _, model, params, tokenizer = checkpoint
    push = np.random.default_rng(0).normal(size=(3, 1, 1, 16)).astype(np.float32) * 3

    def at_last(lengths, width):
        last = np.arange(width) == lengths[:, None] - 1
        return Edits(add=push * last[None, :, :, None])

    settings = {"bos": True, "batch_size": 16, "max_new_tokens": 12, "multiple": 32}
    pushed = answers.correct(model, params, tokenizer, prompts, edits=at_last, **settings)
    assert pushed.texts != found.texts
    ids, _ = render.encode(tokenizer, prompts, bos=True)
    stops = answers.stop_tokens(tokenizer, model)
    for i in (30,):
        tokens = np.array([ids[i]])
        made = at_last(np.array([len(ids[i])]), len(ids[i]))
        alone = language.generate(model, params, tokens, max_new_tokens=12, edits=made, stop_tokens=stops)[0]
        assert answers.read(tokenizer, np.asarray(alone), stops) == pushed.texts[i]
    everywhere = answers.correct(model, params, tokenizer, prompts, edits=Edits(add=push), **settings)
    assert everywhere.texts not in (found.texts, pushed.texts)


def test_stops_are_the_tokens_with_the_stop_and_the_end_of_text(checkpoint):
    tokenizer, stops = checkpoint.tokenizer, answers.stop_tokens(checkpoint.tokenizer, checkpoint.model)
    assert tokenizer.eos_token_id in stops
    assert all("\n" in tokenizer.decode([i]) for i in set(stops) - {tokenizer.eos_token_id})
    assert tokenizer.encode("\n\n", add_special_tokens=False)[0] in stops


def test_prompts_of_several_templates_and_too_long_ones_are_refused(checkpoint, prompts):
    with pytest.raises(ValueError, match=r"must end their answers alike, got the stops \['\\n', '\.'\]"):
        answers.correct(*checkpoint[1:], [prompts[0], prompts[1]._replace(stop=".")], bos=True, batch_size=2)
    with pytest.raises(ValueError, match="the model's context is 256"):
        answers.correct(*checkpoint[1:], prompts[:1], bos=True, batch_size=2, max_new_tokens=300)
    assert answers.correct(*checkpoint[1:], [], bos=True, batch_size=2).texts == []
