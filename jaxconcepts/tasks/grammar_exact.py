"""Exact quantities of a grammar's strings: probability, parses, the next token, and the best reading of the tree.

Strings are tokens [N, T] (terminals from 1; what lies past a length is not read) and lengths [N]. Known arrays are
read on the host in float64 (`grammar_sparse`), without compiling. Under a trace the same is done on the device in
float32 (`grammar_chart`), within 1e-6 for probabilities. The closed forms of length and entropy are `grammar_moments`.
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
from jaxconcepts.tasks.grammar_sparse import Charts, groups
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

# Bytes that the charts of strings that run together on a device may take.
MEMORY = 2**26


def log_probability(grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"]) -> Float[Array, " N"]:
    """The natural logarithm of each string's probability, over all of its derivations; -inf outside the language.

    Raises ValueError for tokens and lengths whose shapes do not fit, and for lengths outside 0 to T.
    """
    return _run("log_probability", grammar, tokens, lengths)


def membership(grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"]) -> Bool[Array, " N"]:
    """Whether each string is in the language. Raises ValueError as `log_probability` does."""
    return _run("membership", grammar, tokens, lengths)


def completes(
    grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"], prefix: int | Int[Array, " N"]
) -> Bool[Array, " N"]:
    """Whether each string is in the language if its prefix is replaced by some prefix of the same length.

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
    """The number of derivations of each string, exact up to 2^24. One with several is ambiguous: it does not define
    its ancestors. Raises ValueError as `log_probability` does."""
    return _run("parses", grammar, tokens, lengths)


def next_token(
    grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"]
) -> Float[Array, "N T+1 {grammar.terminals}+1"]:
    """P(next token | the first t tokens) for t = 0 .. T; column i is terminal i + 1, and the last column is the end.

    Rows past a string's length, and of prefixes that no string of the language has, are 0.
    Raises ValueError as `log_probability`.
    """
    return _run("next_token", grammar, tokens, lengths)


def ancestors(
    grammar: Grammar, tokens: Int[Array, "N T"], lengths: Int[Array, " N"], level: int | str
) -> Float[Array, "N T symbols"]:
    """P(ancestor of token t on a level | tokens 0 .. t): the best prediction that is possible from the prefix.

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
    """The log of the weight with which a symbol of a level yields tokens i .. j - 1; -inf if it cannot yield them.

    Takes 4 N symbols (T + 1)^2 bytes. Raises ValueError as `ancestors`.
    """
    return _run("inside", grammar, tokens, lengths, depth=grammar.level_index(level))


def _run(quantity, grammar, tokens, lengths, *, depth=None, prefix=None):
    """A method of `Charts` on all strings where they are known, and of `Chart` on every one under a trace."""
    _check(tokens, lengths)
    prefix = np.zeros(np.shape(lengths), np.int32) if prefix is None else prefix
    kernel = partial(_one, quantity, grammar, depth)
    if any(isinstance(x, jax.core.Tracer) for x in (tokens, lengths, prefix)):
        strings = (jnp.asarray(tokens), jnp.asarray(lengths), jnp.asarray(prefix))
        return lax.map(lambda string: kernel(*string), strings, batch_size=_together(grammar, tokens.shape[1] + 1))
    return _on_the_host(quantity, grammar, depth, *(np.asarray(x, np.int64) for x in (tokens, lengths, prefix)))


def _on_the_host(quantity, grammar, depth, tokens, lengths, prefix):
    # Numbers a node: one of all derivations, and one of each ancestor that is asked for.
    tags = 1 + (sum(map(len, grammar.levels)) if "ancestors" in quantity else 0)
    parts = []
    for members in groups(grammar, lengths, tags):
        method = getattr(Charts(grammar, tokens[members], lengths[members], prefix[members]), quantity)
        parts.append(method() if depth is None else method(depth))
    return jax.tree.map(_joined, *parts)


def _joined(*parts):
    whole = np.concatenate(parts)
    return jnp.asarray(whole if whole.dtype == bool else whole.astype(np.float32))


def _one(quantity, grammar, depth, tokens, length, prefix):
    method = getattr(Chart.of(grammar, tokens, length, prefix), quantity)
    return method() if depth is None else method(depth)


def _together(grammar, nodes):
    """How many charts fit in `MEMORY`, at least one; a power of two."""
    symbols = sum(map(len, grammar.levels)) + grammar.terminals
    return 1 << (max(MEMORY // (4 * symbols * nodes**2), 1).bit_length() - 1)


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
