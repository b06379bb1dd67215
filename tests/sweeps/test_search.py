"""Adaptive search: its proposals, the rounds that train them, and one that is stopped and goes on."""

import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxconcepts import store
from jaxconcepts.__main__ import main
from jaxconcepts.quantity import Quantity
from jaxconcepts.runs import packs, points
from jaxconcepts.runs.preemption import PreemptedError
from jaxconcepts.sweeps import Search, choice, integers, log_uniform, rounds, sample, status, uniform
from jaxconcepts.sweeps import search as proposing

pytest.importorskip("optuna")
RATE, NOISE = "train.learning_rate", "task.noise"
FILE = runpy.run_path(str(Path(__file__).with_name("small_sweep.py")))
BASE = json.loads(json.dumps(FILE["get_config"]().to_dict()))
for name in ("run", "num_seeds"):
    BASE.pop(name)
LAYOUT = packs.Layout()
QUANTITY = Quantity("loss", {"concept": None, "position": 1})


def make(**changed):
    fields = {RATE: log_uniform(1e-4, 1e-1), NOISE: uniform(0, 1)}
    return Search(**{"fields": fields, "quantity": QUANTITY, "points": 6, "round": 2, "drawn": 2} | changed)


def expand(overrides):
    return points.expand(BASE, points.with_seeds(overrides, 0, 2))


def run(workdir, search, layout=LAYOUT):
    with store.open_run(workdir, BASE) as opened:
        return rounds.run_search(search, expand, opened, layout, checkpoint_seconds=1e9)


def asked(workdir):
    return json.loads((workdir / "search.json").read_text())["rounds"]


def test_proposals_close_in_on_the_best_and_are_the_same_again():
    """A bowl with its bottom at a rate of .01, eight wide layers and the second choice; diverging at large rates."""
    fields = {RATE: log_uniform(1e-4, 1e0), "model.layers": integers(1, 16), "task.families": choice([[], ["a"]])}
    search = make(fields=fields, goal="maximize", points=64, round=8, drawn=8)

    def gave(proposal):
        if proposal[RATE] > 0.2:
            return math.nan
        height = (math.log10(proposal[RATE]) + 2) ** 2 + (proposal["model.layers"] - 8) ** 2 / 16
        return -height - (proposal["task.families"] == [])

    told = []
    while len(told) < search.points:
        told += proposing.propose(search, told, [gave(one) for one in told], search.round)
    assert told[-8:] == proposing.propose(search, told[:-8], [gave(one) for one in told[:-8]], 8)
    for one in told:
        search.check(json.loads(json.dumps(one)))
    # Half of the last ones are better than three quarters of what chance gives, of which a sixth diverges.
    last, by_chance = [gave(one) for one in told[-16:]], [gave(one) for one in sample(400, 0, **fields)]
    assert np.nanmedian(last) > np.nanquantile(by_chance, 0.75) and np.isnan(last).sum() <= 1
    # Turned round, it goes elsewhere.
    other = make(fields=fields, goal="minimize", points=64, round=8, drawn=8)
    assert proposing.propose(other, told[:-8], [gave(one) for one in told[:-8]], 8) != told[-8:]


@pytest.mark.usefixtures("compiles_fast")
def test_a_search_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    search = make()
    programs = run(tmp_path / "whole", search)
    assert programs.compilations == 1  # Rounds share what is compiled.
    whole = asked(tmp_path / "whole")
    assert [len(part) for part in whole] == [2, 2, 2]
    table = store.runs(tmp_path / "whole")
    assert set(table["point"]) == {point.hash for part in whole for point in expand(part)} and table.height == 12
    found = status.status(tmp_path / "whole")
    assert (found.points, found.done, found.waiting) == (12, 12, 0)

    honest, calls = rounds.run_sweep, []

    def stopped(*arguments, **settings):
        calls.append(len(arguments[0]))
        if len(calls) == 2:
            raise PreemptedError("stopped by a signal")
        return honest(*arguments, **settings)

    monkeypatch.setattr(rounds, "run_sweep", stopped)
    with pytest.raises(PreemptedError):
        run(tmp_path / "stopped", search, programs)  # In round 2, whose points are known and not trained.
    assert asked(tmp_path / "stopped") == whole[:2] and store.runs(tmp_path / "stopped").height == 4
    run(tmp_path / "stopped", search, programs)
    assert calls == [4, 8, 8, 12] and asked(tmp_path / "stopped") == whole
    run(tmp_path / "stopped", make(points=7), programs)  # More of them: the finished ones stay.
    assert asked(tmp_path / "stopped")[:3] == whole and store.runs(tmp_path / "stopped").height == 14

    with pytest.raises(ValueError, match=f"a search of other ranges, which proposed {RATE} .* {NOISE} must be from 2"):
        run(tmp_path / "stopped", make(fields={RATE: log_uniform(1e-4, 1e-1), NOISE: uniform(2.0, 3.0)}), programs)


