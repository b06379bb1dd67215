"""Prompts as tokens: the same texts and answers whatever the tokenizer."""

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from jaxconcepts.prompts import render


def some(families, template=None, count=8):
    return [
        prompt
        for family in families.values()
        for concept in family.labels
        for prompt in render.prompts(family, concept, 2, count, seed=1, template=template)
    ]


@pytest.mark.parametrize("bos", [True, False])
def test_ids_of_prompt_and_answer_decode_to_the_whole(tokenizer, families, template, bos):
    made = some(families, template)
    heads, answers = render.encode(tokenizer, made, bos)
    assert len(heads) == len(answers) == len(made)
    for head, answer, prompt in zip(heads, answers, made, strict=True):
        assert (head[0] == tokenizer.bos_token_id) == bos
        assert tokenizer.bos_token_id not in head[1:]
        assert not {tokenizer.eos_token_id, tokenizer.unk_token_id} & {*head, *answer}
        assert tokenizer.decode(head[bos:] + answer) == prompt.whole
        assert answer
        assert tokenizer.decode(answer).strip() == prompt.answer


def test_a_prompt_s_ids_do_not_depend_on_its_answer(tokenizer, families):
    """The model must meet the same ids when it answers as when the answer is scored."""
    made = some(families, count=5)
    alone = [tokenizer.encode(prompt.text, add_special_tokens=False) for prompt in made]
    assert render.encode(tokenizer, made, bos=False)[0] == alone
    changed = [prompt._replace(answer="11011") for prompt in made]
    assert render.encode(tokenizer, changed, bos=False)[0] == alone


@pytest.mark.parametrize(
    ("name", "joined"),
    [("BPE across words", True), ("BPE with byte fallback", True), ("byte-level BPE", False), ("Unigram", False)],
)
def test_where_prompt_and_answer_would_be_joined_the_answer_is_encoded_apart(families, make_tokenizer, name, joined):
    tokenizer = make_tokenizer(name)
    made = some(families)
    heads, answers = render.encode(tokenizer, made, bos=False)
    wholes = [tokenizer.encode(prompt.whole, add_special_tokens=False) for prompt in made]
    apart = [whole != head + answer for whole, head, answer in zip(wholes, heads, answers, strict=True)]
    # In one half of the cases the tests above see the joint, in the other they do not.
    assert all(apart) if joined else not any(apart)


def test_answers_of_several_tokens_are_whole(families, make_tokenizer):
    made = some({"bitwise": families["bitwise"]})
    _, answers = render.encode(make_tokenizer("byte-level BPE"), made, bos=True)
    assert max(map(len, answers)) > 1
    assert [make_tokenizer("byte-level BPE").decode(ids) for ids in answers] == [" " + prompt.answer for prompt in made]


def test_no_prompts_have_no_ids(make_tokenizer):
    assert render.encode(make_tokenizer("Unigram"), [], bos=True) == ([], [])


def test_a_tokenizer_without_a_beginning_of_sequence_is_named(families, make_tokenizer):
    raw = make_tokenizer("Unigram").backend_tokenizer
    without = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    with pytest.raises(ValueError, match="bos=True, but the tokenizer has no beginning-of-sequence token"):
        render.encode(without, some(families, count=1), bos=True)
    assert len(render.encode(without, some(families, count=1), bos=False)[0]) == 14


def test_a_tokenizer_that_changes_the_text_is_named(families, make_tokenizer):
    """One whose vocabulary lacks a letter, and one that lowers what it reads."""
    (prompt,) = render.prompts(families["pos"], "Noun", 1, 1, seed=0)
    with pytest.raises(ValueError, match="the tokenizer does not keep the text: .* comes back as"):
        render.encode(make_tokenizer("Unigram"), [prompt._replace(text="Q%" + prompt.text)], bos=False)
    lowering = Tokenizer.from_str(make_tokenizer("byte-level BPE").backend_tokenizer.to_str())
    lowering.normalizer = normalizers.Lowercase()
    with pytest.raises(ValueError, match="the tokenizer does not keep the text: 'Input.* comes back as 'input"):
        render.encode(PreTrainedTokenizerFast(tokenizer_object=lowering), [prompt], bos=False)
    with pytest.raises(ValueError, match="the tokenizer has no ids that continue .* with 'B%'"):
        render.encode(make_tokenizer("Unigram"), [prompt._replace(answer="B%")], bos=False)
