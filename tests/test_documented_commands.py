"""Every command and snippet of README.md, docs/ and the configs' heads runs, as a process, in a form of a few steps.

`documented` reads them; the tables of `small_forms` say how one becomes small. A command or a config that no table has,
or a snippet that needs what is not prepared here, fails.
"""

import re
import subprocess
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts import __main__, fields
from jaxconcepts.commands import config_files
from tests import documented
from tests.small_forms import FIRST, FIRST_POINTS, FITTED, FLAGS, SMALL, changes, first_points

ROOT = documented.ROOT
COMMANDS = documented.commands()
SNIPPETS = documented.snippets()

# Pages whose snippets another module runs, which names the page.
RUN_ELSEWHERE = {
    "docs/adding_a_task.md": "tests/example_experiment.py",
    "docs/biographies.md": "tests/tasks/test_biographies.py",
}
QUICK = re.compile(r"^train .*(quickstart|X)\.py")
"""The documented commands whose small form takes less than 12 s."""


def name_of(words):
    """The config that a command names, or None."""
    given = next((word.removeprefix("--config=") for word in words if word.startswith("--config=")), None)
    return None if given is None else Path(given.partition(":")[0]).stem.replace("X", "quickstart")


class Runs:
    """Runs documented commands in their small form, each once, in a folder of its own."""

    def __init__(self, server, environment, folder):
        self.server, self.environment, self.folder = server, environment, folder
        self.done = {}

    def run(self, words):
        """The exit code and the output of the small form of `jaxconcepts WORDS`."""
        form = self.small(words)
        if form not in self.done:
            code, output, _ = self.server(*form, draw=words[0] == "report", imports=())
            self.done[form] = code, output
        return self.done[form]

    def small(self, words):
        command, *flags = words
        config = name_of(words)
        if config is not None and config not in SMALL:
            raise KeyError(f"tests/small_forms.py says no small form of configs/{config}.py")
        made = [self._flag(command, flag) for flag in flags if not flag.startswith("--config.")]
        changed = [FITTED.get(flag, flag) for flag in flags if flag.startswith("--config.")]
        made += changes(FIRST.get(config, {})) + changed
        sweep = config is not None and config_files.load(self.config(config)).sweep()
        swept = {name for override in sweep or () for name in override} if command in ("sweep", "plan") else set()
        small = {name: value for name, value in SMALL.get(config, {}).items() if name not in swept}
        made += changes(small)
        made += [] if config else FLAGS.get(command, [])
        if command == "sweep" and config in FIRST_POINTS:
            made = [f"--config={self.first_points(config)}" if flag.startswith("--config=") else flag for flag in made]
        return (command, *made)

    def first_points(self, name):
        """A config file of the same name whose sweep ends after two points."""
        return first_points(self.config(name), self.folder / f"{name}.py")

    @staticmethod
    def config(name):
        """The config file of that name, in its smallest size where it has several."""
        if name == "my_config":
            return str(ROOT / "tests" / "example_config.py")
        sized = name.startswith(("grammar", "reasoning", "biographies"))
        return str(ROOT / "configs" / f"{name}.py") + (":smoke" if sized else "")

    def _flag(self, command, flag):
        name, _, text = flag.partition("=")
        if name == "--workdir":
            if "," in text:
                names = [self._flag(command, f"--workdir={part}").partition("=")[2] for part in text.split(",")]
                return f"--workdir={','.join(names)}"
            workdir = self.folder / re.sub(r"^gs://\w+", "runs", text.replace("DIR", "runs/quickstart"))
            if command in ("patch", "report", "status", "decodability"):
                self.provide(str(workdir.relative_to(self.folder)))
            return f"--workdir={workdir}"
        if name == "--config":
            return f"--config={self.config(name_of([flag]))}"
        if name == "--model":
            trained = re.fullmatch(r"runs/\w+", text)
            return f"--model={self.provide(text) if trained else self.checkpoint()}"
        if name == "--checkpoints":
            return f"--checkpoints=0={self.checkpoint(0)},2={self.checkpoint()}"
        if name == "--prompts":
            prompts = self.folder / "prompts.jsonl"
            lines = [
                f'{{"prompt": "word {i} is", "{label}": "{"ab"[i % 2]}"}}' for i in range(6) for label in ("concept",)
            ]
            prompts.write_text("\n".join(lines) + "\n")
            return f"--prompts={prompts}"
        if name == "--topology":
            return "--topology=v5p:2x2x1"
        return flag

    def provide(self, workdir):
        """The run directory, made by the documented command that makes it (or the quickstart)."""
        if not (self.folder / workdir).exists():
            makers = [c.words[1:] for c in COMMANDS if c.words[1:2] and c.words[1] in ("train", "sweep", "extract")]
            maker = next((words for words in makers if f"--workdir={workdir}" in words), None)
            maker = maker or ("train", "--config=configs/quickstart.py", f"--workdir={workdir}")
            code, output = self.run(maker)
            assert code == 0, output
        return self.folder / workdir

    def checkpoint(self, step=2):
        """A checkpoint folder of the small language model."""
        code, output = self.run(
            ("icl_from_scratch", "--config=configs/icl_from_scratch.py", "--workdir=runs/icl_from_scratch")
        )
        assert code == 0, output
        return self.folder / "runs" / "icl_from_scratch" / "models" / f"step_{step:06d}"


