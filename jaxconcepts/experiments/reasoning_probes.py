"""Linear probes of what a model knows of a problem, and whether they foresee the wrong steps of its own solutions.

A probe is one ridge regression for each parameter, or pair of parameters, with classes of equal weight and folds that
split no problem. In the compact form a parameter is one token, so a label means the same in every problem.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxconcepts.experiments import trained_probes
from jaxconcepts.experiments.reasoning_data import HeldOutProblems
from jaxconcepts.experiments.reasoning_written import verdicts
from jaxconcepts.experiments.tokens import Tokens
from jaxconcepts.metrics.grouped_probes import agreement, fit, read_masked
from jaxconcepts.tasks import reasoning_items, reasoning_labels, reasoning_text
from jaxconcepts.tasks.reasoning_graph import PARAMETERS
from jaxconcepts.tasks.reasoning_items import Bank
from jaxconcepts.training.experiment import HeldOut, Named

SENTENCES = 2
"""Sentences of each true solution that are asked about, drawn without replacement."""
STEPS = 12
"""Steps of a written solution that are asked about, at most."""
SCORES = ("can_next", "nece_next", "log_prob")
WRONG = ("not_computable", "repeated", "unneeded")
"""Kinds of steps whose name should not have been written; other mistakes are made later in the sentence."""
RESAMPLED = 200
SPOTS = ("dep", "nece", *[f"sentence{n}" for n in range(SENTENCES)], "start", "before")
"""The positions of each problem that states are kept of."""


def arrays(bank: Bank, settings, window: int) -> dict[str, Any]:
    """What probes ask of the bank's problems, N of them.

    probed: [N, W], the rows. spots: [N, `SPOTS`], positions. asked: by concept, {"labels", "valid": [C, M], "group":
    [M], "classes"}, M = N times the positions of the concept. queries: for each problem its true solution cut before a
    sentence, with a parameter's name behind, half of them the right ones: {"rows" [N, W], "at", "can_next",
    "nece_next" [N]}.

    Raises ValueError where no parameter has `measure.fewest` problems of either answer.
    """
    random, count, counts = np.random.default_rng(0), len(bank), bank.arrays["sentences"]
    if bank.longest > window:
        raise ValueError(f"task.window must hold the longest problem, {bank.longest} tokens, got {window}")
    drawn = np.stack([random.permutation(each)[np.arange(SENTENCES) % each] for each in counts])
    dep, nece = bank.concept("dep"), bank.concept("nece")
    sentences, start = np.take_along_axis(bank.spots, drawn, 1), np.zeros((count, 1), int)
    spots = np.concatenate([dep.positions, nece.positions, sentences, start, nece.control[:, None]], axis=1)
    asked = {}
    for name in reasoning_items.CONCEPTS:
        concept = bank.concept(name)
        labels, valid = (np.asarray(a) for a in (concept.labels, concept.valid))
        if name not in ("dep", "nece"):
            labels, valid = (np.take_along_axis(a, drawn[..., None], 1) for a in (labels, valid))
        labels, valid = (a.reshape(-1, int(np.prod(a.shape[2:]))).T for a in (labels, valid))
        kept = _askable(labels, valid, settings)
        if not len(kept):
            raise ValueError(
                f"measure.fewest must be lower, or measure.probed higher: no parameter has {settings.fewest} problems "
                f"of either answer to {name}"
            )
        asked[name] = {
            "labels": labels[kept].astype(np.int32), "valid": valid[kept].astype(bool),
            "group": np.repeat(np.arange(count, dtype=np.int32), labels.shape[1] // count),
            "classes": np.arange(concept.classes),
        }  # fmt: skip
    rows = bank.tokens(window).astype(np.int32)
    return {
        "probed": rows, "spots": spots.astype(np.int32), "asked": asked,
        "queries": _queries(bank, rows, drawn[:, 0], random),
    }  # fmt: skip


def _askable(labels, valid, settings) -> Int[np.ndarray, " C"]:
    """The rows with the most points of their second commonest label, if enough."""
    labels = labels.astype(int)
    counts = np.stack([np.sum(valid & (labels == c), 1) for c in range(labels.max(initial=1) + 1)], 1)
    second = np.sort(counts, 1)[:, -2]
    order = np.argsort(-second, kind="stable")[: settings.asked]
    return np.sort(order[second[order] >= settings.fewest])


def _queries(bank: Bank, rows, drawn, random) -> dict[str, np.ndarray]:
    ids = reasoning_labels.ids(bank.vocabulary)
    names = np.array([ids[reasoning_text.compact_name(parameter)] for parameter in PARAMETERS])
    each = np.arange(len(bank))
    can, nece = (np.asarray(bank.concept(name).labels)[each, drawn] for name in ("can_next", "nece_next"))
    present, at = np.asarray(bank.concept("nece").valid)[:, 0], bank.spots[each, drawn] + 1
    # A parameter whose sentence may come next, or any other of the problem (where it has others).
    wanted = (random.random(len(bank)) < 0.5)[:, None]
    among = np.where(wanted | ~(present & ~nece).any(1, keepdims=True), nece, present & ~nece)
    parameter = np.argmax(among * random.random(among.shape), 1)
    rows = np.where(np.arange(rows.shape[1]) < at[:, None], rows, 0)
    rows[each, at] = names[parameter]
    labels = (of[each, parameter].astype(np.int32) for of in (can, nece))
    return {"rows": rows, "at": at.astype(np.int32)} | dict(zip(SCORES[:2], labels, strict=True))


def probe(states, outputs, held_out: HeldOut) -> dict[str, Named]:
    """By concept (the label) and layer, the mean over parameters: "probe", the accuracy; "probe_balanced", the balanced
    accuracy; "probe_mcc", Matthews' correlation (0 for what always says the same). "probe_before...": the same from a
    spot before the information exists."""
    captured = states["spots"]
    return _read("probe", captured, held_out, control=False) | _read("probe_before", captured, held_out, control=True)


def probe_once(experiment, held_out: HeldOut, untrained) -> dict[str, Named]:
    """The same of an untrained model, "probe_untrained..."; and "probe_majority", the accuracy of always saying the
    commonest, "probe_parameters", how many were asked about."""
    measured = _read("probe_untrained", untrained()[0]["spots"], held_out, control=False)
    for name, asked in held_out.exact["asked"].items():
        of_class = jnp.stack(
            [jnp.sum(asked["valid"] & (asked["labels"] == c), 1) for c in range(len(asked["classes"]))]
        )
        share = jnp.max(of_class, 0) / jnp.sum(of_class, 0)
        measured[f"probe_majority/{name}"] = Named(jnp.mean(share), unit="fraction")
        measured[f"probe_parameters/{name}"] = Named(jnp.float32(len(asked["labels"])), unit="parameters")
    return measured


def _read(metric, captured: Float[Array, "layers N spots d"], held_out, control) -> dict[str, Named]:
    settings, measured = held_out.settings, {}
    for name, asked in held_out.exact["asked"].items():
        columns = [SPOTS.index(spot) for spot in _spots(name, control)]
        states = captured[:, :, jnp.array(columns)].reshape(len(captured), -1, captured.shape[-1])
        classes = len(asked["classes"])
        points = (asked["labels"], asked["valid"])
        read = read_masked(states, *points, classes, asked["group"], settings.folds, settings.alpha)
        accuracy, balanced, mcc = (jnp.mean(score, -1) for score in agreement(read, *points, classes))
        measured |= {
            f"{metric}/{name}": Named(accuracy, ("layer",), "fraction"),
            f"{metric}_balanced/{name}": Named(balanced, ("layer",), "fraction", 1 / classes),
            f"{metric}_mcc/{name}": Named(mcc, ("layer",), "correlation", 0.0),
        }
    return measured


def trained(metric: str, experiment, params: PyTree, held_out: HeldOut) -> dict[str, Named]:
    """As `probe`, of probes that are trained through the model (`trained_probes`), on the problems that
    `measure.folds` divides."""
    exact, settings = held_out.exact, held_out.settings
    rows, questions = exact["probed"], []
    for name, asked in exact["asked"].items():
        at = exact["spots"][:, np.array([SPOTS.index(spot) for spot in _spots(name, control=False)])]
        labels, valid = (asked[key].reshape(-1, *at.shape) for key in ("labels", "valid"))
        questions.append((at, labels, valid, len(asked["classes"])))
    asked = trained_probes.stack(rows, questions, jnp.arange(len(rows)))
    scored = trained_probes.scores(experiment, params, asked, settings.folds, settings.alpha)
    sizes = [(labels.shape[0], classes) for _, labels, _, classes in questions]
    return trained_probes.named(metric, scored, dict(zip(exact["asked"], sizes, strict=True)))


def _spots(name: str, control: bool) -> list[str]:
    if name == "dep":
        return ["start" if control else "dep"]
    if name == "nece":
        return ["before" if control else "nece"]
    return ["before"] * SENTENCES if control else [spot for spot in SPOTS if spot.startswith("sentence")]


class Foreseen(NamedTuple):
    """Of the first S names of each written solution, scores that are higher for a step that is right: can_next,
    nece_next: [layers, N, S], of probes at the name. log_prob: [N, S], the model's own of the name."""

    can_next: Float[Array, "layers N S"]
    nece_next: Float[Array, "layers N S"]
    log_prob: Float[Array, "N S"]

    def named(self) -> dict[str, Named]:
        """For the host, which pairs the scores with the checker's verdicts (`judged`)."""
        axes = ("layer", "concept", "position")
        return {name: Named(scores, axes[3 - scores.ndim :]) for name, scores in self._asdict().items()}


