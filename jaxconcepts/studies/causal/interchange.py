"""Interchange patching of language models: layer x position, how much of a clean run one of its states restores.

Two prompts of equal length differ in something (the demonstrations' concept, say) and so in their answers. The
corrupted one is run with the clean one's hidden state at one layer and token, for every layer and token, and the
difference of the two answers' logits is read at the last token (Vig et al. 2020; Meng et al. 2022; Zhang and Nanda
2024). All cells are one program; a cell runs only the blocks after its layer, and only the tokens from about its own
on: those before it are as they were, so their keys and values are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxconcepts.interventions import patching
from jaxconcepts.models import language, residual
from jaxconcepts.models.decoder import Decoder

PARTS, SMALLEST = 4, 8
"""A prompt is cut into so many parts, of so many tokens at least; a cell runs the tokens from its part's first on."""


class Interchange(NamedTuple):
    """Logit differences, the clean answer's first token minus the corrupted one's, in float32.

    clean, corrupted: [B] of the runs as they are. patched: [layers, T, B] of the corrupted run with the clean state at
    that layer and token; at a token past a prompt's end it is as `corrupted`.
    """

    clean: Float[Array, " B"]
    corrupted: Float[Array, " B"]
    patched: Float[Array, "layers T B"]

    def normalised(self) -> Float[Array, "layers T B"]:
        """1 where the patch restores the clean run's difference, 0 where it changes nothing."""
        return patching.normalised_difference(self.patched, self.clean, self.corrupted)


def interchange(
    model: Decoder,
    params: PyTree,
    clean: Int[Array, "B T"],
    corrupted: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    answers: Int[Array, "B 2"],
    layers: Sequence[int] | None = None,
    cells_at_once: int = 0,
) -> Interchange:
    """The grid of all tokens at `layers` (default: all L + 1, 0 the embeddings).

    answers: the first tokens of the clean and of the corrupted prompt's answer. cells_at_once: tokens patched side by
    side; 0: by backend.

    Raises ValueError for a layer that does not exist, and as `language.hidden_states` does.
    """
    layers = tuple(range(model.layers + 1)) if layers is None else tuple(layers)
    patching.check_layers(layers, model.layers)
    clean, lengths = language.checked(model, clean, lengths)
    corrupted, _ = language.checked(model, corrupted, lengths)
    at_once = cells_at_once or (1 if jax.default_backend() == "cpu" else 16)
    with language.exact_products(model):
        return _interchange(model, params, clean, corrupted, lengths, np.asarray(answers), np.array(layers), at_once)


@partial(jax.jit, static_argnums=(0, 7))
def _interchange(model, params, clean, corrupted, lengths, answers, layers, at_once):
    batch, width = clean.shape
    rows, positions = jnp.arange(batch), jnp.arange(width)

    def difference(stream, start=0):
        logits = model.unembed(params, stream[rows, jnp.maximum(lengths - 1 - start, 0)])
        return logits[rows, answers[:, 0]] - logits[rows, answers[:, 1]]

    def states(tokens):
        trace = language.forward(model, params, tokens, positions[None], capture="all", keep="cache")
        return trace.captured, difference(trace.stream), trace.outputs

    (clean_states, of_clean, _), (corrupted_states, of_corrupted, cache) = states(clean), states(corrupted)

    def part(start, stop):
        past = jax.tree.map(lambda a: a[:, :, :start], cache) if start else None

        def at_layer(layer):
            own, other = corrupted_states[layer, :, start:], clean_states[layer, :, start:]

            def cell(position):
                place = (positions[start:] == position) & (positions[start:] < lengths[:, None])
                stream = residual.edited(own, residual.Edits(mask=place, value=other))
                trace = language.forward(model, params, None, positions[None, start:], past, resume=(layer, stream))
                # A prompt that ends before this part has not been changed, and its last token is not here.
                return jnp.where(lengths > start, difference(trace.stream, start), of_corrupted)

            return jax.lax.map(cell, positions[start:stop], batch_size=None if at_once == 1 else at_once)

        return jax.lax.map(at_layer, layers)

    # Keys and values can be cut at any position, a recurrent state cannot.
    parts = max(1, min(PARTS, width // SMALLEST)) if model.ATTENDS else 1
    starts = [width * number // parts for number in range(parts)]
    patched = [part(start, stop) for start, stop in zip(starts, [*starts[1:], width], strict=True)]
    return Interchange(of_clean, of_corrupted, jnp.concatenate(patched, axis=1))
