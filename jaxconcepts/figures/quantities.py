"""Figures of whatever was measured that no other figure shows, such as a user's own evaluator: a figure a metric.

Values over steps, a line a layer where there are layers, with the unit on the axis and the line of chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import matplotlib
import numpy as np
import polars as pl
from matplotlib.figure import Figure

from jaxconcepts.figures import style, words
from jaxconcepts.figures.panels import Panels
from jaxconcepts.figures.section import Entry
from jaxconcepts.figures.tables import REFERENCES, Curve, Study

DRAWN = {"loss", "train_loss", "cd", "cd_low", "cd_high", "cd_points"}
DRAWN |= {f"{metric}_{reference}" for metric in ("loss", "distance") for reference in REFERENCES}
"""Metrics that the figures of `regression.catalogue` show, where their rows have no label."""
TOKENS = ("x", "y")
PANELS = 12
LINES = 8
HIGHER_IS_BETTER = ("fraction", "AUC", "area", "correlation")
"""Units of which more is better; of others "best" would say too much."""
SAID = 4
"""The most labels that a sentence names one by one."""
COMPANIONS = {
    "ceiling": {"color": "#009E73", "linestyle": (0, (6, 2))}, "exact": {"color": "#009E73", "linestyle": (0, (6, 2))},
    "untrained": {"color": "#D55E00", "linestyle": (0, (4, 2))},
    "before": {"color": "#CC79A7", "linestyle": (0, (4, 2))},
    "position": {"color": "#56B4E9", "linestyle": (0, (4, 2))}, "majority": style.CHANCE_STYLE,
}  # fmt: skip
"""What a metric may be measured beside: `probe_untrained` is drawn as a level in the figure of `probe`."""
CAPTION = (
    "{metric}{unit} at every measured step{over}; at most 12 panels of a run, label and token, and 8 lines in each. "
    "The mean over concepts and positions if there is one, else each. A dotted line is what something that knows "
    "nothing scores, where the evaluator says so.{beside}"
)


def entries(study: Study) -> list[Entry]:
    """An entry for each metric with rows that no other figure shows, in the order of names."""
    rows = _rest(study.metrics)
    made, beside = [], _companions(rows)
    for metric in rows["metric"].unique().sort().to_list():
        if metric in beside:
            continue
        levels = [_kind(name) for name, base in beside.items() if base == metric]
        told = f" Levels beside it, of the highest layer: {', '.join(levels)}." if levels else ""
        unit, _ = _about(study, metric)
        layers = rows.filter(metric=metric)["layer"].null_count() == 0
        over = ", a line a layer (0: the embeddings)" if layers else ""
        caption = CAPTION.format(metric=metric, unit=f" in {unit}" if unit else "", over=over, beside=told)
        name = f"measured_{metric}"
        said = partial(outcome, metric=metric)
        made.append(Entry(name, _title(metric), partial(draw, metric=metric), caption, over_steps=True, outcome=said))
    return made


@style.styled
def draw(study: Study, runs: Sequence[str], *, metric: str, step_scale: str = "auto") -> Figure:
    """A panel a run, label and token. Lines have gids "<run>/<metric>/<label>/<token>/<layer, concept or position>".

    Raises MissingData where none of the runs has the metric.
    """
    rows = _rest(study.metrics).filter(pl.col("metric") == metric, pl.col("run").is_in(list(runs)))
    keys = list(rows.select("run", "label", "token").unique(maintain_order=True).iter_rows())
    keys = sorted(keys, key=lambda key: (runs.index(key[0]), key[1] or "", key[2] or ""))[:PANELS]
    unit, _ = _about(study, metric)
    beside = _companions(_rest(study.metrics))
    several = len(runs) > 1
    titles = [", ".join(filter(None, (several and study.label(run), *of))) or study.label(run) for run, *of in keys]
    panels = Panels(titles or [""], "training step", f"{_title(metric)} ({unit})" if unit else _title(metric))
    for axis, (run, label, token) in zip(panels.axes, keys, strict=False):
        part = rows.filter(
            pl.col("run") == run, pl.col("label").eq_missing(pl.lit(label)), pl.col("token").eq_missing(pl.lit(token))
        )
        chance = _about(study, metric, run, label)[1]
        if chance is not None:
            panels.chance(axis, chance, f"{run}/{metric}/{label}/chance")
        for name in (name for name, base in beside.items() if base == metric):
            level = _level(study, name, run, label, token)
            if np.isfinite(level):
                kind = _kind(name)
                panels.level(axis, level, f"{run}/{name}/{label or ''}/{token or ''}", kind, **COMPANIONS[kind])
        for what, place, color, curve in _curves(part):
            gid = "/".join(
                str(key) for key in (run, metric, label or "", token or "", what if place is None else place)
            )
            panels.line(axis, curve, gid, what if place is None else f"{what} {place}", color=color)
    # Shares of something, such as of headroom, may be less than none and more than all.
    shares = unit == "fraction" and rows["value"].drop_nulls().drop_nans().is_between(0, 1).all()
    return panels.finish(metric, step_scale=step_scale, errors=False if shares else None)


def outcome(study: Study, runs: Sequence[str], *, metric: str) -> str:
    """The last value of each label and token, of layers the highest one's; of more than `SAID` two."""
    rows = _rest(study.metrics).filter(pl.col("metric") == metric, pl.col("run").is_in(list(runs)))
    said: dict[str, list[float]] = {}
    for (_, label, token), part in rows.group_by("run", "label", "token", maintain_order=True):
        said.setdefault(", ".join(filter(None, (label, token))), []).append(_best_of_last(part))
    means = {name: words.mean(values) for name, values in said.items() if np.isfinite(words.mean(values))}
    names = sorted(means, key=means.get, reverse=True)
    if not names:
        return ""
    higher = _about(study, metric)[0] in HIGHER_IS_BETTER
    best = f"the {'best' if higher else 'highest'} layer's " if rows["layer"].null_count() == 0 else ""
    shown = names if len(names) <= SAID else [names[0], names[-1]]
    parts = [f"{words.over_runs(said[name], '.3g')}{f' for {name}' if name else ''}" for name in shown]
    chances = {_about(study, metric, run, label)[1] for run, label in rows.select("run", "label").unique().iter_rows()}
    chance = f"; chance is {chances.pop():.3g}" if len(chances) == 1 and None not in chances else ""
    joined = " down to ".join(parts) if len(names) > SAID else ", ".join(parts)
    drawn = rows.select("run", "label", "token").n_unique()
    left_out = f" The first {PANELS} of {drawn} courses are drawn." if drawn > PANELS else ""
    return f"At the last measurement {best}{_title(metric)} is {joined}{chance}.{left_out}"