def foresee(experiment, params: PyTree, held_out: HeldOut, written: Int[Array, "N new"]) -> Foreseen:
    """Probes fitted on `arrays`' queries, which are of other problems, at the names of written solutions."""
    exact, alpha = held_out.exact, held_out.settings.alpha
    queries, prompts, window = exact["queries"], exact["prompts"], exact["rows"].shape[1]
    _, fitted = experiment.by_rows(params, Tokens(queries["rows"], None), queries["at"][:, None])
    place = jnp.arange(window)
    after = jnp.take_along_axis(written, jnp.clip(place - prompts[:, None], 0, written.shape[1] - 1), 1)
    rows = jnp.where(place < prompts[:, None], exact["rows"], after)
    names = jnp.minimum(prompts[:, None] + _starts(written, experiment.ends), window - 1)
    of_tokens, captured = experiment.by_rows(params, Tokens(rows, None), names, _log_probs)
    log_prob = jnp.take_along_axis(of_tokens, names - 1, 1)

    def of_layer(layer):
        states, seen = layer

        def scores(label):
            coefficients, intercepts = fit(states, label, jnp.ones(len(label), bool), 2, alpha)
            both = jnp.matmul(seen, coefficients, precision=jax.lax.Precision.HIGHEST) + intercepts
            return both[..., 1] - both[..., 0]

        return scores(queries["can_next"]), scores(queries["nece_next"])

    return Foreseen(*jax.lax.map(of_layer, (fitted[:, :, 0], captured)), log_prob)


