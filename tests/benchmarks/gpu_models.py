"""Llama-3.1-8B and Gemma-2-9B with random bfloat16 weights: hidden states of all layers (aim: half the peak rate) and
greedy answers; and the patch grid of a model with Llama-3.2-1B's shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import gpu_rates
import jax
import jax.numpy as jnp
import numpy as np
from bench_decodability import best_times

from jaxconcepts.models import language, presets
from jaxconcepts.planning import model_plan
from jaxconcepts.studies.causal import interchange

MODELS, PATCHED = ("llama-3.1-8b", "gemma-2-9b"), "llama-3.2-1b"
SMALL = {"vocab_size": 256, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 64}
# Prompts, their tokens, new tokens; prompts and tokens of the patch grid; how often each is timed.
SIZES, QUICK = ((16, 512, 64), (16, 40), 5), ((2, 16, 3), (2, 8), 1)
AIM = 0.5


def measurements(quick: bool):
    ask, grid, rounds = QUICK if quick else SIZES
    held: dict = {}
    made = {}
    for name in MODELS:
        given = (held, name, quick, rounds)
        made[f"hidden states, {name}"] = partial(hidden_states, *given, *ask[:2], "auto")
        # Gemma's scores are soft-capped, which the fused kernel cannot do.
        if name.startswith("llama"):
            made[f"hidden states, {name}, attention by XLA"] = partial(hidden_states, *given, *ask[:2], "xla")
        made[f"generation, {name}"] = partial(generation, *given, *ask)
    made[f"patch grid, {PATCHED}"] = partial(patch_grid, held, PATCHED, quick, rounds, *grid)
    return made


def hidden_states(held, name, quick, rounds, batch: int, length: int, attention: str) -> Iterator[dict]:
    """All layers at the last token. FLOPs are those of all blocks but the last, which runs for one token alone."""
    model, params = loaded(held, name, quick)

    def rows(batch: int) -> list[dict]:
        tokens = _tokens(model, batch, length)
        read = partial(language.hidden_states, model, params, tokens, attention=attention)
        seconds = best_times({"ours": lambda: jax.block_until_ready(read())}, rounds)["ours"]
        _check_finite(read())
        flops = model_plan.forward_flops(dataclasses.replace(model, layers=model.layers - 1), batch, length)
        used = language.attention_of(model, jax.devices()[0], attention)
        row = _shape(model, batch, length) | {"ours_s": seconds, "attention": used}
        row["tokens_per_s"] = batch * length / seconds
        return [row | gpu_rates.rate(flops, seconds, "bfloat16", AIM)]

    yield from gpu_rates.at_size(rows, batch)


def generation(held, name, quick, rounds, batch: int, length: int, new: int) -> Iterator[dict]:
    """Greedy answers; the time holds that of reading the prompts."""
    model, params = loaded(held, name, quick)

    def rows(batch: int) -> list[dict]:
        tokens = _tokens(model, batch, length)
        answer = partial(language.generate, model, params, tokens, max_new_tokens=new, stop_tokens=())
        seconds = best_times({"ours": lambda: jax.block_until_ready(answer())}, rounds)["ours"]
        row = _shape(model, batch, length) | {"ours_s": seconds, "new_tokens": new}
        return [row | {"tokens_per_s": batch * new / seconds}]

    yield from gpu_rates.at_size(rows, batch)


def patch_grid(held, name, quick, rounds, batch: int, length: int) -> Iterator[dict]:
    """Every layer x token, each cell a pass of the blocks after it."""
    model, params = loaded(held, name, quick)

    def rows(batch: int) -> list[dict]:
        clean, corrupted = _tokens(model, 2 * batch, length).reshape(2, batch, length)
        answers = np.stack([np.arange(batch), np.arange(batch) + 1], axis=1)
        given = (model, params, clean, corrupted, np.full(batch, length), answers)
        grid = lambda: jax.block_until_ready(interchange.interchange(*given).patched)  # noqa: E731
        seconds = best_times({"ours": grid}, rounds)["ours"]
        cells = grid().size // batch
        _check_finite(grid())
        row = _shape(model, batch, length) | {"ours_s": seconds, "cells": cells}
        return [row | {"cells_per_s": cells / seconds}]

    yield from gpu_rates.at_size(rows, batch)


def loaded(held: dict, name: str, quick: bool):
    """The model and its weights; those of the model before go."""
    if name not in held:
        held.clear()
        model = presets.preset(name, "bfloat16")
        model = dataclasses.replace(model, **SMALL) if quick else model
        held[name] = model, jax.block_until_ready(random_weights(model))
    return held[name]


def random_weights(model):
    """As `model.init` draws them, but for numbers: made in bfloat16, a layer's at a time, so that nothing of float32 is
    ever as large as the model."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    paths, structure = jax.tree.flatten_with_path(shapes)
    keys = jax.random.split(jax.random.key(0), len(paths))
    draw = lambda key, shape: jax.random.normal(key, shape, jnp.bfloat16) * jnp.bfloat16(0.02)  # noqa: E731

    def leaf(key, path, like):
        if path[-1].key == "scale":
            return jnp.full(like.shape, 1 - model.final_norm().offset, jnp.bfloat16)
        if like.ndim < 3:
            return jax.jit(draw, static_argnums=1)(key, like.shape)
        layers = jax.jit(lambda keys: jax.lax.map(lambda one: draw(one, like.shape[1:]), keys))
        return layers(jax.random.split(key, like.shape[0]))

    return structure.unflatten([leaf(key, path, like) for key, (path, like) in zip(keys, paths, strict=True)])


def _tokens(model, batch: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, model.vocab_size, (batch, length))


def _shape(model, batch: int, length: int) -> dict:
    return {"shape": f"{model.layers} x {model.width}, {batch} prompts of {length} tokens", "dtype": model.dtype}


def _check_finite(values) -> None:
    if not bool(jnp.isfinite(values).all()):
        raise ArithmeticError("not all values are finite")
