"""The experiments of the causal study; each returns a tidy table (`rows`).

A condition is asked of the same test prompts as every other, so that differences are paired. `as_other` is the share of
answers that are what another concept (the next one of the family) would answer, among prompts where that is known and
differs from the right answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import polars as pl
from jaxtyping import Float

from jaxconcepts.interventions import heads as head_edits
from jaxconcepts.interventions.steering import random_like
from jaxconcepts.prompts import render
from jaxconcepts.prompts.family import Family
from jaxconcepts.studies.causal import contrasts
from jaxconcepts.studies.causal import edited_pass as causal_pass
from jaxconcepts.studies.causal import interchange as interchange_study
from jaxconcepts.studies.causal import rows as tables
from jaxconcepts.studies.causal.edited_pass import Asked, Session


class Prepared(NamedTuple):
    """concepts: those that are used. others: the concept that each is confused with on purpose. test: the few-shot test
    prompts, concept by concept. counts: correctly answered prompts behind each mean. states [L + 1, d], heads and
    heads_mean [L, H, e]: by concept, means at the last token (heads_mean: over all tokens). null: states of the concept
    without information, None where there is none."""

    concepts: list[str]
    others: dict[str, str]
    test: Asked
    counts: dict[str, int]
    states: dict[str, Float[np.ndarray, "layers d"]]
    null: Float[np.ndarray, "layers d"] | None
    heads: dict[str, Float[np.ndarray, "L H e"]]
    heads_mean: dict[str, Float[np.ndarray, "L H e"]]


def patching(session: Session, family: Family, prepared: Prepared) -> pl.DataFrame:
    """Few-shot prompts with their state at the last token replaced, at every layer.

    condition: "positive" (the mean of the own concept), "negative" (of the one without information), "other" (of the
    other concept), "random" (the own mean and a random direction as long as the way to the "negative", or else to the
    "other"); "none" without layer is the model as it is.
    """
    own = np.stack([prepared.states[k] for k in prepared.concepts])
    kinds = {"positive": own}
    if prepared.null is not None:
        kinds["negative"] = np.broadcast_to(prepared.null, own.shape)
    if prepared.others:
        kinds["other"] = np.stack([prepared.states[prepared.others[k]] for k in prepared.concepts])
    away = kinds.get("negative", kinds.get("other"))
    if away is not None:
        key = jax.random.key(session.config.seed)
        kinds["random"] = own + np.asarray(random_like(key, away - own))
    place = _places(prepared.test, prepared.concepts)
    changes = [({"condition": "none"}, None)]
    for layer in range(session.model.layers + 1):
        for condition, states in kinds.items():
            change = lambda i, layer=layer, s=states: causal_pass.replaced(session.model, layer, s[place[i], layer])  # noqa: E731
            changes.append(({"condition": condition, "layer": layer}, change))
    return _table_of_each(session, prepared.test, changes, f"{family.name}: patching")


def task_vectors(session: Session, family: Family, prepared: Prepared) -> pl.DataFrame:
    """Zero-shot prompts whose state at the last token is replaced by the mean state of few-shot prompts.

    The layer is chosen on other prompts (condition "develop", every layer), for each concept its own. condition:
    "few-shot", "zero-shot", and "task vector" at that layer.
    """
    means = np.stack([prepared.states[k] for k in prepared.concepts])
    change = lambda layer, concept: causal_pass.replaced(session.model, layer, means[concept, layer])  # noqa: E731
    return _vectors(session, family, prepared, "task vector", change)


def function_vectors(session: Session, family: Family, prepared: Prepared) -> pl.DataFrame:
    """Heads' indirect effects, and the function vector that the strongest heads make, added at the last token.

    condition "effect": the rise of the right answer's probability (all its tokens, teacher-forced) when one head's
    output at the last token of a prompt with shuffled labels becomes its mean over correctly answered prompts. The
    vector of a concept is the sum of the top heads' mean outputs through the output projection (without the norm that
    Gemma 2 and OLMo 2 have after it). condition "function vector" is asked zero-shot, at a layer chosen as for task
    vectors; "shuffled" and "shuffled, function vector" of few-shot prompts with shuffled labels, at that layer. Effects
    are measured on the training split, accuracy on the test split.
    """
    config, model = session.config, session.model
    asked, place = _with_shuffled_labels(session, family, prepared, "train")
    means = np.stack([prepared.heads[k] for k in prepared.concepts])
    masks = list(head_edits.one_at_a_time(model.layers, model.heads))
    rises = np.zeros((len(masks), len(place)))
    for concept, name in enumerate(prepared.concepts):
        chosen = np.flatnonzero(place == concept)
        changes = [None] + [causal_pass.with_heads(model, mask, means[concept], at_last=True) for mask in masks]
        what = f"{family.name}: heads' effects on {name}"
        found = np.exp(causal_pass.log_probs(session, causal_pass.take(asked, chosen), changes, what)[:, :, 0])
        rises[:, chosen] = found[1:] - found[0]
    rows = []
    for number, rise in enumerate(rises):
        block, head = divmod(number, model.heads)
        for concept, name in enumerate(prepared.concepts):
            named = {"condition": "effect", "concept": name, "layer": block + 1, "head": head}
            rows.append(named | {"metric": "indirect_effect", "value": float(rise[place == concept].mean())})
    effects = rises.mean(1)
    count = min(config.top_heads or max(4, effects.size // 10), effects.size)
    top = np.argsort(-effects.ravel(), kind="stable")[:count]
    rows += [
        {"condition": "top", "layer": int(t) // model.heads + 1, "head": int(t) % model.heads, "metric": "rank",
         "value": float(rank)}
        for rank, t in enumerate(top)
    ]  # fmt: skip
    vectors = np.stack([function_vector(session, mean, top) for mean in means])
    change = lambda layer, concept: causal_pass.added(model, layer, vectors[concept])  # noqa: E731
    table = _vectors(session, family, prepared, "function vector", change)
    of_vectors = table.filter(condition="function vector").drop_nulls("concept")
    best = dict(of_vectors.select("concept", "layer").iter_rows())
    asked, place = _with_shuffled_labels(session, family, prepared, "test")
    of_concepts = [causal_pass.take(asked, np.flatnonzero(place == number)) for number in range(len(means))]
    for condition, layers in (("shuffled", None), ("shuffled, function vector", best)):
        answered = [
            causal_pass.ask(session, of_concept, layers and change(layers[concept], number))
            for number, (concept, of_concept) in enumerate(zip(prepared.concepts, of_concepts, strict=True))
        ]
        rows += tables.of_answers(of_concepts, answered, config.per_replicate, layers, condition=condition)
    return pl.concat([table, tables.frame(rows)], how="diagonal_relaxed")


def function_vector(session: Session, mean_heads: Float[np.ndarray, "L H e"], top: Sequence[int]) -> np.ndarray:
    """[d]: the sum over the heads `top` (numbered block by block) of their mean outputs through the projection."""
    model = session.model
    kernel = model.heads_kernel(session.params)
    total = np.zeros(model.width, np.float32)
    for number in top:
        block, head = divmod(int(number), model.heads)
        piece = np.asarray(kernel[block, head * model.head_dim : (head + 1) * model.head_dim], np.float32)
        total += mean_heads[block, head] @ piece
    return total


def steering(session: Session, family: Family, prepared: Prepared) -> pl.DataFrame:
    """Few-shot prompts with scale * (mean of the other concept - mean of the own) added at the last token."""
    config = session.config
    asked = _first(prepared, config.steered, config)
    place = _places(asked, prepared.concepts)
    changes = [({"condition": "none"}, None)]
    kinds = {}
    if prepared.others:
        ways = np.stack([prepared.states[prepared.others[k]] - prepared.states[k] for k in prepared.concepts])
        kinds = {"steered": ways, "random": np.asarray(random_like(jax.random.key(config.seed + 1), ways))}
    for layer in range(session.model.layers + 1):
        for scale in config.scales:
            for condition, direction in kinds.items():
                change = lambda i, layer=layer, d=scale * direction: causal_pass.added(  # noqa: E731
                    session.model, layer, d[place[i], layer]
                )
                changes.append(({"condition": condition, "layer": layer, "scale": float(scale)}, change))
    return _table_of_each(session, asked, changes, f"{family.name}: steering")


def heads(session: Session, family: Family, prepared: Prepared) -> pl.DataFrame:
    """Few-shot prompts with one head ablated in the prompt: "zero", or its "mean" over prompts and tokens."""
    model = session.model
    asked = _first(prepared, session.config.ablated, session.config)
    changes = [({"condition": "none"}, None)]
    mean = np.mean([prepared.heads_mean[k] for k in prepared.concepts], axis=0)
    for condition, outputs in (("zero", np.zeros_like(mean)), ("mean", mean)):
        for number, mask in enumerate(head_edits.one_at_a_time(model.layers, model.heads)):
            block, head = divmod(number, model.heads)
            change = causal_pass.with_heads(model, mask, outputs, at_last=False)
            changes.append(({"condition": condition, "layer": block + 1, "head": head}, change))
    return _table_of_each(session, asked, changes, f"{family.name}: heads")


def interchange(session: Session, family: Family, prepared: Prepared) -> pl.DataFrame:
    """Layer x token: how much of the own concept's logit difference one state of the clean run restores in a prompt
    whose demonstrations are answered by the other concept. Pairs are of equal length, and their answers begin with
    different tokens.

    token: counted from the end, -1 the last. value: sum over pairs of (patched - corrupted) over that of (clean -
    corrupted); pairs: how many there were. Concepts without a pair have no rows.
    """
    config, rows = session.config, []
    for number, concept in enumerate(prepared.concepts):
        if concept not in prepared.others:
            continue
        first = number * config.test_prompts
        prompts = prepared.test.prompts[first : first + config.test_prompts]
        pairs = contrasts.pairs(session, family, prompts, prepared.others[concept])[: config.pairs]
        if not pairs:
            continue
        lengths = np.array([len(clean) for clean, _, _ in pairs])
        width = -(-int(lengths.max()) // config.multiple) * config.multiple
        padded = lambda part: np.array([p[part] + [0] * (width - len(p[part])) for p in pairs])  # noqa: E731, B023
        ends = np.array([pair[2] for pair in pairs])
        found = interchange_study.interchange(session.model, session.params, padded(0), padded(1), lengths, ends)
        change = np.asarray(found.patched) - np.asarray(found.corrupted)
        whole = np.asarray(found.clean - found.corrupted).sum()
        for offset in range(1, int(lengths.min()) + 1):
            restored = change[:, lengths - offset, np.arange(len(pairs))].sum(-1) / whole
            rows += [
                {"concept": concept, "layer": layer, "token": -offset, "pairs": len(pairs), "value": float(value)}
                for layer, value in enumerate(restored)
            ]
    schema = {"concept": pl.String, "layer": pl.Int64, "token": pl.Int64, "pairs": pl.Int64, "value": pl.Float64}
    return pl.DataFrame(rows, schema)


def _with_shuffled_labels(session: Session, family: Family, prepared: Prepared, split: str):
    """(prompts of every concept with shuffled labels, encoded, each one's concept as a place among the prepared)."""
    config, prompts = session.config, []
    for concept in prepared.concepts:
        drawn = render.prompts(
            family, concept, config.shots, config.effects, seed=config.seed + 3, template=config.template, split=split
        )
        prompts += [contrasts.shuffled(prompt, config.template, config.seed + i) for i, prompt in enumerate(drawn)]
    asked = causal_pass.encode(session, family, prompts, prepared.others)
    return asked, _places(asked, prepared.concepts)


def _vectors(session, family, prepared, name, change) -> pl.DataFrame:
    """Zero-shot prompts under change(layer, concept's number), at the layer that is best on other prompts."""
    config = session.config
    of_shots = [causal_pass.ask(session, prepared.test)]
    rows = tables.of_answers([prepared.test], of_shots, config.per_replicate, condition="few-shot")
    asked, answered, best = [], [], {}
    for number, concept in enumerate(prepared.concepts):
        draw = lambda count, seed, split, concept=concept: causal_pass.encode(  # noqa: E731
            session, family,
            render.prompts(family, concept, 0, count, seed=seed, template=config.template, split=split),
            prepared.others,
        )  # fmt: skip
        develop = draw(config.develop, config.seed + 2, "train")
        what = f"{family.name}: {name}s of {concept}"
        changes = [change(layer, number) for layer in range(session.model.layers + 1)]
        scores = [found.correct.mean() for found in causal_pass.ask_each(session, develop, changes, what)]
        for layer, score in enumerate(scores):
            named = {"condition": "develop", "concept": concept, "layer": layer, "metric": "accuracy"}
            rows.append(named | {"value": float(score)})
        best[concept] = int(np.argmax(scores))
        asked.append(draw(config.test_prompts, config.seed, "test"))
        answered.append(causal_pass.ask_each(session, asked[-1], [None, change(best[concept], number)], what))
    plain, changed = zip(*answered, strict=True)
    rows += tables.of_answers(asked, plain, config.per_replicate, condition="zero-shot")
    rows += tables.of_answers(asked, changed, config.per_replicate, best, condition=name)
    return tables.frame(rows)


def _table_of_each(session: Session, asked: Asked, changes: Sequence[tuple[dict, Any]], what: str) -> pl.DataFrame:
    """The rows under each change, given as (what its rows are named by, the change)."""
    answered = causal_pass.ask_each(session, asked, [change for _, change in changes], what)
    return tables.frame([
        row for (named, _), of_change in zip(changes, answered, strict=True)
        for row in tables.of_answers([asked], [of_change], session.config.per_replicate, **named)
    ])  # fmt: skip


def _first(prepared: Prepared, count: int, config) -> Asked:
    """The first `count` test prompts of each concept."""
    starts = np.arange(len(prepared.concepts)) * config.test_prompts
    return causal_pass.take(prepared.test, (starts[:, None] + np.arange(count)).ravel())


def _places(asked: Asked, concepts: list[str]) -> np.ndarray:
    return np.array([concepts.index(prompt.concept) for prompt in asked.prompts])
