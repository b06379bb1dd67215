"""What the figures of the in-context study read: its tables, and the paper's numbers where the model is the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from jaxconcepts import store
from jaxconcepts.figures import paper

# What CD is held against, and how it is called.
CONTROLS = {
    "prompt_tokens": "the prompt's tokens",
    "shown_answers": "the answers shown",
    "untrained": "an untrained model",
}


@dataclass(frozen=True)
class IclTables:
    """The study's tables. metrics: of all cells. fits: over all shots. models: a row a checkpoint. hidden: states kept
    for projections, None where none were. config: what the cells were measured with."""

    metrics: pl.DataFrame
    fits: pl.DataFrame
    models: pl.DataFrame
    hidden: pl.DataFrame | None
    config: dict[str, Any]

    @cached_property
    def steps(self) -> list[int]:
        return self.metrics["step"].unique().sort().to_list()

    @cached_property
    def controls(self) -> list[str]:
        """Which controls CD was held against, in order."""
        there = set(self.metrics["metric"])
        return [name for name in CONTROLS if f"cd_{name}" in there]

    @cached_property
    def families(self) -> list[str]:
        """In the order of the config, those that have a cell."""
        there = set(self.metrics["family"])
        return [family for family in self.config["labels"] if family in there]

    def labels(self, family: str) -> list[str]:
        """Concepts by number, Null last."""
        return self.config["labels"][family]

    def null(self, family: str) -> int | None:
        """The number of Null, None without one."""
        return len(self.labels(family)) - 1 if self.config["null"][family] is not None else None

    def concepts(self, family: str) -> range:
        """The numbers of the concepts without Null."""
        return range(len(self.labels(family)) - (self.null(family) is not None))

    def shots(self, family: str, variant: str = "plain") -> list[int]:
        return self._cells(family, variant)["shots"].unique().sort().to_list()

    def variants(self, family: str) -> list[str]:
        """In the order of the config."""
        there = set(self.metrics.filter(family=family)["variant"])
        return [variant for variant in self.config["variants"] if variant in there]

    def usual_shots(self, family: str, variant: str = "plain") -> int | None:
        """Four, the paper's default, or the number nearest to it."""
        return min(self.shots(family, variant), key=lambda shots: abs(shots - 4), default=None)

    def values(self, metric: str, family: str, *, variant: str = "plain", **keys: Any) -> pl.DataFrame:
        """The rows of a metric; keys: shots, step, layer, concept, other, None for null. By default the last step."""
        keys = {"step": self.steps[-1]} | keys
        chosen = self._cells(family, variant).filter(metric=metric)
        return chosen.filter(*(pl.col(name).eq_missing(pl.lit(value)) for name, value in keys.items()))

    def value(self, metric: str, family: str, **keys: Any) -> float:
        """One number: concept, other and layer are null where not given. NaN where it was not measured."""
        found = self.values(metric, family, **({"layer": None, "concept": None, "other": None} | keys))["value"]
        return float(found[0]) if len(found) else np.nan

    def headline(self, metric: str, family: str, **keys: Any) -> float:
        """A number of the cell's headline layer."""
        cell = {name: keys[name] for name in ("variant", "shots", "step") if name in keys}
        layer = self.value("headline_layer", family, **cell)
        return self.value(metric, family, layer=int(layer), **keys) if np.isfinite(layer) else np.nan

    def fit(self, metric: str, family: str, variant: str = "plain", step: int | None = None) -> float:
        """A number of the fit over all shots."""
        at = self.steps[-1] if step is None else step
        found = self.fits.filter(metric=metric, family=family, variant=variant, step=at)["value"]
        return float(found[0]) if len(found) else np.nan

    @cached_property
    def paper_model(self) -> str | None:
        """Which of the paper's models the last checkpoint is; None where none."""
        if not self.models.height:
            return None
        row = self.models.sort("step").row(-1, named=True)
        return paper.model_of(row, row["checkpoint"])

    def paper(self, family: str) -> pl.DataFrame | None:
        """The paper's CD and accuracy by concept and shots (read off its figure 4) where the model is the same: columns
        concept, shots, cd, accuracy."""
        if self.paper_model != paper.LLAMA_31_8B:
            return None
        number = {name: i for i, name in enumerate(self.labels(family))}
        rows = paper.table("fig4_llama31_8b").filter(family=family).filter(pl.col("task").is_in(list(number)))
        if not rows.height:
            return None
        return rows.select(
            pl.col("task").replace_strict(number, return_dtype=pl.Int32).alias("concept"),
            "shots", "cd", (pl.col("accuracy_percent") / 100).alias("accuracy"),
        )  # fmt: skip

    def paper_prompted(self, family: str) -> dict[str, paper.Mean]:
        """The paper's means over concepts by variant, plain and with the task stated (its table 1), at `paper.SHOTS`;
        empty where the model is another one."""
        if self.paper_model != paper.LLAMA_31_8B or family not in paper.STATED:
            return {}
        conditions = {"plain": "pretrained", paper.STATED[family]: "prompting"}
        return {variant: paper.mean(condition, family) for variant, condition in conditions.items()}

    def paper_r2(self, family: str) -> float:
        """The paper's R², NaN where it has none of this model."""
        rows = paper.table("r2_models").filter(pl.col("model") == pl.lit(self.paper_model))
        column = f"{family}_r2"
        return float(rows[column][0]) if rows.height and column in rows.columns else np.nan

    def _cells(self, family: str, variant: str) -> pl.DataFrame:
        return self.metrics.filter(family=family, variant=variant)


def load(root: epath.Path) -> IclTables | None:
    """The in-context study of a run directory, None where there is none."""
    metrics = store.results(root, "icl", "metrics")
    if metrics is None:
        return None
    found = {kind: store.results(root, "icl", kind) for kind in ("fits", "models", "hidden")}
    fits = metrics.clear() if found["fits"] is None else found["fits"]
    models = pl.DataFrame() if found["models"] is None else found["models"]
    return IclTables(metrics, fits, models, found["hidden"], store.config(root / "icl"))
