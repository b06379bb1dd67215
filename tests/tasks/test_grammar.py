"""Drawn strings and windows, against every derivation of a small grammar."""

from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from jaxconcepts.tasks import grammar, grammar_exact, grammar_stream

COUNT = 4000
pytestmark = pytest.mark.usefixtures("compiles_fast")


@pytest.fixture(scope="module")
def strings(toy):
    return jax.tree.map(np.asarray, grammar.sample(toy, jax.random.key(0), COUNT))


def differs(counts, expected):
    """The probability under `expected` counts of counts at least as far off (chi-squared)."""
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1)


def test_strings_are_as_frequent_as_their_derivations_say(trees, strings):
    expected = defaultdict(float)
    for probability, tokens, _ in trees:
        expected[tokens] += probability
    drawn = defaultdict(int)
    for row, length in zip(strings.tokens.tolist(), strings.lengths, strict=True):
        assert not any(row[length:])
        drawn[tuple(row[:length])] += 1
    assert set(drawn) <= set(expected)
    # Rare strings share a cell, so that a cell expects at least five.
    often = [string for string in expected if COUNT * expected[string] >= 5]
    cells = np.array([[drawn[string], COUNT * expected[string]] for string in often])
    cells = np.vstack([cells, COUNT - cells.sum(0)])
    assert differs(*cells.T) > 1e-3


def test_labels_are_those_of_a_derivation_of_the_string(toy, trees, strings):
    known = defaultdict(set)
    for _, tokens, labels in trees:
        known[tokens].add(tuple(map(tuple, labels)))
    assert strings.ancestors.shape == strings.indices.shape == strings.boundaries.shape == (COUNT, 3, toy.max_length)
    seen = defaultdict(set)
    for n in range(COUNT):
        length = strings.lengths[n]
        labels = tuple(
            tuple((symbols[a], i) for a, i in zip(ancestors[:length], indices[:length], strict=True))
            for symbols, ancestors, indices in zip(toy.levels, strings.ancestors[n], strings.indices[n], strict=True)
        )
        tokens = tuple(strings.tokens[n, :length].tolist())
        assert labels in known[tokens]
        seen[tokens].add(labels)
        assert (strings.ancestors[n, :, length:] == -1).all()
        assert (strings.indices[n, :, length:] == -1).all()
        for indices, boundaries in zip(strings.indices[n], strings.boundaries[n], strict=True):
            ends = [t for t in range(length) if t + 1 == length or indices[t + 1] != indices[t]]
            np.testing.assert_array_equal(np.flatnonzero(boundaries), ends)
    # Both readings of an ambiguous string occur.
    assert max(map(len, seen.values())) > 1


def test_a_string_depends_on_the_key_and_its_number_alone(toy, strings):
    few = grammar.sample(toy, jax.random.key(0), 3)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:3]), few, strings)
    other = grammar.sample(toy, jax.random.key(1), 3)
    assert (np.asarray(other.tokens) != strings.tokens[:3]).any()


def test_official_strings_are_in_their_language_and_as_long_as_expected():
    g = grammar.load("cfg3b@16")
    strings = grammar.sample(g, jax.random.key(2), 512)
    assert np.asarray(grammar_exact.membership(g, strings.tokens, strings.lengths)).all()
    error = np.asarray(strings.lengths).std() / 512**0.5
    np.testing.assert_allclose(np.mean(strings.lengths), grammar_exact.mean_length(g), atol=4 * error)


def test_token_noise_perturbs_its_share_of_strings_at_its_rate(toy, strings):
    noise = grammar.Noise(share=0.5, rate=0.2)
    noisy = jax.tree.map(np.asarray, grammar.sample(toy, jax.random.key(0), COUNT, noise))
    np.testing.assert_allclose(noisy.perturbed.mean(), 0.5, atol=0.03)
    # The trees are those without noise, and so are the strings that are not perturbed.
    np.testing.assert_array_equal(noisy.ancestors, strings.ancestors)
    changed = noisy.tokens != strings.tokens
    assert not changed[~noisy.perturbed].any()
    terminal = strings.tokens > 0
    assert not changed[~terminal].any()
    np.testing.assert_allclose(changed[noisy.perturbed][terminal[noisy.perturbed]].mean(), 0.2, atol=0.01)
    steps = ((noisy.tokens - strings.tokens) % 3)[changed]
    np.testing.assert_allclose(np.mean(steps == 1), 0.5, atol=0.03)


@pytest.mark.parametrize("kind", ["symbol", "next_symbol"])
def test_noise_on_nonterminals_is_in_the_tree(kind, toy, strings):
    everywhere = grammar.sample(toy, jax.random.key(0), COUNT, grammar.Noise(share=1.0, rate=1.0, kind=kind))
    # Each level here has two symbols, so that a change at every node swaps them, and the rule drawn was the same.
    roots = {tuple(rule) for rule in toy.rules[0][0]}
    swapped = {tuple(1 - child for child in rule) for rule in roots}
    drawn = set()
    for ancestors, boundaries in zip(np.asarray(everywhere.ancestors), np.asarray(everywhere.boundaries), strict=True):
        drawn.add(tuple(ancestors[1][boundaries[1]].tolist()))
    assert drawn == swapped != roots
    none = grammar.sample(toy, jax.random.key(0), COUNT, grammar.Noise(share=1.0, rate=0.0, kind=kind))
    np.testing.assert_array_equal(none.tokens, strings.tokens)


