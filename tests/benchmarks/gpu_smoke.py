"""Every command of the command line, small, as a process on the device: exit code and seconds."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.append(str(TESTS))

from small_forms import FIRST, FLAGS, SMALL, changes, first_points  # noqa: E402

SECONDS = 150
"""After which a command is ended."""


def measurements(quick: bool):
    """The commands are small, quick or not."""
    folder = Path(tempfile.mkdtemp(prefix="smoke"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {f"command {words[0]}": partial(measure, words) for words in commands(folder)}


def measure(words: Sequence[str]) -> Iterator[dict]:
    start = time.perf_counter()
    code, output = process(words)
    row = {"shape": "", "ours_s": time.perf_counter() - start, "exit_code": code}
    yield row if code == 0 else row | {"error": error_line(output) or f"exit code {code}"}


def error_line(output: str) -> str:
    """The line that says what is wrong, or the last one: that of a traceback."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "")


def process(words: Sequence[str]) -> tuple[int, str]:
    """Runs a command; its exit code and output."""
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "jaxconcepts", *words], env=environment, cwd=TESTS.parent, timeout=SECONDS,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, f"error: not done after {SECONDS} s"
    return done.returncode, done.stdout


def commands(folder: Path) -> list[tuple[str, ...]]:
    """The words of each command, in an order in which each has what it reads."""

    def of_config(command, name, *flags):
        return command, f"--config={TESTS.parent / 'configs' / name}.py", *flags, *changes(SMALL[name])

    at = lambda name: f"--workdir={folder / name}"  # noqa: E731
    model = f"--model={folder / 'scratch' / 'models' / 'step_000002'}"
    prompts = folder / "prompts.jsonl"
    lines = [{"prompt": f"word {number} is", "concept": "ab"[number % 2]} for number in range(12)]
    prompts.write_text("\n".join(map(json.dumps, lines)) + "\n")
    sweep = first_points(TESTS.parent / "configs" / "sweep_small.py", folder / "sweep_small.py")
    return [
        of_config("plan", "quickstart", "--local"),
        of_config("train", "quickstart", at("train")),
        ("report", at("train")),
        ("patch", at("train"), *FLAGS["patch"]),
        ("sweep", f"--config={sweep}", at("sweep"), *changes(SMALL["sweep_small"] | {"run.how": "auto"})),
        ("status", at("sweep")),
        of_config("icl_from_scratch", "icl_from_scratch", at("scratch")),
        of_config("icl", "icl", model, at("icl")),
        of_config("causal", "causal", model, at("causal")),
        of_config("finetune", "finetune", model, at("finetune"), *changes(FIRST["finetune"])),
        ("extract", model, f"--prompts={prompts}", "--bos", at("states"), *FLAGS["extract"]),
        ("decodability", at("states"), "--label=concept", *FLAGS["decodability"]),
        ("demo", at("demo"), *FLAGS["demo"]),
    ]