@pytest.fixture(scope="module")
def runs(server, environment, tmp_path_factory):
    return Runs(server, environment, tmp_path_factory.mktemp("documented"))


def parameters(program):
    made = []
    for command in COMMANDS:
        if command.words[0] == program:
            words = " ".join(command.words[1:])
            slow = program == "jaxconcepts" and len(command.words) > 2 and not QUICK.search(words)
            made.append(pytest.param(command, marks=[pytest.mark.slow] * slow, id=words[:60]))
    return made


@pytest.mark.parametrize("command", parameters("jaxconcepts"))
def test_a_documented_command_runs(runs, command):
    subcommand, *flags = command.words[1:] or [""]
    assert subcommand in __main__.COMMANDS, f"{command.where}: no command {subcommand!r}"
    if not flags:
        return  # The command is named, and not run.
    if any(flag.startswith("--topology") for flag in flags):
        pytest.importorskip("libtpu", reason="plans for TPUs need libtpu")
    code, output = runs.run((subcommand, *flags))
    assert code == 0 and "Traceback" not in output, f"{command.where}: {output}"
    if subcommand == "train" and config_files.load(runs.config(name_of(flags))).sweep() and "--help" not in flags:
        assert "has a get_sweep(), which `sweep` runs; `train` runs the config alone" in output


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[0] == "jaxconcepts"], ids=lambda c: c.where)
def test_a_documented_command_has_flags_and_fields_that_it_takes(command, parses, monkeypatch, capsys):
    """As it is written, in seconds; the test above runs it."""
    subcommand, *flags = command.words[1:] or [""]
    if not flags or "--help" in flags:
        return
    monkeypatch.chdir(ROOT)
    examples = {"X": "configs/quickstart.py", "my_config": "tests/example_config.py"}
    for place, flag in enumerate(flags):
        if flag.startswith("--config=") and (example := examples.get(Path(flag.removeprefix("--config=")).stem)):
            flags[place] = f"--config={example}"
    assert parses([subcommand, *flags]), capsys.readouterr().err


