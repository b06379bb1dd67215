"""The GPU battery: what one accelerator does with this library, in parts; called by launch/bench_gpu.sh.

    python tests/benchmarks/gpu.py [PART ...] [--quick]

Each part is a process, so that its memory is free for the next and a crash ends it alone. Its module gpu_<part>.py has
`measurements(quick)`: functions by name that yield rows with the columns of run.py and some of their own. A row is
written to results/gpu/<part>-<device>.json as soon as it is there. A measurement that fails leaves a row with the first
line of its error, and the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from run import COLUMNS, describe_host, file_name, print_table

PARTS = ("smoke", "cd", "training", "packs", "models")
SECONDS = 480
"""After which a part is ended, unless --seconds says otherwise."""
RESULTS = Path(__file__).parent / "results" / "gpu"
ABOUT = """
import jax, json
first = jax.devices()[0]
print(json.dumps({"device": first.device_kind, "platform": first.platform, "jax": jax.__version__}))
"""


class Table:
    """The rows of a part, on disk after each. about: device, platform and version of JAX."""

    def __init__(self, folder: Path, part: str, about: Mapping[str, str], quick: bool):
        self.path = folder / f"{part}-{file_name(about['device'], quick)}"
        command = f"bash launch/bench_gpu.sh {part}{' --quick' if quick else ''}"
        self.shared = {"part": part, "device": about["device"], "jax": about["jax"], "command": command}
        self.head = {"device": about["device"], "platform": about["platform"]} | describe_host()
        self.rows: list[dict] = []

    def add(self, row: Mapping) -> None:
        """Writes the row behind the others."""
        self.rows.append(dict(row) | self.shared)
        self.write()

    def write(self) -> None:
        """Writes all rows; whoever is killed meanwhile leaves the former file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.head | {"rows": self.rows}, indent=1) + "\n")
        os.replace(partial, self.path)

    def read(self) -> None:
        """Takes the rows that are on disk."""
        self.rows = json.loads(self.path.read_text())["rows"]

    def failed(self) -> bool:
        """Whether a row says so."""
        return any("error" in row for row in self.rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small shapes, to see that everything runs, also on a CPU")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the tables")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which a part is ended")
    parser.add_argument("--about", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.about:
        table = Table(options.results, options.parts[0], options.about, options.quick)
        return run_part(table, options.parts[0], options.quick)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"PART must be one of {', '.join(PARTS)}, got {unknown[0]!r}")
    # A process that has asked holds memory of the device, so another one does.
    asked = subprocess.run([sys.executable, "-c", ABOUT], stdout=subprocess.PIPE, text=True, check=True)
    about = json.loads(asked.stdout.splitlines()[-1])
    if about["platform"] == "cpu" and not options.quick:
        parser.error("the device is a CPU, on which these shapes take hours; --quick runs small ones")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parts = options.parts or PARTS
    codes = [start_part(part, options.results, about, options.quick, options.seconds) for part in parts]
    return max(codes)


def start_part(part: str, folder: Path, about: Mapping[str, str], quick: bool, seconds: float) -> int:
    """Runs a part as a process and prints its table; 1 where something in it failed or it took longer than `seconds`,
    which the table then says."""
    print(f"\n{part} on {about['device']}", flush=True)
    table = Table(folder, part, about, quick)
    table.write()
    command = [sys.executable, __file__, part, f"--results={folder}", f"--about={json.dumps(about)}"]
    with subprocess.Popen([*command, *["--quick"] * quick], start_new_session=True) as process:
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # With all that it has started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    table.read()
    if code is None:
        table.add({"benchmark": part, "error": f"not done after {seconds:g} s"})
    elif code and not table.failed():
        table.add({"benchmark": part, "error": f"the process ended with exit code {code}"})
    print_table(table.rows, (*COLUMNS, "share", "note", "error"))
    print(f"written to {table.path}", flush=True)
    return int(table.failed())


def run_part(table: Table, part: str, quick: bool) -> int:
    """Makes all measurements of a part, here; 1 where one failed."""
    try:
        measurements = importlib.import_module(f"gpu_{part}").measurements(quick)
    except Exception as error:
        table.add({"benchmark": part, "error": first_line(error)})
        raise
    for name, measure in measurements.items():
        print(f"  {name}", flush=True)
        _measure(table, name, measure)
    return int(table.failed())


def first_line(error: Exception) -> str:
    """Of what the error says, after its kind."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _measure(table: Table, name: str, measure: Callable[[], Iterable[dict]]) -> None:
    try:
        for row in measure():
            table.add({"benchmark": name} | row)
    except Exception as error:
        traceback.print_exc()
        table.add({"benchmark": name, "error": first_line(error)})


if __name__ == "__main__":
    sys.exit(main())
