"""Prompts: demonstrations of one concept, then a query; and their tokens under any tokenizer.

Prompt i of a concept depends on the family's pools, the seed, the concept and i alone: not on how many prompts are
asked for, nor on the variant; with more shots the same query follows the same demonstrations and further ones. So
scores over shots and variants are paired.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Integral
from typing import NamedTuple

from jaxconcepts import fields
from jaxconcepts.prompts.family import Example, Family

VARIANTS = ("plain", "rule", "name")
# What answers are encoded after, where their own line will not do.
ANCHORS = ("\n", ":", "=", "|", "0", "a")


@dataclass(frozen=True)
class Template:
    """How examples become text.

    example: one example; {input} and then {output}, each once. A query is this text up to {output}, without the spaces
        before it, since most tokenizers join a space to the word that follows.
    separator: between examples, and after the statement of a variant. An answer ends where the text after {output}, or
        else the separator, begins: see `stop`.
    rule, name: the statement before the first example, with {rule} or {name}, of the variants of those names.

    Raises ValueError, naming the field, where a placeholder is missing or nothing ends an answer.
    """

    example: str = fields.field("Input: {input}\nOutput: {output}", "text of an example, with {input} before {output}")
    separator: str = fields.field("\n\n", "text between examples")
    rule: str = fields.field("{rule}", "text before the first example, in the variant rule")
    name: str = fields.field("Operation: {name}", "text before the first example, in the variant name")

    def __post_init__(self):
        counts = [self.example.count(placeholder) for placeholder in ("{input}", "{output}")]
        if counts != [1, 1] or self.example.index("{input}") > self.example.index("{output}"):
            raise ValueError(
                f"template.example must hold {{input}} and after it {{output}}, each once; got {self.example!r}"
            )
        for field in ("rule", "name"):
            if str(getattr(self, field)).count(f"{{{field}}}") != 1:
                raise ValueError(f"template.{field} must hold {{{field}}} once; got {getattr(self, field)!r}")
        if not self._parts[1].strip(" "):
            raise ValueError(f"template.example must have text between {{input}} and {{output}}; got {self.example!r}")
        if not (self._parts[2] + self.separator).strip(" "):
            raise ValueError(
                "template.separator, or template.example after {output}, must end an answer by something else than "
                f"spaces; got separator {self.separator!r}, example {self.example!r}"
            )

    @property
    def stop(self) -> str:
        """Where an answer ends: what follows it in a demonstration, up to its first line break; normally "\\n"."""
        following = self._parts[2] + self.separator
        end = following.find("\n") + 1
        return following[:end] if end else following.rstrip(" ")

    @property
    def lead(self) -> str:
        """The spaces between a query and its answer: they are the answer's, not the prompt's. Normally " "."""
        middle = self._parts[1]
        return middle[len(middle.rstrip(" ")) :]

    def demonstration(self, example: Example) -> str:
        """An example with its output, without the separator."""
        before, middle, after = self._parts
        return f"{before}{example.input}{middle}{example.output}{after}"

    def query(self, example: Example) -> str:
        """An example up to where its output's leading spaces begin."""
        before, middle, _ = self._parts
        return f"{before}{example.input}{middle.rstrip(' ')}"

    @property
    def _parts(self):
        before, rest = self.example.split("{input}")
        middle, after = rest.split("{output}")
        return before, middle, after


STOP = Template().stop


class Prompt(NamedTuple):
    """What a model sees and what it should say.

    text: ends where the answer's leading spaces begin. answer: without those spaces. lead: the spaces themselves, so
    text + lead + answer is the whole. stop: the string that ends an answer.
    """

    text: str
    answer: str
    concept: str
    query: Example
    demonstrations: tuple[Example, ...]
    lead: str = " "
    stop: str = STOP

    @property
    def whole(self) -> str:
        """Prompt and answer, as a model is trained on them and as they are tokenized."""
        return self.text + self.lead + self.answer


