import base64
import dataclasses
import gzip
import html as html_entities
import json
import os
import re
import shutil
import subprocess

import numpy as np
import polars as pl
import pytest
from PIL import Image

from jaxconcepts.figures import claims, style
from jaxconcepts.figures.regression import catalogue
from jaxconcepts.figures.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NAMES = [entry.name for entry in catalogue.ENTRIES] + [f"projection_pca_{number}" for number in range(3)]


def keep(workdir, condition):
    """Keeps only the rows of the metrics table that meet the condition."""
    for path in (workdir / "metrics").iterdir():
        pl.read_parquet(path).filter(condition).write_parquet(path)


@pytest.fixture(scope="module")
def report(workdir):
    path = write_report(workdir, umap=False)
    return path, path.read_text()


def test_every_figure_is_written_as_png_and_svg(report, workdir):
    path, _ = report
    assert os.fspath(path) == os.fspath(workdir / "report.html")
    written = sorted(file.name for file in (workdir / "figures").iterdir() if file.suffix != ".csv")
    assert written == sorted(f"{name}.{kind}" for name in NAMES for kind in ("png", "svg"))
    for name in NAMES:
        with Image.open(workdir / "figures" / f"{name}.png") as image:
            assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
            assert min(image.size) > 300
            assert len(image.convert("RGB").getcolors(2**24)) > 50  # not an empty sheet
        assert (workdir / "figures" / f"{name}.svg").read_text().startswith("<?xml")


def test_svg_elements_are_named_by_what_they_show(report, workdir):
    assert 'id="r2/loss/3"' in (workdir / "figures" / "loss_mean.svg").read_text()


def test_the_data_of_each_figure_is_kept_as_csv(report, workdir):
    curves = pl.read_csv(workdir / "figures" / "loss_mean.csv")
    metrics = pl.read_parquet(workdir / "metrics" / "*.parquet").filter(
        pl.col("metric") == "loss", pl.col("run") == "r2", pl.col("concept") == 3, pl.col("position").is_null()
    )
    drawn = curves.filter(pl.col("element") == "r2/loss/3")
    assert drawn["x"].to_list() == metrics.sort("step")["step"].to_list()
    assert drawn["y"].to_numpy() == pytest.approx(metrics.sort("step")["value"].to_numpy() / 4)
    cells = pl.read_csv(workdir / "figures" / "cd_map_x.csv").filter(pl.col("value").is_not_null())
    assert cells["value"].is_between(0, 1).all()
    assert cells["y"].n_unique() > 1


def test_the_page_says_what_came_out(report, workdir):
    """The sentence of a run against its tables: CD and layer, the nearest reference, and since when."""
    _, html = report
    metrics = pl.read_parquet(workdir / "metrics" / "*.parquet").filter(
        pl.col("run") == "r0", pl.col("concept").is_null(), pl.col("position").is_null()
    )
    cd = metrics.filter(pl.col("metric") == "cd", pl.col("token") == "x", pl.col("step") == 20000)
    best = cd.sort("layer").sort("value", descending=True, maintain_order=True).row(0, named=True)
    (sentence,) = re.findall(r"<li>([^<]*seed 0[^<]*)</li>", html)
    assert f"CD {best['value']:.2f} [" in sentence
    assert f"at layer {best['layer']}, chance 0.25" in sentence
    distances = metrics.filter(pl.col("metric").str.starts_with("distance_"))
    nearest = distances.sort("value").group_by("step", maintain_order=True).first().sort("step")
    last = nearest["metric"][-1]
    since = nearest.filter(pl.col("metric") != last)["step"].max()
    first = nearest.filter(pl.col("step") > (-1 if since is None else since))["step"][0]
    label = style.REFERENCE_LABELS[last.removeprefix("distance_")]
    assert f"predictions are nearest to {label} from step {first:,} on".replace(",", " ") in sentence


def test_claims_of_the_run_directory_come_first(make_workdir):
    workdir = make_workdir(seeds=3, measurements=3, layers=1, pairs=3)
    shutil.rmtree(workdir / "hidden")
    claim = claims.Claim("above chance", "concepts can be read off", claims.Quantity("cd"), (claims.Arm("all"),))
    claims.write(workdir, [claim, dataclasses.replace(claim, name="none", quantity=claims.Quantity("nothing"))])
    html = write_report(workdir, umap=False).read_text()
    assert html.index("<h2>Claims</h2>") < html.index("<h2>Concepts forming in training</h2>")
    assert re.search(r"<li>concepts can be read off: holds \([^<]*3 of 3 seeds as expected\)</li>", html)
    assert "the metric nothing in every arm is needed; 0 seed(s) have it" in html
    assert '<figure id="claims">' in html


