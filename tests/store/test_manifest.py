"""What somebody took away, emptied, doubled or changed by hand is named when it is read, and written anew on resume."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from jaxconcepts import __main__, store
from jaxconcepts.store import files, tidy

ROOT = Path(__file__).parents[2]
CONFIG = {"task": {"dim": 8}}


def state_at(step):
    return {"x": jnp.full(3, float(step)), "y": {"z": jnp.arange(4)}}


def train(run, pack="a", last=40):
    step, state = run.restore(pack, state_at(0))
    start = step
    frame = {"run": [pack], "point": ["p"], "status": ["running"], "seed": [3], "step": [step]}
    run.write_runs(pack, pl.DataFrame(frame))
    while step < last:
        step += 10
        if start == 0 and step == 10:
            about = [("loss", "squared error / r", 0.5), ("cd/b", "share", 0.25)]
            run.write_quantities(pack, tidy.quantities([pack], about))
        rows = {"run": [pack], "step": [step], "metric": ["loss"], "value": [step / 7]}
        run.write_metrics(pack, step, pl.DataFrame(rows))
        run.write_hidden(pack, step, np.full((1, 2, 3, 4), step), np.arange(3), [pack])
        if step % 20 == 0:
            run.save(pack, step, state_at(step))
    return start, state


@pytest.fixture
def workdir(tmp_path):
    with store.open_run(tmp_path / "run", CONFIG) as run:
        train(run)
    return tmp_path / "run"


def read_all(workdir):
    hidden = [(s.step, s.hidden.tobytes()) for s in store.hidden(workdir)]
    return store.metrics(workdir), store.runs(workdir), hidden, store.quantities(workdir)


def other_schema(path):
    if path.suffix == ".npz":
        np.savez(path, hidden=np.zeros(3))
    else:
        pl.DataFrame({"run": [1], "loss": [0.5]}).write_parquet(path)


def no_rows(path):
    if path.suffix == ".npz":
        path.write_bytes(b"")
    else:
        pl.read_parquet(path).clear().write_parquet(path)


def other_values(path):
    if path.suffix == ".npz":
        arrays = dict(np.load(path))
        np.savez(path, **arrays | {"hidden": arrays["hidden"] + 1})
    elif "value" in (frame := pl.read_parquet(path)).columns:
        frame.with_columns(pl.col("value") + 1).write_parquet(path)
    else:
        pl.concat([frame, frame.with_columns(run=pl.lit("more"))]).write_parquet(path)


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(bytes(data))


DAMAGE = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "without rows": no_rows,
    "text": lambda path: path.write_bytes(b"nonsense"),
    "another schema": other_schema,
    "other values": other_values,
    "doubled": lambda path: shutil.copy(path, path.with_name("z" + path.name[1:])),
}
PARTS = ("metrics/a.000000020.parquet", "hidden/a.000000020.npz", "runs/a.parquet")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_part_that_is_not_as_it_was_written_is_named(workdir, part, damage):
    DAMAGE[damage](workdir / part)
    with pytest.raises(store.DamagedFileError) as refused:
        read_all(workdir)
    assert Path(part).name in str(refused.value) and len(str(refused.value).splitlines()) == 1, refused.value


@pytest.mark.parametrize("part", PARTS[:2])
@pytest.mark.parametrize("damage", [*(name for name in DAMAGE if name != "doubled"), "flipped"])
def test_a_part_that_is_not_as_it_was_written_is_written_anew(workdir, caplog, part, damage):
    whole = read_all(workdir)
    DAMAGE.get(damage, flipped)(workdir / part)
    with store.open_run(workdir, CONFIG) as run, caplog.at_level(logging.WARNING):
        assert train(run)[0] == 0  # Step 20's checkpoint covers the part.
    assert Path(part).name in caplog.text
    again = read_all(workdir)
    assert again[0].equals(whole[0]) and again[1].drop("step").equals(whole[1].drop("step")) and again[2] == whole[2]
    assert again[3].equals(whole[3])


QUANTITIES = "quantities/a.parquet"


@pytest.mark.parametrize("damage", ["deleted", "emptied", "without rows", "text", "another schema", "doubled"])
def test_a_table_of_quantities_that_is_not_as_it_was_written_is_named(workdir, capsys, damage):
    DAMAGE[damage](workdir / QUANTITIES)
    with pytest.raises(store.DamagedFileError) as refused:
        store.quantities(workdir)
    assert "a.parquet" in str(refused.value) and len(str(refused.value).splitlines()) == 1, refused.value


@pytest.mark.parametrize("damage", ["deleted", "emptied", "text"])
def test_a_table_of_quantities_is_written_anew(workdir, caplog, damage):
    whole = read_all(workdir)
    DAMAGE[damage](workdir / QUANTITIES)
    with store.open_run(workdir, CONFIG) as run, caplog.at_level(logging.WARNING):
        assert train(run)[0] == 0
    again = read_all(workdir)
    assert QUANTITIES in caplog.text and again[3].equals(whole[3]) and again[0].equals(whole[0])


def test_a_part_that_no_run_has_written_is_put_aside(workdir, caplog):
    shutil.copy(workdir / PARTS[0], workdir / "metrics" / "a.000000015.parquet")
    with pytest.raises(store.DamagedFileError, match=r"a.000000015.parquet is in no manifest: no run wrote it"):
        store.metrics(workdir)
    with store.open_run(workdir, CONFIG) as run, caplog.at_level(logging.WARNING):
        assert train(run)[0] == 40
    assert "a.000000015.parquet.foreign" in caplog.text and store.metrics(workdir).height == 4


def test_a_run_directory_from_before_there_were_manifests_is_read_and_goes_on(workdir):
    whole = read_all(workdir)
    shutil.rmtree(workdir / "manifests")
    assert read_all(workdir)[0].equals(whole[0])
    with store.open_run(workdir, CONFIG) as run:
        assert train(run, last=60)[0] == 40
    (workdir / PARTS[0]).unlink()
    with pytest.raises(store.DamagedFileError, match="a.000000020.parquet is missing"):
        store.metrics(workdir)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"covers": 1}', '{"covers": 0, "parts": [1], "runs": 1}', "\x00"])
def test_a_damaged_manifest_is_named(workdir, text):
    (workdir / "manifests" / "a.json").write_text(text)
    with pytest.raises(store.DamagedFileError, match=r"damaged .*manifests/a\.json: .*; delete it"):
        store.metrics(workdir)


CHECKPOINT_FILES = ("_METADATA", "array_metadatas/process_0", "manifest.ocdbt", "_sharding")


@pytest.mark.parametrize("name", [*CHECKPOINT_FILES, "the largest of the data", "sha256.json"])
def test_one_flipped_bit_in_a_checkpoint_goes_back_to_the_one_before(workdir, caplog, name):
    folder = workdir / "checkpoints" / "a" / "000000040"
    data = sorted((path for path in folder.rglob("d/*") if path.is_file()), key=lambda path: path.stat().st_size)
    path = data[-1] if name == "the largest of the data" else folder / name
    flipped(path)
    with pytest.raises(store.DamagedFileError, match="000000040"):
        store.load_checkpoint(workdir, "a", 40, state_at(0))
    with store.open_run(workdir, CONFIG) as run, caplog.at_level(logging.WARNING):
        start, state = train(run)
    assert start == 20 and state["x"].tolist() == [20.0] * 3
    assert "going back to a checkpoint before" in caplog.text and "not as it was written" in caplog.text
    assert store.checkpoints(workdir, "a") == [20, 40] and store.metrics(workdir).height == 4


@pytest.mark.parametrize("name", ["a[b]c", "*", "what?", "[", "a b", "ダ$"])
def test_a_workdir_of_any_name_holds_everything(tmp_path, name):
    workdir = tmp_path / name / "run"
    with store.open_run(workdir, CONFIG) as run:
        train(run)
    (workdir / "metrics" / "a.000000050.parquet.tmp").touch()
    with store.open_run(workdir, CONFIG) as run:
        start, state = train(run)
        assert start == 40 and state["x"].tolist() == [40.0] * 3
        store.write_result(workdir, "study", "kind", "part", pl.DataFrame({"x": [1]}))
    assert store.runs(workdir)["run"].to_list() == ["a"] and store.metrics(workdir).height == 4
    assert store.results(workdir, "study", "kind").height == 1 and store.has_result(workdir, "study", "kind", "part")
    assert not list((workdir / "metrics").glob("*.tmp"))
    with store.open_run(workdir, CONFIG) as run:
        run.drop("a")
    assert store.metrics(workdir).height == 0 and store.checkpoints(workdir, "a") == []


def test_several_processes_and_a_pattern_in_the_workdir_are_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"workdir of several processes must hold none of \* \? \[, got .*a\[b"):
        store.open_run(tmp_path / "a[b]", CONFIG, writer=(0, 2)).__enter__()
    assert not (tmp_path / "a[b]").exists()


@pytest.mark.parametrize("workdir", ["", " ", "\t", "a\0b", "a\udcff"])
def test_a_workdir_that_is_no_name_is_refused(workdir):
    for use in (lambda: store.open_run(workdir, {}).__enter__(), lambda: store.metrics(workdir)):
        with pytest.raises(ValueError, match=r"workdir must (name a folder|have a name in UTF-8), got "):
            use()


@pytest.mark.parametrize("name", ["provenance.json", "config.json", "manifests/a.json"])
def test_a_pipe_in_place_of_a_file_is_named_and_not_waited_for(workdir, name):
    (workdir / name).unlink()
    os.mkfifo(workdir / name)
    with pytest.raises(store.DamagedFileError, match=f"damaged .*{name}: it is no file"):
        {"provenance.json": store.provenance, "config.json": store.config}.get(name, store.metrics)(workdir)


@pytest.mark.parametrize("text", ["[]", "{}", "3", "null", '"x"', '{"resumes": 3}', "{", "\xff", "[" * 100_000])
@pytest.mark.parametrize("name", ["provenance.json", "config.json"])
def test_damaged_descriptions_are_named(workdir, name, text):
    (workdir / name).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError) as refused:
        store.open_run(workdir, CONFIG).__enter__()
    message = str(refused.value)
    assert len(message.splitlines()) == 1 and (name in message or "made with another config" in message), message


def test_a_record_that_was_deleted_is_empty_and_begun_anew(workdir):
    (workdir / "provenance.json").unlink()
    assert store.provenance(workdir) == {}
    with store.open_run(workdir, CONFIG):
        assert store.provenance(workdir)["resumes"] == []


@pytest.mark.parametrize("damage", ["deleted", "emptied", "without rows", "another schema", "doubled"])
def test_a_study_names_a_part_that_is_not_as_it_was_written_and_makes_it_again(tmp_path, damage, caplog):
    frame = pl.DataFrame({"x": [1.5], "name": ["n"]})
    for name in ("one", "two"):
        store.write_result(tmp_path, "study", "kind", name, frame)
    DAMAGE[damage](tmp_path / "study" / "kind" / "one.parquet")
    with pytest.raises(store.DamagedFileError, match="one.parquet|zne.parquet"):
        store.results(tmp_path, "study", "kind")
    if damage != "doubled":
        assert not store.has_result(tmp_path, "study", "kind", "one")
        store.write_result(tmp_path, "study", "kind", "one", frame)
        assert store.results(tmp_path, "study", "kind").equals(pl.concat([frame] * 2))


def test_a_study_killed_between_a_part_and_its_manifest_makes_the_part_again(tmp_path, monkeypatch):
    frame, write = pl.DataFrame({"x": [1.5]}), files.write
    store.write_result(tmp_path, "study", "kind", "one", frame)

    def killed(path, data):
        write(path, data)
        if path.name == "two.parquet":
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write_result(tmp_path, "study", "kind", "two", frame)
    monkeypatch.undo()
    assert store.results(tmp_path, "study", "kind").height == 2 and not store.has_result(
        tmp_path, "study", "kind", "two"
    )


def test_names_that_file_names_cannot_hold_give_different_file_names():
    names = ["a b", "a_b", "a%20b", "a.b", "a/b", "../b", "日本", "a\u2028b", "$", "A", "a", "\ud800"]
    safe = [files.safe_name(name) for name in names]
    assert len(set(safe)) == len(names) and all(files.valid_pack(name) for name in safe)


def test_a_second_process_says_that_it_waits_for_one_that_was_stopped_while_opening(tmp_path):
    hold = "import fcntl, sys, os; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n"
    hold += "f.write('pid 77 on there'); f.flush(); print('held', flush=True); sys.stdin.read()"
    wait = "from jaxconcepts import store; import sys\nwith store.open_run(sys.argv[1], {}): print('open')"
    with (
        subprocess.Popen([sys.executable, "-c", hold, tmp_path / ".lock"], stdin=-1, stdout=-1, text=True) as holder,
        subprocess.Popen([sys.executable, "-c", wait, tmp_path], stdout=-1, stderr=-1, text=True, cwd=ROOT) as waiting,
    ):
        holder.stdout.readline()
        said = waiting.stderr.readline()
        assert said == f"waiting for pid 77 on there, which is opening {tmp_path} too\n"
        time.sleep(0.1)
        assert waiting.poll() is None
        holder.stdin.close()
        assert waiting.stdout.read() == "open\n"


@pytest.mark.parametrize("name", ["config.json", "provenance.json"])
@pytest.mark.parametrize("text", ["", "[]", "nonsense", "null"])
def test_the_report_of_a_damaged_run_directory_ends_in_one_line(workdir, capsys, name, text):
    (workdir / name).write_text(text)
    assert __main__.main(["jaxconcepts", "report", f"--workdir={workdir}"]) == 2
    out = capsys.readouterr().err
    assert out.startswith("error: ") and len(out.splitlines()) == 1 and name in out


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_the_report_names_the_part(workdir, capsys, part, damage):
    DAMAGE[damage](workdir / part)
    assert __main__.main(["jaxconcepts", "report", f"--workdir={workdir}"]) == 2
    out = capsys.readouterr().err
    assert out.startswith("error: ") and len(out.splitlines()) == 1 and Path(part).name in out


def test_a_manifest_lists_rows_and_hashes(workdir):
    listed = json.loads((workdir / "manifests" / "a.json").read_text())
    assert (listed["covers"], listed["runs"], len(listed["parts"])) == (40, 1, 8)
    assert listed["parts"]["metrics/a.000000010.parquet"][0] == 1
