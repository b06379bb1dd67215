"""Figures of the in-context study: accuracy and CD by shots, layer, variant and pretraining step, and one against the
other. All are drawn from `icl_tables.IclTables`; what a table lacks raises MissingData."""

from __future__ import annotations

from functools import partial

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from jaxconcepts.figures import paper, style
from jaxconcepts.figures.icl import panels as icl_panels
from jaxconcepts.figures.icl.tables import CONTROLS, IclTables
from jaxconcepts.figures.tables import MissingData

UNTRAINED = {"linestyle": (0, (1, 1.2)), "linewidth": 0.9, "alpha": 0.8, "zorder": 1.5}
SHOWN = {"linestyle": (0, (6, 1.5, 1, 1.5)), "linewidth": 0.8, "alpha": 0.8, "zorder": 1.5}
# How controls are drawn by layer: those of the surface have none, and are drawn across.
BY_LAYER = {"shown_answers": SHOWN, "untrained": UNTRAINED}
ACCURACY, CD = "accuracy", "CD, headline layer"


@style.styled
def by_shots(tables: IclTables) -> Figure:
    """Accuracy and headline CD of each concept over the number of shots; a row a family."""
    families = tables.families
    figure, grid = icl_panels.grid(len(families), 2, 2.1)
    for row, family in zip(grid, families, strict=True):
        shots, published = tables.shots(family), tables.paper(family)
        if not shots:
            raise MissingData("no cells of the plain variant")
        for axis, metric, take in zip(row, ("accuracy", "cd"), (tables.value, tables.headline), strict=True):
            for concept in range(len(tables.labels(family))):
                at = [{"shots": s, "concept": concept} for s in shots]
                values = np.array([take(metric, family, **keys) for keys in at])
                ends = np.array([[take(f"{metric}_{end}", family, **keys) for keys in at] for end in ("low", "high")])
                look = icl_panels.look(tables, family, concept)
                axis.plot(shots, values, gid=f"{family}/{metric}/{concept}", **look)
                axis.vlines(shots, *ends, color=look["color"], linewidth=0.7, alpha=0.6)
                if published is not None:
                    own = published.filter(concept=concept)
                    axis.plot(own["shots"], own[metric], color=look["color"], marker=look["marker"], **paper.MARK)
                if metric == "cd" and "untrained" in tables.controls:
                    before = [tables.value("cd_untrained", family, **keys) for keys in at]
                    gid = f"{family}/untrained/{concept}"
                    icl_panels.across(axis, shots, before, color=look["color"], gid=gid, **UNTRAINED)
            _shots_axis(axis, shots)
        icl_panels.fraction_axes(row, (ACCURACY, CD))
        icl_panels.chance_by_concept(row[1], tables, family, shots, [{"shots": count} for count in shots])
        icl_panels.family_legend(row[0], tables, family)
    for axis in grid[-1]:
        axis.set_xlabel("shots (demonstrations)")
    compared = any(tables.paper(family) is not None for family in families)
    return _legend_below(figure) if compared else figure


