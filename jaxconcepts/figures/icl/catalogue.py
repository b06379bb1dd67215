"""The in-context study's part of a report: its figures, what is said under each, and its table of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from jaxconcepts.figures.icl import concepts as icl_concepts
from jaxconcepts.figures.icl import curves as icl
from jaxconcepts.figures.icl import outcomes
from jaxconcepts.figures.icl.tables import CONTROLS as CONTROL_NAMES
from jaxconcepts.figures.icl.tables import IclTables
from jaxconcepts.figures.section import Entry, Section, Table, drawn, known, number

CD = (
    "CD is the share of prompts whose concept is that of the majority of their {k} nearest neighbours among hidden "
    "states of the last prompt token (residual stream, before the final norm; Euclidean, leave one out; prompts of one "
    "query do not vote for each other; votes that tie are shared), mean over draws of {per_draw} prompts a concept, "
    "which share no prompt. Null, whose answers are random, is in the pool and out of averages."
)
UNTRAINED = (
    "Read CD against the controls rather than against chance: on such prompts it can exceed chance without any "
    "training, for attention averages over the demonstrated answers, which differ by concept."
)
CONTROLS = (
    "The controls are the same kNN, on prompts of one query kept apart too: on the bag of the prompt's tokens, on the "
    "bag of the demonstrated answers' tokens, and on hidden states of a model of the same shape with random weights at "
    "its own best layer. The interval of the difference takes CD and control as independent, and is rather too wide."
)
HEADLINE = "The headline layer is the best one on prompts set apart for choosing it, in each cell."
ACCURACY = (
    "Accuracy is exact match of greedy answers. Bars are 95 % intervals: of accuracy with prompts of one query as one, "
    "of CD with the points' shared neighbours counted."
)
CHANCE = (
    "Dotted, in each concept's colour: its CD under permuted labels. A hollow cross: all states of that layer are one "
    "point, and CD says nothing."
)
ASSOCIATION = (
    "The interval is Fisher's for as many points as concepts, of which there are few: it is wide, and it begins at 0 "
    "where no relation cannot be ruled out. Adjusted R² is 0 on average without a relation; p: the share of pairings "
    "of concepts that do as well."
)
PAPER = "Hollow marks, where the model is the paper's: its numbers, read off its figure 4."
PROMPTED = (
    "Hollow marks, where the model is the paper's: its means over concepts for plain prompts and for prompts that "
    "state the rule (parts of speech) or the operator's name (bit operations), read off its table 1."
)
ENTRIES = (
    Entry(
        "icl_shots",
        "Accuracy and CD by shots",
        icl.by_shots,
        f"{ACCURACY} {CD} {HEADLINE} {CHANCE} "
        f"{UNTRAINED} Dotted, coloured: CD of an untrained model of the same shape. {PAPER}",
        outcome=outcomes.by_shots,
    ),
    Entry(
        "icl_controls",
        "CD above its controls",
        icl.beside_controls,
        f"Left: means over the concepts without Null; dotted: chance. Right: by concept. {CONTROLS} {HEADLINE} {CD}",
        outcome=outcomes.controls,
    ),
    Entry(
        "icl_layers",
        "CD by layer and shots",
        icl.cd_layers,
        "Mean over the concepts without Null; bands are 95 % intervals, dots the headline layer. Broken: "
        "the 95 % point of CD under permuted labels (most shots); dotted, grey: its mean. Grey columns: layers whose "
        "states are all one point, where CD says nothing. "
        f"{UNTRAINED} In the colour of the shots: dotted, an untrained model of the same shape; dashes and dots, "
        f"across, the bag of the answers shown. {CD}",
        outcome=outcomes.layers,
    ),
    Entry(
        "icl_scatter",
        "Does CD predict accuracy?",
        icl.scatter,
        "A mark is a concept at a number of shots (larger: more shots), at the last checkpoint; the line is the least-"
        "squares fit without Null. R² and Spearman's correlation are over all marks but Null's. "
        f"{ASSOCIATION} "
        f"{HEADLINE} {PAPER}",
        outcome=outcomes.scatter,
    ),
    Entry(
        "icl_series",
        "Over pretraining",
        icl.over_checkpoints,
        "Accuracy and headline CD of each concept at every checkpoint, R² of accuracy on CD over all shots with its "
        "interval, and the loss of the right answer (less its log-probability, summed over its tokens). Dotted in the "
        f"third panel: R² of concepts paired at random. {ASSOCIATION} {HEADLINE} {CHANCE} {UNTRAINED}",
        outcome=outcomes.series,
    ),
    Entry(
        "icl_variants",
        "Prompted against plain",
        icl.variants,
        "The same queries and demonstrations, with the rule in words or the operator's name stated before them. "
        f"{ACCURACY} {HEADLINE} {UNTRAINED} Dashes: CD of an untrained model of the same shape. "
        f"{PROMPTED}",
        outcome=outcomes.variants,
    ),
    Entry(
        "icl_pairwise",
        "Which concepts are told apart?",
        partial(icl_concepts.matrices, metric="pairwise_cd"),
        "CD within each pair of concepts at the headline layer: only the pair's prompts are judged and vote; chance is "
        "0.5.",
        outcome=outcomes.pairs,
        lead=False,
    ),
    Entry(
        "icl_confusion",
        "Which rule do wrong answers follow?",
        partial(icl_concepts.matrices, metric="confusion"),
        "Rows are the concept asked for, columns the concept whose rule gives the same answer, as a share of the row's "
        "wrong answers. An answer that several rules give counts for each, so rows may sum to more than one.",
        outcome=outcomes.confusion,
        lead=False,
    ),
    Entry(
        "icl_hidden",
        "Hidden states",
        icl_concepts.hidden_states,
        "Principal components of each panel's own points, a dot a prompt. Above each panel is its mean CD, in the full "
        "width and over all draws: a projection alone can show clusters that are not there and hide ones that are.",
        each=True,
        outcome=outcomes.hidden,
        lead=False,
    ),
)
TABLE_NOTE = (
    "Last checkpoint; means over concepts without Null, with 95 % intervals. CD at the headline layer; “same query "
    "too”: where prompts of one query vote for each other; then the controls, and CD less the highest of them. p: "
    "of the headline layer, under permuted labels. A dash: undefined or not measured."
)
ASSOCIATION_NOTE = (
    "R² and Spearman: accuracy against CD over the concepts of a cell, and in rows “all” over all shots together. "
    "The interval of R² is Fisher's for as many points as concepts; adjusted R² is 0 on average where there is no "
    "relation; p(R²): the share of pairings of concepts that do as well. A dash: undefined or not measured."
)


def sentences(tables: IclTables) -> list[str]:
    """What came out, in words."""
    said = [outcome(tables) for outcome in (outcomes.by_shots, outcomes.controls, outcomes.scatter)]
    return [sentence for sentence in said if sentence]


def sections(tables: IclTables) -> Iterator[Section]:
    """Everything that the tables allow, and the tables of final numbers."""
    numbers = {name: tables.config[name] for name in ("k", "per_draw")}
    for entry in ENTRIES:
        caption = entry.caption.format(**numbers)
        if not entry.each:
            yield drawn(entry, tables, caption=caption)
        for place, family in enumerate(tables.families if entry.each else ()):
            title = f"{entry.title}: {family}"
            yield drawn(entry, tables, family, suffix=f"_{place}", title=title, caption=caption)
    yield Section("icl_numbers", _heading(tables), table=_table(tables))
    yield Section("icl_association", "Accuracy against CD", table=_association_table(tables))


def _heading(tables: IclTables) -> str:
    of = tables.models.sort("step")["checkpoint"][-1] if tables.models.height else ""
    return f"In-context accuracy and CD of {of}" if of else "In-context accuracy and CD"


def _cells(tables: IclTables) -> Iterator[tuple[str, str, int]]:
    for family in tables.families:
        for variant in tables.variants(family):
            for shots in tables.shots(family, variant):
                yield family, variant, shots


def _table(tables: IclTables) -> Table:
    names = [CONTROL_NAMES[name] for name in tables.controls]
    between = ["same query too", *names, "above"] if names else []
    rows = []
    for family, variant, shots in _cells(tables):
        keys = {"shots": shots, "variant": variant}
        cells = [family, variant, str(shots), _ends(partial(tables.value, family=family, **keys), "accuracy")]
        at_headline = partial(tables.headline, family=family, **keys)
        cells.append(_ends(at_headline, "cd"))
        if names:
            cells.append(number(at_headline("cd_with_query"), ".2f"))
            cells += [_ends(partial(tables.value, family=family, **keys), f"cd_{c}") for c in tables.controls]
            cells.append(_ends(at_headline, "cd_above"))
        cells.append(number(tables.value("headline_layer", family, **keys), ".0f"))
        rows.append([*cells, number(at_headline("cd_p"))])
    header = ("family", "prompt", "shots", "accuracy", "CD", *between, "layer", "p")
    return Table("icl", header, rows, note=TABLE_NOTE)


def _association_table(tables: IclTables) -> Table:
    rows = [
        [family, variant, str(shots), *_association(partial(tables.value, family=family, shots=shots, variant=variant))]
        for family, variant, shots in _cells(tables)
    ]
    for family, variant in dict.fromkeys((row[0], row[1]) for row in rows):
        rows.append([family, variant, "all", *_association(partial(tables.fit, family=family, variant=variant))])
    header = ("family", "prompt", "shots", "R²", "adjusted", "p(R²)", "Spearman")
    return Table("icl-association", header, rows, note=ASSOCIATION_NOTE)


def _ends(take: Callable[..., float], metric: str) -> str:
    value, low, high = (take(f"{metric}{end}") for end in ("", "_low", "_high"))
    return number(value, ".2f") + (f" [{low:.2f}, {high:.2f}]" if known(low) else "")


def _association(take: Callable[..., float]) -> list[str]:
    return [_ends(take, "r2"), *(number(take(name), ".2f") for name in ("r2_adjusted", "r2_p", "spearman"))]
