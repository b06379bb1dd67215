"""Tokenizers made here: byte-level BPE, and two as SentencePiece makes them (Unigram, and BPE with byte fallback)."""

from functools import cache
from string import ascii_letters

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from jaxconcepts.prompts import bitwise, grammar, pos, render

SPECIAL = ["<unk>", "<s>", "</s>"]


@pytest.fixture(scope="session")
def families():
    return {
        "bitwise": bitwise.family(train=1000, test=200),
        "pos": pos.family(grammar.sentences(400)),
    }


TEMPLATES = [
    render.Template(),
    render.Template(example="Q: {input}\nA:{output}"),
    render.Template(example="{input} -> {output}", separator="\n"),
    render.Template(example="{input}\n{output}", separator="\n\n"),
]


@pytest.fixture(params=TEMPLATES, ids=lambda template: template.example)
def template(request):
    return request.param


@pytest.fixture(scope="session")
def texts(families):
    """What the tokenizers are trained on: prompts with their answers, in every template."""
    return [
        prompt.whole + template.separator
        for family in families.values()
        for concept in family.labels
        for template in TEMPLATES
        for prompt in render.prompts(family, concept, 3, 15, seed=9, split="train", template=template)
    ]


@pytest.fixture(scope="session")
def make_tokenizer(texts):
    """Name -> that tokenizer, made once."""
    return cache(lambda name: MAKE[name](texts))


# "Across words": a token may join the end of a word, a space and the start of the next, so also prompt and answer.
@pytest.fixture(params=["byte-level BPE", "BPE across words", "Unigram", "BPE with byte fallback"])
def tokenizer(request, make_tokenizer):
    return make_tokenizer(request.param)


def wrapped(raw, bos="<s>"):
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token=bos, eos_token="</s>")


def byte_level(texts, across=False):
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not across)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=450, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    return wrapped(raw)


def unigram(texts):
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    raw.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        unk_token="<unk>",
        initial_alphabet=[*ascii_letters, *":->"],
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return wrapped(raw)


def byte_fallback(texts):
    """As Llama's first tokenizers: a space is "▁", one more before the text, BOS unasked, bytes for what is unknown."""
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    lines = [line for text in texts for line in text.splitlines()]
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))])
    raw.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=800, special_tokens=[*SPECIAL, *bytes_], show_progress=False)
    )
    return wrapped(raw)


MAKE = {
    "byte-level BPE": byte_level,
    "BPE across words": lambda texts: byte_level(texts, across=True),
    "Unigram": unigram,
    "BPE with byte fallback": byte_fallback,
}
