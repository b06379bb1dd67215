"""What a small language model is trained on from its first weights: a tokenizer, and prompts whose answers all count.

The model is trained on the tasks themselves, so it is no stand-in for a pretrained one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxconcepts.prompts import render
from jaxconcepts.prompts.family import Family
from jaxconcepts.training.answer_loss import Examples

BOS = "<s>"


def train_tokenizer(texts: Sequence[str], vocab_size: int):
    """Trains a byte-level BPE tokenizer of transformers in which every digit is a token; "<s>" begins a sequence."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    # Digits apart, and no token across the space before one: the bits of two numbers then stand at equal distances.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| (?=\d)"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, clean_up_tokenization_spaces=False)


def draw(
    families: Sequence[Family],
    shots: int,
    count: int,
    *,
    seed: int,
    variants: Sequence[str],
    template: render.Template,
    concept_ratio: float = 1.0,
) -> list[render.Prompt]:
    """About `count` training prompts in a drawn order: as many of each family, and of each of the variants that it has.

    concept_ratio: how often each concept comes for once that the next one of `Family.labels` does (Null is the last).
        With 1 the concepts are symmetric, and where they cancel (AND and NAND), nothing is learned for a long time.
    """
    cells, shares = [], []
    for family in families:
        weights = concept_ratio ** -np.arange(len(family.labels), dtype=float)
        stated = {"plain": family.labels, "rule": family.rules, "name": family.names}
        own = [variant for variant in variants if set(stated[variant]) >= set(family.labels)]
        for variant in own:
            cells += [(family, concept, variant) for concept in family.labels]
            shares += list(weights / weights.sum() / len(own) / len(families))
    drawn = []
    for number, ((family, concept, variant), share) in enumerate(zip(cells, shares, strict=True)):
        # A seed for each cell, or a variant would repeat the plain prompts.
        drawn += render.prompts(
            family, concept, shots, round(count * share), seed=seed * len(cells) + number, template=template,
            variant=variant, split="train",
        )  # fmt: skip
    return [drawn[i] for i in np.random.default_rng(seed).permutation(len(drawn))]


def examples(tokenizer, prompts: Sequence[render.Prompt], template: render.Template, context: int) -> Examples:
    """Token arrays in which the answers of all demonstrations count as the query's does, and so does where each ends.

    Raises ValueError where a prompt with its answer is longer than the context.
    """
    texts = [prompt.whole + template.separator for prompt in prompts]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    rows = []
    for prompt, text, ids, offsets in zip(prompts, texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        counted = np.zeros(len(text), bool)
        for start, end in answer_spans(prompt, template):
            counted[start:end] = True
        hit = [bool(counted[start:end].any()) for start, end in offsets]
        rows.append(([tokenizer.bos_token_id, *ids], [False, *hit]))
    longest = max(len(ids) for ids, _ in rows)
    if longest > context:
        raise ValueError(f"the longest training prompt takes {longest} tokens, the model's context is {context}")
    most = max(sum(hit) for _, hit in rows)
    tokens = np.zeros((len(rows), longest), np.int32)
    positions, targets = np.zeros((2, len(rows), most), np.int32)
    weights = np.zeros((len(rows), most), np.float32)
    for row, (ids, hit) in enumerate(rows):
        places = np.flatnonzero(hit)
        tokens[row, : len(ids)] = ids
        positions[row, : len(places)] = places - 1
        targets[row, : len(places)] = np.asarray(ids)[places]
        weights[row, : len(places)] = 1
    return Examples(tokens, positions, targets, weights)


def answer_spans(prompt: render.Prompt, template: render.Template) -> list[tuple[int, int]]:
    """Where in the text of prompt and answer each answer stands, from its leading spaces to the separator after it."""
    spans, position = [], 0
    for shown in prompt.demonstrations:
        text = template.demonstration(shown)
        start = prompt.text.index(text, position)
        position = start + len(text) + len(template.separator)
        spans.append((start + len(template.query(shown)), position))
    return [*spans, (len(prompt.text), len(prompt.whole) + len(template.separator))]