def test_the_page_of_a_run_that_goes_on_loads_itself_again(make_workdir):
    workdir = make_workdir(seeds=1, measurements=3, layers=1, pairs=3)
    assert 'http-equiv="refresh"' not in write_report(workdir, umap=False).read_text()
    for path in (workdir / "runs").iterdir():
        pl.read_parquet(path).with_columns(status=pl.lit("running")).write_parquet(path)
    assert '<meta http-equiv="refresh" content="15">' in write_report(workdir, umap=False).read_text()


def test_the_page_needs_nothing_else(report):
    """Beside links to its figures' files: no image, script or style from elsewhere, but Plotly and the data, packed."""
    _, html = report
    assert re.findall(r'<[^>]*src="', re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)) == []
    links = set(re.findall(r'href="([^"]*)"', html)) - {"data:,"}
    files = {f"figures/{name}.{kind}" for name in NAMES for kind in ("png", "svg", "csv")}
    assert links <= files | {f"#{name}" for name in (*NAMES, "numbers")}
    assert all(f'id="{link[1:]}"' in html for link in links if link.startswith("#"))
    assert "url(" not in html and "@import" not in html
    assert len(html) < 3e6 and unpacked(html, "library").startswith("/**\n* plotly.js v")


def unpacked(html, name):
    text = re.search(rf'<script type="text/plain" id="{name}">([^<]*)</script>', html)[1]
    return gzip.decompress(base64.b64decode(text)).decode()


def test_the_page_draws_what_the_figures_show(report, workdir):
    """The packed data against the CSV of each figure, which is read off the same figure by other code."""
    _, html = report
    figures = json.loads(unpacked(html, "figures"))
    assert list(figures) == NAMES
    loss = figures["loss_mean"]
    assert [panel["title"] for panel in loss["panels"]] == ["seed 0", "seed 1", "seed 2"]
    assert loss["panels"][0]["x"]["scale"] == "symlog" and loss["kind"] == "flow"
    csv = pl.read_csv(workdir / "figures" / "loss_mean.csv").filter(pl.col("element") == "r2/loss/3")
    (trace,) = [one for one in loss["traces"] if one["panel"] == 2 and one["name"] == "concept 3"]
    assert trace["shown"] == csv["x"].to_list()  # The places on a symmetric logarithmic axis are not the steps.
    assert (
        trace["y"] == pytest.approx(csv["y"].to_numpy(), rel=1e-4) and trace["color"] == style.concept_color(3).lower()
    )
    assert [one["name"] for one in loss["traces"] if one["legend"]][-1] == "all concepts"
    cells = pl.read_csv(workdir / "figures" / "cd_map_x.csv").filter(pl.col("panel") == "seed 0")
    (heat,) = [one for one in figures["cd_map_x"]["traces"] if one["panel"] == 0]
    assert np.ravel(heat["shown"]) == pytest.approx(cells["value"].to_numpy(), rel=1e-4)
    assert len(heat["x"]) == len(heat["z"][0]) + 1 and figures["cd_map_x"]["bar"]["label"] == "CD at the x token"
    moving = figures["projection_pca_0"]
    assert moving["kind"] == "frames" and moving["rows"] == 4
    assert all(re.fullmatch(r"layer \d\nCD [\d.]+", panel["title"]) for panel in moving["panels"])


def test_the_page_shows_numbers_config_and_provenance(report, workdir):
    _, html = report
    metrics = pl.read_parquet(workdir / "metrics" / "*.parquet").filter(pl.col("step") == 20000)
    metrics = metrics.filter(pl.col("concept").is_null())
    for run in ("r0", "r1", "r2"):
        (row,) = re.findall(rf'<tr id="run-{run}">.*?</tr>', html)
        own = metrics.filter(pl.col("run") == run)
        cd = own.filter(pl.col("metric") == "cd", pl.col("token") == "x")["value"].max()
        loss = own.filter(pl.col("metric") == "loss", pl.col("position") == 11)["value"].item()
        assert f"<td>{cd:.3f} [" in row and f"<td>{loss / 4:.3g}</td>" in row
    for name in NAMES:
        assert f'<figure id="{name}">' in html
    assert "&#34;learning_rate&#34;: 0.001" in html
    assert "train &lt;made up&gt;" in html
    assert 'id="missing"' not in html or "UMAP" in html.split('id="missing"')[1].split("</div>")[0]


