"""What is compiled is kept in the user's cache folder, for each kind of CPU, unless the user says otherwise."""

import os
import subprocess
import sys

import pytest

from jaxconcepts.commands import compiled

COMPILE = (
    "from jaxconcepts.commands import compiled; compiled.keep()\n"
    "import jax; print(jax.config.jax_compilation_cache_dir); jax.jit(lambda x: x @ x)(jax.numpy.ones((3, 3)))"
)


def started(folder, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    kept |= {"XDG_CACHE_HOME": str(folder), compiled.LEAST_SECONDS: "0", "JAX_PLATFORMS": "cpu"} | environment
    done = subprocess.run([sys.executable, "-c", COMPILE], env=kept, capture_output=True, text=True, check=True)
    return done.stdout.strip(), {path.name for path in folder.rglob("*-cache")}


def test_a_second_start_compiles_nothing_and_the_user_has_the_last_word(tmp_path):
    folder, first = started(tmp_path)
    assert folder.startswith(str(tmp_path)) and any("lambda" in name for name in first)
    assert started(tmp_path)[1] == first
    off = tmp_path / "off"
    assert started(off, JAX_ENABLE_COMPILATION_CACHE="false") == ("None", set())
    elsewhere = str(tmp_path / "elsewhere")
    assert started(off, JAX_COMPILATION_CACHE_DIR=elsewhere) == (elsewhere, set())


def test_another_kind_of_cpu_has_another_folder(monkeypatch):
    names = []
    for text in ("model name : A\nflags : sse avx2\n", "model name : A\nflags : sse\n", "MHz : 1\nmodel name : A\n"):
        monkeypatch.setattr("pathlib.Path.read_text", lambda self, text=text: text)
        names.append(compiled._cpu())
    assert len(set(names)) == 3


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv(compiled.FOLDER, raising=False)
    compiled.keep()
    assert compiled.FOLDER not in os.environ


@pytest.mark.parametrize(("largest", "left"), [(30, ["b", "c"]), (100, ["a", "b", "c"]), (0, [])])
def test_the_oldest_go_when_there_is_too_much(tmp_path, monkeypatch, largest, left):
    for age, name in enumerate("cba"):
        (tmp_path / name).write_bytes(b"x" * 12)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    monkeypatch.setattr(compiled, "LARGEST", largest)
    compiled._prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == left