def _log_probs(logits, batch: Tokens) -> Float[Array, "N t"]:
    """Of each token from the second on, given those before it."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), batch.tokens[:, 1:, None], 2)[..., 0]


def _starts(written, ends: tuple[int, ...]) -> Int[Array, "N S"]:
    """Where the first names are: at the begin, and behind each token that ends a sentence."""
    ended = (written[:, :-1, None] == jnp.array(ends)).any(-1)
    starts = jnp.concatenate([jnp.ones((len(written), 1), bool), ended], 1)
    order = jnp.argsort(~starts, axis=1, stable=True)
    return order[:, : min(STEPS, written.shape[1])]


def judged(test: HeldOutProblems, written: Int[np.ndarray, "R N new"], measured: dict[str, Named]) -> dict[str, Named]:
    """How well wrong steps are told from right ones (AUC, .5 by chance; NaN where all are alike), by the score (the
    label): "foresee" and the ends of its 95 % interval over resampled problems, "foresee_low" and "foresee_high", of
    the probes by layer; "foresee_log_prob..." of the model's own probability of the name. "wrong_steps": by kind, how
    many there are, the steps after a first mistake left out. Takes the scores out of `measured`."""
    scores = {name: np.asarray(measured.pop(name).values, np.float64) for name in SCORES}
    made: dict[str, list] = {}
    for run, rows in enumerate(written):
        kinds = [_kinds(row, verdict, test) for row, verdict in zip(rows.tolist(), verdicts(test, rows), strict=True)]
        steps = [(n, s, kind) for n, of_row in enumerate(kinds) for s, kind in enumerate(of_row[:STEPS]) if kind]
        problem, place = (np.array([step[i] for step in steps], int) for i in range(2))
        wrong = np.array([kind in WRONG for _, _, kind in steps], bool)
        for name, of in scores.items():
            values = of[run][..., problem, place]
            metric = "foresee_log_prob" if name == "log_prob" else f"foresee/{name}"
            for key, value in zip(("", "_low", "_high"), area_of_wrong(-values, wrong, problem), strict=True):
                head, slash, label = metric.partition("/")
                made.setdefault(head + key + slash + label, []).append(value)
        counts = [sum(step[2] == kind for step in steps) for kind in (*WRONG, "ok")]
        made.setdefault("wrong_steps", []).append(counts)
    named = {}
    for key, values in made.items():
        stacked, names = np.array(values, np.float64), ()
        axes: tuple[str, ...] = ("layer",) if stacked.ndim == 2 else ()
        if key == "wrong_steps":
            axes, names = ("label",), (("label", (*WRONG, "ok")),)
        named[key] = Named(stacked, axes, "steps" if names else "AUC", None if names else 0.5, names=names)
    return named


def _kinds(row: list[int], verdict, test: HeldOutProblems) -> list[str | None]:
    """What the checker calls the step at each name, up to the first mistake; None for a sentence without words."""
    words, steps, retries = test.bank.vocabulary, iter(verdict.steps), iter(verdict.retries)
    kinds: list[str | None] = []
    empty = True
    for token in row:
        word = words[token]
        if token == reasoning_labels.EOS:
            break
        ended = word == reasoning_text.END["compact"]
        if word == reasoning_text.BACK or ended:
            kind = None if empty and ended else next(steps if ended else retries)[1]
            kinds.append(kind)
            if ended and kind not in (None, "ok", "unneeded"):
                break
            empty = True
        elif token not in (reasoning_labels.PAD, reasoning_labels.BOS):
            empty = False
    return kinds


def area_of_wrong(scores: Float[np.ndarray, "*layers M"], wrong, problem):
    """The AUC of each layer's scores for `wrong`, and the 2.5 and 97.5 % points over resampled problems that have both
    kinds of steps; NaN where there is one kind alone, and for scores that are not numbers."""
    if not wrong.any() or wrong.all() or not np.isfinite(scores).all():
        return (np.full(scores.shape[:-1], np.nan),) * 3

    def area(weight):
        """Weighted: the chance that a wrong step's score is above a right one's, ties counting half."""
        good, bad = weight * ~wrong, weight * wrong
        order = np.argsort(scores, axis=-1, kind="stable")
        ordered = np.take_along_axis(scores, order, -1)
        below = np.cumsum(good[order], -1)
        total = np.concatenate([np.zeros((*below.shape[:-1], 1)), below], -1)
        result = []
        for r, t, o in zip(
            ordered.reshape(-1, len(wrong)), total.reshape(-1, len(wrong) + 1), order.reshape(-1, len(wrong)),
            strict=True,
        ):  # fmt: skip
            low, high = np.searchsorted(r, r, "left"), np.searchsorted(r, r, "right")
            result.append(np.sum(bad[o] * (t[low] + t[high]) / 2) / (bad.sum() * good.sum()))
        return np.array(result).reshape(scores.shape[:-1])

    random, groups = np.random.default_rng(0), problem.max() + 1
    weights = [np.bincount(random.integers(0, groups, groups), minlength=groups)[problem] for _ in range(RESAMPLED)]
    drawn = [area(weight) for weight in weights if (weight * wrong).any() and (weight * ~wrong).any()]
    ends = np.quantile(drawn, (0.025, 0.975), axis=0) if drawn else np.full((2, *scores.shape[:-1]), np.nan)
    return area(np.ones(len(wrong))), *ends
