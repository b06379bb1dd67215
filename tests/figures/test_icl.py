"""The in-context study's part of a report: every figure drawn from made-up tables, and what is written on the page."""

import dataclasses
import json
import re

import numpy as np
import polars as pl
import pytest
from PIL import Image

from jaxconcepts import store
from jaxconcepts.figures import paper
from jaxconcepts.figures.icl import catalogue as icl_catalogue
from jaxconcepts.figures.icl import curves as icl
from jaxconcepts.figures.icl import outcomes
from jaxconcepts.figures.icl import tables as icl_tables
from jaxconcepts.figures.report import write_report
from jaxconcepts.figures.tables import MissingData

LABELS = {
    "bitwise": ["AND", "NAND", "OR", "NOR", "XOR", "XNOR", "Null"],
    "pos": ["Noun", "Pronoun", "Verb", "Adverb", "Adjective", "Preposition", "Null"],
}
LAYERS, HEADLINE = 7, 4
LLAMA = {"model_type": "llama", "layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "vocab_size": 128256}
NAMES = [entry.name + suffix for entry in icl_catalogue.ENTRIES for suffix in (("_0", "_1") if entry.each else ("",))]


def cell(step, family, shots, variant, rng):
    """Rows of one cell: CD and accuracy that rise with shots and steps, and Null that does not."""
    rows = []

    def add(metric, value, layer=None, concept=None, other=None):
        rows.append({"metric": metric, "layer": layer, "concept": concept, "other": other, "value": float(value)})

    def with_ends(metric, value, width, **keys):
        for end, shift in (("", 0), ("_low", -width), ("_high", width)):
            add(metric + end, np.clip(value + shift, 0, 1), **keys)

    skill = (1 - 0.6 ** (shots + 3 * (variant != "plain"))) * (step / 3000 if step else 1)
    strength = np.append(rng.uniform(0.4, 1, 6), 0.05) * skill
    cd = 1 / 7 + 0.8 * strength * np.exp(-(((np.arange(LAYERS) - HEADLINE) / 2.5) ** 2))[:, None]
    accuracy = np.clip(strength * 0.9 + rng.normal(0, 0.05, 7), 0, 1)
    for layer in range(LAYERS):
        for concept in range(7):
            with_ends("cd", cd[layer, concept], 0.03, layer=layer, concept=concept)
        with_ends("cd", cd[layer, :6].mean(), 0.02, layer=layer)
        for metric, value in (("cd_null", 0.143), ("cd_null_high", 0.17), ("cd_p", 0.005)):
            add(metric, value, layer=layer)
        for concept in range(7):
            add("cd_null", 0.1 + 0.01 * concept, layer=layer, concept=concept)
        add("cd_coincident", float(layer == 0 or (step == 0 and family == "pos")), layer=layer)
    for concept in range(7):
        with_ends("accuracy", accuracy[concept], 0.05, concept=concept)
        wrong = rng.dirichlet(np.ones(7))
        for other in range(7):
            add("confusion", wrong[other], concept=concept, other=None if other == 6 else other)
            if other != concept:
                add("pairwise_cd", rng.uniform(0.5, 1), layer=HEADLINE, concept=concept, other=other)
    for number, control in enumerate(icl_tables.CONTROLS):
        for concept in (None, *range(7)):
            with_ends(f"cd_{control}", 0.2 + 0.05 * number + 0.01 * (concept or 0), 0.03, concept=concept)
    for layer in range(LAYERS):
        with_ends("cd_untrained", 0.15 + 0.01 * layer, 0.03, layer=layer)
        add("cd_with_query", cd[layer, :6].mean() - 0.05, layer=layer)
        for concept in (None, *range(7)):
            own = cd[layer, :6].mean() if concept is None else cd[layer, concept]
            with_ends("cd_above", own - 0.3 - 0.01 * (concept or 0), 0.05, layer=layer, concept=concept)
    with_ends("accuracy", accuracy[:6].mean(), 0.02)
    add("headline_layer", HEADLINE)
    with_ends("r2", 0.8, 0.15)
    for metric, value in (("spearman", 0.85), ("r2_adjusted", 0.75), ("r2_null", 0.2), ("r2_p", 0.015)):
        add(metric, value)
    name = f"{step:09d}-{family}-{shots}-{variant}"
    return name, _frame(rows, name, step, family, shots, variant)


def _frame(rows, name, step, family, shots, variant):
    key = {
        "run": name,
        "checkpoint": f"step_{step}",
        "step": step,
        "family": family,
        "shots": shots,
        "variant": variant,
    }
    ints = {"shots": pl.Int32, "layer": pl.Int32, "concept": pl.Int32, "other": pl.Int32}
    return pl.DataFrame([key | row for row in rows], schema_overrides=ints, infer_schema_length=None)


def write_study(root, steps=(1000, 2000, 3000), shots=(1, 4, 10), variants=("plain", "rule", "name"), model=LLAMA):
    """Writes the tables of a study; returns the run directory."""
    rng = np.random.default_rng(0)
    (root / "icl").mkdir(parents=True)
    null = dict.fromkeys(LABELS, "Null")
    numbers = {"k": 10, "draws": 10, "per_draw": 100, "variants": list(variants)}
    for folder in (root, root / "icl"):
        (folder / "config.json").write_text(json.dumps({"labels": LABELS, "null": null} | numbers))
    (root / "provenance.json").write_text("{}")
    for step in steps:
        sizes = {"checkpoint": f"step_{step}", "step": step} | model
        store.write_result(root, "icl", "models", f"{step}", pl.DataFrame([sizes]))
        for family in LABELS:
            for variant in variants:
                for count in shots:
                    name, frame = cell(step, family, count, variant, rng)
                    store.write_result(root, "icl", "metrics", name, frame)
                fit = {
                    "r2": 0.7,
                    "r2_low": 0.2,
                    "r2_high": 0.9,
                    "r2_adjusted": 0.64,
                    "r2_null": 0.2,
                    "r2_p": 0.03,
                    "spearman": 0.8,
                }
                rows = [
                    {"metric": m, "layer": None, "concept": None, "other": None, "value": v} for m, v in fit.items()
                ]
                name = f"{step:09d}-{family}-all-{variant}"
                store.write_result(root, "icl", "fits", name, _frame(rows, name, step, family, None, variant))
    for family in LABELS:
        for count in shots[:2]:
            states = (
                rng.normal(size=(3, 7, 20, 16)) + 3 * rng.normal(size=(1, 7, 1, 16)) * np.arange(3)[:, None, None, None]
            )
            layer, concept, point = np.indices(states.shape[:3]).reshape(3, -1)
            name = f"{steps[-1]:09d}-{family}-{count}-plain"
            columns = {"layer": np.array([0, HEADLINE, 6])[layer], "concept": concept, "point": point}
            frame = pl.DataFrame(columns).cast(pl.Int32)
            state = pl.Series("state", states.reshape(-1, 16).astype(np.float32), pl.Array(pl.Float32, 16))
            frame = frame.select(pl.lit(name).alias("run"), pl.all(), state)
            store.write_result(root, "icl", "hidden", name, frame)
    return root


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("icl") / "run")