@style.styled
def cd_layers(tables: IclTables) -> Figure:
    """Mean CD at every layer, a line a number of shots, with the interval over draws and the permutation null."""
    families = tables.families
    figure, grid = icl_panels.grid(1, len(families), 2.3)
    for axis, family in zip(grid[0], families, strict=True):
        shots = tables.shots(family)
        for number, count in enumerate(shots):
            color = _sequential(number, len(shots))
            mean, low, high, null = (
                tables.values(metric, family, shots=count, concept=None).sort("layer")
                for metric in ("cd", "cd_low", "cd_high", "cd_null_high")
            )
            if not mean.height:
                continue
            axis.plot(mean["layer"], mean["value"], color=color, gid=f"{family}/cd/{count} shots", label=f"{count}")
            axis.fill_between(low["layer"], low["value"], high["value"], color=color, alpha=0.18, linewidth=0)
            for name, look in BY_LAYER.items():
                control = tables.values(f"cd_{name}", family, shots=count, concept=None).sort("layer", nulls_last=True)
                control = control.filter(pl.col("layer").is_not_null()) if name == "untrained" else control
                x = control["layer"] if name == "untrained" else [0, mean["layer"].max()][: 2 * control.height]
                y = control["value"].to_list() * (1 if name == "untrained" else 2)
                axis.plot(x, y, color=color, gid=f"{family}/{name}/{count} shots", **look)
            headline = tables.value("headline_layer", family, shots=count)
            chosen = mean.filter(layer=int(headline))["value"]
            axis.plot(headline, chosen, marker="o", markersize=4, color=color, markeredgecolor="white")
            for layer in tables.values("cd_coincident", family, shots=count).filter(value=1)["layer"]:
                axis.axvspan(layer - 0.5, layer + 0.5, gid=f"{family}/coincident/{layer}", **icl_panels.COINCIDENT)
        axis.plot(null["layer"], null["value"], color="#606060", linewidth=0.8, linestyle=(0, (3, 1.5)))
        chance = tables.values("cd_null", family, shots=shots[-1], concept=None).sort("layer")
        axis.plot(chance["layer"], chance["value"], gid=f"{family}/chance", **style.CHANCE_STYLE)
        axis.set_title(family)
        axis.set_xlabel("layer (0: embeddings)")
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axis.legend(title="shots", ncols=2, title_fontsize=7, loc="best", handlelength=1.4, columnspacing=1)
    icl_panels.fraction_axes(grid[0], ["CD, mean over concepts"] + [""] * (len(families) - 1))
    return figure


@style.styled
def beside_controls(tables: IclTables) -> Figure:
    """CD at the headline layer and what it is held against, over shots, means over concepts; and CD less the highest
    control, by concept. A row a family."""
    if not tables.controls:
        raise MissingData("no controls in the tables")
    families = tables.families
    figure, grid = icl_panels.grid(len(families), 2, 2.1)
    for row, family in zip(grid, families, strict=True):
        shots = tables.shots(family)
        lines = {"cd": ("CD", tables.headline), "cd_with_query": ("CD, same query votes too", tables.headline)}
        lines |= {f"cd_{name}": (CONTROLS[name], tables.value) for name in tables.controls}
        for number, (metric, (label, take)) in enumerate(lines.items()):
            look = {"color": style.CONCEPT_COLORS[number], "marker": "osv^D"[number], "markersize": 3, "linewidth": 1.1}
            values, *ends = ([take(f"{metric}{end}", family, shots=s) for s in shots] for end in ("", "_low", "_high"))
            row[0].plot(shots, values, label=label, gid=f"{family}/{metric}", **look)
            row[0].vlines(shots, *ends, color=look["color"], linewidth=0.7, alpha=0.6)
        chance = [tables.headline("cd_null", family, shots=s) for s in shots]
        icl_panels.across(row[0], shots, chance, gid=f"{family}/chance", **style.CHANCE_STYLE)
        row[0].legend(fontsize=5.5, handlelength=1.4, labelspacing=0.25, loc="best")
        for concept in range(len(tables.labels(family))):
            look, at = icl_panels.look(tables, family, concept), [{"shots": s, "concept": concept} for s in shots]
            take = partial(tables.headline, family=family)
            values, *ends = ([take(f"cd_above{end}", **keys) for keys in at] for end in ("", "_low", "_high"))
            row[1].plot(shots, values, gid=f"{family}/above/{concept}", **look)
            row[1].vlines(shots, *ends, color=look["color"], linewidth=0.7, alpha=0.6)
        icl_panels.fraction_axes(row, ("CD, mean over concepts", "CD less the highest control"))
        row[1].axhline(0, **style.CHANCE_STYLE)
        row[1].set(ylim=(-1.03, 1.03), yticks=[-1, -0.5, 0, 0.5, 1])
        row[0].set_title(family, loc="left", pad=18)
        handles = [icl_panels.handle(tables, family, concept) for concept in range(len(tables.labels(family)))]
        place = {"loc": "lower right", "bbox_to_anchor": (1.02, 0.99), "ncols": len(handles), "fontsize": 6}
        row[1].legend(handles=handles, handlelength=1, columnspacing=0.8, handletextpad=0.4, **place)
        for axis in row:
            _shots_axis(axis, shots)
    for axis in grid[-1]:
        axis.set_xlabel("shots (demonstrations)")
    return figure


