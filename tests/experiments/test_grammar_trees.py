"""Evaluators of dynamic programming, against loops in NumPy, scikit-learn, and runs with and without a patch."""

import jax
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import roc_auc_score

from jaxconcepts.experiments import grammar_spans, grammar_trees
from jaxconcepts.models import decoding, gpt2_block
from jaxconcepts.runs import points
from tests.experiments.toy_grammar import TABLE, TREES, config

METRICS = ("span", "mixing", "attention", "patch")
NAMES = {"NT2": (7, 8), "NT3": (5, 6)}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("trees") / "table.csv"
    path.write_text("\n".join(TABLE))
    return str(path)


class Untrained:
    """A model with random weights, which attends unevenly, and all that is measured of it."""

    def __init__(self, path):
        changed = {"task.grammar": path, "measure.metrics": METRICS, "init.weights": 0.4, "measure.per_concept": 20}
        self.experiment = experiment = points.make_point(config(**changed | {"measure.alpha": 2.0})).experiment
        numbers = points.make_point(config(**changed)).numbers
        self.data = jax.tree.map(np.asarray, experiment.data())
        self.params = jax.jit(experiment.init)(numbers, None)
        held_out = jax.jit(experiment.held_out)(numbers, self.data)

        def measure(params, held_out):
            once = experiment.constants(held_out, lambda: params)
            return experiment.measure(params, held_out) | once, experiment.read(params, held_out)[1]

        measured, self.answers = jax.device_get(jax.jit(measure)(self.params, held_out))
        self.values = {name: named.values for name, named in measured.items()}
        self.strings = [
            tuple(row[1 : 1 + n].tolist()) for row, n in zip(self.data["rows"], self.data["lengths"], strict=True)
        ]


@pytest.fixture(scope="module")
def model(path, compiles_fast):
    return Untrained(path)


def tree_of(string, level):
    """(symbol, first, last) of every symbol of the level."""
    labels = next(labels for _, tokens, labels in TREES if tokens == string)[int(level[2:]) - 1]
    ends = [place for place, (_, end) in enumerate(labels) if end]
    return [(labels[end][0], first, end) for first, end in zip([0, *(e + 1 for e in ends)], ends, strict=False)]


@pytest.mark.parametrize("level", ["NT2", "NT3"])
def test_false_spans_have_the_length_and_the_end_of_true_ones(model, level):
    asked = model.data["spans"][level]
    true, false = [], []
    for string, first, last, label in zip(*(asked[n] for n in ("string", "first", "last", "label")), strict=True):
        tree = {(a, b): symbol for symbol, a, b in tree_of(model.strings[string], level)}
        ending = next(symbol for (_, b), symbol in tree.items() if b == last)
        assert ((first, last) in tree) == label and first >= 0
        (true if label else false).append((ending, last - first))
    assert sorted(true) == sorted(false) and len(true) > 30


@pytest.mark.parametrize("level", ["NT2", "NT3"])
def test_the_span_probe_is_a_ridge_on_products_of_whitened_components(model, level):
    asked, streams = model.data["spans"][level], model.answers.streams.astype(np.float64)
    group, labels = asked["string"], asked["label"]
    # The last layer's components all vary; the embeddings have fewer tokens than components.
    ends = [streams[-1, group, asked[name] + 1] for name in ("first", "last")]
    whitened = PCA(16, whiten=True).fit(np.concatenate(ends))
    left, right = map(whitened.transform, ends)
    features = np.einsum("pi,pj->pij", left, right).reshape(len(labels), -1)
    scores = np.zeros(len(labels))
    for fold in range(3):
        out = group % 3 == fold
        scores[out] = RidgeClassifier(alpha=2.0).fit(features[~out], labels[~out]).decision_function(features[out])
    expected = roc_auc_score(labels, scores)
    assert model.values[f"span_auc/{level}"][-1] == pytest.approx(expected, abs=0.01)
    assert 0 <= model.values[f"span_auc_position/{level}"] <= 1
    np.testing.assert_array_equal(model.values[f"span_auc_untrained/{level}"], model.values[f"span_auc/{level}"])