def _rest(metrics: pl.DataFrame) -> pl.DataFrame:
    token_shown = pl.col("token").is_null() | pl.col("token").is_in(TOKENS)
    shown = pl.col("metric").is_in(sorted(DRAWN)) & pl.col("label").is_null() & token_shown
    of_ends = pl.col("metric").is_in(["cd_points", "cd_low", "cd_high"])
    return metrics.filter(~shown & ~of_ends)


def _kind(name: str) -> str:
    """Which of `COMPANIONS` a metric is, by its name; "" for none."""
    return next((kind for kind in COMPANIONS if f"_{kind}" in name), "")


def _companions(rows: pl.DataFrame) -> dict[str, str]:
    """The metric beside which one is drawn, by name: `probe_mcc` of `probe_untrained_mcc`, if their labels agree."""
    keys: dict[str, set] = {}
    for metric, *key in rows.select("metric", "label", "token").unique().sort("metric").iter_rows():
        keys.setdefault(metric, set()).add(tuple(key))
    bases = {name: name.replace(f"_{kind}", "", 1) for name in keys if (kind := _kind(name))}
    return {name: base for name, base in bases.items() if keys[name] <= keys.get(base, set())}


def _level(study: Study, metric: str, run: str, label: str | None, token: str | None) -> float:
    """A companion's last value, of layers the highest one's; NaN where it was not measured."""
    part = study.part(run, metric).filter(
        pl.col("label").eq_missing(pl.lit(label)), pl.col("token").eq_missing(pl.lit(token))
    )
    best = _best_of_last(part)
    return float("nan") if best is None else best


def _about(study: Study, metric: str, run: str | None = None, label: str | None = None) -> tuple[str, float | None]:
    """The unit and the chance of a metric, of one run and label where they differ; what is not known is "" and None."""
    table = study.quantities.filter(pl.col("metric") == metric)
    if run is not None:
        labelled = pl.col("label").is_null() | pl.col("label").eq_missing(pl.lit(label))
        table = table.filter(pl.col("run") == run, labelled)
    return (table["unit"][0], table["chance"][0]) if table.height else ("", None)


def _curves(part: pl.DataFrame):
    """(axis, place on it, colour, curve) of the lines of a panel: by layer, else concept, else position."""
    part = _whole(part)
    axis = next((axis for axis in ("layer", "concept", "position") if part[axis].null_count() < part.height), None)
    if axis is None:
        yield "model", None, style.MODEL_COLOR, _curve(part)
        return
    places = part[axis].drop_nulls().unique().sort().to_list()
    kept = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, min(LINES, len(places))).round().astype(int))]
    colors = matplotlib.colormaps[style.STEP_COLORMAP](np.linspace(0.05, 0.9, max(len(kept), 2)))
    for place, color in zip(kept, colors, strict=False):
        color = style.concept_color(place) if axis == "concept" else color
        yield axis, place, color, _curve(part.filter(pl.col(axis) == place))


def _whole(part: pl.DataFrame) -> pl.DataFrame:
    """The rows of the mean over concepts, and over positions, where there are such."""
    for axis in ("concept", "position"):
        whole = part.filter(pl.col(axis).is_null())
        part = whole if whole.height else part
    return part


def _best_of_last(part: pl.DataFrame) -> float | None:
    """The last value, of layers the highest one's; None where there is none."""
    last = _whole(part.filter(pl.col("step") == pl.col("step").max())).filter(pl.col("value").is_finite())
    return last.group_by("layer").agg(pl.col("value").mean())["value"].max()


def _curve(part: pl.DataFrame) -> Curve:
    """The mean over what is left, by step."""
    mean = part.group_by("step").agg(pl.col("value").mean()).sort("step")
    values = mean["value"].to_numpy().copy()
    values[~np.isfinite(values)] = np.nan
    return Curve(mean["step"].to_numpy(), values)


def _title(metric: str) -> str:
    return metric.replace("_", " ")