def prompts(
    family: Family,
    concept: str,
    shots: int,
    count: int,
    *,
    seed: int,
    template: Template | None = None,
    variant: str = "plain",
    split: str = "test",
) -> list[Prompt]:
    """`count` prompts of one concept of the family, each of `shots` demonstrations and a query.

    Queries are the split's, in an order drawn from the seed; none is asked twice before all have been asked, and none
    of equal input before all inputs have. Demonstrations are drawn from train without replacement, of distinct inputs,
    none of them the query's.
    template: default `Template()`.
    variant: "plain"; "rule": the rule in words stated first; "name": the operator's name stated first.
    split: "test", or "train" to train on.

    Raises ValueError for an unknown concept, variant or split, where the concept has too few examples for the shots,
    where the family has no rule or name to state, and for an output that the template would cut short.
    """
    template = Template() if template is None else template
    asked, shown = family.pool(split, concept), family.pool("train", concept)
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}; got {variant!r}")
    for field, value in (("shots", shots), ("count", count), ("seed", seed)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{field} must be an integer of at least 0, got {value!r}")
    available = len({example.input for example in shown}) - (split == "train")
    if shots > available:
        raise ValueError(
            f"{family.name}: {shots} shots of {concept!r} need {shots} distinct inputs in train beside the query's; "
            f"there are {available}"
        )
    start = _statement(family, concept, variant, template)
    return [
        _prompt(query, _demonstrations(shown, query, shots, _rng(seed, concept, "shown", i)), start, template)
        for i, query in enumerate(_queries(asked, count, seed, concept))
    ]


def encode(tokenizer, prompts: Sequence[Prompt], bos: bool) -> tuple[list[list[int]], list[list[int]]]:
    """The token ids of each prompt and of each answer, its leading space included.

    A prompt is encoded alone, as a model meets it when it must answer, after the beginning-of-sequence token if `bos`
    and with no other special token. Its answer is what continues it: the ids that the prompt's last line gains by
    the answer. Where the tokenizer would join the line's end and the answer's start into one token, the answer is
    encoded apart from the line. Either way the ids of both together decode to the whole text, which is checked;
    an answer's ids decode to the answer, up to spaces around it, whatever the tokenizer.

    Raises ValueError where there is to be a beginning-of-sequence token and the tokenizer has none, and where ids do
    not decode to the text they came from.
    """
    if bos and tokenizer.bos_token_id is None:
        raise ValueError("bos=True, but the tokenizer has no beginning-of-sequence token")
    if not prompts:
        return [], []
    start = [tokenizer.bos_token_id] if bos else []
    heads = _ids(tokenizer, [prompt.text for prompt in prompts])
    # Line and answer repeat from prompt to prompt, and tokenizing is slow.
    found: dict[tuple[str, str], list[int]] = {}
    answers = [_answer(tokenizer, head, prompt, found) for head, prompt in zip(heads, prompts, strict=True)]
    return [start + head for head in heads], answers


def _statement(family, concept, variant, template):
    if variant == "plain":
        return ""
    known = family.rules if variant == "rule" else family.names
    if concept not in known:
        raise ValueError(f"{family.name} has no {variant} for concept {concept!r}, which variant={variant!r} states")
    text = template.rule if variant == "rule" else template.name
    return text.replace(f"{{{variant}}}", known[concept]) + template.separator


def _prompt(query, demonstrations, start, template):
    for example in (query, *demonstrations):
        if template.stop in example.output:
            raise ValueError(f"an answer ends at {template.stop!r}, which is inside an output: {example}")
    shown = "".join(template.demonstration(example) + template.separator for example in demonstrations)
    text = start + shown + template.query(query)
    answer = query.output.strip()
    return Prompt(text, answer, query.concept, query, demonstrations, template.lead, template.stop)


def _rng(seed, concept, use, i):
    """Python's generator starts many times faster than NumPy's, and one is needed for every prompt."""
    return random.Random(f"{seed} {concept} {use} {i}")


def _queries(pool, count, seed, concept):
    """Round after round through the pool; within a round an input's second example comes after all first ones."""
    queries = []
    while len(queries) < count:
        order = list(range(len(pool)))
        _rng(seed, concept, "asked", len(queries) // len(pool)).shuffle(order)
        met: dict[str, int] = {}
        times = []
        for j in order:
            times.append(met.get(pool[j].input, 0))
            met[pool[j].input] = times[-1] + 1
        queries += [pool[order[place]] for place in sorted(range(len(pool)), key=times.__getitem__)]
    return queries[:count]


def _demonstrations(pool, query, shots, rng):
    """A shuffle of the pool, done only as far as it is needed: the first `shots` of distinct inputs."""
    drawn: list[Example] = []
    seen = {query.input}
    moved: dict[int, int] = {}
    step = 0
    while len(drawn) < shots:
        j = step + int(rng.random() * (len(pool) - step))
        example = pool[moved.get(j, j)]
        moved[j] = moved.get(step, step)
        step += 1
        if example.input not in seen:
            seen.add(example.input)
            drawn.append(example)
    return tuple(drawn)


def _ids(tokenizer, texts):
    return [list(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _last_line(text):
    """From the last line break, or if that is long its end alone."""
    return text[max(text.rfind("\n"), len(text) - 100, 0) :]


def _answer(tokenizer, head, prompt, found):
    end = _last_line(prompt.text), prompt.lead + prompt.answer
    for ids in chain([found.get(end, [])], _continuations(tokenizer, *end)):
        if ids and _decode(tokenizer, head + ids) == prompt.whole:
            found[end] = ids
            return ids
    if (text := _decode(tokenizer, head)) != prompt.text:
        raise ValueError(f"the tokenizer does not keep the text: {prompt.text!r} comes back as {text!r}")
    raise ValueError(f"the tokenizer has no ids that continue {prompt.text[-40:]!r} with {prompt.answer!r}")


def _continuations(tokenizer, line, answer):
    """Ids that may continue the line with the answer, the best first.

    Where line and answer are joined, anchors are tried before the answer, of which one may not be; none at all comes
    last, since SentencePiece-like tokenizers put a space before the first word.
    """
    for before in (line, *ANCHORS, ""):
        start, both = _ids(tokenizer, [before, before + answer])
        if both[: len(start)] == start:
            yield both[len(start) :]
