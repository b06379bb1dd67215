"""What the figures read: curves, reference levels and CD maps picked out of a run directory's tidy tables.

`Study` wraps the tables of `jaxconcepts.store` (columns run, step, metric, layer, token, concept, position, value; an
absent key is null). Losses come out as they are stored, as raw squared errors; `Study.rank` is what the figures divide
by. Nothing here draws, and nothing here computes a score again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from jaxconcepts.store import QUANTITIES

# The order of legends and table columns: from knowing nothing to knowing the concept.
REFERENCES = ("zero", "average", "knn3", "ridge", "lasso", "bayes", "oracle")
SQUARED_ERROR, CROSS_ENTROPY = "squared error / r", "cross-entropy (nats a token)"
KEYS = ("layer", "token", "concept", "position")


class MissingData(ValueError):
    """The tables do not hold what a figure is drawn from; the message says which metric."""


class Curve(NamedTuple):
    """A metric over training: steps [S], strictly rising, and values [S] (non-finite values as NaN)."""

    steps: np.ndarray
    values: np.ndarray


class CDMap(NamedTuple):
    """CD of every measured layer and step: layers [L], steps [S], values [L, S] (NaN where not measured)."""

    layers: np.ndarray
    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Study:
    """The tables of one run directory.

    metrics: the tidy table. runs: a row a run. config: the nested configuration. quantities: unit and chance of what
    was measured (`store.quantities`).
    """

    metrics: pl.DataFrame
    runs: pl.DataFrame
    config: Mapping[str, Any]
    quantities: pl.DataFrame = field(default_factory=partial(pl.DataFrame, schema=QUANTITIES))

    @cached_property
    def names(self) -> list[str]:
        """All runs, in the order of their point and seed."""
        rows = self.runs.sort([c for c in ("point", "seed", "run") if c in self.runs.columns])
        names = rows["run"].to_list()
        known = set(names)
        return names + [run for run in self.metrics["run"].unique().sort().to_list() if run not in known]

    @cached_property
    def _rows(self) -> dict[str, dict[str, Any]]:
        return {row["run"]: row for row in self.runs.iter_rows(named=True)}

    @cached_property
    def _parts(self) -> dict[tuple, pl.DataFrame]:
        return self.metrics.sort("step").partition_by("run", "metric", as_dict=True)

    @cached_property
    def _last_steps(self) -> dict[str, int]:
        return dict(self.metrics.group_by("run").agg(pl.col("step").max()).iter_rows())

    @cached_property
    def _varied(self) -> list[str]:
        """The hyper-parameters in which the runs differ."""
        dotted = [name for name in self.runs.columns if "." in name and not name.endswith(".seed")]
        return [name for name in dotted if self.runs[name].n_unique() > 1]

    def row(self, run: str) -> dict[str, Any]:
        """The run's row of the runs table, empty where it has none."""
        return self._rows.get(run, {})

    def label(self, run: str) -> str:
        """What tells this run from the others: the hyper-parameters that vary, and the seed."""
        row, parts = self.row(run), list(self.fields(run))
        parts += [f"seed {row['seed']}"] if row.get("seed") is not None else [] if parts else [run]
        if self.diverged(run):
            parts.append("diverged" + (f" at {row['diverged_at']}" if row.get("diverged_at") is not None else ""))
        return ", ".join(parts)

    def fields(self, run: str) -> tuple[str, ...]:
        """The hyper-parameters that vary and the run's values of them, in words."""
        names, row = short_names(self._varied), self.row(run)
        return tuple(f"{names[name]} {self._texts[name][row[name]]}" for name in self._varied if name in row)

    @cached_property
    def _texts(self) -> dict[str, dict[Any, str]]:
        """By field what each of its values is called: short, but for values that would be called the same."""
        made = {}
        for name in self._varied:
            values = self.runs[name].unique().to_list()
            texts = {value: _short(value) for value in values}
            many = len(set(texts.values())) < len(texts)
            made[name] = {value: str(value) for value in values} if many else texts
        return made

    def diverged(self, run: str) -> bool:
        """Whether the run diverged: what was measured since is the model's as it was frozen then."""
        return self.row(run).get("status") == "diverged"

    def setting(self, run: str, name: str) -> Any:
        """The hyper-parameter `name` (dotted) of a run, else of the configuration, else None."""
        value = self.row(run).get(name)
        node: Any = self.config
        for part in name.split(".") if value is None else ():
            node = node.get(part) if isinstance(node, Mapping) else None
        return node if value is None else value

    def rank(self, run: str) -> float:
        """r, what figures divide squared errors by (the second moment of y without noise); 1 if not recorded."""
        return float(self.setting(run, "task.rank") or 1)

    @property
    def loss_unit(self) -> str:
        """What losses are drawn in: a regression's config has a rank, a language training's has none."""
        return SQUARED_ERROR if self.setting("", "task.rank") else CROSS_ENTROPY

    def num_concepts(self, run: str) -> int:
        """K: as configured, else as many concepts as have a loss or a CD of their own."""
        configured = self.setting(run, "task.num_concepts")
        if configured:
            return int(configured)
        largest = self.metrics.filter(pl.col("run") == run)["concept"].max()
        return 1 if largest is None else int(largest) + 1

    def concept_label(self, concept: int) -> str:
        families = self.setting("", "task.families") or ()
        return str(families[concept]).replace("_", " ") if concept < len(families) else f"concept {concept}"

    def part(self, run: str, metric: str) -> pl.DataFrame:
        """All rows of one metric of one run, by step; empty if there are none."""
        return self._parts.get((run, metric), self.metrics.clear())

    def last(self, metric: str) -> pl.DataFrame:
        """The rows of a metric at the last step that each run has it at; empty if there are none."""
        rows = self.metrics.filter(pl.col("metric") == metric)
        return rows.filter(pl.col("step") == pl.col("step").max().over("run"))

    def has(self, metric: str) -> bool:
        return any((run, metric) in self._parts for run in self.names)

    def curve(self, run: str, metric: str, **keys: Any) -> Curve:
        """One metric over training; keys not given (layer, token, concept, position) must be null in the table."""
        part = self.part(run, metric)
        chosen = part.filter(*(pl.col(key).eq_missing(pl.lit(keys.get(key))) for key in KEYS))
        return Curve(chosen["step"].to_numpy(), _finite(chosen["value"]))

    def level(self, run: str, metric: str, **keys: Any) -> float:
        """A metric's last finite value: for references, written once, and for final numbers. NaN if there is none."""
        values = self.curve(run, metric, **keys).values
        values = values[np.isfinite(values)]
        return float(values[-1]) if values.size else math.nan

    def references(self, run: str, prefix: str = "loss") -> list[str]:
        """The references that have a `<prefix>_<reference>` metric in this run, in the fixed order."""
        return [name for name in REFERENCES if (run, f"{prefix}_{name}") in self._parts]

    def last_position(self, run: str) -> int | None:
        """The 0-based last pair, whose prediction has seen the most examples; None without losses by position."""
        return self.part(run, "loss")["position"].max()

    def by_position(self, run: str, metric: str, step: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """A loss of all concepts together by 0-based position, at one step (None: the first that is stored)."""
        part = self.part(run, metric).filter(pl.col("concept").is_null(), pl.col("position").is_not_null())
        first = pl.col("step").min()
        part = part.filter(pl.col("step") == (first if step is None else step)).sort("position")
        return part["position"].to_numpy(), _finite(part["value"])

    def cd_map(self, run: str, token: str = "x") -> CDMap:
        """CD of all concepts together, layer by step."""
        part = self.part(run, "cd").filter(
            pl.col("token") == token, pl.col("concept").is_null(), pl.col("layer").is_not_null()
        )
        layers, rows = np.unique(part["layer"].to_numpy(), return_inverse=True)
        steps, columns = np.unique(part["step"].to_numpy(), return_inverse=True)
        values = np.full((layers.size, steps.size), np.nan)
        values[rows, columns] = _finite(part["value"])
        return CDMap(layers, steps, values)

    def best_cd(self, run: str, token: str = "x") -> tuple[Curve, np.ndarray]:
        """The best layer's CD at every step, and which layer that is [S] (the lowest of equals)."""
        layers, steps, values = self.cd_map(run, token)
        measured = np.isfinite(values).any(axis=0)
        best = np.where(np.isfinite(values), values, -np.inf)[:, measured].argmax(axis=0) if layers.size else []
        return Curve(steps[measured], values[best, np.flatnonzero(measured)]), layers[best]

    def _last_best(self, run: str, best: Curve, token: str) -> float:
        """The best layer's CD of the last measurement, NaN where that gave no number."""
        steps = self.cd_map(run, token).steps
        return float(best.values[-1]) if best.steps.size and best.steps[-1] == steps[-1] else math.nan

    def interval_of_best(self, run: str, token: str = "x") -> tuple[np.ndarray, np.ndarray]:
        """(low, high) of the best layer's CD at every step of `best_cd`, NaN where they were not measured:
        the evaluator "cd_interval" measures them."""
        best, layers = self.best_cd(run, token)
        ends = []
        for metric in ("cd_low", "cd_high"):
            part = self.part(run, metric).filter(pl.col("token") == token)
            at = {(step, layer): value for step, layer, value in part.select("step", "layer", "value").iter_rows()}
            pairs = zip(best.steps.tolist(), layers.tolist(), strict=True)
            ends.append(np.array([at.get(pair, math.nan) for pair in pairs], np.float64))
        return ends[0], ends[1]

    def cd_points(self, run: str) -> int | None:
        """How many points each CD was computed on, where the metric `cd_points` tells."""
        values = self.part(run, "cd_points")["value"]
        return int(values[-1]) if len(values) and math.isfinite(values[-1]) else None

    def summary(self) -> pl.DataFrame:
        """The final numbers, a row a run; losses divided by the rank. NaN or null where not measured."""
        return pl.DataFrame([self._summary_row(run) for run in self.names], infer_schema_length=None)

    def _summary_row(self, run: str) -> dict[str, Any]:
        rank, last = self.rank(run), self.last_position(run)
        best, layers = self.best_cd(run)
        best_y, layers_y = self.best_cd(run, "y")
        cd = self._last_best(run, best, "x")
        ends = self.interval_of_best(run)
        low, high = (float(end[-1]) if best.values.size else math.nan for end in ends)
        losses = {}
        for where, keys in (("last", {"position": last}), ("mean", {})):
            known, values = where == "mean" or last is not None, self.curve(run, "loss", **keys).values
            losses[f"loss_{where}"] = float(values[-1]) / rank if known and values.size else math.nan
            for name in ("bayes", "ridge"):
                losses[f"{name}_{where}"] = self.level(run, f"loss_{name}", **keys) / rank if known else math.nan
        return {
            "run": run,
            "label": self.label(run),
            "status": self.row(run).get("status"),
            "step": self._last_steps.get(run, self.row(run).get("step")),
            "cd": cd,
            "cd_low": low,
            "cd_high": high,
            "cd_layer": int(layers[-1]) if best.values.size else None,
            "cd_y": self._last_best(run, best_y, "y"),
            "cd_y_layer": int(layers_y[-1]) if best_y.values.size else None,
            **losses,
        }


def short_names(names: Sequence[str]) -> dict[str, str]:
    """What dotted fields are called: by their last part, or in full where two of them end alike."""
    ends = [name.rpartition(".")[2] for name in names]
    return {name: end if ends.count(end) == 1 else name for name, end in zip(names, ends, strict=True)}


def _finite(values: pl.Series) -> np.ndarray:
    array = values.cast(pl.Float64).fill_null(math.nan).to_numpy().copy()
    array[~np.isfinite(array)] = np.nan
    return array


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
