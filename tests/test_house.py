"""The package's files and functions stay of a size that is read in one sitting."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxconcepts"
LINES, FUNCTION, ARGUMENTS = 300, 80, 8
# Each option of these is a keyword with a default that callers give alone, and none goes with another.
OPTIONS = {
    "experiments.grammar_held_out.make": "one keyword a part of what is held out",
    "fields.field": "one keyword a bound",
    "metrics.draws.decodability_draws": "the options of CD, and of draws",
    "metrics.mixing_probe.mixing_accuracy": "the options of its optimisation, and of folds",
    "metrics.statistics.decodability_statistics": "the options of CD, of draws, and of the null",
    "metrics.statistics.permutation_null": "the options of CD, and of the null",
    "models.decoding.forward": "what a pass over blocks can be asked for",
    "models.language.hidden_states": "what callers can ask a pass for",
    "models.residual.run": "the one loop over blocks: each option is one thing that varies over them",
    "models.subblocks.self_attention": "one keyword a feature that families' attention has",
    "studies.asking.answers.correct": "how prompts are batched, and how answers are read",
    "studies.finetuning.study.finetune": "what a command gives and a notebook leaves out",
}


def functions():
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module}.{node.name}", node


def arguments(function):
    named = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return [argument.arg for argument in named if argument.arg not in ("self", "cls")]


def test_files_are_of_one_sitting():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): lines for path, lines in lengths.items() if lines > LINES} == {}


def test_functions_are_of_one_screen():
    lengths = {name: node.end_lineno - node.lineno + 1 for name, node in functions()}
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION} == {}


def test_functions_have_few_arguments():
    many = {name for name, node in functions() if len(arguments(node)) > ARGUMENTS}
    assert many == set(OPTIONS)
    assert max(len(arguments(node)) for name, node in functions() if name in OPTIONS) <= 15


def test_calls_are_checked_against_our_signatures(tmp_path):
    """By pylint with the plugin of .ci, which reads ours alone."""
    pytest.importorskip("pylint")
    calls = "nested.flat({}, 1, 2)", "nested.flatten({})", "nested.flat({}, width=3)", "nested.flat()", "print(nowhere)"
    (tmp_path / "calls.py").write_text("\n".join(["from jaxconcepts import nested", *calls, "nested.flat({})\n"]))
    command = [sys.executable, "-m", "pylint", tmp_path / "calls.py"]
    checked = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)
    found = re.findall(r"calls\.py:(\d+):.*\(([a-z-]+)\)", checked.stdout)
    assert found == [
        ("2", "too-many-function-args"), ("3", "no-member"), ("4", "unexpected-keyword-arg"),
        ("5", "no-value-for-parameter"), ("6", "undefined-variable"),
    ], checked.stdout  # fmt: skip