@style.styled
def scatter(tables: IclTables, *, step: int | None = None) -> Figure:
    """Accuracy against headline CD: a dot a concept at a number of shots, with the least-squares line."""
    families = tables.families
    figure, grid = icl_panels.grid(1, len(families), 2.9)
    keys = {} if step is None else {"step": step}
    for axis, family in zip(grid[0], families, strict=True):
        shots, published, found = tables.shots(family), tables.paper(family), []
        for concept in range(len(tables.labels(family))):
            look = icl_panels.look(tables, family, concept)
            for number, count in enumerate(shots):
                x = tables.headline("cd", family, shots=count, concept=concept, **keys)
                y = tables.value("accuracy", family, shots=count, concept=concept, **keys)
                size = 3 + 4 * number / max(len(shots) - 1, 1)
                dot = look | {"linestyle": "", "markersize": size, "alpha": 0.85}
                axis.plot(x, y, gid=f"{family}/{concept}/{count} shots", **dot)
                found += [(x, y)] if concept in tables.concepts(family) else []
            if published is not None:
                own = published.filter(concept=concept)
                axis.plot(own["cd"], own["accuracy"], color=look["color"], marker=look["marker"], **paper.MARK)
        x, y = np.array(found).T
        if np.ptp(x) > 0:
            ends = np.array([x.min(), x.max()])
            axis.plot(ends, np.polyval(np.polyfit(x, y, 1), ends), color="#404040", linewidth=0.9, zorder=1)
        axis.set_title(f"{family}\n{_fit_text(tables, family, step)}", linespacing=1.4)
        axis.set_xlim(0, 1.03)
        axis.set_xlabel(CD)
        icl_panels.family_legend(axis, tables, family, inside=True)
    icl_panels.fraction_axes(grid[0], [ACCURACY] + [""] * (len(families) - 1))
    compared = any(tables.paper(family) is not None for family in families)
    return _legend_below(figure) if compared else figure


@style.styled
def variants(tables: IclTables) -> Figure:
    """Accuracy and headline CD of each concept with the task stated in the prompt, beside plain prompts; the paper's
    means over concepts beside ours, where model, shots and statement are the same."""
    families = [family for family in tables.families if len(tables.variants(family)) > 1]
    if not families:
        raise MissingData("no variant but one in the tables")
    figure, grid = icl_panels.grid(len(families), 2, 2.1)
    compared = False
    for row, family in zip(grid, families, strict=True):
        kinds, count = tables.variants(family), tables.usual_shots(family)
        published = tables.paper_prompted(family) if count == paper.SHOTS else {}
        compared |= bool(published)
        names = [*tables.labels(family), "mean"]
        places = [*range(len(names) - 1), None]
        for axis, metric, take in zip(row, ("accuracy", "cd"), (tables.value, tables.headline), strict=True):
            for number, variant in enumerate(kinds):
                keys = [{"variant": variant, "shots": count, "concept": concept} for concept in places]
                values = np.array([take(metric, family, **one) for one in keys])
                ends = np.array([[take(f"{metric}_{end}", family, **one) for one in keys] for end in ("low", "high")])
                color = style.CONCEPT_COLORS[number]
                x = np.arange(len(names)) + (number - (len(kinds) - 1) / 2) * 0.22
                marker = {"linestyle": "", "marker": "oDs"[number], "markersize": 4, "color": color}
                axis.plot(x, values, gid=f"{family}/{metric}/{variant}", label=variant, **marker)
                axis.vlines(x, *ends, color=color, linewidth=0.8)
                if metric == "cd" and "untrained" in tables.controls:
                    before = [tables.value("cd_untrained", family, **one) for one in keys]
                    gid, dash = f"{family}/untrained/{variant}", {"linestyle": "", "marker": "_", "markersize": 6}
                    axis.plot(x, before, color=color, gid=gid, **dash)
                if variant in published:
                    value = getattr(published[variant], metric)
                    gid = f"paper/{family}/{metric}/{variant}"
                    axis.plot(x[-1], value, color=color, marker=marker["marker"], gid=gid, **paper.MARK)
            axis.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
            axis.axvline(len(names) - 1.5, color="#C0C0C0", linewidth=0.6)
        icl_panels.fraction_axes(row, (ACCURACY, CD))
        row[0].set_title(f"{family}, {count} shot{'s' if count != 1 else ''}", loc="left")
        look = {"loc": "lower right", "bbox_to_anchor": (1.02, 0.98), "ncols": len(kinds)}
        row[1].legend(handlelength=1, columnspacing=1, **look)
    return _legend_below(figure) if compared else figure


