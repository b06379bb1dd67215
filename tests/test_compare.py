"""launch/bench.sh --compare: two revisions of a repository whose benchmarks tell made-up times."""

import subprocess
import sys

import pytest

from tests.benchmarks import compare

FAKE = """
import json, pathlib, sys
counter = pathlib.Path({counter!r}); number = len(counter.read_text()) if counter.exists() else 0
counter.write_text("x" * (number + 1))
full = 0 if "--quick" in sys.argv else 100
rows = [
    {{"benchmark": "step", "shape": "4 x 64", "ours_s": {seconds} + number + full}},
    {{"benchmark": {name!r}, "shape": "", "ours_s": 1.0}},
]
folder = pathlib.Path("tests/benchmarks/results"); folder.mkdir()
(folder / "cpu-quick.json").write_text(json.dumps({{"rows": rows}}))
"""


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """One commit whose step takes 8 s, then uncommitted changes by which it takes 2 s; the n-th run n s more."""
    root = tmp_path / "root"
    script = root / "tests" / "benchmarks" / "run.py"
    script.parent.mkdir(parents=True)
    script.write_text(FAKE.format(counter=str(tmp_path / "there"), seconds=8.0, name="gone"))
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    script.write_text(FAKE.format(counter=str(tmp_path / "here"), seconds=2.0, name="new"))
    monkeypatch.setattr(compare, "ROOT", root)


@pytest.mark.usefixtures("repository")
def test_two_revisions_are_measured_in_turn(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare.py", "HEAD", "--pairs", "3"])
    assert compare.main() == 0
    output = capsys.readouterr().out
    order = [line.split(": ")[1] for line in output.splitlines() if line.startswith("pair")]
    assert order == ["this tree", "HEAD", "HEAD", "this tree", "this tree", "HEAD"]
    # 8 / 2, 9 / 3 and 10 / 4; what only one revision has is left out.
    assert "| step, 4 x 64 | 3.00 | 2.50 | 4.00 |" in output and "gone" not in output and "new" not in output


@pytest.mark.usefixtures("repository")
def test_full_sizes_are_compared(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare.py", "HEAD", "--pairs", "1", "--full"])
    assert compare.main() == 0
    assert "| step, 4 x 64 | 1.06 |" in capsys.readouterr().out


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nowhere"], "must be a commit of this repository, got 'nowhere'"), (["HEAD", "--pairs", "0"], "at least 1")],
)
def test_bad_input_is_named_before_anything_runs(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        compare.main()
    output = capsys.readouterr()
    assert ended.value.code == 2 and message in output.err and "pair" not in output.out
