"""Several run directories on one page, against their tables."""

import json

import numpy as np
import polars as pl
import pytest

from jaxconcepts.commands import report
from jaxconcepts.figures import comparison, interactive, style


@pytest.fixture(scope="module")
def page(make_workdir, tmp_path_factory):
    """The page of two directories whose learning rates differ, of two seeds and one."""
    one, other = (
        make_workdir(seeds=seeds, measurements=4, layers=2, pairs=3, last=last) for seeds, last in ((2, 900), (1, 500))
    )
    config = json.loads((other / "config.json").read_text())
    config["train"]["learning_rate"] = 0.5
    (other / "config.json").write_text(json.dumps(config))
    folder = tmp_path_factory.mktemp("comparison")
    one, other = one.rename(folder / "one"), other.rename(folder / "other")
    return one, other, comparison.write_comparison([one, other], folder / "page").read_text()


def test_runs_of_all_directories_stand_in_one_panel(page, monkeypatch):
    one, other, html = page
    seen = {}
    monkeypatch.setattr(interactive, "described", lambda figure: seen.setdefault(len(seen), figure) and None)
    comparison.write_comparison([one, other], one.parent / "again")
    lines = {line.get_gid(): line for line in seen[1].axes[0].lines}
    assert list(lines) == ["one/r0", "one/r1", "other/r0"]
    assert [line.get_color() for line in lines.values()] == [style.CONCEPT_COLORS[k] for k in (0, 0, 1)]
    metrics = pl.read_parquet(other / "metrics" / "*.parquet").filter(
        pl.col("metric") == "cd", pl.col("token") == "x", pl.col("concept").is_null()
    )
    best = metrics.group_by("step").agg(pl.max("value")).sort("step")
    np.testing.assert_allclose(lines["other/r0"].get_ydata(), best["value"])
    assert "one: 2 run(s), best-layer CD" in html and "other: 1 run(s), best-layer CD" in html
    assert html.count('<tr id="run-') == 3


def test_the_fields_that_differ_are_listed(page):
    _, _, html = page
    table = html.split('<table id="differences">')[1].split("</table>")[0]
    assert "<td>train.learning_rate</td><td>0.001</td><td>0.5</td>" in table and "task.rank" not in table


def test_the_command_takes_several_directories(page, capsys):
    one, other, _ = page
    assert report.run(["report", f"--workdir={one},{other}"]) == 0
    assert f"report: {one}/comparison/report.html" in capsys.readouterr().out


@pytest.mark.parametrize("names", [("one",), ("one", "one"), ("one", "nowhere")])
def test_directories_that_cannot_be_compared_are_named(page, names):
    folder = page[0].parent
    with pytest.raises((ValueError, FileNotFoundError), match="at least two run directories|nowhere"):
        comparison.write_comparison([folder / name for name in names], folder / "bad")
