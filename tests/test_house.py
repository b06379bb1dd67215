"""The package's files and functions stay of a size that is read in one sitting."""

import ast
from pathlib import Path

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
