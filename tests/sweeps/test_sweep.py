"""Sweeps in one process: compiled once a group, equal to single runs, extended, halved for want of memory."""

import json
import re
import runpy
from pathlib import Path

import jax
import polars as pl
import pytest
from etils import epath

from jaxconcepts import store
from jaxconcepts.__main__ import main
from jaxconcepts.runs import loop as execution
from jaxconcepts.runs import packs, points
from jaxconcepts.runs.programs import Programs
from jaxconcepts.sweeps import membership, sizing, status
from jaxconcepts.sweeps.sweep import run_sweep

CONFIG = Path(__file__).with_name("small_sweep.py")
FILE = runpy.run_path(str(CONFIG))
BASE = json.loads(json.dumps(FILE["get_config"]().to_dict()))
for name in ("run", "num_seeds"):
    BASE.pop(name)
ALL = points.expand(BASE, FILE["get_sweep"]())  # two ranks (groups) x two rates x three seeds
LAYOUT = packs.Layout()
DEVICES = [f"--config.run.cpu_devices={jax.config.jax_num_cpu_devices}"]


@pytest.fixture(scope="module", autouse=True)
def compiled(compiles_fast):
    """Compiles fast: these programs run for milliseconds."""


def run(workdir, chosen, **settings):
    with store.open_run(workdir, BASE) as opened:
        return run_sweep(chosen, opened, LAYOUT, **{"at_once": 4, "checkpoint_seconds": 1e9} | settings)


