"""Opening a run directory: what it says of itself, its config, and the lock that keeps a second process out."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxconcepts import store

CONFIG = {"task": {"dim": 8, "bases": "orthogonal"}, "steps": [1, 2]}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("under", ["a regular file", "/proc"])
def test_a_workdir_that_cannot_be_written_to_is_named(tmp_path, under):
    (tmp_path / "file").touch()
    workdir = tmp_path / "file" / "run" if under == "a regular file" else Path("/proc/run")
    with pytest.raises(ValueError, match=f"workdir must be a folder that can be written to, got {workdir}"):
        store.open_run(workdir, CONFIG).__enter__()


def test_config_and_provenance(tmp_path):
    with store.open_run(tmp_path, CONFIG, command="train --x", device={"kind": "cpu", "count": 2}):
        pass
    with store.open_run(str(tmp_path), {**CONFIG, "steps": (1, 2)}, command="train --x again"):
        pass
    assert store.config(tmp_path) == CONFIG
    record = store.provenance(tmp_path)
    assert record["versions"]["jax"] == jax.__version__ and record["versions"]["python"] == sys.version.split()[0]
    assert set(record["versions"]) >= {"jaxconcepts", "jax", "jaxlib", "flax", "optax", "numpy", "polars"}
    assert (record["command"], record["device"]) == ("train --x", {"kind": "cpu", "count": 2})
    assert [resume["command"] for resume in record["resumes"]] == ["train --x again"]
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True)
        assert head.returncode or record["git_revision"].removesuffix("-dirty") == head.stdout.strip()


def test_a_changed_config_names_each_differing_field(tmp_path):
    with store.open_run(tmp_path, CONFIG):
        pass
    changed = {"task": {"dim": 16, "bases": "orthogonal", "rank": 2}, "steps": [1, 3]}
    with pytest.raises(ValueError) as refused:
        store.open_run(tmp_path, changed).__enter__()
    assert str(refused.value) == (
        f"workdir {tmp_path} was made with another config: steps: was [1, 2], now [1, 3]; "
        "task.dim: was 8, now 16; task.rank: was absent, now 2; "
        "give another workdir, or the earlier values of these fields"
    )
    assert store.provenance(tmp_path)["resumes"] == []


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    hold = "from jaxconcepts import store; import sys, time\n"
    hold += f"with store.open_run(sys.argv[1], {CONFIG!r}): print('open', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(
            store.WorkdirInUseError, match=f"workdir {tmp_path} is being written by pid {holder.pid} on "
        ):
            store.open_run(tmp_path, CONFIG).__enter__()
        assert store.metrics(tmp_path).height == 0  # Reading takes no lock.
        holder.kill()
    with store.open_run(tmp_path, CONFIG):
        pass


def test_importing_and_reading_need_neither_jax_nor_orbax(tmp_path):
    with store.open_run(tmp_path, CONFIG):
        pass
    read = "import sys; from jaxconcepts import store; store.metrics(sys.argv[1]); store.runs(sys.argv[1])\n"
    read += "print(sorted({'jax', 'orbax', 'tensorstore'} & {name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", read, tmp_path], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("workdir", ["https://example.org/run", "nowhere://run"])
def test_a_workdir_of_another_scheme_is_refused(workdir):
    with pytest.raises(ValueError, match=f"workdir must be local or gs://, got {workdir}"):
        store.open_run(workdir, CONFIG).__enter__()
