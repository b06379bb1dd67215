"""Prompts that differ from others in their demonstrations' outputs alone."""

from __future__ import annotations

import numpy as np

from jaxconcepts.prompts import render
from jaxconcepts.studies.causal import edited_pass as causal_pass


def shuffled(prompt: render.Prompt, template: render.Template, seed: int) -> render.Prompt:
    """The prompt with its demonstrations' outputs dealt out anew among them."""
    order = np.random.default_rng(seed).permutation(len(prompt.demonstrations))
    shown = [
        example._replace(output=prompt.demonstrations[place].output)
        for example, place in zip(prompt.demonstrations, order, strict=True)
    ]
    return with_demonstrations(prompt, template, shown)


def with_demonstrations(prompt, template, demonstrations):
    """The prompt with other demonstrations before the same query."""
    text = "".join(template.demonstration(example) + template.separator for example in demonstrations)
    return prompt._replace(text=text + template.query(prompt.query), demonstrations=tuple(demonstrations))


def pairs(session, family, prompts, other):
    """(clean ids, corrupted ids, first answer tokens) of the prompts that can be compared token by token."""
    found = []
    for prompt in prompts:
        ruled = [family.answers(example.input).get(other) for example in (*prompt.demonstrations, prompt.query)]
        if None in ruled:
            continue
        shown = [e._replace(output=output) for e, output in zip(prompt.demonstrations, ruled, strict=False)]
        corrupted = with_demonstrations(prompt, session.config.template, shown)._replace(answer=ruled[-1])
        (clean_ids, right), (ids, wrong) = causal_pass.pair(session, [prompt, corrupted])
        # Where all demonstrations are answered alike by both concepts there is nothing to restore.
        if len(clean_ids) == len(ids) and list(clean_ids) != list(ids) and right[0] != wrong[0]:
            found.append((list(clean_ids), list(ids), (right[0], wrong[0])))
    return found
