"""The paper's numbers (arXiv 2412.12276), as read off its figures and tables, and which runs they may stand beside.

They are drawn beside a run of the same model on the same prompts alone: plain or stated as in the paper, with as many
demonstrations. `jaxconcepts/data` holds them, a file a figure or table.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import polars as pl

# The one model whose numbers by concept the paper shows, and its shape.
LLAMA_31_8B = "Llama-3.1-8B"
SHAPE = {"model_type": "llama", "layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "vocab_size": 128256}
CONTEXT = 131072
# Those of which it gives R² alone: known by their names.
OTHERS = ("Llama-3.1-70B", "Gemma-2-2B", "Gemma-2-9B", "Gemma-2-27B")
# What the name of a model must not hold: it was tuned, or is Llama 3, of the same shape.
NOT_IN_NAME = ("instruct", "chat", "-it", "llama-3-8b")

# Its tables and figures of interventions are of prompts with so many demonstrations, at these layers.
SHOTS = 4
LAYERS = {"pos": 15, "bitwise": 13}
# Table 1's prompts that state the task: a sentence that says the rule, or the operator's name.
STATED = {"pos": "rule", "bitwise": "name"}

MARK = {"linestyle": "", "markerfacecolor": "white", "markersize": 4.5, "markeredgewidth": 1.0, "zorder": 2.5}
LABEL = f"read off the paper, {LLAMA_31_8B}"


class Mean(NamedTuple):
    """Over a family's concepts, both from 0 to 1."""

    cd: float
    accuracy: float


def model_of(sizes: Mapping[str, Any], name: str) -> str | None:
    """Which of the paper's models a checkpoint is: by its sizes for the one that has numbers by concept, by its name
    for the others; None where none.

    sizes: those of `SHAPE`, and where it was recorded the context. name: the checkpoint's.
    """
    name = name.lower()
    if any(part in name for part in NOT_IN_NAME):
        return None
    if all(sizes.get(field) == value for field, value in SHAPE.items()) and sizes.get("context", CONTEXT) == CONTEXT:
        return LLAMA_31_8B
    return next((model for model in OTHERS if model.lower() in name), None)


def table(name: str) -> pl.DataFrame:
    """One of the files of `jaxconcepts/data`, without its ending."""
    return pl.read_csv((resources.files("jaxconcepts") / "data" / f"{name}.csv").read_bytes())


def mean(condition: str, family: str) -> Mean | None:
    """A row of table 1 ("pretrained", "finetune_first10", "finetune_last10", "prompting"), None for other families."""
    if family not in LAYERS:
        return None
    row = table("table1_finetune").row(by_predicate=pl.col("condition") == condition, named=True)
    return Mean(row[f"{family}_cd"], row[f"{family}_acc"] / 100)
