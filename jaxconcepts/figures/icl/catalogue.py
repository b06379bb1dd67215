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
    "CD is the share of prompts whose concept has the majority among the {k} nearest neighbours of their hidden state "
    "(last prompt token, residual stream before the final norm, Euclidean distance, leave one out). Prompts with the "
    "same query do not vote for each other, and tied votes are shared. CD is the mean over draws of {per_draw} prompts "
    "a concept; draws share no prompt. Null, whose answers are random, is in the draws but not in averages."
)
UNTRAINED = (
    "Compare CD with its controls rather than with chance. On such prompts it can be above chance without any "
    "training, because attention averages over the demonstrated answers, which differ by concept."
)
CONTROLS = (
    "The controls use the same kNN on other states: the bag of the prompt's tokens, the bag of the demonstrated "
    "answers' tokens, and hidden states of a model of the same shape with random weights, at its best layer. The "
    "interval of the difference takes into account that CD and a control of the same prompts vary together."
)
HEADLINE = "In each cell the headline layer is the best one on separate prompts."
ACCURACY = (
    "Accuracy is exact match of greedy answers. Bars are 95 % intervals. That of accuracy counts prompts with the same "
    "query as one, and that of CD takes shared neighbours into account."
)
CHANCE = (
    "Dotted lines in the colour of a concept: its CD under permuted labels. A hollow cross: all states of the layer "
    "are equal, so CD says nothing."
)
ASSOCIATION = (
    "The interval counts as many points as there are concepts. These are few, so it is wide. It begins at 0 "
    "if there may be no relation. Adjusted R² is 0 on average without a relation. p is the share of random pairings "
    "of concepts with at least this R²."
)
PAPER = "Hollow marks: numbers of the paper's figure 4, if the model is the paper's."
PROMPTED = (
    "Hollow marks: means over concepts of the paper's table 1, if the model is the paper's, for plain prompts and for "
    "prompts that state the rule (parts of speech) or the operator's name (bit operations)."
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
        "Mean over the concepts without Null. Bands are 95 % intervals, and dots mark the headline layer. Broken "
        "line: the 95 % point of CD under permuted labels, at the most shots. Grey dotted line: its mean. Grey "
        f"columns: layers whose states are all equal, so CD says nothing. {UNTRAINED} In the colour of the shots, "
        "dotted lines are an untrained model of the same shape, and horizontal dash-dotted lines are the bag of the "
        f"shown answers. {CD}",
        outcome=outcomes.layers,
    ),
    Entry(
        "icl_scatter",
        "Does CD predict accuracy?",
        icl.scatter,
        "A mark is a concept at a number of shots, at the last checkpoint. Larger marks have more shots. The line "
        "is the least-squares fit without Null. R² and Spearman's correlation are over all marks except Null's. "
        f"{ASSOCIATION} {HEADLINE} {PAPER}",
        outcome=outcomes.scatter,
    ),
    Entry(
        "icl_series",
        "Over pretraining",
        icl.over_checkpoints,
        "Accuracy and headline CD of each concept at every checkpoint, R² of accuracy on CD over all shots with its "
        "interval, and the loss of the right answer (minus its log-probability, summed over its tokens). Dotted "
        f"line in the third panel: R² of concepts paired at random. {ASSOCIATION} {HEADLINE} {CHANCE} {UNTRAINED}",
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
        "Which concepts are separated?",
        partial(icl_concepts.matrices, metric="pairwise_cd"),
        "CD within each pair of concepts at the headline layer: only the prompts of the pair are scored and vote. "
        "Chance is 0.5.",
        outcome=outcomes.pairs,
        lead=False,
    ),
    Entry(
        "icl_confusion",
        "Which rule do wrong answers follow?",
        partial(icl_concepts.matrices, metric="confusion"),
        "A row is the concept of the prompt. A column is a concept whose rule gives the model's wrong answer. Cells "
        "are shares of the row's wrong answers. An answer that several rules give counts for each, so a row may sum "
        "to more than one.",
        outcome=outcomes.confusion,
        lead=False,
    ),
    Entry(
        "icl_hidden",
        "Hidden states",
        icl_concepts.hidden_states,
        "Principal components of the points of each panel, with one dot for each prompt. Above each panel is its "
        "mean CD in the full width, over all draws. A projection alone can show clusters that do not exist, and hide "
        "real ones.",
        each=True,
        outcome=outcomes.hidden,
        lead=False,
    ),
)
TABLE_NOTE = (
    "Means over concepts without Null at the last checkpoint, with 95 % intervals. CD is at the headline layer. “Same "
    "query too”: prompts with the same query vote for each other. Then come the controls, and CD minus the highest "
    "control. p: of the headline layer, under permuted labels. A dash: undefined or not measured."
)
ASSOCIATION_NOTE = (
    "R² and Spearman: accuracy against CD over the concepts of a cell, and in rows “all” over all shots together. The "
    "interval of R² counts as many points as there are concepts. Adjusted R² is 0 on average without a "
    "relation. p(R²) is the share of pairings of concepts with at least this R². A dash: undefined or not measured."
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