@pytest.fixture(scope="module")
def page(workdir):
    return write_report(workdir).read_text()


@pytest.mark.slow
def test_every_figure_is_drawn(page, workdir):
    written = {path.stem for path in (workdir / "figures").iterdir()}
    assert written == set(NAMES)
    for name in NAMES:
        with Image.open(workdir / "figures" / f"{name}.png") as image:
            assert len(image.convert("RGB").getcolors(2**24)) > 50
    assert re.findall(r'<figure id="(\w+)">', page) == NAMES
    assert 'id="missing"' not in page.replace("Not shown", "") or "Projections" not in page


def test_the_page_has_the_tables_numbers(page, workdir):
    tables = icl_tables.load(workdir)
    accuracy, cd = tables.value("accuracy", "pos", shots=4), tables.headline("cd", "pos", shots=4)
    row = next(
        row for row in re.findall(r"<tr>.*?</tr>", page) if row.startswith("<tr><td>pos</td><td>plain</td><td>4<")
    )
    assert f"<td>{accuracy:.2f} [" in row and f"<td>{cd:.2f} [" in row and "<td>4</td>" in row
    assert "<td>all</td>" in page
    assert "<td>0.70 [0.20, 0.90]</td><td>0.64</td><td>0.03</td><td>0.80</td>" in page
    # What came out is at the head, and there is no run to count.
    assert page.index("<li>bitwise: from 1 to 10 shots") < page.index("<figure") and "0 runs" not in page