@pytest.fixture
def venv(tmp_path, environment):
    """A virtual environment whose Python installs, tests and trains nothing, but notes how it is called."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/usr/bin/env bash\necho "$*" >> {tmp_path}/calls\nif [ "$1" = -c ]; then echo 3.11; fi\n')
    python.chmod(0o755)
    return tmp_path, environment | {"VENV": str(tmp_path)}


SCRIPTS = {
    "launch/quickstart.sh": "-m jaxconcepts train --config=configs/quickstart.py",
    "launch/test.sh": "-m pytest ",
    "launch/bench.sh": "tests/benchmarks/run.py",
    "launch/bench_gpu.sh": "tests/benchmarks/gpu.py",
}
CLUSTERS = ("launch/slurm.sh", "launch/slurm_array.sh", "launch/gke.sh", "launch/tpu_vm.sh")


@pytest.mark.parametrize("command", parameters("bash"))
def test_a_documented_script_runs(venv, command):
    """Those for clusters print what they would submit. CI's own script, which makes an environment, and the one that
    writes constraints are parsed alone."""
    folder, environment = venv
    _, script, *given = [word for word in command.words if word != "[DIR]"]
    environment |= {"IMAGE": "image"}
    if script in (".ci/run", "launch/constraints.sh"):
        assert subprocess.run(["bash", "-n", ROOT / script], check=False).returncode == 0
        return
    assert script in (*SCRIPTS, *CLUSTERS), f"{command.where}: {script} is not covered"
    if script in CLUSTERS:
        given = ["--dry-run", *(word.replace("CONFIG", "configs/sweep_small.py") for word in given)]
    done = subprocess.run(
        ["bash", ROOT / script, *given], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command.where}: {done.stdout}{done.stderr}"
    if script in SCRIPTS:
        started = "tests/benchmarks/compare.py" if "--compare" in given else SCRIPTS[script]
        assert any(started in line for line in (folder / "calls").read_text().splitlines())


@pytest.mark.parametrize("command", parameters("pip"))
def test_a_documented_extra_exists(command):
    extras = re.search(r"EXTRAS = \{(.*?)\n\}", (ROOT / "setup.py").read_text(), re.DOTALL)[1]
    known = set(re.findall(r'^    "(\w+)":', extras, re.MULTILINE))
    named = re.findall(r"\[([\w,]+)\]", command.words[-1])
    assert set(",".join(named).split(",")) - {""} <= known, command.where


@pytest.mark.parametrize("command", parameters("python"))
def test_a_documented_python_file_exists(command):
    """Benchmarks and simulations are too long to run here; they are compiled."""
    path = ROOT / command.words[1]
    assert path.is_relative_to(ROOT / "tests") and compile(path.read_text(), str(path), "exec")


def test_no_other_program_is_documented():
    assert {command.words[0] for command in COMMANDS} <= {"jaxconcepts", "bash", "pip", "python"}
    assert len(COMMANDS) > 35 and len(SNIPPETS) >= 5


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_every_config_is_documented_and_has_a_small_form(path):
    # The demo's is named by its command.
    assert path.stem in SMALL | FLAGS
    assert any(path.stem in (name_of(command.words), *command.words[1:2]) for command in COMMANDS)


NEEDS_MODEL = ("load_pretrained", "jc.load(")


def snippet_parameters():
    slow = [any(text in snippet.code for text in NEEDS_MODEL) for snippet in SNIPPETS]
    return [
        pytest.param(snippet, marks=[pytest.mark.slow] * slow, id=snippet.where)
        for snippet, slow in zip(SNIPPETS, slow, strict=True)
    ]


@pytest.mark.parametrize("snippet", snippet_parameters())
@pytest.mark.usefixtures("compiles_fast")
def test_a_documented_snippet_runs(runs, snippet, monkeypatch):
    """In a folder with the run directory runs/first; activations, prompts' tokens and their lengths are given."""
    page = snippet.where.partition(":")[0]
    if page in RUN_ELSEWHERE:
        assert Path(page).name in (ROOT / RUN_ELSEWHERE[page]).read_text()
        return
    runs.provide("runs/first")
    monkeypatch.chdir(runs.folder)
    code = snippet.code
    if any(text in code for text in NEEDS_MODEL):
        source = r'(load_pretrained|jc\.load)\("[^"]*"(, revision="[^"]*")?'
        code = re.sub(source, lambda match: f'{match[1]}("{runs.checkpoint()}"', code)
    rng = np.random.default_rng(0)
    given = {
        "hidden": rng.normal(size=(3, 40, 8)).astype(np.float32), "concepts": np.arange(40) % 4,
        "tokens": jnp.zeros((2, 4), jnp.int32), "lengths": jnp.array([4, 3]),
    }  # fmt: skip
    exec(compile(code, snippet.where, "exec"), given)


def test_the_help_of_every_config_lists_its_fields(capsys):
    for name in config_files.names():
        makers = (c.words[1] for c in COMMANDS if name_of(c.words) == name and c.words[1] in __main__.COMMANDS)
        command = next(makers, "train")
        with pytest.raises(SystemExit):
            __main__.main(["jaxconcepts", command, f"--config={name}", "--help"])
        output = capsys.readouterr().out
        for field, value in fields_of(config_files.load(name).values):
            assert f"--config.{field}={value}" in output, name


def fields_of(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from fields_of(value, f"{prefix}{name}.")
        elif not isinstance(value, dict | float):
            yield prefix + name, fields.as_text(value)
