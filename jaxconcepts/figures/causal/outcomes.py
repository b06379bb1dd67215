"""What came out, a sentence a figure of the causal study; means over concepts and replicates, "" without numbers.

Each takes the tables of one family, as the drawing functions do.
"""

from __future__ import annotations

import polars as pl

from jaxconcepts.figures.causal import panels


def patching(tables) -> str:
    """Accuracy without a patch, with the positive one in its best layer, and with a random direction there."""
    rows = panels.rows_of(tables, "patching", "accuracy")
    best = rows.filter(condition="positive").group_by("layer").agg(pl.mean("value")).sort("value", "layer")
    plain = _mean(rows.filter(condition="none"))
    if not best.height or plain is None:
        return ""
    layer, value = best.row(-1)
    control = _mean(rows.filter(condition="random", layer=layer))
    beside = "" if control is None else f"; a random direction takes it to {control:.2f} there"
    return f"The positive patch takes accuracy from {plain:.2f} to {value:.2f} at layer {layer}, its best{beside}."


def patched(tables) -> str:
    """Accuracy after the positive patch and after the negative one, at the layer that is drawn."""
    rows, published = panels.rows_of(tables, "patching", "accuracy"), tables.get("paper")
    layer = panels.layer_of(rows, published)
    values = [(name, _mean(rows.filter(condition=name, layer=layer))) for name in ("positive", "negative", "random")]
    said = ", ".join(f"{value:.2f} after the {name} one" for name, value in values if value is not None)
    plain = _mean(rows.filter(condition="none"))
    return f"At layer {layer} accuracy is {plain:.2f} without a patch, {said}." if said and plain is not None else ""


def vectors(tables) -> str:
    """Accuracy of each kind of vector beside prompts with and without demonstrations."""
    kinds = [tables[kind] for kind in ("task_vectors", "function_vectors") if tables[kind] is not None]
    if not kinds:
        return ""
    rows = pl.concat(kinds, how="diagonal_relaxed").filter(metric="accuracy")
    values = [(name, _mean(rows.filter(condition=name))) for name in panels.BAR_ORDER]
    said = ", ".join(f"{name} {value:.2f}" for name, value in values if value is not None)
    return f"Accuracy over all concepts: {said}." if said else ""


def effects(tables) -> str:
    """The head with the largest indirect effect."""
    return _head(
        panels.rows_of(tables, "function_vectors", "indirect_effect"), "the right answer's probability rises", 1
    )


def heads(tables) -> str:
    """The head without which accuracy falls most."""
    return _head(panels.head_changes(tables), "without it accuracy changes", -1)


def steering(tables) -> str:
    """The largest share of answers as the other concept's, and what a random direction gives there."""
    rows = panels.rows_of(tables, "steering", "as_other")
    means = (
        rows.filter(condition="steered")
        .group_by("layer", "scale")
        .agg(pl.mean("value"))
        .sort("value", "layer", "scale")
    )
    if not means.height:
        return ""
    layer, scale, value = means.row(-1)
    control = _mean(rows.filter(condition="random", layer=layer, scale=scale))
    plain = _mean(rows.filter(condition="none"))
    beside = "" if control is None else f"; a random direction {control:.0%}"
    beside += "" if plain is None else f"; without steering {plain:.0%} are"
    return f"Steering makes {value:.0%} of the answers the other concept's at layer {layer}, scale {scale:g}{beside}."


def interchange(tables) -> str:
    """Where a state restores most."""
    means = tables["interchange"].group_by("layer", "token").agg(pl.mean("value")).sort("value", "layer", "token")
    if not means.height:
        return ""
    layer, token, value = means.row(-1)
    return f"The state at layer {layer} of token {token} restores most: {value:.0%} of the logit difference."


def _mean(rows: pl.DataFrame) -> float | None:
    """The mean over concepts of each one's mean over replicates, None without rows."""
    return rows.group_by("concept").agg(pl.mean("value"))["value"].mean()


def _head(rows: pl.DataFrame, what: str, sign: int) -> str:
    means = rows.group_by("layer", "head").agg(pl.mean("value")).sort(sign * pl.col("value"), "layer", "head")
    if not means.height:
        return ""
    block, head, value = means.row(-1)
    median = means["value"].median()
    return f"Head {head} of block {block} does most: {what} by {value:+.2g}, for the median head by {median:+.2g}."