def test_the_share_and_the_rate_can_be_swept_in_one_compilation(toy):
    @jax.jit
    def outside(share, rate):
        strings = grammar.sample(toy, jax.random.key(0), 500, grammar.Noise(share, rate))
        return 1 - jnp.mean(grammar_exact.membership(toy, strings.tokens, strings.lengths))

    shares = [float(outside(share, 0.15)) for share in (0.0, 0.5, 1.0)]
    assert shares[0] == 0 < shares[1] < shares[2]
    assert outside._cache_size() == 1


def test_flipped_tokens_are_terminals_of_the_prefix(toy, strings):
    flipped = np.asarray(grammar.flip_tokens(toy, jax.random.key(4), strings.tokens, 0.3, until=5))
    changed = flipped != strings.tokens
    assert not changed[:, 5:].any()
    np.testing.assert_allclose(changed[:, :5].mean(), 0.3, atol=0.013)
    assert set(np.unique(flipped[:, :5])) == {1, 2, 3}


def windows_of(toy, batch, window, **settings):
    return jax.tree.map(np.asarray, grammar_stream.windows(toy, jax.random.key(5), batch, window, **settings))


def test_windows_are_the_strings_joined_and_cut(toy):
    batch, window = 7, 33
    cut = windows_of(toy, batch, window)
    count = grammar_stream.strings_for(toy, batch * window)
    strings = jax.tree.map(np.asarray, grammar.sample(toy, jax.random.key(5), count))
    joined, labels = [], []
    for n, length in enumerate(strings.lengths):
        joined += [0, *strings.tokens[n, :length], toy.end]
        for offset in range(-1, length + 1):
            inside = 0 <= offset < length
            each = (part[n, :, offset] for part in (strings.ancestors, strings.indices, strings.boundaries))
            labels.append((n, offset, inside, *(part.tolist() for part in each)) if inside else (n, offset, inside))
    np.testing.assert_array_equal(cut.tokens.ravel(), joined[: batch * window])
    for position, (string, offset, inside, *expected) in enumerate(labels[: batch * window]):
        row, column = divmod(position, window)
        assert (cut.strings[row, column], cut.offsets[row, column]) == (string, offset)
        assert cut.terminal[row, column] == inside
        got = [part[row, :, column].tolist() for part in (cut.ancestors, cut.indices, cut.boundaries)]
        assert got == (expected or [[-1] * 3, [-1] * 3, [False] * 3])


def test_enough_strings_are_drawn_for_every_grammar():
    for name in grammar.SHIPPED:
        g, tokens = grammar.load(name), 96 * 512
        count = grammar_stream.strings_for(g, tokens)
        mean, longest = grammar_exact.mean_length(g) + 2, g.max_length + 2
        assert tokens / mean < count < 1.2 * tokens / mean, (name, count)
        assert count * longest > tokens
    g = grammar.load("cfg3b@16")
    assert grammar_stream.strings_for(g, 1) == 1
    lengths = np.asarray(grammar.sample(g, jax.random.key(0), 2000).lengths)
    needed = 50 * 128
    totals = np.random.default_rng(0).choice(lengths + 2, (10_000, grammar_stream.strings_for(g, needed))).sum(1)
    assert totals.min() >= needed


def test_a_stream_that_runs_out_goes_on_with_the_first_string(toy, monkeypatch):
    monkeypatch.setattr(grammar_stream, "strings_for", lambda of, tokens: 2)
    cut = windows_of(toy, 2, 41)
    period = (cut.strings.ravel() == 1).nonzero()[0]
    end = period[np.argmax(np.diff(period) > 1)] + 1
    np.testing.assert_array_equal(cut.tokens.ravel()[end:], cut.tokens.ravel()[: 82 - end])


def test_windows_of_noise(toy):
    quiet, loud = (windows_of(toy, 4, 64, noise=grammar.Noise(share, 0.5)) for share in (0.0, 1.0))
    np.testing.assert_array_equal(quiet.tokens, windows_of(toy, 4, 64).tokens)
    np.testing.assert_allclose((quiet.tokens != loud.tokens)[quiet.terminal].mean(), 0.5, atol=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda toy: grammar.Noise(kind="words"), "noise.kind must be one of token, symbol, next_symbol, got 'words'"),
        (lambda toy: grammar.Noise(share=1.5), r"noise.share .* in \[0, 1\], got 1.5"),
        (lambda toy: grammar.Noise(rate=-0.1), r"noise.rate .* in \[0, 1\], got -0.1"),
        (lambda toy: grammar.flip_tokens(toy, jax.random.key(0), np.ones((1, 3), int), 2.0), "noise.rate .* got 2.0"),
        (lambda toy: grammar.sample(toy, jax.random.key(0), 0), "count must be a positive integer, got 0"),
        (lambda toy: windows_of(toy, 0, 3), "batch must be a positive integer, got 0"),
        (lambda toy: windows_of(toy, 3, 0), "window must be a positive integer, got 0"),
    ],
)
def test_bad_settings_are_named(toy, call, message):
    with pytest.raises(ValueError, match=message):
        call(toy)


def test_noise_needs_another_terminal(tmp_path):
    (tmp_path / "one.csv").write_text("grammar,level,symbol,rule,children\none,1,2,0,1 1\n")
    one = grammar.load(tmp_path / "one.csv")
    assert np.asarray(grammar.sample(one, jax.random.key(0), 1).tokens).tolist() == [[1, 1]]
    with pytest.raises(ValueError, match="at least two terminals"):
        grammar.sample(one, jax.random.key(0), 1, grammar.Noise(1.0))
    with pytest.raises(ValueError, match="at least two terminals"):
        grammar.flip_tokens(one, jax.random.key(0), np.ones((1, 2), int))