def metrics(workdir):
    frame = store.metrics(workdir)
    return frame.sort(frame.columns[:-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All points in packs of at most four: two packs of three a group."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run(workdir, ALL)


@pytest.mark.slow
def test_every_point_is_run_once_with_one_compilation_a_group(whole):
    workdir, programs = whole
    table = store.runs(workdir)
    assert set(table["point"]) == {point.hash for point in ALL} and table.height == 12
    assert set(table["status"]) == {"done"}
    assert len(list((workdir / "packs").iterdir())) == 4
    assert programs.compilations == 2
    losses = store.metrics(workdir).filter(pl.col("metric") == "loss")
    # Two concepts and all, at the last position and as the mean, at four steps.
    assert losses.height == 12 * 3 * 2 * 4 and not losses["value"].is_nan().any()


@pytest.mark.slow
def test_packed_runs_equal_single_ones(whole, tmp_path):
    workdir, _ = whole
    chosen = [ALL[1], ALL[5]]
    with store.open_run(tmp_path, BASE) as opened:
        for number, point in enumerate(chosen):
            execution.run_pack(f"single{number}", [point], opened, LAYOUT, 1e9)
    names = [point.run for point in chosen]
    packed = metrics(workdir).filter(pl.col("run").is_in(names))
    # A CPU runs one after another, so whatever is beside a run changes no bit of it.
    assert packed.equals(metrics(tmp_path))


@pytest.mark.slow
def test_added_points_run_alone_and_removed_ones_stay(whole, tmp_path):
    workdir, _ = whole
    assert run(tmp_path, ALL[:3]).compilations == 1
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    run(tmp_path, ALL[2:6])  # three new ones, two removed
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert store.runs(tmp_path).height == 6
    names = [point.run for point in ALL[:6]]
    assert metrics(tmp_path).equals(metrics(workdir).filter(pl.col("run").is_in(names)))
    found = status.status(tmp_path)
    assert (found.points, found.done, found.others, found.waiting) == (4, 4, 2, 0)
    assert run(tmp_path, ALL[:6]).compilations == 0


@pytest.mark.slow
def test_a_truncated_part_of_a_finished_pack_is_named_and_written_again(whole, tmp_path, caplog):
    run(tmp_path, ALL[:3])
    before = metrics(tmp_path)
    part = next((tmp_path / "metrics").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    with caplog.at_level("WARNING", "jaxconcepts"):
        run(tmp_path, ALL[:3])
    assert part.name in caplog.text and metrics(tmp_path).equals(before)
    rows = next((tmp_path / "runs").glob("*.parquet"))
    rows.write_bytes(rows.read_bytes()[:-20])
    run(tmp_path, ALL[:3])
    assert store.runs(tmp_path)["status"].to_list() == ["done"] * 3
    noted = store.quantities(tmp_path)
    about = next((tmp_path / "quantities").glob("*.parquet"))
    about.write_bytes(about.read_bytes()[:-20])
    run(tmp_path, ALL[:3])
    assert store.quantities(tmp_path).sort(pl.all()).equals(noted.sort(pl.all())) and metrics(tmp_path).equals(before)
    for kind in ("metrics", "runs", "quantities"):
        next((tmp_path / kind).glob("*.parquet")).unlink()
        with pytest.raises(store.DamagedFileError, match="is missing"):
            getattr(store, kind)(tmp_path)
        run(tmp_path, ALL[:3])
        assert store.runs(tmp_path)["status"].to_list() == ["done"] * 3 and metrics(tmp_path).equals(before)


@pytest.mark.slow
def test_a_pack_that_runs_out_of_memory_is_halved(whole, tmp_path, caplog, monkeypatch):
    honest = execution.run_pack

    def short_of_memory(name, chosen, *arguments, **keywords):
        if len(chosen) > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
        return honest(name, chosen, *arguments, **keywords)

    monkeypatch.setattr(execution, "run_pack", short_of_memory)
    with caplog.at_level("WARNING", "jaxconcepts"):
        run(tmp_path, ALL[:3])
    assert "splitting it in two" in caplog.text
    names = [point.run for point in ALL[:3]]
    assert metrics(tmp_path).equals(metrics(whole[0]).filter(pl.col("run").is_in(names)))
    assert [len(pack.points) for pack in membership.recorded(epath.Path(tmp_path))] == [1, 1, 1]


@pytest.mark.slow
def test_a_run_that_never_fits_is_named_and_the_others_are_done(tmp_path, monkeypatch):
    honest = execution.run_pack

    def no_room_for_the_second(name, chosen, *arguments, **keywords):
        if ALL[1].hash in [point.hash for point in chosen]:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
        return honest(name, chosen, *arguments, **keywords)

    monkeypatch.setattr(execution, "run_pack", no_room_for_the_second)
    with pytest.raises(ValueError, match=rf"1 run\(s\) do not fit on a device even alone: {ALL[1].run}"):
        run(tmp_path, ALL[:2])
    assert store.runs(tmp_path)["point"].to_list() == [ALL[0].hash]


def test_a_point_larger_than_the_device_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match=f"run {ALL[0].run} .* does not fit on one device"):
        sizing.runs_at_once(Programs(LAYOUT), ALL[:3], 0, memory=100)


def test_packs_on_a_cpu_are_bounded_by_their_state():
    state = sizing.state_bytes(ALL[0])
    many = ALL[:6] * 1000
    devices = jax.device_count()
    assert sizing.runs_at_once(Programs(LAYOUT), many, 0, memory=10**12) == sizing.CPU_RUNS * devices
    assert sizing.runs_at_once(Programs(LAYOUT), many, 0, memory=100 * state) == 22 * devices
    assert sizing.runs_at_once(Programs(LAYOUT), many, 7, memory=10**12) == 7


def test_the_shards_share_out_all_points_whatever_else_is_in_the_sweep():
    of_all = {point.hash: membership.shard_of(point, 3) for point in ALL}
    assert set(of_all.values()) == {0, 1, 2}
    assert all(membership.shard_of(point, 3) == of_all[point.hash] for point in ALL[5:])


# ml_collections loads config files in a way that Python means to drop.
old_loader = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@old_loader
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard=2/2"], "--shard must be i/n with 0 <= i < n, got '2/2'"),
        (["--shard=a"], "--shard must be i/n"),
        (["--config.task.rank=2"], "task.rank is given twice"),
        (["--config.num_seeds=3"], "seed is given twice"),
        (["--config.task.dim=1"], "point 0 of the sweep, .*rank.* is invalid"),
        (["--num_processes=2"], "needs coordinator, num_processes and process_id; missing"),
    ],
)
def test_bad_commands_are_refused(tmp_path, capsys, monkeypatch, arguments, message):
    command = ["jaxconcepts", "sweep", f"--config={CONFIG}", *DEVICES, f"--workdir={tmp_path / 'w'}", *arguments]
    monkeypatch.setattr("sys.argv", command)
    assert main() == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "w").exists()


@old_loader
def test_a_config_without_a_sweep_is_refused(tmp_path, capsys):
    quickstart = CONFIG.parents[2] / "configs" / "quickstart.py"
    assert main(["jaxconcepts", "sweep", f"--config={quickstart}", f"--workdir={tmp_path / 'w'}"]) == 2
    assert "has no get_sweep()" in capsys.readouterr().err
