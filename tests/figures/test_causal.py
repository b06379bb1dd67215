"""The figures of the causal study of language models, from made-up tables."""

import itertools
import json

import numpy as np
import polars as pl
import pytest

from jaxconcepts import store
from jaxconcepts.__main__ import main
from jaxconcepts.figures.causal import catalogue as causal_catalogue
from jaxconcepts.figures.causal import panels as causal
from jaxconcepts.figures.report import write_report
from jaxconcepts.figures.tables import MissingData

CONCEPTS, LAYERS, REPLICATES = ("AND", "XOR"), range(3), range(5)


def accuracy(condition, layer, replicate):
    return 0.2 + 0.1 * layer + 0.02 * replicate - 0.1 * (condition == "negative")


def rows(conditions, layers=LAYERS, metric="accuracy", **named):
    return [
        {"family": "bits", "condition": c, "concept": k, "layer": layer, "replicate": r, "metric": metric,
         "value": accuracy(c, layer or 0, r)} | named
        for c, k, layer, r in itertools.product(conditions, CONCEPTS, layers, REPLICATES)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tables():
    heads = [
        {"family": "bits", "condition": "mean", "concept": k, "layer": layer, "head": head, "replicate": r,
         "metric": "accuracy", "value": 0.2 + 0.02 * r - 0.1 * (head == 1) - 0.2 * (layer == 2 and k == "XOR")}
        for k, layer, head, r in itertools.product(CONCEPTS, (1, 2), range(3), REPLICATES)
    ]  # fmt: skip
    effects = [
        {"family": "bits", "condition": "effect", "concept": k, "layer": layer, "head": head,
         "metric": "indirect_effect", "value": layer * 0.1 + head * 0.01}
        for k, layer, head in itertools.product(CONCEPTS, (1, 2), range(3))
    ]  # fmt: skip
    given = {
        "patching": rows(["none"], [None]) + rows(["positive", "negative", "other", "random"]),
        "task_vectors": rows(["few-shot", "zero-shot"], [None]) + rows(["task vector"], [2]),
        "function_vectors": effects + rows(["function vector"], [1]),
        "steering": rows(["none"], [None], "as_other") + rows(["steered", "random"], metric="as_other", scale=2.0),
        "heads": heads + rows(["none"], [None]),
        "interchange": [
            {"family": "bits", "concept": k, "layer": layer, "token": -t, "pairs": 4, "value": layer / 2 * (t == 1)}
            for k, layer, t in itertools.product(CONCEPTS, LAYERS, range(1, 9))
        ],
        "concepts": [("bits", "AND", 12, True), ("bits", "XOR", 30, True), ("bits", "NOR", 0, False)],
    }  # fmt: skip
    frames = {kind: pl.DataFrame(given[kind], infer_schema_length=None) for kind in given if kind != "concepts"}
    frames["concepts"] = pl.DataFrame(given["concepts"], ["family", "concept", "behind_mean", "used"], orient="row")
    return frames


def lines(figure):
    return {line.get_gid(): line.get_ydata() for axis in figure.axes for line in axis.lines if line.get_gid()}


def test_patches_by_layer(tables):
    found = lines(causal.patching(tables))
    np.testing.assert_allclose(found["None/positive"], [0.24, 0.34, 0.44])
    np.testing.assert_allclose(found["XOR/negative"], [0.14, 0.24, 0.34])
    np.testing.assert_allclose(found["AND/none"], [0.24, 0.24])
    with pytest.raises(MissingData, match="no accuracy of patching"):
        causal.patching(tables | {"patching": None})


def spans(container):
    """(low, high) of each error bar."""
    return [tuple(segment[:, 1]) for segment in container[2][0].get_segments()]


def test_intervals_are_those_of_the_tables(tables):
    ends = [
        {"condition": c, "concept": k, "layer": layer, "metric": f"accuracy_{end}",
         "value": accuracy(c, layer or 0, 2) + (0.05 if end == "high" else -0.1 if k else -0.02)}
        for c, layers in (("none", [None]), ("positive", LAYERS), ("negative", LAYERS), ("task vector", [2]))
        for k, layer, end in itertools.product((*CONCEPTS, None), layers, ("low", "high"))
    ]  # fmt: skip
    ends = pl.DataFrame(ends, infer_schema_length=None).with_columns(family=pl.lit("bits"))
    given = {
        kind: pl.concat([tables[kind], ends.filter((pl.col("condition") == "task vector") == vectors)], how="diagonal")
        for kind, vectors in (("patching", False), ("task_vectors", True))
    }
    given = tables | given
    axes = causal.patching(given).axes
    of_all, of_one = (
        {c.lines[2][0].get_gid(): spans(c) for c in axis.containers if c.lines[2][0].get_gid()} for axis in axes[:2]
    )
    np.testing.assert_allclose(of_all["None/positive/interval"], [(0.22, 0.29), (0.32, 0.39), (0.42, 0.49)])
    np.testing.assert_allclose(of_one["AND/negative/interval"], [(0.04, 0.19), (0.14, 0.29), (0.24, 0.39)])
    bars = next(c for c in causal.vectors(given).axes[0].containers if c.get_label() == "task vector")
    np.testing.assert_allclose(spans(bars.errorbar), [(0.34, 0.49), (0.34, 0.49), (0.42, 0.49)])
    # Without ends in the tables there is no bar.
    bars = next(c for c in causal.vectors(tables).axes[0].containers if c.get_label() == "task vector")
    np.testing.assert_allclose(spans(bars.errorbar), [(0.44, 0.44)] * 3)


def test_bars_of_vectors_stand_at_their_accuracy(tables):
    axis = causal.vectors(tables).axes[0]
    heights = {c.get_label(): [bar.get_height() for bar in c] for c in axis.containers if hasattr(c, "patches")}
    np.testing.assert_allclose(heights["task vector"], [0.44] * 3)
    np.testing.assert_allclose(heights["function vector"], [0.34] * 3)
    np.testing.assert_allclose(heights["zero-shot"], [0.24] * 3)


@pytest.fixture(scope="module")
def of_the_paper(tables):
    """The same tables under the paper's names: its family, concepts and layer."""
    rows = tables["patching"].with_columns(family=pl.lit("bitwise"), layer=pl.col("layer") + 11)
    return tables | {"patching": rows, "concepts": tables["concepts"].with_columns(family=pl.lit("bitwise"))}


def test_patches_at_the_layer_where_they_differ_most(tables):
    rows = tables["patching"].with_columns(
        value=pl.col("value") + 0.2 * ((pl.col("condition") == "positive") & (pl.col("layer") == 1))
    )
    axis = causal.patched(tables | {"patching": rows}).axes[0]
    assert axis.get_title(loc="left") == "layer 1"
    heights = {c.get_label(): [bar.get_height() for bar in c] for c in axis.containers if hasattr(c, "patches")}
    expected = {"no patch": 0.24, "negative patch": 0.24, "random patch": 0.34, "positive patch": 0.54}
    assert list(heights) == list(expected)
    for name, height in expected.items():
        np.testing.assert_allclose(heights[name], [height] * 3)
    alone = rows.filter(pl.col("condition").is_in(["none", "positive"]))
    with pytest.raises(MissingData, match="no positive patches and opposite ones"):
        causal.patched(tables | {"patching": alone})


SIZES = {"model_type": "llama", "layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "vocab_size": 128256}


@pytest.mark.parametrize(
    ("sizes", "shots", "there"), [({}, 4, True), ({"layers": 16}, 4, False), ({}, 1, False), (None, 4, False)]
)
def test_the_paper_s_patches_stand_beside_its_own_model_alone(of_the_paper, sizes, shots, there, tmp_path, monkeypatch):
    for kind in ("patching", "concepts"):
        store.write_result(tmp_path, "causal", kind, "bitwise", of_the_paper[kind])
    if sizes is not None:
        row = SIZES | {"checkpoint": "a folder", "context": 131072} | sizes
        store.write_result(tmp_path, "causal", "models", "model", pl.DataFrame([row]))
    (tmp_path / "causal" / "config.json").write_text(json.dumps({"shots": shots}))
    figures, draw = [], causal.patched
    (entry,) = (entry for entry in causal_catalogue.ENTRIES if entry.name == "patched")
    entry = entry._replace(draw=lambda tables: figures.append(draw(tables)) or figures[-1])
    monkeypatch.setattr(causal_catalogue, "ENTRIES", (entry,))
    write_report(tmp_path)
    axis = figures[0].axes[0]
    found = {line.get_gid(): line.get_ydata() for line in axis.lines if str(line.get_gid()).startswith("paper/")}
    if not there:
        assert not found
        return
    # Figure 20 of AND and XOR, and their mean; the figure is of the layer that the paper patched.
    assert axis.get_title(loc="left") == "layer 13" and set(found) == {"paper/none", "paper/negative", "paper/positive"}
    np.testing.assert_allclose(found["paper/none"], [0.219, 0.39, 0.3045])
    np.testing.assert_allclose(found["paper/negative"], [0.178, 0.334, 0.256])
    np.testing.assert_allclose(found["paper/positive"], [0.272, 0.397, 0.3345])


def test_head_maps_show_changes(tables):
    (every, own, other) = [axis.images[0].get_array() for axis in causal.heads(tables).axes if axis.images]
    np.testing.assert_allclose(own, [[0, -0.1, 0], [0, -0.1, 0]], atol=1e-9)
    np.testing.assert_allclose(other, [[0, -0.1, 0], [-0.2, -0.3, -0.2]], atol=1e-9)
    np.testing.assert_allclose(every, (own + other) / 2, atol=1e-9)
    effects = [axis.images[0] for axis in causal.effects(tables).axes if axis.images]
    np.testing.assert_allclose(effects[0].get_array(), [[0.1, 0.11, 0.12], [0.2, 0.21, 0.22]])
    assert effects[0].norm.vmin == -effects[0].norm.vmax


def test_what_came_out_is_said_of_each_figure(tables):
    """By `accuracy`: .2 + .1 a layer + .04 in the mean over replicates, the negative patch .1 below."""
    said = {entry.name: entry.outcome(tables) for entry in causal_catalogue.ENTRIES}
    assert said["patching"] == (
        "The positive patch takes accuracy from 0.24 to 0.44 at layer 2, its best; a random direction takes it to 0.44 "
        "there."
    )
    assert said["patched"].endswith("0.24 without a patch, 0.24 after the positive one, 0.14 after the negative one, "
                                    "0.24 after the random one.")  # fmt: skip
    assert said["vectors"] == (
        "Accuracy over all concepts: few-shot 0.24, zero-shot 0.24, task vector 0.44, function vector 0.34."
    )
    # Block 2's heads .2, .21, .22, block 1's .1, .11, .12.
    assert said["effects"] == (
        "Head 2 of block 2 does most: the right answer's probability rises by +0.22, for the median head by +0.16."
    )
    # Head 1: .1 in both blocks, and .2 more of XOR in block 2.
    assert said["heads"] == (
        "Head 1 of block 2 does most: without it accuracy changes by -0.2, for the median head by -0.05."
        .replace("-0.05", f"{np.median([0, -0.1, 0, -0.1, -0.2, -0.1]):+.2g}")
    )  # fmt: skip
    assert said["steering"] == (
        "Steering makes 44% of the answers the other concept's at layer 2, scale 2; a random direction 44%; without "
        "steering 24% are."
    )
    assert said["interchange"] == "The state at layer 2 of token -1 restores most: 100% of the logit difference."


def test_interchange_counts_tokens_from_the_end(tables):
    images = [axis.images[0] for axis in causal.interchange(tables).axes if axis.images]
    np.testing.assert_allclose(images[0].get_array()[:, -1], [0, 0.5, 1])
    assert not images[0].get_array()[:, :-1].any()


def test_the_page_has_every_figure_and_names_what_is_skipped(tables, tmp_path):
    write_study(tables, tmp_path)
    html = write_report(tmp_path).read_text()
    for name in (entry.name for entry in causal_catalogue.ENTRIES):
        assert f'<figure id="causal_{name}_bits">' in html
        assert (tmp_path / "figures" / f"causal_{name}_bits.png").stat().st_size > 5000
    assert "bits: NOR: skipped: none of its prompts has a correct answer" in html
    with pytest.raises(ValueError, match="workdir must hold a run"):
        write_report(tmp_path / "figures")


def test_the_report_command_draws_a_causal_study_without_a_run(tables, tmp_path, capsys):
    write_study(tables, tmp_path)
    assert main(["jaxconcepts", "report", f"--workdir={tmp_path}"]) == 0
    output = capsys.readouterr().out
    assert output.endswith(f"\nreport: {tmp_path / 'report.html'}\n")
    assert all(f"drawing bits: {entry.title}" in output for entry in causal_catalogue.ENTRIES)


def write_study(tables, workdir):
    for kind, table in tables.items():
        store.write_result(workdir, "causal", kind, "bits", table)
    (workdir / "causal" / "config.json").write_text(json.dumps({"shots": 4}))


@pytest.mark.parametrize("text", ["", "[]", "nonsense"])
def test_a_damaged_config_of_the_study_is_named(tables, tmp_path, capsys, text):
    store.write_result(tmp_path, "causal", "concepts", "bits", tables["concepts"])
    (tmp_path / "causal" / "config.json").write_text(text)
    assert main(["jaxconcepts", "report", f"--workdir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: damaged {tmp_path}/causal/config.json: ") and error.count("\n") == 1