def test_what_came_out_is_said_of_each_figure(workdir):
    """One family's part of each sentence, from the rows."""
    tables = icl_tables.load(workdir)
    rows = tables.metrics.filter(family="pos", variant="plain", step=3000)
    value = lambda metric, **keys: take(rows, metric, **keys)  # noqa: E731
    headline = {"layer": HEADLINE}
    ends = [[value(m, shots=s, **k) for s in (1, 10)] for m, k in (("accuracy", {}), ("cd", headline))]
    said = {entry.name: entry.outcome for entry in icl_catalogue.ENTRIES}
    parts = [f"goes from {a:.2f} to {b:.2f}" for a, b in ends]
    assert f"pos: from 1 to 10 shots accuracy {parts[0]} and CD {parts[1]}." in said["icl_shots"](tables)
    above = value("cd_above", shots=10, **headline)
    assert said["icl_controls"](tables).endswith(
        f"pos: with 10 shots CD is {above:+.2f} [{value('cd_above_low', shots=10, **headline):.2f}, "
        f"{value('cd_above_high', shots=10, **headline):.2f}] against the highest control, an untrained model."
    )
    assert f"pos: with 10 shots CD is highest at layer 4 of 6, {ends[1][1]:.2f}." in said["icl_layers"](tables)
    assert said["icl_scatter"](tables).endswith("pos: R² of accuracy on CD is 0.70 [0.20, 0.90], p 0.03.")
    first = take(tables.metrics.filter(family="pos", variant="plain", step=1000), "accuracy", shots=4)
    assert said["icl_series"](tables).startswith("From step 1 000 to 3 000: bitwise: accuracy goes from ")
    assert f"pos: accuracy goes from {first:.2f} to {value('accuracy', shots=4):.2f} and CD" in said["icl_series"](
        tables
    )
    stated = tables.metrics.filter(family="pos", variant="rule", step=3000)
    change = take(stated, "accuracy", shots=4) - value("accuracy", shots=4)
    assert f"pos: against plain prompts, rule: accuracy {change:+.2f}, CD " in said["icl_variants"](tables)
    pairs = rows.filter(metric="pairwise_cd", shots=10).sort("value").row(0, named=True)
    names = [LABELS["pos"][pairs[name]] for name in ("concept", "other")]
    assert f"pos: {names[0]} and {names[1]} are told apart worst with 10 shots ({pairs['value']:.2f}," in said[
        "icl_pairwise"
    ](tables)
    wrong = (
        rows.filter(pl.col("other") != pl.col("concept"), metric="confusion", shots=10)
        .sort("value")
        .row(-1, named=True)
    )
    assert f"pos: {wrong['value']:.0%} of the wrong answers to {LABELS['pos'][wrong['concept']]} follow " in said[
        "icl_confusion"
    ](tables)
    low, high = (value("cd", shots=10, layer=layer) for layer in (0, HEADLINE))
    assert said["icl_hidden"](tables, "pos") == (
        f"With 10 shots CD is {low:.2f} at layer 0 and highest at layer {HEADLINE}, {high:.2f}."
    )


