"""What is true of a grammar's strings, exactly: probability, parses, the next token, and the best reading of the tree.

Strings are tokens [N, T] (terminals from 1; what lies past a length is not read) and lengths [N]. All run in float32
on the device with a tilt that keeps long strings in range (see `grammar_chart`), and come within 1e-6 of float64.
Called with known arrays, strings are sorted by length and run in groups of like length; under a trace all take the
length of the array. The closed forms of length and entropy are `grammar_moments`.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxconcepts.tasks.grammar_moments import derivation_entropy, entropy_per_token, length_distribution, mean_length
from jaxconcepts.tasks.grammar_posteriors import Chart
from jaxconcepts.tasks.grammar_tables import Grammar

__all__ = [
    "all_ancestors",
    "ancestors",
    "boundaries",
    "completes",
    "derivation_entropy",
    "entropy_per_token",
    "inside",
    "length_distribution",
    "log_probability",
    "mean_length",
    "membership",
    "next_token",
    "parses",
]

# Bytes that the charts of strings that run together may take.
MEMORY = 2**24
# Numbers of nodes (tokens + 1) that strings are padded to, where the grammar's longest string is not below, so that few
# programs are compiled.
SIZES = (128, 256, 384, 512, 768, 1024, 1536, 2048)


def log_probability(grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"]) -> Float[Array, " N"]:
    """The natural logarithm of each string's probability, over all of its derivations; -inf outside the language.

    Raises ValueError for tokens and lengths whose shapes do not fit, and for lengths outside 0 to T.
    """
    return _run("log_probability", grammar, tokens, lengths)


def membership(grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"]) -> Bool[Array, " N"]:
    """Whether each string is in the language. Raises ValueError as `log_probability`."""
    return _run("membership", grammar, tokens, lengths)


def completes(
    grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"], prefix: int | Int[Array, " N"]
) -> Bool[Array, " N"]:
    """Whether some prefix of the same length would make each string one of the language, whatever its own prefix is.

    prefix: how many leading tokens may be anything, one number or one a string. This scores the completion of a
    corrupted prefix. Raises ValueError as `log_probability`, and for a prefix of another shape or below 0.
    """
    prefix = np.asarray(prefix) if not isinstance(prefix, jax.Array) else prefix
    if prefix.shape not in ((), np.shape(lengths)):
        raise ValueError(f"prefix must be a number or have shape {np.shape(lengths)}, got {prefix.shape}")
    if not isinstance(prefix, jax.core.Tracer) and np.any(np.asarray(prefix) < 0):
        raise ValueError(f"prefix must not be negative, got {int(np.min(prefix))}")
    return _run("completes", grammar, tokens, lengths, prefix=jnp.broadcast_to(prefix, np.shape(lengths)))


def parses(grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"]) -> Float[Array, " N"]:
    """How many derivations each string has, exact up to 2^24. A string with more than one is ambiguous: its ancestors
    are not defined by the string. Raises ValueError as `log_probability`."""
    return _run("parses", grammar, tokens, lengths)


def next_token(
    grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"]
) -> Float[Array, "N T+1 terminals+1"]:
    """P(next token | the first t tokens) for t = 0 .. T; column i is terminal i + 1, and the last column is the end.

    Rows past a string's length, and of prefixes that no string of the language has, are 0.
    Raises ValueError as `log_probability`.
    """
    return _run("next_token", grammar, tokens, lengths)


def ancestors(
    grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"], level: int | str
) -> Float[Array, "N T symbols"]:
    """P(ancestor of token t on a level | tokens 0 .. t), the best that any reader of the prefix can know.

    level: an index of `grammar.levels` (row of `Strings.ancestors`; 0 is the root's, -1 the last of nonterminals) or a
    name such as "NT4". Rows past a string's length, and of prefixes that no string has, are 0.
    Raises ValueError for a level that is not there, and as `log_probability`.
    """
    return _run("ancestors", grammar, tokens, lengths, depth=grammar.level_index(level))


def all_ancestors(
    grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"]
) -> tuple[Float[Array, "N T _"], ...]:
    """`ancestors` of every level, from one chart a string."""
    return _run("all_ancestors", grammar, tokens, lengths)


def boundaries(grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"]) -> Float[Array, "N levels T"]:
    """P(a symbol of each level ends at token t | tokens 0 .. t). Rows past a string's length are 0.

    Raises ValueError as `log_probability`.
    """
    return _run("boundaries", grammar, tokens, lengths)


def inside(
    grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"], level: int | str
) -> Float[Array, "N symbols T+1 T+1"]:
    """The natural logarithm of the weight with which a level's symbol yields tokens i .. j - 1; -inf where it cannot.

    Takes 4 N symbols (T + 1)^2 bytes. Raises ValueError as `ancestors`.
    """
    return _run("inside", grammar, tokens, lengths, depth=grammar.level_index(level))


def _run(quantity, grammar, tokens, lengths, *, depth=None, prefix=None):
    """A method of `Chart` on every string: those of like length together, and put back in their order."""
    _check(tokens, lengths)
    prefix = np.zeros(np.shape(lengths), np.int32) if prefix is None else prefix
    kernel = partial(_one, quantity, grammar, depth)
    if any(isinstance(x, jax.core.Tracer) for x in (tokens, lengths, prefix)):
        strings = (jnp.asarray(tokens), jnp.asarray(lengths), jnp.asarray(prefix))
        return lax.map(lambda string: kernel(*string), strings, batch_size=_together(grammar, tokens.shape[1] + 1))
    tokens, lengths, prefix = (np.asarray(x, np.int32) for x in (tokens, lengths, prefix))
    shapes = jax.eval_shape(kernel, *(jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in (tokens, lengths, prefix)))
    fill = -np.inf if quantity == "inside" else 0
    out = jax.tree.map(lambda x: np.full((len(lengths), *x.shape), fill, x.dtype), shapes)
    for members, nodes, count in _groups(grammar, lengths):
        rows = np.zeros((count, nodes - 1), np.int32)
        width = min(nodes - 1, tokens.shape[1])
        rows[: len(members), :width] = tokens[members, :width]
        sizes, free = (np.pad(x[members], (0, count - len(members))) for x in (lengths, prefix))
        results = _batched(quantity, grammar, depth, rows, sizes, free)
        jax.tree.map(partial(_put_back, members), out, results)
    return jax.tree.map(jnp.asarray, out)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _batched(quantity, grammar, depth, *strings):
    return jax.vmap(partial(_one, quantity, grammar, depth))(*strings)


def _one(quantity, grammar, depth, tokens, length, prefix):
    method = getattr(Chart.of(grammar, tokens, length, prefix), quantity)
    return method() if depth is None else method(depth)


def _groups(grammar, lengths):
    """(indices, nodes, count): strings that run together, the nodes and the count that they are padded to.

    The count is the same for all groups of a size, and a power of two, so that few programs are compiled.
    """
    sizes = np.array([_size(grammar, int(length)) for length in lengths], int)
    for nodes in np.unique(sizes):
        members = np.flatnonzero(sizes == nodes)
        count = min(_together(grammar, int(nodes)), 1 << (len(members) - 1).bit_length())
        for start in range(0, len(members), count):
            yield members[start : start + count], int(nodes), count


def _size(grammar, length):
    padded = next((size for size in SIZES if size > length), -(-(length + 1) // 1024) * 1024)
    return min(padded, grammar.max_length + 1) if length <= grammar.max_length else padded


def _together(grammar, nodes):
    """How many charts fit in `MEMORY`, at least one; a power of two."""
    symbols = sum(map(len, grammar.levels)) + grammar.terminals
    return 1 << (max(MEMORY // (4 * symbols * nodes**2), 1).bit_length() - 1)


def _put_back(members, out, results):
    """Writes the results of a group where they belong, without what is past the shorter of both widths."""
    common = tuple(slice(min(a, b)) for a, b in zip(out.shape[1:], results.shape[1:], strict=True))
    out[(members, *common)] = np.asarray(results)[(slice(len(members)), *common)]


def _check(tokens, lengths):
    if np.ndim(tokens) != 2 or np.shape(lengths) != np.shape(tokens)[:1]:
        raise ValueError(
            f"tokens must have shape [strings, positions] and lengths [strings]; got {np.shape(tokens)} and "
            f"{np.shape(lengths)}"
        )
    for name, value in (("tokens", tokens), ("lengths", lengths)):
        if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
            raise ValueError(f"{name} must be integers, got {jnp.result_type(value)}")
    if isinstance(lengths, jax.core.Tracer) or not len(lengths):
        return
    low, high = int(np.min(lengths)), int(np.max(lengths))
    if low < 0 or high > np.shape(tokens)[1]:
        raise ValueError(f"lengths must be from 0 to the {np.shape(tokens)[1]} positions, got {low} to {high}")
