"""The loss of a language model on the answers alone: prompts are read, only what follows them is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxconcepts.models import language, residual
from jaxconcepts.models.decoder import Decoder
from jaxconcepts.training import train


class Examples(NamedTuple):
    """Prompts with their answers, right-padded.

    tokens: [N, T]. positions: [N, A], of the token before each answer token, from which it is predicted. targets:
    [N, A], the answer. weights: [N, A], 1 for answer tokens and 0 for the padding of shorter answers.
    """

    tokens: Int[Array, "N T"]
    positions: Int[Array, "N A"]
    targets: Int[Array, "N A"]
    weights: Float[Array, "N A"]


def examples(
    model: Decoder, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], multiple: int = 16
) -> Examples:
    """Examples from token ids, all as wide as the longest, rounded up to a multiple of `multiple`.

    Raises ValueError, naming the example, for an empty prompt or answer, one beyond the model's context, and a token
    outside its vocabulary; and where there are none, or not as many answers as prompts.
    """
    if len(prompts) != len(answers) or not prompts:
        raise ValueError(f"every prompt must have an answer, got {len(prompts)} prompts and {len(answers)} answers")
    sizes = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        if not prompt or not answer:
            raise ValueError(
                f"example {index} has {len(prompt)} prompt and {len(answer)} answer tokens; both need at least one"
            )
        if sizes[index] > model.context:
            raise ValueError(f"example {index} takes {sizes[index]} tokens, the model's context is {model.context}")
        for token in (*prompt, *answer):
            if not 0 <= token < model.vocab_size:
                raise ValueError(f"example {index} has token {token}, outside the vocabulary of {model.vocab_size}")
    width = min(-(-max(sizes) // multiple) * multiple, model.context)
    longest = max(map(len, answers))
    tokens = np.zeros((len(prompts), width), np.int32)
    positions, targets = np.zeros((2, len(prompts), longest), np.int32)
    weights = np.zeros((len(prompts), longest), np.float32)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        tokens[row, : sizes[row]] = [*prompt, *answer]
        positions[row, : len(answer)] = np.arange(len(prompt) - 1, sizes[row] - 1)
        targets[row, : len(answer)] = answer
        weights[row, : len(answer)] = 1
    return Examples(tokens, positions, targets, weights)


def answer_loss(
    model: Decoder, params: PyTree, batch: Examples, remat: bool = False, unroll: int | bool = 1
) -> Float[Array, ""]:
    """Mean cross-entropy, in nats, over the answer tokens of the batch (as transformers with label -100 elsewhere)."""
    with language.exact_products(model):
        places = jnp.arange(batch.tokens.shape[1])[None]
        trace = language.forward(model, params, batch.tokens, places, remat=remat, unroll=unroll)
        # Logits only where they are needed: a vocabulary is many times wider than the stream.
        logits = model.unembed(params, residual.select(trace.stream, batch.positions))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    return (losses * batch.weights).sum() / batch.weights.sum()


def batch_of_step(data: Examples, batch_size: int, seed, step) -> Examples:
    """The examples of a step: every epoch is a fresh permutation, of which a last incomplete batch is left out.

    Depends on seed and step alone, so a run's stream is the same however it is packed or resumed.
    """
    count = data.tokens.shape[0]
    each = count // batch_size
    order = jax.random.permutation(jax.random.fold_in(train.data_key(seed), step // each), count)
    rows = jax.lax.dynamic_slice_in_dim(order, step % each * batch_size, batch_size)
    return jax.tree.map(lambda array: jnp.take(array, rows, axis=0), data)
