"""The small files of a sweep's run directory, damaged: each is named, with what to do; none is a traceback."""

import json
from datetime import UTC, datetime

import pytest

from jaxconcepts import __main__, store
from jaxconcepts.figures.sweeps import search as search_figure
from jaxconcepts.runs import points
from jaxconcepts.runs.loop import default_config
from jaxconcepts.store import files
from jaxconcepts.sweeps import membership

TOLD = {"at": datetime.now(UTC).isoformat(), "pack": None, "packs": 0}


@pytest.fixture
def workdir(tmp_path):
    config = points.stored(default_config())
    record = {name: value for name, value in config.items() if name not in ("run", "num_seeds")}
    with store.open_run(tmp_path, record | {"num_seeds": 1}):
        two = tuple(points.make_point(record | {"seed": seed}) for seed in range(2))
        membership.record(tmp_path, membership.Pack(two, membership.name_of(two)))
    for name, content in (("progress/0of1.json", TOLD), ("sweep.json", {"points": [], "shards": 1})):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


TEXTS = ("", "[]", "{}", "null", "nonsense", '{"at": 3}', '{"points": 3, "at": "x", "config": {}}', "[" * 100_000)


@pytest.mark.parametrize("name", ["progress/0of1.json", "sweep.json"])
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20])
def test_status_names_a_damaged_file(workdir, capsys, name, text):
    (workdir / name).write_text(text)
    assert __main__.main(["jaxconcepts", "status", f"--workdir={workdir}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: damaged {workdir / name}: ") and "; delete it" in error and error.count("\n") == 1


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20])
def test_a_damaged_pack_or_search_is_named(workdir, text):
    (path,) = (workdir / "packs").iterdir()
    path.write_text(text)
    with pytest.raises(files.DamagedFileError, match=f"damaged {path}: .*; delete it to run its points again"):
        membership.recorded(workdir)
    (workdir / "search.json").write_text(text)
    with pytest.raises(files.DamagedFileError, match="damaged .*search.json: "):
        search_figure.read(workdir)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["config"]["task"].update(noise=0.125),
        lambda content: content["overrides"].pop(),
        lambda content: content.update(sizes=[1]),
        lambda content: content.update(sizes=[3, -1]),
        lambda content: content["config"].update(seed="x"),
    ],
)
def test_a_pack_of_other_points_than_it_is_named_by_is_damaged(workdir, change):
    """And not another run in silence."""
    (path,) = (workdir / "packs").iterdir()
    assert len(membership.recorded(workdir)[0].points) == 2
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(files.DamagedFileError, match=f"damaged {path}: "):
        membership.recorded(workdir)