def test_a_span_is_read_where_both_ends_name_it_together():
    """Either state alone is noise; their product is not."""
    random = np.random.default_rng(0)
    sign = random.choice([-1.0, 1.0], (2, 400))
    states = [np.stack([one, random.normal(size=400)], -1)[None].astype(np.float32) for one in sign]
    features = np.asarray(grammar_trees.span_features(*states))[0]
    label = (sign[0] == sign[1]) - np.mean(sign[0] == sign[1])

    def explained(x):
        return 1 - np.linalg.lstsq(x, label)[1][0] / (label @ label)

    assert explained(features) > 0.9 and explained(np.concatenate(states, 2)[0]) < 0.05


@pytest.mark.parametrize("positions", ["rotary", "relative", "position_only", "uniform"])
def test_weights_are_what_the_heads_weigh_values_by(path, positions, compiles_fast):
    changed = {"task.grammar": path, "model.positions": positions, "init.weights": 0.4, "measure.metrics": ["loss"]}
    point = points.make_point(config(**changed))
    model, params = point.experiment.model, point.experiment.init(point.numbers, None)
    tokens = np.random.default_rng(0).integers(0, 5, (3, 9))
    trace = decoding.forward(model, params, tokens, np.arange(9)[None], capture="all", keep="heads")
    for block in range(2):
        weights = np.asarray(gpt2_block.attention_weights(model, params, trace.captured[block], block), np.float64)
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
        stream = np.asarray(trace.captured[block], np.float64)
        one = jax.tree.map(lambda a: np.asarray(a, np.float64)[block], params["blocks"])  # noqa: B023
        normed = (stream - stream.mean(-1, keepdims=True)) / np.sqrt(stream.var(-1, keepdims=True) + model.eps)
        normed = normed * one["ln_1"]["scale"] + one["ln_1"]["bias"]
        dense = one["attn_v"] if "attn_v" in one else one["attn_qkv"]
        values = (normed @ dense["kernel"] + dense["bias"])[..., -16:].reshape(3, 9, 2, 8)
        heads = np.einsum("bhij,bjhe->bihe", weights, values).reshape(3, 9, 16)
        np.testing.assert_allclose(trace.outputs[block], heads, atol=1e-4)


@pytest.mark.parametrize("level", ["NT2", "NT3"])
def test_residues_are_means_over_pairs_less_those_of_the_distance(model, level):
    streams = model.answers.streams
    for block in range(2):
        weights = gpt2_block.attention_weights(model.experiment.model, model.params, streams[block], block)
        weights = np.asarray(weights, np.float64).mean(1)[:, 1:, 1:]
        by_distance, ends, around = {}, {back: [] for back in range(5)}, {place: [] for place in range(-2, 3)}
        for number, string in enumerate(model.strings):
            for i in range(len(string)):
                for k in range(i + 1):
                    by_distance.setdefault(i - k, []).append(weights[number, i, k])
        for number, string in enumerate(model.strings):
            at_end = {last: index for index, (_, _, last) in enumerate(tree_of(string, level))}
            for i in range(len(string)):
                for k in range(i + 1):
                    residue = weights[number, i, k] - np.mean(by_distance[i - k])
                    if i in at_end and k in at_end and at_end[i] - at_end[k] < 5:
                        ends[at_end[i] - at_end[k]].append(residue)
                    for place, values in around.items():
                        if k - place in at_end:
                            values.append(residue)
        for name, expected in (("ends", ends), ("around", around)):
            expected = [np.mean(values) if values else np.nan for values in expected.values()]
            np.testing.assert_allclose(model.values[f"attention_{name}/{level}"][block], expected, atol=1e-5)


