"""The page of the causal study of a language model: its figures, what is said under each, the prompts behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl
from etils import epath

from jaxconcepts import store
from jaxconcepts.figures import paper, words
from jaxconcepts.figures.causal import outcomes
from jaxconcepts.figures.causal import panels as causal
from jaxconcepts.figures.section import Entry, Group, Section, Table, drawn
from jaxconcepts.figures.tables import MissingData

KINDS = ("patching", "task_vectors", "function_vectors", "steering", "heads", "interchange", "concepts")
LEADING = ("patching", "vectors", "steering")
"""The figures whose sentences stand at the head of the page."""
LAST = "The state at the prompt's last token is changed"
INTERVAL = "Means over replicates of disjoint prompts with 95 % t intervals."


ENTRIES = (
    Entry(
        "patching",
        "Accuracy after a patch, by layer",
        causal.patching,
        f"{LAST}, layer by layer: positive, the mean state of rightly answered prompts of the same concept; negative, "
        f"of prompts without information; other, of another concept; random, a random direction as long as the way "
        f"from positive to negative. {INTERVAL}",
        outcome=outcomes.patching,
    ),
    Entry(
        "patched",
        "Accuracy after a patch, at one layer",
        causal.patched,
        f"{LAST} at one layer: the one that was patched in the paper (15 for parts of speech, 13 for bit operations) "
        "where its model is the same, else the one where the positive patch and the negative one are furthest apart on "
        f"these prompts, which flatters the difference somewhat. {INTERVAL} Diamonds, where model and shots are the "
        "same: its numbers, read off its figure 20; over all: their mean.",
        outcome=outcomes.patched,
    ),
    Entry(
        "vectors",
        "Task vectors and function vectors",
        causal.vectors,
        f"Accuracy without demonstrations when the mean state of few-shot prompts is written at the last token (task "
        f"vector), or the output of the heads with the largest indirect effects is added there (function vector), at "
        f"the layer that is best on other prompts. Shuffled: few-shot prompts whose demonstrated answers are dealt out "
        f"anew among the demonstrations, so that they still are answers of the concept. {INTERVAL}",
        outcome=outcomes.vectors,
    ),
    Entry(
        "effects",
        "Heads' indirect effects",
        causal.effects,
        "Rise of the right answer's probability when one head's output at the last token of a prompt with shuffled "
        "labels becomes its mean over rightly answered prompts; mean over concepts, and each concept.",
        outcome=outcomes.effects,
    ),
    Entry(
        "steering",
        "Steering toward another concept",
        causal.steering,
        f"{LAST} by a multiple of the way from the own concept's mean to another's: the share of answers that are what "
        "the other concept would answer. A line a scale; broken: a random direction of that length. Bands: 95 % "
        "interval over replicates.",
        outcome=outcomes.steering,
    ),
    Entry(
        "heads",
        "Accuracy without one head",
        causal.heads,
        "Change of accuracy when one head is set to its mean over prompts and tokens, in the prompt; mean over "
        "concepts, and each concept.",
        outcome=outcomes.heads,
    ),
    Entry(
        "interchange",
        "Interchange patching, layer by token",
        causal.interchange,
        "Prompts whose demonstrations are answered by another concept, run with one state of the same prompt answered "
        "by its own: the share of the logit difference that the state restores. Tokens are counted from the end.",
        outcome=outcomes.interchange,
    ),
)


def group(root: epath.Path) -> Group | None:
    """All that the tables of WORKDIR/causal allow; None where there is no such study."""
    tables = {kind: store.results(root, "causal", kind) for kind in KINDS}
    if tables["concepts"] is None:
        return None
    config = store.config(root / "causal")
    made = list(_families(tables, config, _is_the_papers(root)))
    leading = [entry for entry in ENTRIES if entry.name in LEADING]
    said = [words.after(family, line) for family, of in made for entry in leading if (line := _said(entry, of))]
    return Group("What the encoded concept causes", _sections(tables, made), said)


def _said(entry: Entry, tables) -> str:
    try:
        return entry.outcome(tables)
    except MissingData:
        return ""


def _families(tables: Mapping[str, pl.DataFrame | None], config: Mapping, same: bool) -> Iterator[tuple[str, dict]]:
    """Each family with its own rows of the tables, and the paper's of the same prompts."""
    for family in tables["concepts"]["family"].unique(maintain_order=True).to_list():
        of_family = {kind: None if table is None else table.filter(family=family) for kind, table in tables.items()}
        compared = same and family in paper.LAYERS and config["shots"] == paper.SHOTS
        of_family["paper"] = paper.table("fig20_patching").filter(family=family) if compared else None
        yield family, of_family


def _sections(tables: Mapping[str, pl.DataFrame | None], families: list[tuple[str, dict]]) -> Iterator[Section]:
    concepts = tables["concepts"]
    for family, concept, *_ in concepts.filter(~pl.col("used")).iter_rows():
        yield Section("", f"{family}: {concept}", missing="skipped, none of its prompts is answered rightly")
    for family, of_family in families:
        for entry in ENTRIES:
            yield drawn(
                entry._replace(name=f"causal_{entry.name}"), of_family, suffix=f"_{family}",
                title=f"{family}: {entry.title}",
            )  # fmt: skip
    rows = [[family, concept, str(count)] for family, concept, count, _ in concepts.iter_rows()]
    table = Table("prompts", ("family", "concept", "prompts"), rows)
    yield Section("causal_prompts", "Prompts behind the means", table=table)


def _is_the_papers(root: epath.Path) -> bool:
    """Whether the study is of the model whose numbers by concept the paper has."""
    models = store.results(root, "causal", "models")
    if models is None:
        return False
    row = models.row(0, named=True)
    return paper.model_of(row, row["checkpoint"]) == paper.LLAMA_31_8B
