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
INTERVAL = "Bars are 95 % intervals; prompts with the same query count as one."


ENTRIES = (
    Entry(
        "patching",
        "Accuracy after a patch, by layer",
        causal.patching,
        f"{LAST} at one layer. Positive: it becomes the mean state of correctly answered prompts of the same concept. "
        "Negative: of prompts without information. Other: of another concept. Random: the positive state plus a random "
        f"direction, as long as the difference of positive and negative. {INTERVAL}",
        outcome=outcomes.patching,
    ),
    Entry(
        "patched",
        "Accuracy after a patch, at one layer",
        causal.patched,
        f"{LAST} at one layer. For the paper's model this is the paper's layer (15 for parts of speech, 13 for bit "
        "operations). Else it is the layer with the largest difference between the positive and the negative patch on "
        f"these prompts, so this difference is somewhat too large. {INTERVAL} Diamonds: numbers of the paper's figure "
        "20 and their mean, where model and shots are the same.",
        outcome=outcomes.patched,
    ),
    Entry(
        "vectors",
        "Task vectors and function vectors",
        causal.vectors,
        "Accuracy without demonstrations. Task vector: the mean state of few-shot prompts replaces the state at the "
        "last token. Function vector: the outputs of the heads with the largest indirect effects are added there. "
        "The layer is the best one on other prompts. Shuffled: few-shot prompts whose demonstrated answers are "
        f"permuted, so they are still answers of the concept. {INTERVAL}",
        outcome=outcomes.vectors,
    ),
    Entry(
        "effects",
        "Heads' indirect effects",
        causal.effects,
        "The prompt has shuffled labels. The output of one head at the last token is replaced by its mean over "
        "correctly answered prompts. Shown is the rise of the right answer's probability: mean over concepts, and "
        "each concept.",
        outcome=outcomes.effects,
    ),
    Entry(
        "steering",
        "Steering toward another concept",
        causal.steering,
        f"{LAST}: a multiple of the difference between another concept's mean and the own concept's mean is added. "
        "Shown is the share of answers that the other concept would give, with one line for each scale. Broken "
        "lines: a random direction of the same length. Bands are 95 % intervals; prompts with the same query count as "
        "one.",
        outcome=outcomes.steering,
    ),
    Entry(
        "heads",
        "Accuracy without one head",
        causal.heads,
        "Change of accuracy when one head's output in the prompt is replaced by its mean over prompts and tokens: mean "
        "over concepts, and each concept.",
        outcome=outcomes.heads,
    ),
    Entry(
        "interchange",
        "Interchange patching, layer by token",
        causal.interchange,
        "The demonstrations have the answers of another concept. One state is replaced by that of the same prompt with "
        "its own answers. Shown is the share of the logit difference that this restores. Tokens are counted from the "
        "end.",
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
        yield Section("", f"{family}: {concept}", missing="skipped: none of its prompts has a correct answer")
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