@pytest.mark.usefixtures("compiles_fast")
def test_what_a_proposal_gave_is_the_mean_over_its_seeds_and_nan_where_one_diverged(tmp_path, monkeypatch):
    seen = []
    honest = rounds.propose

    def spy(search, told, values, count):
        seen.append((list(told), list(values)))
        return honest(search, told, values, count)

    monkeypatch.setattr(rounds, "propose", spy)
    run(tmp_path, make(points=3, fields={RATE: choice([1e-3, 1e38])}))
    told, values = seen[1]
    metrics = store.metrics(tmp_path)
    for proposal, value in zip(told, values, strict=True):
        names = [point.run for point in expand([proposal])]
        rows = metrics.filter(metric="loss", step=12, position=1)
        own = [row["value"] for row in rows.iter_rows(named=True) if row["run"] in names and row["concept"] is None]
        assert len(own) == 2
        assert math.isnan(value) if proposal[RATE] > 1 else value == pytest.approx(np.mean(own), rel=1e-12)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fields": {}}, "search.fields must be a dict of ranges"),
        ({"fields": {RATE: [1e-3]}}, rf"search.fields: {RATE} must be uniform\(...\)"),
        ({"fields": {"seed": integers(0, 3)}}, "search.fields must not hold seed"),
        ({"quantity": "loss"}, "search.quantity must be a Quantity, got 'loss'"),
        ({"goal": "least"}, "search.goal must be one of minimize, maximize, got 'least'"),
        ({"points": 0}, "search.points must be an integer of at least 1, got 0"),
        ({"round": 2.0}, "search.round must be an integer of at least 1, got 2.0"),
    ],
)
def test_bad_searches_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        make(**changed)


def test_a_quantity_that_is_not_measured_is_refused_before_anything_is_trained(monkeypatch):
    point = expand([{}])[0]
    rounds.check(make(), point)
    with pytest.raises(ValueError, match="search.quantity.metric must be one of cd, .*loss.*, got 'los'"):
        rounds.check(make(quantity=Quantity("los")), point)
    with pytest.raises(ValueError, match="search.quantity.at must be a measured step, 0, 4, 8, 12, got 5"):
        rounds.check(make(quantity=Quantity("loss", at=5)), point)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r'an adaptive search needs optuna: pip install "jaxconcepts\[optuna\]"'):
        rounds.check(make(), point)
    with pytest.raises(ValueError, match="--extend is for sweeps whose points are known"):
        rounds.check(make(), point, extend=True)


CONFIG = """
from jaxconcepts import Quantity
from jaxconcepts.runs.loop import default_config
from jaxconcepts.sweeps import Search, choice, log_uniform, uniform

get_config = default_config

def get_search():
    return {}
"""

NOISES = "Search(fields={{'task.noise': uniform({})}}, quantity=Quantity('loss'))"


@pytest.mark.parametrize(
    ("made", "arguments", "message"),
    [
        (NOISES.format("-1, 1"), [], "must be a number of at least"),
        (NOISES.format("0, 1"), ["--shard=0/2"], "is one job"),
        (
            NOISES.format("0, 1"), ["--config.task.noise=1"],
            "task.noise is given twice: by --config.task.noise and by get_search()",
        ),
        ("3", [], "get_search() of {} must return a sweeps.Search, got 3"),
        ("Search(fields={'task.nois': uniform(0, 1)}, quantity=Quantity('loss'))", [], "task.nois; did you mean"),
        (None, [], "has no get_search()"),
    ],
)  # fmt: skip
def test_bad_commands_are_refused(tmp_path, capsys, made, arguments, message):
    config = tmp_path / "mine.py"
    config.write_text(CONFIG.format(made) if made else CONFIG.replace("get_search", "get_nothing"))
    command = ["jaxconcepts", "sweep", f"--config={config}", f"--workdir={tmp_path / 'w'}", "--search=optuna"]
    assert main([*command, *arguments]) == 2
    assert message.format(config) in capsys.readouterr().err and not (tmp_path / "w").exists()