def take(rows, metric, **keys):
    keys = {"layer": None, "concept": None, "other": None} | keys
    chosen = rows.filter(pl.col("metric") == metric, *(pl.col(k).eq_missing(pl.lit(v)) for k, v in keys.items()))
    assert chosen.height == 1
    return chosen["value"][0]


def test_chance_is_the_null_of_each_concept_and_coincident_layers_are_marked(tmp_path):
    tables = icl_tables.load(write_study(tmp_path / "series", steps=(0, 1000)))
    shots, layers, series = icl.by_shots(tables), icl.cd_layers(tables), icl.over_checkpoints(tables)
    lines = {line.get_gid(): line.get_ydata() for axis in shots.axes for line in axis.lines}
    np.testing.assert_allclose(lines["pos/chance/3"], 0.13)
    np.testing.assert_allclose(lines["pos/chance/6"], 0.16)
    marked = {patch.get_gid() for axis in layers.axes for patch in axis.patches}
    assert {"pos/coincident/0", "bitwise/coincident/0"} <= marked and "pos/coincident/4" not in marked
    crosses = [line.get_gid() for axis in series.axes for line in axis.lines if "coincident" in str(line.get_gid())]
    assert crosses == ["pos/coincident"]
    fits = [axis.get_title() for axis in icl.scatter(tables).axes]
    assert any("adjusted 0.64, p 0.03; Spearman 0.80" in title for title in fits)


def test_svg_elements_are_the_tables_values(workdir, page):
    svg = (workdir / "figures" / "icl_shots.svg").read_text()
    assert 'id="bitwise/accuracy/4"' in svg and 'id="pos/cd/6"' in svg


def test_the_paper_s_numbers_are_of_its_model_alone(workdir, tmp_path):
    tables = icl_tables.load(workdir)
    assert tables.paper_model == "Llama-3.1-8B" and tables.paper_r2("pos") == 0.781
    xor = tables.paper("bitwise").filter(concept=4, shots=4)
    assert xor.select("cd", "accuracy").row(0) == (0.239, 0.39)
    other = icl_tables.load(write_study(tmp_path / "other", steps=(0,), model=LLAMA | {"layers": 16}))
    assert other.paper_model is None and other.paper("pos") is None and np.isnan(other.paper_r2("pos"))


def paper_marks(figure):
    """gid -> height of the paper's marks."""
    return {
        line.get_gid().removeprefix("paper/"): line.get_ydata()[0]
        for axis in figure.axes
        for line in axis.lines
        if str(line.get_gid()).startswith("paper/")
    }


def test_prompts_that_state_the_task_stand_beside_the_paper_s(workdir, tmp_path):
    expected = {
        "bitwise/accuracy/plain": 0.262, "bitwise/cd/plain": 0.43,
        "bitwise/accuracy/name": 0.572, "bitwise/cd/name": 0.9,
        "pos/accuracy/plain": 0.255, "pos/cd/plain": 0.68,
        "pos/accuracy/rule": 0.344, "pos/cd/rule": 0.97,
    }  # fmt: skip
    assert paper_marks(icl.variants(icl_tables.load(workdir))) == pytest.approx(expected)
    # Of other numbers of shots, and of another model, the paper has nothing.
    for name, sizes in {"shots": {"shots": (1, 10)}, "model": {"model": LLAMA | {"layers": 16}}}.items():
        tables = icl_tables.load(write_study(tmp_path / name, steps=(0,), **sizes))
        figure = icl.variants(tables)
        assert not paper_marks(figure) and not figure.legends