def test_stand_ins_have_the_same_token_and_only_the_alike_one_ends_the_same_symbol(model):
    asked = model.data["boundaries"]
    assert len(asked["string"]) > 10
    ends = [{last: symbol for symbol, _, last in tree_of(string, "NT2")} for string in model.strings]
    lower = [{last for _, _, last in tree_of(string, "NT3")} for string in model.strings]
    for row in range(len(asked["string"])):
        (s, t), (a, at), (o, ot) = (
            (asked[f"{kind}string"][row], asked[f"{kind}place"][row]) for kind in ("", "alike_", "other_")
        )
        assert model.strings[s][t] == model.strings[a][at] == model.strings[o][ot]
        assert ends[s][t] == ends[a][at] and (s, t) != (a, at)
        assert ot not in ends[o] and ot in lower[o]
        assert all(place < len(model.strings[n]) - 1 for n, place in ((s, t), (a, at), (o, ot)))


def test_a_patch_after_the_last_block_gives_the_other_place_s_next_token(model):
    asked, exact = model.data["boundaries"], model.data["next_token"]
    logits = np.asarray(model.answers.logits, np.float64)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    valid = exact[asked["string"], asked["place"] + 1] > 0

    def share(kind):
        given = weights[asked[f"{kind}string"], asked[f"{kind}place"] + 1, 1 : valid.shape[1] + 1]
        return np.mean((given * valid).sum(-1))

    assert model.values["patched_valid/none"] == pytest.approx(share(""), abs=1e-5)
    for kind in ("alike", "other"):
        values = model.values[f"patched_valid/{kind}"]
        assert values.shape == (3,) and values[-1] == pytest.approx(share(f"{kind}_"), abs=1e-5)
        # The embedding of the same token, with rotary positions, is the same.
        assert values[0] == pytest.approx(share(""), abs=1e-5)
    assert abs(share("other_") - share("")) > 1e-3
    parses, weight = model.answers.patched
    assert parses.shape == weight.shape == (4, 2, len(asked["string"])) and set(np.unique(parses)) <= {0.0, 1.0}
    np.testing.assert_array_equal(parses[0], parses[-1])
    np.testing.assert_allclose(weight[-1, 0], weight[-1, 1], atol=1e-6)


def test_what_cannot_be_asked_is_named(path):
    tree = {"symbol": np.zeros((2, 4), int), "index": np.arange(4)[None].repeat(2, 0), "end": np.ones((2, 4), bool)}
    with pytest.raises(ValueError, match="span needs a symbol of two lengths"):
        grammar_spans.spans(tree, np.random.default_rng(0))
    with pytest.raises(ValueError, match="patch needs an end and a position that is none with the same token"):
        grammar_spans.boundaries(np.ones((2, 4), int), np.array([4, 4]), tree, None, np.random.default_rng(0))
    with pytest.raises(ValueError, match="patch needs a decoder, got model.causal = False"):
        points.make_point(config(**{"task.grammar": path, "model.causal": False, "measure.metrics": ["patch"]}))


@pytest.mark.parametrize("kind", ["1e-25", "1e25", "mean", "dimension"])
def test_spans_are_read_off_states_of_any_scale(kind):
    """The products of two states' whitened components, up to a rotation: so their inner products are compared."""
    states = np.random.default_rng(1).normal(size=(2, 60, 5))
    if kind == "mean":
        states = 1e4 + 0.02 * states
    elif kind == "dimension":
        states[..., 2] = 2e4 + 6000 * states[..., 2]
    else:
        states = states * float(kind)
    states = states.astype(np.float32)
    both = np.concatenate(states).astype(np.float64)
    # The left singular vectors are the whitened components but for the number of points.
    left, right = np.split(np.linalg.svd(both - both.mean(0), full_matrices=False)[0] * 120**0.5, 2)
    expected = (left @ left.T) * (right @ right.T)
    features = np.asarray(grammar_trees.span_features(*states[:, None]))[0].astype(np.float64)
    np.testing.assert_allclose(features @ features.T, expected, atol=1e-4)
