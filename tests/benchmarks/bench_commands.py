"""Whole commands as processes, beside what they are meant to take: the quickstart's start, and the small sweep.

    python tests/benchmarks/bench_commands.py [--quick]

"start" is from the command to its first step: what it imports, compiles and draws before. Its programs are kept in a
folder that is empty at first ("cold") and holds them the second time ("warm"). "sweep_small" is the whole of it, with
what it compiles. The peer is the aim; `ratio` is the aim over ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIRST_STEP = "; starting"
COLD, WARM, SWEEP = 10.0, 4.0, 480.0
SMALL_RUN = ("--config.model.layers=1", "--config.model.width=16", "--config.train.batch_size=8")


def rows(quick: bool = False) -> list[dict]:
    """A row a start and one for the sweep (without --quick)."""
    with tempfile.TemporaryDirectory(prefix="commands") as folder:
        environment = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache", "PYTHONPATH": str(ROOT)}
        flags, shape = (SMALL_RUN, "1 x 16") if quick else ((), "4 x 64")
        made = [
            _row(f"quickstart, {name} start", shape, start(f"{folder}/{name}", flags, environment), aim)
            for name, aim in (("cold", COLD), ("warm", WARM))
        ]
        if not quick:
            seconds = whole(f"{folder}/sweep", environment)
            made.append(_row("sweep_small", "1 050 runs of 500 steps, two devices", seconds, SWEEP))
    return made


def start(workdir: str, flags: Sequence[str], environment: dict[str, str]) -> float:
    """Seconds from the quickstart's command to its first step; it is stopped then."""
    began = time.perf_counter()
    with subprocess.Popen(
        [*_command("train", "quickstart", workdir), *flags], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        lines = []
        for line in process.stdout:
            lines.append(line)
            if FIRST_STEP in line:
                seconds = time.perf_counter() - began
                process.kill()
                return seconds
    raise RuntimeError("the quickstart ended before its first step:\n" + "".join(lines))


def whole(workdir: str, environment: dict[str, str]) -> float:
    """Seconds of the small sweep, report included."""
    began = time.perf_counter()
    subprocess.run(_command("sweep", "sweep_small", workdir), cwd=ROOT, env=environment, check=True, stdout=-3)
    return time.perf_counter() - began


def _command(command: str, config: str, workdir: str) -> list[str]:
    return [sys.executable, "-m", "jaxconcepts", command, f"--config={config}", f"--workdir={workdir}"]


def _row(benchmark: str, shape: str, seconds: float, aim: float) -> dict:
    numbers = {"ours_s": seconds, "peer": f"{aim:g} s", "peer_s": aim, "ratio": aim / seconds, "aim": 1}
    return {"benchmark": benchmark, "shape": shape} | numbers


if __name__ == "__main__":
    for line in rows("--quick" in sys.argv):
        print(json.dumps(line))