def test_cd_stands_beside_its_controls(workdir):
    tables = icl_tables.load(workdir)
    without = dataclasses.replace(tables, metrics=tables.metrics.filter(~_is_control()))
    assert tables.controls == ["prompt_tokens", "shown_answers", "untrained"] and without.controls == []
    by_layer = 0.15 + 0.01 * np.arange(LAYERS)
    headline = tables.headline("cd", "pos", shots=10, concept=2)
    for draw, gid, expected in (
        (icl.by_shots, "pos/untrained/2", 0.32),
        (icl.variants, "pos/untrained/rule", [*(0.3 + 0.01 * np.arange(7)), 0.3]),
        (icl.cd_layers, "pos/untrained/10 shots", by_layer),
        (icl.cd_layers, "pos/shown_answers/10 shots", [0.25, 0.25]),
        (icl.beside_controls, "pos/cd_prompt_tokens", 0.2),
        (icl.beside_controls, "pos/above/2", [..., headline - 0.32]),
    ):
        drawn = {line.get_gid(): line.get_ydata() for axis in draw(tables).axes for line in axis.lines}
        heights = drawn[gid][-1:] if isinstance(expected, list) and expected[0] is ... else drawn[gid]
        np.testing.assert_allclose(heights, expected[-1] if len(heights) == 1 else expected)
    for draw in (icl.by_shots, icl.variants, icl.cd_layers):
        drawn = [line for axis in draw(without).axes for line in axis.lines if len(line.get_ydata())]
        assert not [line for line in drawn if any(name in str(line.get_gid()) for name in icl_tables.CONTROLS)]
    with pytest.raises(MissingData, match="no controls in the tables"):
        icl.beside_controls(without)
    header, row = (part for part in (icl_catalogue._table(tables).header, icl_catalogue._table(tables).rows[0]))
    assert row[header.index("an untrained model")] == "0.30 [0.27, 0.33]" and len(header) == len(row)
    above = tables.headline("cd_above", row[0], shots=int(row[2]))
    assert row[header.index("above")].startswith(f"{above:.2f} [")


def _is_control():
    return pl.col("metric").str.contains("cd_(prompt_tokens|shown_answers|untrained|above)")


@pytest.mark.parametrize(
    ("name", "changed", "expected"),
    [
        ("a folder", {}, "Llama-3.1-8B"),
        ("a folder", {"context": 131072}, "Llama-3.1-8B"),
        ("a folder", {"context": 8192}, None),
        ("meta-llama/Meta-Llama-3-8B", {}, None),
        ("meta-llama/Llama-3.1-8B-Instruct", {}, None),
        ("meta-llama/Llama-3.1-8B", {"layers": 2}, None),
        ("google/gemma-2-9b", {"model_type": "gemma2"}, "Gemma-2-9B"),
        ("google/gemma-2-9b-it", {"model_type": "gemma2"}, None),
    ],
)
def test_which_of_the_paper_s_models_a_checkpoint_is(name, changed, expected):
    assert paper.model_of(LLAMA | changed, name) == expected


def test_what_is_missing_is_named(tmp_path):
    tables = icl_tables.load(write_study(tmp_path / "one", steps=(0,), variants=("plain",)))
    with pytest.raises(MissingData, match="no series of checkpoints"):
        icl.over_checkpoints(tables)
    with pytest.raises(MissingData, match="no variant but one"):
        icl.variants(tables)
    missing = {part.name: part.missing for part in icl_catalogue.sections(tables) if part.missing}
    assert list(missing) == ["icl_series", "icl_variants"]
    assert icl_tables.load(tmp_path) is None


def test_levels_beside_one_number_of_shots_are_seen(tmp_path):
    """A line through one place has no length: the captions speak of what nobody would see."""
    tables = icl_tables.load(write_study(tmp_path, steps=(1000,), shots=(1,), variants=("plain",)))
    for figure, name in ((icl.by_shots(tables), "pos/untrained/2"), (icl.by_shots(tables), "pos/chance/2"),
                         (icl.beside_controls(tables), "pos/chance")):  # fmt: skip
        (line,) = [line for axis in figure.axes for line in axis.lines if line.get_gid() == name]
        x, y = line.get_data()
        assert x[1] > x[0] and y[0] == y[1] > 0
    said = outcomes.by_shots(tables) + outcomes.layers(tables)
    assert "at 1 shot accuracy" in said and "with 1 shot CD" in said
