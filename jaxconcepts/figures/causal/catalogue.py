"""The page of the causal study of a language model: its figures, what is said under each, the prompts behind them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from html import escape
from typing import NamedTuple

import polars as pl
from etils import epath
from matplotlib.figure import Figure

from jaxconcepts import store
from jaxconcepts.figures import page, paper, style
from jaxconcepts.figures.causal import panels as causal
from jaxconcepts.figures.tables import MissingData

KINDS = ("patching", "task_vectors", "function_vectors", "steering", "heads", "interchange", "concepts")
LAST = "The state at the prompt's last token is changed"
INTERVAL = "Means over replicates of disjoint prompts with 95 % t intervals."


class CausalEntry(NamedTuple):
    """draw(tables of one family by kind) -> Figure; an absent table is None. "paper": the paper's numbers."""

    name: str
    title: str
    draw: Callable[..., Figure]
    caption: str


ENTRIES = (
    CausalEntry(
        "patching",
        "Accuracy after a patch, by layer",
        causal.patching,
        f"{LAST}, layer by layer: positive, the mean state of rightly answered prompts of the same concept; negative, "
        f"of prompts without information; other, of another concept; random, a random direction as long as the way "
        f"from positive to negative. {INTERVAL}",
    ),
    CausalEntry(
        "patched",
        "Accuracy after a patch, at one layer",
        causal.patched,
        f"{LAST} at one layer: the one that was patched in the paper (15 for parts of speech, 13 for bit operations) "
        "where its model is the same, else the one where the positive patch and the negative one are furthest apart on "
        f"these prompts, which flatters the difference somewhat. {INTERVAL} Diamonds, where model and shots are the "
        "same: its numbers, read off its figure 20; over all: their mean.",
    ),
    CausalEntry(
        "vectors",
        "Task vectors and function vectors",
        causal.vectors,
        f"Accuracy without demonstrations when the mean state of few-shot prompts is written at the last token (task "
        f"vector), or the output of the heads with the largest indirect effects is added there (function vector), at "
        f"the layer that is best on other prompts. Shuffled: few-shot prompts whose demonstrated answers are dealt out "
        f"anew among the demonstrations, so that they still are answers of the concept. {INTERVAL}",
    ),
    CausalEntry(
        "effects",
        "Heads' indirect effects",
        causal.effects,
        "Rise of the right answer's probability when one head's output at the last token of a prompt with shuffled "
        "labels becomes its mean over rightly answered prompts; mean over concepts, and each concept.",
    ),
    CausalEntry(
        "steering",
        "Steering toward another concept",
        causal.steering,
        f"{LAST} by a multiple of the way from the own concept's mean to another's: the share of answers that are what "
        "the other concept would answer. A line a scale; broken: a random direction of that length.",
    ),
    CausalEntry(
        "heads",
        "Accuracy without one head",
        causal.heads,
        "Change of accuracy when one head is set to its mean over prompts and tokens, in the prompt; mean over "
        "concepts, and each concept.",
    ),
    CausalEntry(
        "interchange",
        "Interchange patching, layer by token",
        causal.interchange,
        "Prompts whose demonstrations are answered by another concept, run with one state of the same prompt answered "
        "by its own: the share of the logit difference that the state restores. Tokens are counted from the end.",
    ),
)


def write_report(workdir: epath.PathLike) -> epath.Path:
    """Draws every figure that the tables of WORKDIR/causal allow, as PNG and SVG, and causal.html; returns its path."""
    root = epath.Path(workdir).expanduser()
    tables = {kind: store.results(root, "causal", kind) for kind in KINDS}
    if tables["concepts"] is None:
        raise ValueError(f"workdir must hold a causal study, but there is nothing in {root / 'causal'}")
    config, same = json.loads((root / "causal/config.json").read_text()), _is_the_papers(root)
    (root / "figures").mkdir(exist_ok=True)
    parts, missing = [], []
    for family in tables["concepts"]["family"].unique(maintain_order=True).to_list():
        own = {kind: None if t is None else t.filter(family=family) for kind, t in tables.items()}
        compared = same and family in paper.LAYERS and config["shots"] == paper.SHOTS
        own["paper"] = paper.table("fig20_patching").filter(family=family) if compared else None
        for name, title, draw, caption in ENTRIES:
            try:
                figure = draw(own)
            except MissingData as error:
                missing.append(f"{family}: {title}: {error}")
                continue
            png, svg = style.render(figure)
            file = f"causal_{name}_{family}"
            (root / "figures" / f"{file}.png").write_bytes(png)
            (root / "figures" / f"{file}.svg").write_bytes(svg)
            data = base64.b64encode(png).decode()
            parts.append(
                f'<h2>{escape(family)}: {escape(title)}</h2>\n<figure id="{file}"><img alt="{escape(title)}" '
                f'src="data:image/png;base64,{data}">\n<figcaption>{escape(caption)} <i>figures/{file}.svg</i>'
                "</figcaption></figure>"
            )
    path = root / "causal.html"
    path.write_text(_page(parts, missing, tables["concepts"], config))
    return path


def _is_the_papers(root: epath.Path) -> bool:
    """Whether the study is of the model whose numbers by concept the paper has."""
    models = store.results(root, "causal", "models")
    if models is None:
        return False
    row = models.row(0, named=True)
    return paper.model_of(row, row["checkpoint"]) == paper.LLAMA_31_8B


def _page(parts, missing, concepts: pl.DataFrame, config) -> str:
    skipped = concepts.filter(~pl.col("used"))
    lines = [f"{f}: {k} is skipped, none of its prompts is answered rightly" for f, k, *_ in skipped.iter_rows()]
    notes = "".join(f"<li>{escape(line)}</li>" for line in [*lines, *missing])
    counts = "".join(
        f"<tr><td>{escape(f)}</td><td>{escape(k)}</td><td>{count}</td></tr>" for f, k, count, _ in concepts.iter_rows()
    )
    return "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Causal study</title>'
            f'<link rel="icon" href="data:,"><style>{page.CSS}</style></head><body>',
            "<h1>What the encoded concept causes</h1>",
            f'<div class="missing" id="missing"><p><b>Not shown</b></p><ul>{notes}</ul></div>' if notes else "",
            *parts,
            "<h2>Prompts behind the means</h2>",
            f"<table><tr><th>family</th><th>concept</th><th>prompts</th></tr>{counts}</table>",
            f"<h2>Configuration</h2><pre>{escape(json.dumps(config, indent=2))}</pre></body></html>\n",
        ]
    )