@pytest.mark.parametrize(
    "condition, absent",
    [
        (pl.col("metric") != "cd", {"cd_map_x", "cd_map_y", "cd_curves", "cd_concepts", "cd_against_loss"}),
        (~pl.col("metric").str.starts_with("distance"), {"distance"}),
        (pl.col("metric") != "cd_points", set()),
        (pl.col("position").is_null(), {"loss_last", "loss_by_position"}),
        (pl.col("step") == 0, {"train_loss"}),
        (pl.col("metric") == "train_loss", set(NAMES[:-3]) - {"train_loss"}),
    ],
    ids=["no cd", "no distances", "no number of points", "no positions", "one measurement", "only the training loss"],
)
def test_what_is_missing_is_named_and_the_rest_is_drawn(make_workdir, condition, absent):
    workdir = make_workdir(seeds=1, measurements=5, layers=1, pairs=4)
    shutil.rmtree(workdir / "hidden")
    keep(workdir, condition)
    html = write_report(workdir).read_text()
    assert set(re.findall(r'<figure id="(\w+)">', html)) == set(NAMES[:-3]) - absent
    titles = {entry.name: entry.title for entry in catalogue.ENTRIES}
    for name in absent:
        assert f"<li>{titles[name]}: no " in html


def test_without_hidden_states_and_runs(make_workdir):
    workdir = make_workdir(seeds=2, measurements=3, layers=1, pairs=3)
    shutil.rmtree(workdir / "hidden")
    shutil.rmtree(workdir / "runs")
    html = write_report(workdir).read_text()
    assert "no snapshots in hidden/" in html
    assert "<td>r0</td>" in html and "<td>r1</td>" in html


def test_more_runs_than_are_drawn(make_workdir, monkeypatch):
    monkeypatch.setattr("jaxconcepts.figures.regression.sections.RUNS_PER_FIGURE", 2)
    workdir = make_workdir(seeds=4, measurements=3, layers=1, pairs=3)
    shutil.rmtree(workdir / "hidden")
    html = write_report(workdir, max_runs=3).read_text()
    assert '<figure id="loss_mean">' in html and '<figure id="loss_mean_2">' in html
    assert "Figures of 1 of 4 runs" in html
    assert html.count('<tr id="run-') == 4


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"workdir must hold a run, but there is no {tmp_path}"):
        write_report(tmp_path)


def test_a_run_without_measurements_is_named(make_workdir):
    workdir = make_workdir(seeds=1, measurements=1, layers=1)
    shutil.rmtree(workdir / "metrics")
    with pytest.raises(ValueError, match=f"workdir must hold measurements, but there are no rows in {workdir}/metrics"):
        write_report(workdir)