@style.styled
def over_checkpoints(tables: IclTables) -> Figure:
    """Accuracy, headline CD and loss of each concept over pretraining, at the usual number of shots; a row a family."""
    steps = np.array(tables.steps)
    if steps.size < 2:
        raise MissingData("no series of checkpoints")
    families = tables.families
    figure, grid = icl_panels.grid(len(families), 4, 2.0)
    for row, family in zip(grid, families, strict=True):
        count = tables.usual_shots(family)
        for axis, metric, take in zip(row, ("accuracy", "cd"), (tables.value, tables.headline), strict=False):
            for concept in range(len(tables.labels(family))):
                values = [take(metric, family, shots=count, step=step, concept=concept) for step in steps.tolist()]
                look = icl_panels.look(tables, family, concept) | {"markersize": 2.5}
                axis.plot(steps, values, gid=f"{family}/{metric}/{concept}", **look)
        for concept in range(len(tables.labels(family))):
            right = {"shots": count, "concept": concept, "other": concept}
            losses = [-tables.value("log_prob", family, step=step, **right) for step in steps.tolist()]
            look = icl_panels.look(tables, family, concept) | {"markersize": 2.5}
            row[3].plot(steps, losses, gid=f"{family}/loss/{concept}", **look)
        row[3].set(ylabel="loss of the answer (nats)", ylim=(0, None))
        at = [{"shots": count, "step": step} for step in steps.tolist()]
        icl_panels.chance_by_concept(row[1], tables, family, steps, at)
        ends = [[tables.fit(f"r2{end}", family, step=step) for step in steps.tolist()] for end in ("", "_low", "_high")]
        row[2].plot(steps, ends[0], color=style.MODEL_COLOR, marker="o", markersize=2.5, gid=f"{family}/r2")
        row[2].fill_between(steps, *ends[1:], color=style.MODEL_COLOR, alpha=0.12, linewidth=0)
        null = [tables.fit("r2_null", family, step=step) for step in steps.tolist()]
        row[2].plot(steps, null, gid=f"{family}/r2_null", **style.CHANCE_STYLE)
        for axis in row:
            style.set_step_axis(axis, steps, style.step_scale(steps))
        icl_panels.fraction_axes(row[:3], (f"accuracy, {count} shots", CD, "R², all shots"))
        icl_panels.family_legend(row[0], tables, family)
    for axis in grid[-1]:
        axis.set_xlabel("training step")
    chance = Line2D([], [], label="chance (labels permuted)", **style.CHANCE_STYLE)
    figure.legend(handles=[chance], loc="outside lower center")
    return figure


def _legend_below(figure: Figure) -> Figure:
    """Says what hollow marks are."""
    handle = Line2D([], [], marker="o", color="#404040", label=paper.LABEL, **paper.MARK)
    figure.legend(handles=[handle], loc="outside lower center")
    return figure


def _shots_axis(axis, shots) -> None:
    axis.xaxis.set_major_locator(FixedLocator(shots))
    axis.xaxis.set_minor_locator(NullLocator())


def _sequential(number: int, count: int):
    import matplotlib

    return matplotlib.colormaps[style.STEP_COLORMAP](0.05 + 0.8 * number / max(count - 1, 1))


def _fit_text(tables: IclTables, family: str, step: int | None) -> str:
    parts = []
    value, low, high, adjusted, p, rank = (
        tables.fit(metric, family, step=step)
        for metric in ("r2", "r2_low", "r2_high", "r2_adjusted", "r2_p", "spearman")
    )
    if np.isfinite(value):
        parts.append(f"R² {value:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(low) else f"R² {value:.2f}")
        parts.append(f"adjusted {adjusted:.2f}, p {p:.2f}; Spearman {rank:.2f}")
    if np.isfinite(paper := tables.paper_r2(family)):
        parts.append(f"paper's R² {paper:.2f}")
    return "\n".join(parts) or "R² undefined"
