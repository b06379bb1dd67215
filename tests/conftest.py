"""Eight devices on a CPU for every test, so that sharded programs run anywhere; and commands run as processes."""

import atexit
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # What one test compiles is kept for all others, of all workers, and for the commands that they start.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import jaxtyping
import pytest

sys.path.append(str(Path(__file__).parent))
import compiling
import shape_checks
from pulses import without_pulses

ROOT = Path(__file__).parents[1]
# Before the first import of the package: shapes are checked as annotated.
PARTS = ("metrics", "tasks", "models", "training", "interventions")
ANNOTATED = shape_checks.annotated_modules(ROOT / "jaxconcepts", PARTS)
jaxtyping.install_import_hook(ANNOTATED, "shape_checks.only_arrays")

jax.config.update("jax_num_cpu_devices", 8)

NEVER = "(?!)"


def pytest_collection_modifyitems(items):
    """Files with slow tests first, so that what runs last is short and the workers end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module")
def unoptimized():
    """For tests that compile for longer than they run: LLVM does without optimizing."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def compiles_fast(unoptimized):
    """For such tests that compare no last digits: XLA's older emitters of fused loops take half the time again, but
    give a loop's body other last digits than the same body alone."""
    from jax._src import compiler

    given = compiler.get_compile_options

    def with_older_emitters(*args, env_options_overrides=None, **more):
        options = compiling.OLDER_EMITTERS | (env_options_overrides or {})
        return given(*args, env_options_overrides=options, **more)

    compiler.get_compile_options = with_older_emitters
    yield
    compiler.get_compile_options = given


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Compiles fast and keeps what is compiled: these programs run for milliseconds."""
    banks = str(tmp_path_factory.mktemp("banks"))
    return os.environ | compiling.PROCESS | {"JAXCONCEPTS_BANKS": banks, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module", autouse=True)
def few_memory_maps():
    """Drops compiled programs after a file that leaves many: each holds about seven memory maps, of which Linux gives a
    process 65 530 by default, and a compiler that gets none ends it."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 30_000:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def log_of_no_command():
    """The log as an import leaves it: a command in this process ties it to the terminal and file of its test."""
    _reset_log()
    yield
    _reset_log()


def _reset_log():
    log = logging.getLogger("jaxconcepts")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.setLevel(logging.NOTSET)
    log.propagate = True


@pytest.fixture(scope="module")
def server(environment, tmp_path_factory):
    """server(*arguments, signal=9, match=NEVER, nth=1, draw=False) -> (exit code, output, operations that matched).

    The output is without signs of life. See `signalled_main`; imports: modules that all of its processes need.
    """
    command = [sys.executable, ROOT / "tests" / "signalled_main.py"]
    output = tmp_path_factory.mktemp("output") / "output.txt"
    with subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True, cwd=ROOT) as process:

        def run(*arguments, signal=int(signal.SIGKILL), match=NEVER, nth=1, draw=False, imports=()):
            order = {"arguments": arguments, "output": str(output), "signal": signal, "match": match, "nth": nth}
            order |= {"draw": draw, "imports": imports}
            print(json.dumps(order), file=process.stdin, flush=True)
            code, seen = json.loads(process.stdout.readline())
            return code, without_pulses(output.read_text()), seen

        yield run
        process.stdin.close()


class Parsed(Exception):
    """All flags and fields of a command have been read."""


@pytest.fixture
def parses(monkeypatch):
    """parses(words): whether `jaxconcepts WORDS` has flags and fields that it takes. Nothing else of it is run."""
    from jaxconcepts import __main__
    from jaxconcepts.commands import arguments

    def stopping(read):
        def stop(*given):
            read(*given)
            raise Parsed

        return stop

    for name in ("parse", "parse_with_config"):
        monkeypatch.setattr(arguments, name, stopping(getattr(arguments, name)))

    def parses(words):
        try:
            __main__.main(["jaxconcepts", *words])
        except Parsed:
            return True
        return False

    return parses


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted: {mounted.stderr.strip()}")
    yield folder
    # Lazily: a process that was stopped in the test may hold a file for a moment longer.
    subprocess.run(["umount", "--lazy", folder], check=True)