@pytest.mark.parametrize("setting", [{"step_scale": "cubic"}, {"max_runs": 0}])
def test_bad_settings_are_named(workdir, setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be .*, got "):
        write_report(workdir, **setting)


PROBE = """
const frame = document.createElement("iframe");
const results = [];
frame.src = "report.html#all";
document.body.append(frame);
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
(async () => {
  for (const width of [390, 1200]) {
    frame.style.cssText = `width:${width}px;height:900px;border:0`;
    await new Promise((resolve) => { frame.onload = resolve; frame.contentWindow.location.reload(); });
    const page = frame.contentDocument;
    for (let k = 0; k < 200 && !page.body.dataset.ready; k++) await wait(50);
    const boxes = [...page.querySelectorAll(".interactive")];
    const overlapping = (box) => {
      const all = [...box.querySelectorAll(".xtick text, .ytick text, .annotation-text")];
      const texts = all.filter((text) => text.textContent.trim());
      const places = texts.map((text) => text.getBoundingClientRect());
      const along = (a, b, low, high) => Math.min(a[high], b[high]) - Math.max(a[low], b[low]) > 2;
      const over = (a, b) => along(a, b, "left", "right") && along(a, b, "top", "bottom");
      return places.flatMap((a, i) => places.flatMap((b, j) =>
        j > i && over(a, b) ? [texts[i].textContent + " | " + texts[j].textContent] : []));
    };
    results.push({
      width, overflow: page.documentElement.scrollWidth - width,
      paper: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
      figures: boxes.map((box) => ({
        name: box.dataset.figure, panels: box.querySelectorAll(".plot .bg").length, overlapping: overlapping(box),
        drawn: box.querySelectorAll(".scatterlayer .trace, .heatmaplayer .hm").length,
      })),
    });
  }
  document.body.innerHTML = ""; document.body.dataset.seen = JSON.stringify(results);
})();
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_opens_in_a_browser(report, tmp_path, theme):
    """At a phone's and a desktop's width: nothing on the console, no sideways scrolling, every figure drawn, and no two
    labels of a figure on one another."""
    browser = os.environ.get("BROWSER_BINARY") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no browser: set BROWSER_BINARY or install chromium")
    path, html = report
    (tmp_path / "report.html").write_text(html)
    (tmp_path / "probe.html").write_text(f"<body></body><script>{PROBE}</script>")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --window-size=1300,1000 --enable-logging=stderr --v=0"
    options += f" --user-data-dir={tmp_path / 'profile'} --virtual-time-budget=60000 --dump-dom"
    options += " --allow-file-access-from-files" + " --blink-settings=preferredColorScheme=0" * (theme == "dark")
    command = [browser, *options.split(), (tmp_path / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    seen = json.loads(html_entities.unescape(re.search(r'data-seen="([^"]*)"', done.stdout)[1]))
    assert [one["width"] for one in seen] == [390, 1200]
    for one in seen:
        assert one["overflow"] <= 0 and (one["paper"] == "rgb(255, 255, 255)") == (theme == "light")
        assert sorted(figure["name"] for figure in one["figures"]) == sorted(NAMES)
        for figure in one["figures"]:
            assert figure["panels"] >= 3 and figure["drawn"] >= 3, figure
            assert figure["overlapping"] == [], figure["name"]


def test_a_band_s_outline_is_in_the_csv(report, workdir):
    rows = pl.read_csv(workdir / "figures" / "cd_curves.csv").filter(pl.col("element") == "r0/cd/interval")
    metrics = pl.read_parquet(workdir / "metrics" / "*.parquet").filter(run="r0", token="x")
    for end in ("cd_low", "cd_high"):
        known = set(metrics.filter(metric=end).select("step", pl.col("value").round(9)).iter_rows())
        assert {(step, round(y, 9)) for step, y in rows.select("x", "y").iter_rows()} & known
    best = metrics.filter(pl.col("metric") == "cd", pl.col("concept").is_null())
    assert rows["x"].unique().sort().to_list() == best["step"].unique().sort().to_list()
    assert rows["y"].min() > 0


def test_captions_say_how_many_neighbours_voted(make_workdir):
    workdir = make_workdir(seeds=1, measurements=3, layers=2, points=20, width=4, pairs=3)
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(config | {"measure": {"neighbours": 3}}))
    assert "their 3 nearest neighbours" in write_report(workdir, umap=False).read_text()


def test_names_of_metrics_that_no_disk_takes_or_that_are_alike_have_files_of_their_own(make_workdir):
    workdir = make_workdir(seeds=1, measurements=3, layers=2, points=20, width=4, pairs=3)
    names = ["a_b", "a b", "a/b", "a\nb", "x" * 300, "語" * 90, "", "$x_1$", "<b>"]
    (path,) = (workdir / "metrics").iterdir()
    table = pl.read_parquet(path)
    own = table.filter(pl.col("metric") == "train_loss").head(1)
    pl.concat([table, *(own.with_columns(metric=pl.lit(name)) for name in names)]).write_parquet(path)
    write_report(workdir, umap=False)
    files = {file.name for file in (workdir / "figures").glob("measured_*.png")}
    assert len(files) == len(names) and "measured_a_b.png" in files


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_run_of_zeros_or_of_no_numbers_has_a_page(make_workdir, value):
    workdir = make_workdir(seeds=2, measurements=3, layers=2, points=20, width=4, pairs=3)
    (path,) = (workdir / "metrics").iterdir()
    one = pl.when(pl.col("run") == "r1").then(value).otherwise("value") if value else pl.lit(0.0)
    pl.read_parquet(path).with_columns(value=one).write_parquet(path)
    assert "seed 1" in write_report(workdir, umap=False).read_text()
